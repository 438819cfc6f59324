"""Turn a workflow as the page saves it into the prompt the API takes. Standard library only.

The page keeps a node's widget values as a plain list, in the order of its inputs, and with entries for widgets that
are no inputs at all; the host's `/object_info` is what tells which value is which.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ObjectInfo = Mapping[str, Mapping[str, Any]]
Prompt = dict[str, dict[str, Any]]

NOTES = ("Note", "MarkdownNote")
MUTED, BYPASSED = 2, 4
_WIDGET_TYPES = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COLOR")
_AFTER_GENERATE = ("fixed", "increment", "decrement", "randomize")
# A LoadImage has an upload button behind its file name; the page saves the button's kind as if it were a value.
_UPLOADS = ("image_upload", "video_upload", "audio_upload", "animated_image_upload")
_UPLOAD_VALUES = ("image", "video", "audio", "upload")


class ConvertError(Exception):
    """The saved workflow cannot be turned into a prompt; the message names the node."""


def inputs_of(info: Mapping[str, Any]) -> Iterator[tuple[str, Any, Mapping[str, Any], bool]]:
    """Yield (name, type, options, required) of a node's inputs in the order of the host's own description."""
    for part in ("required", "optional"):
        described = info["input"].get(part, {})
        for name in info.get("input_order", {}).get(part, described):
            spec = described[name]
            kind, options = (
                (spec[0], spec[1] if len(spec) > 1 else {}) if isinstance(spec, (list, tuple)) else (spec, {})
            )
            yield name, kind, options, part == "required"


def is_widget(kind: Any, options: Mapping[str, Any]) -> bool:
    """Return whether the page shows an input as a widget, and so saves a value for it."""
    return (isinstance(kind, list) or kind in _WIDGET_TYPES) and not options.get("forceInput", False)


def _has_after_generate(name: str, kind: Any, options: Mapping[str, Any]) -> bool:
    default = kind == "INT" and name in ("seed", "noise_seed")
    return bool(options.get("control_after_generate", default))


def _label(node: Mapping[str, Any]) -> str:
    return f"node {node['id']} ({node['type']})"


def widget_values(node: Mapping[str, Any], info: Mapping[str, Any]) -> dict[str, Any]:
    """Return {input name: value} of a saved node's widgets, linked ones included.

    A value the list does not reach takes the input's default. Raises ConvertError when values are left over, or when
    one is missing that has no default.
    """
    saved = node.get("widgets_values") or []
    widgets = [one for one in inputs_of(info) if is_widget(one[1], one[2])]
    if isinstance(saved, Mapping):
        return {name: saved[name] for name, *_ in widgets if name in saved}
    rest, values = list(saved), {}
    for name, kind, options, required in widgets:
        if rest:
            values[name] = rest.pop(0)
        elif "default" in options:
            values[name] = options["default"]
        elif required:
            raise ConvertError(f"{_label(node)} saves no value for {name!r}: {saved}")
        if rest and rest[0] in _AFTER_GENERATE and _has_after_generate(name, kind, options):
            rest.pop(0)
        if rest and rest[0] in _UPLOAD_VALUES and any(options.get(flag) for flag in _UPLOADS):
            rest.pop(0)
    if any(value is not None for value in rest):
        raise ConvertError(f"{_label(node)} saves more values than it has widgets; left over: {rest}")
    return values


class _Graph:
    def __init__(self, workflow: Mapping[str, Any]) -> None:
        if (workflow.get("definitions") or {}).get("subgraphs"):
            raise ConvertError("the workflow holds subgraphs, which this converter does not know.")
        self.nodes = {node["id"]: node for node in workflow["nodes"]}
        self.links: dict[Any, tuple[Any, int]] = {}
        for link in workflow.get("links") or []:
            if isinstance(link, Mapping):
                self.links[link["id"]] = link["origin_id"], link["origin_slot"]
            else:
                self.links[link[0]] = link[1], link[2]

    def source(self, link: Any, seen: tuple[Any, ...] = ()) -> tuple[str, Any] | None:
        """Follow a link to ("link", [node id, slot]) or ("value", a primitive's value); None where it ends nowhere."""
        if link is None:
            return None
        if link not in self.links:
            raise ConvertError(f"link {link} is used, but the workflow does not hold it.")
        if link in seen:
            raise ConvertError(f"link {link} leads back to itself.")
        origin, slot = self.links[link]
        node = self.nodes.get(origin)
        if node is None:
            raise ConvertError(f"link {link} comes from node {origin}, which the workflow does not hold.")
        if node.get("mode", 0) == MUTED:
            return None
        if node["type"] == "PrimitiveNode":
            return "value", node["widgets_values"][0]
        if node["type"] == "Reroute":
            return self.source(node["inputs"][0].get("link"), (*seen, link))
        if node.get("mode", 0) == BYPASSED:
            return self.source(_bypass(node, slot), (*seen, link))
        return "link", [str(origin), slot]


def _bypass(node: Mapping[str, Any], slot: int) -> Any:
    """Return the link that takes a bypassed output's place: the same slot's, else the first of its type."""
    kind, inputs = node["outputs"][slot]["type"], node.get("inputs") or []
    for candidate in [*inputs[slot : slot + 1], *inputs]:
        if candidate.get("type") == kind:
            return candidate.get("link")
    return None


def convert(workflow: Mapping[str, Any], object_info: ObjectInfo) -> Prompt:
    """Return the API prompt of a workflow saved by the page.

    Raises ConvertError for nodes the host does not have, values that do not fit, links that lead nowhere, and
    subgraphs.
    """
    graph = _Graph(workflow)
    active = [
        node
        for node in graph.nodes.values()
        if node["type"] not in (*NOTES, "Reroute", "PrimitiveNode") and node.get("mode", 0) not in (MUTED, BYPASSED)
    ]
    unknown = sorted({node["type"] for node in active} - set(object_info))
    if unknown:
        raise ConvertError(f"the host has no node of type {', '.join(unknown)}.")
    prompt: Prompt = {}
    for node in active:
        info = object_info[node["type"]]
        inputs: dict[str, Any] = widget_values(node, info)
        known = {name for name, *_ in inputs_of(info)}
        for slot in node.get("inputs") or []:
            if slot.get("link") is None:
                continue
            if slot["name"] not in known:
                raise ConvertError(f"{_label(node)} has no input {slot['name']!r}, but the workflow links one.")
            found = graph.source(slot["link"])
            if found is not None:
                inputs[slot["name"]] = found[1]
        title = node.get("title") or info.get("display_name") or node["type"]
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs, "_meta": {"title": title}}
    return prompt


def load(path: str | Path, object_info: ObjectInfo) -> Prompt:
    """Read a saved workflow from a file and convert it."""
    return convert(json.loads(Path(path).read_text(encoding="utf-8")), object_info)


def main(workflow: str, description: str) -> None:
    prompt = load(workflow, json.loads(Path(description).read_text(encoding="utf-8")))
    json.dump(prompt, sys.stdout, indent=2)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: graph_convert.py WORKFLOW.json OBJECT_INFO.json")
    main(*sys.argv[1:])
