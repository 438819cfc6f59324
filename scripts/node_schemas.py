"""Every node of the pack as plain data: what saved graphs, translations and templates depend on.

    python scripts/node_schemas.py              prints {node id: description}
    python scripts/node_schemas.py --snapshot   writes what tests compare with, unless saved graphs would break
    python scripts/node_schemas.py --snapshot --breaking    even so

Inside a host: `described(nodes)`. The commands start one in a process of its own, whose folders are empty.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PACK = "custom_nodes.scp-diff"
SNAPSHOT = Path(__file__).resolve().parent.parent / "tests" / "inhost" / "schemas.json"
# Options that are files of the user's, or the host's own.
NOT_OURS = frozenset({"checkpoint", "files", "images_folder", "labels_folder", "scheduler", "statistics"})

# What of an input decides how the page saves it and what the host takes.
_SAVED = frozenset(
    {"id", "type", "optional", "default", "min", "max", "step", "round", "options", "multiline", "multiselect"}
    | {"control_after_generate", "forceInput", "socketless", "widgetType", "dynamicPrompts"}
)

Schema = Mapping[str, Any]


def describe(schema: Any) -> dict[str, Any]:
    """Return a schema's names, texts, inputs in order and outputs in order; options only where they are the pack's."""
    return {
        "display_name": schema.display_name,
        "category": schema.category,
        "description": schema.description,
        "output_node": schema.is_output_node,
        "deprecated": schema.is_deprecated,
        "experimental": schema.is_experimental,
        "inputs": [_input(port) for port in schema.inputs],
        "outputs": [
            {"name": port.display_name or port.id, "type": str(port.get_io_type()), "tooltip": port.tooltip}
            for port in schema.outputs
        ],
    }


def _input(port: Any) -> dict[str, Any]:
    told = port.as_dict()
    if port.id in NOT_OURS:
        told.pop("options", None)
    known = ("display_name", "optional", "tooltip")
    return {
        "id": port.id,
        "type": str(port.get_io_type()),
        "optional": bool(port.optional),
        "tooltip": port.tooltip,
        **{name: value for name, value in told.items() if name not in known},
    }


def described(nodes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the pack's own among a host's nodes, in the order they were registered."""
    return {
        name: describe(node.GET_SCHEMA())
        for name, node in nodes.items()
        if getattr(node, "RELATIVE_PYTHON_MODULE", "") == PACK
    }


def contract(schemas: Mapping[str, Schema]) -> dict[str, Any]:
    """Return what of the descriptions saved graphs rely on: neither the texts people read, nor hints for the page."""
    return {
        name: {
            **{key: value for key, value in node.items() if key != "description"},
            "inputs": [{key: value for key, value in port.items() if key in _SAVED} for port in node["inputs"]],
            "outputs": [{key: port[key] for key in ("name", "type")} for port in node["outputs"]],
        }
        for name, node in schemas.items()
    }


def _text(made: Mapping[str, Schema]) -> str:
    """JSON with an input or output to a line."""

    def value(key: str, found: Any) -> str:
        if key not in ("inputs", "outputs") or not found:
            return json.dumps(found, ensure_ascii=False)
        return "[\n   " + ",\n   ".join(json.dumps(port, ensure_ascii=False) for port in found) + "\n  ]"

    nodes = [
        f" {json.dumps(name)}: {{\n"
        + ",\n".join(f"  {json.dumps(key)}: {value(key, found)}" for key, found in node.items())
        + "\n }"
        for name, node in made.items()
    ]
    return "{\n" + ",\n".join(nodes) + "\n}\n"


def breaks(before: Mapping[str, Schema], after: Mapping[str, Schema]) -> list[str]:
    """Say what of a change would break saved graphs, one sentence each.

    The page saves widgets' values by their place, required inputs first, and links by the output's place. So inputs
    may only be added at the end and optional, outputs only at the end, and what was there must take what it took.
    """
    found = []
    for name, old in before.items():
        if name not in after:
            found.append(f"{name} is gone; keep it, and mark it deprecated.")
            continue
        new = after[name]
        for optional in (False, True):
            were, are = ([port for port in node["inputs"] if port["optional"] == optional] for node in (old, new))
            found += [f"{name}: {told}" for told in _changed_inputs(were, are, optional)]
        kinds = [[port["type"] for port in node["outputs"]] for node in (old, new)]
        if kinds[1][: len(kinds[0])] != kinds[0]:
            found.append(f"{name}: its outputs were {', '.join(kinds[0])}; add others only behind them.")
    return found


def _changed_inputs(were: Sequence[Schema], are: Sequence[Schema], optional: bool) -> list[str]:
    kind = "optional" if optional else "required"
    ids = [[port["id"] for port in ports] for ports in (were, are)]
    if ids[1][: len(ids[0])] != ids[0]:
        return [f"its {kind} inputs were {', '.join(ids[0])}; they must stay, in this order."]
    found = []
    if not optional and len(are) > len(were):
        found.append(f"{ids[1][len(were)]} is a new input, and no saved graph has it; make it optional.")
    for old, new in zip(were, are, strict=False):
        told = old["id"]
        if (old["type"], old.get("control_after_generate")) != (new["type"], new.get("control_after_generate")):
            found.append(f"{told} is another kind of widget.")
        gone = [option for option in old.get("options") or () if option not in (new.get("options") or ())]
        if gone and "options" in new:
            found.append(f"{told} no longer offers {', '.join(map(str, gone))}.")
        if new.get("min", -float("inf")) > old.get("min", -float("inf")):
            found.append(f"{told} no longer takes {old.get('min')}.")
        if new.get("max", float("inf")) < old.get("max", float("inf")):
            found.append(f"{told} no longer takes {old.get('max')}.")
    return found


def read() -> dict[str, Any]:
    """Start a host that has nothing but the pack, and return what `described` says there.

    Raises HarnessError where the host cannot be had or fails.
    """
    import in_host
    from setup_host import make_base

    with tempfile.TemporaryDirectory() as folder:
        return in_host.run(Path(__file__), base=make_base(Path(folder) / "base"))


def write_snapshot(schemas: Mapping[str, Schema], path: Path = SNAPSHOT, *, breaking: bool = False) -> None:
    """Write the contract for the tests to compare with.

    Raises HarnessError, saying what, where saved graphs would break and `breaking` does not say that this is meant.
    """
    from layout import HarnessError, replacing

    made = contract(schemas)
    if path.exists() and not breaking:
        found = breaks(json.loads(path.read_text(encoding="utf-8")), made)
        if found:
            raise HarnessError("\n".join(["Saved graphs would break (--breaking writes it even so):", *found]))
    with replacing(path) as temporary:
        temporary.write_text(_text(made), encoding="utf-8")


def main(words: Sequence[str]) -> None:
    """Print the descriptions, or write the snapshot."""
    from layout import HarnessError

    if not set(words) <= {"--snapshot", "--breaking"}:
        sys.exit("usage: node_schemas.py [--snapshot [--breaking]]")
    try:
        if "--snapshot" in words:
            write_snapshot(read(), breaking="--breaking" in words)
            print(SNAPSHOT)
        else:
            print(json.dumps(read(), indent=1, ensure_ascii=False))
    except HarnessError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    inside = getattr(sys.modules.get("nodes"), "NODE_CLASS_MAPPINGS", None)
    if inside is None:
        main(sys.argv[1:])
    else:  # where `read` starts it
        print(json.dumps(described(inside)))
