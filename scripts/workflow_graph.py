"""Saved workflows, as the page writes them: node types with their sockets, and a graph that is built of them.

Standard library only.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Json = dict[str, Any]
Box = tuple[int, int, int, int]  # left, top, width, height of a node's body; its title sits on top

TITLE = 30
GROUP_MARGIN, GROUP_HEAD = 20, 90  # a group's head holds its own title and the title of the node below it

# What of a common screen is the graph's, and the room the page's own menus take, in pixels.
SCREEN, MENUS = 1790, (70, 190)
# Farther away than 8/14 the page leaves out all words, those of the note among them.
FARTHEST, NEAREST = 0.58, 0.66

# Colours the page itself offers for nodes and groups.
GREEN, RED, NOTE = ("#232", "#353"), ("#322", "#533"), ("#432", "#653")
BLUE, OCHRE = "#3f789e", "#b58b2a"


class Slot(NamedTuple):
    """An input of a node type: a socket, or a widget (which has a socket too)."""

    name: str
    kind: str
    widget: bool = False
    optional: bool = False


class NodeType(NamedTuple):
    """The sockets of a node type in the order the page saves them, sockets first and widgets after."""

    inputs: tuple[Slot, ...]
    outputs: tuple[tuple[str, str], ...]  # (name, kind)


def _sockets(*inputs: tuple[str, str]) -> tuple[Slot, ...]:
    return tuple(Slot(name, kind) for name, kind in inputs)


def _widgets(*inputs: tuple[str, str]) -> tuple[Slot, ...]:
    return tuple(Slot(name, kind, widget=True) for name, kind in inputs)


NODE_TYPES: Mapping[str, NodeType] = {
    "LoadImage": NodeType(
        _widgets(("image", "COMBO"), ("upload", "IMAGEUPLOAD")), (("IMAGE", "IMAGE"), ("MASK", "MASK"))
    ),
    "ImageScale": NodeType(
        (
            *_sockets(("image", "IMAGE")),
            *_widgets(("upscale_method", "COMBO"), ("width", "INT"), ("height", "INT"), ("crop", "COMBO")),
        ),
        (("IMAGE", "IMAGE"),),
    ),
    "SCPLabelsFromImage": NodeType(
        (
            *_sockets(("image", "IMAGE")),
            *_widgets(("palette", "COMBO"), ("tolerance", "FLOAT")),
            Slot("max_unmatched", "FLOAT", widget=True, optional=True),
        ),
        (("labels", "SCP_LABELS"), ("unmatched", "MASK")),
    ),
    "SCPPaintLabels": NodeType(
        (
            Slot("labels", "SCP_LABELS", optional=True),
            Slot("mask", "MASK", optional=True),
            *_widgets(("palette", "COMBO"), ("class_name", "COMBO"), ("width", "INT"), ("height", "INT")),
        ),
        (("labels", "SCP_LABELS"),),
    ),
    "SCPMaskFromLabels": NodeType(
        (*_sockets(("labels", "SCP_LABELS")), *_widgets(("class_name", "COMBO"))), (("mask", "MASK"),)
    ),
    "SCPRegionPrompts": NodeType(
        (
            *_sockets(("conditioning", "CONDITIONING"), ("clip", "CLIP"), ("labels", "SCP_LABELS")),
            Slot("statistics", "SCP_STATISTICS", optional=True),
            *_widgets(("prompts", "STRING"), ("strength", "FLOAT")),
            Slot("width", "INT", widget=True, optional=True),
            Slot("height", "INT", widget=True, optional=True),
        ),
        (("conditioning", "CONDITIONING"),),
    ),
    "SCPInpaintLatent": NodeType(
        (
            *_sockets(("latent", "LATENT"), ("image", "IMAGE"), ("vae", "VAE"), ("mask", "MASK")),
            *_widgets(("grow_mask_by", "INT")),
        ),
        (("latent", "LATENT"),),
    ),
    "SCPPreviewLabels": NodeType(
        (*_sockets(("labels", "SCP_LABELS")), Slot("statistics", "SCP_STATISTICS", optional=True)),
        (("legend", "IMAGE"),),
    ),
    "SCPRecolor": NodeType(
        (
            *_sockets(("image", "IMAGE")),
            *_widgets(("from_palette", "COMBO"), ("to_palette", "COMBO"), ("tolerance", "FLOAT")),
        ),
        (("image", "IMAGE"), ("unmatched", "MASK")),
    ),
    "SCPReduceStatistics": NodeType(
        (
            *_sockets(("vae", "VAE")),
            *_widgets(
                ("images_folder", "COMBO"),
                ("labels_folder", "COMBO"),
                ("palette", "COMBO"),
                ("width", "INT"),
                ("height", "INT"),
                ("name", "STRING"),
            ),
            Slot("on_error", "COMBO", widget=True, optional=True),
            Slot("batch_size", "INT", widget=True, optional=True),
        ),
        (("statistics", "SCP_STATISTICS"),),
    ),
    "SCPLoadStatistics": NodeType(_widgets(("statistics", "COMBO")), (("statistics", "SCP_STATISTICS"),)),
    "SCPPriorLatent": NodeType(
        (
            *_sockets(("statistics", "SCP_STATISTICS"), ("labels", "SCP_LABELS")),
            Slot("model", "MODEL", optional=True),
            Slot("vae", "VAE", optional=True),
            *_widgets(("method", "COMBO"), ("seed", "INT"), ("strength", "FLOAT"), ("batch_size", "INT")),
            Slot("width", "INT", widget=True, optional=True),
            Slot("height", "INT", widget=True, optional=True),
            Slot("scene_variation", "FLOAT", widget=True, optional=True),
            Slot("shrinkage", "FLOAT", widget=True, optional=True),
            Slot("view", "COMBO", widget=True, optional=True),
            Slot("class_strength", "STRING", widget=True, optional=True),
        ),
        (("latent", "LATENT"), ("preview", "IMAGE")),
    ),
    "SCPDenoiseStart": NodeType(
        (*_sockets(("model", "MODEL")), *_widgets(("timestep", "INT"), ("steps", "INT"), ("scheduler", "COMBO"))),
        (("denoise", "FLOAT"), ("steps", "INT"), ("start_at_step", "INT"), ("sigmas", "SIGMAS")),
    ),
    "SCPNoisedLatent": NodeType(
        (
            *_sockets(("model", "MODEL"), ("latent", "LATENT")),
            *_widgets(("timestep", "INT"), ("seed", "INT"), ("steps", "INT"), ("scheduler", "COMBO")),
        ),
        (("latent", "LATENT"),),
    ),
    "SCPHintFromLabels": NodeType(
        (*_sockets(("labels", "SCP_LABELS")), *_widgets(("palette", "COMBO"))), (("hint", "IMAGE"),)
    ),
    "CheckpointLoaderSimple": NodeType(
        _widgets(("ckpt_name", "COMBO")), (("MODEL", "MODEL"), ("CLIP", "CLIP"), ("VAE", "VAE"))
    ),
    "CLIPTextEncode": NodeType(
        (*_sockets(("clip", "CLIP")), *_widgets(("text", "STRING"))), (("CONDITIONING", "CONDITIONING"),)
    ),
    "ControlNetLoader": NodeType(_widgets(("control_net_name", "COMBO")), (("CONTROL_NET", "CONTROL_NET"),)),
    "ControlNetApplyAdvanced": NodeType(
        (
            *_sockets(
                ("positive", "CONDITIONING"),
                ("negative", "CONDITIONING"),
                ("control_net", "CONTROL_NET"),
                ("image", "IMAGE"),
            ),
            Slot("vae", "VAE", optional=True),
            *_widgets(("strength", "FLOAT"), ("start_percent", "FLOAT"), ("end_percent", "FLOAT")),
        ),
        (("positive", "CONDITIONING"), ("negative", "CONDITIONING")),
    ),
    "KSampler": NodeType(
        (
            *_sockets(
                ("model", "MODEL"),
                ("positive", "CONDITIONING"),
                ("negative", "CONDITIONING"),
                ("latent_image", "LATENT"),
            ),
            *_widgets(
                ("seed", "INT"),
                ("steps", "INT"),
                ("cfg", "FLOAT"),
                ("sampler_name", "COMBO"),
                ("scheduler", "COMBO"),
                ("denoise", "FLOAT"),
            ),
        ),
        (("LATENT", "LATENT"),),
    ),
    "KSamplerAdvanced": NodeType(
        (
            *_sockets(
                ("model", "MODEL"),
                ("positive", "CONDITIONING"),
                ("negative", "CONDITIONING"),
                ("latent_image", "LATENT"),
            ),
            *_widgets(
                ("add_noise", "COMBO"),
                ("noise_seed", "INT"),
                ("steps", "INT"),
                ("cfg", "FLOAT"),
                ("sampler_name", "COMBO"),
                ("scheduler", "COMBO"),
                ("start_at_step", "INT"),
                ("end_at_step", "INT"),
                ("return_with_leftover_noise", "COMBO"),
            ),
        ),
        (("LATENT", "LATENT"),),
    ),
    "VAEDecode": NodeType(_sockets(("samples", "LATENT"), ("vae", "VAE")), (("IMAGE", "IMAGE"),)),
    "SaveImage": NodeType((*_sockets(("images", "IMAGE")), *_widgets(("filename_prefix", "STRING"))), ()),
    "PreviewImage": NodeType(_sockets(("images", "IMAGE")), ()),
    "MarkdownNote": NodeType((), ()),
}


class Graph:
    """Collects nodes and links, and knows how the page saves them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._nodes: list[Json] = []
        self._links: list[list[Any]] = []
        self._groups: list[Json] = []
        self._bends: list[Json] = []
        self._bent: dict[int, int] = {}

    def add(
        self,
        kind: str,
        box: Box,
        values: Sequence[Any] = (),
        *,
        title: str = "",
        colours: tuple[str, str] | None = None,
    ) -> int:
        """Add a node and return its id."""
        shape = NODE_TYPES[kind]
        node: Json = {
            "id": len(self._nodes) + 1,
            "type": kind,
            "pos": list(box[:2]),
            "size": list(box[2:]),
            "flags": {},
            "order": 0,
            "mode": 0,
            "inputs": [_input(slot) for slot in shape.inputs],
            "outputs": [
                {"localized_name": name, "name": name, "type": kind_, "links": []} for name, kind_ in shape.outputs
            ],
        }
        if title:
            node["title"] = title
        node["properties"] = {} if kind in ("SaveImage", "MarkdownNote") else {"Node name for S&R": kind}
        node["widgets_values"] = list(values)
        if colours:
            node["color"], node["bgcolor"] = colours
        self._nodes.append(node)
        return node["id"]

    def first(self, kind: str) -> int:
        """Return the id of the first node of a type."""
        return next(node["id"] for node in self._nodes if node["type"] == kind)

    def link(self, source: int, output: str, target: int, name: str) -> int:
        """Lead an output to an input of another node, both by name; return the link's id."""
        origin, end = self._nodes[source - 1], self._nodes[target - 1]
        out = [slot["name"] for slot in origin["outputs"]].index(output)
        into = [slot["name"] for slot in end["inputs"]].index(name)
        number = len(self._links) + 1
        self._links.append([number, source, out, target, into, origin["outputs"][out]["type"]])
        origin["outputs"][out]["links"].append(number)
        end["inputs"][into]["link"] = number
        return number

    def bend(self, links: Sequence[int], x: int, y: int, after: int | None = None) -> int:
        """Lead links of one output through a point, so that they do not run behind nodes; return the bend's id.

        `after` is the bend they come from.
        """
        number = len(self._bends) + 1
        before = {} if after is None else {"parentId": after}
        self._bends.append({"id": number, **before, "pos": [x, y], "linkIds": list(links)})
        self._bent.update(dict.fromkeys(links, number))
        return number

    def group(self, title: str, nodes: Sequence[int], colour: str = BLUE) -> None:
        """Draw a titled frame around nodes."""
        boxes = [(*self._nodes[number - 1]["pos"], *self._nodes[number - 1]["size"]) for number in nodes]
        left, top = min(box[0] for box in boxes) - GROUP_MARGIN, min(box[1] for box in boxes) - GROUP_HEAD
        right = max(box[0] + box[2] for box in boxes) + GROUP_MARGIN
        bottom = max(box[1] + box[3] for box in boxes) + GROUP_MARGIN
        self._groups.append(
            {
                "id": len(self._groups) + 1,
                "title": title,
                "bounding": [left, top, right - left, bottom - top],
                "color": colour,
                "font_size": 24,
                "flags": {},
            }
        )

    def save(self) -> Json:
        """Return the workflow in the page's format 0.4."""
        self._move_to_origin()
        for place, number in enumerate(self._run_order()):
            self._nodes[number - 1]["order"] = place
        for node in self._nodes:
            for slot in node["outputs"]:
                slot["links"] = slot["links"] or None
        extra: Json = {"ds": self._view(), "workflowRendererVersion": "LG"}
        if self._bends:
            extra["reroutes"] = self._bends
            extra["linkExtensions"] = [{"id": link, "parentId": bend} for link, bend in self._bent.items()]
        return {
            "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"scp-diff/{self.name}")),
            "revision": 0,
            "last_node_id": len(self._nodes),
            "last_link_id": len(self._links),
            "nodes": self._nodes,
            "links": self._links,
            "groups": self._groups,
            "config": {},
            "extra": extra,
            "version": 0.4,
        }

    def _move_to_origin(self) -> None:
        """Begin no farther left than x = 0, less a group's margin: Nodes 2.0 spreads what it opens from 0."""
        left = min(0, min(node["pos"][0] for node in self._nodes) + GROUP_MARGIN)
        for one in (*self._nodes, *self._bends):
            one["pos"][0] -= left
        for group in self._groups:
            group["bounding"][0] -= left

    def _view(self) -> Json:
        """Return what the page shows when it opens the graph: its left end, no farther away than words are drawn."""
        left = min(node["pos"][0] for node in self._nodes)
        right = max(node["pos"][0] + node["size"][0] for node in self._nodes)
        scale = round(min(NEAREST, max(FARTHEST, SCREEN / (right - left))), 2)
        return {"scale": scale, "offset": [round(MENUS[0] / scale) - left, round(MENUS[1] / scale)]}

    def _run_order(self) -> list[int]:
        """Return the node ids as the page orders them: sources first, then first ready, first served."""
        missing = {node["id"]: sum(link[3] == node["id"] for link in self._links) for node in self._nodes}
        order = [number for number, count in missing.items() if not count]
        for number in order:  # grows while it is read
            for slot in self._nodes[number - 1]["outputs"]:
                for link in slot["links"] or ():
                    target = self._links[link - 1][3]
                    missing[target] -= 1
                    if not missing[target]:
                        order.append(target)
        return order


def _input(slot: Slot) -> Json:
    shown = "choose file to upload" if slot.kind == "IMAGEUPLOAD" else slot.name
    saved: Json = {"localized_name": shown, "name": slot.name}
    if slot.optional:
        saved["shape"] = 7  # how the page marks an input that may stay empty
    saved["type"] = slot.kind
    if slot.widget:
        saved["widget"] = {"name": slot.name}
    return {**saved, "link": None}
