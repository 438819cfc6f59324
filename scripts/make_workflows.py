"""Write the example workflows, as the page would save them: `python scripts/make_workflows.py [FOLDER]`.

Standard library only. The same call writes the same bytes, so a change of a graph is a change of this file.
"""

from __future__ import annotations

import json
import os
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).resolve().parent.parent / "example_workflows"

Json = dict[str, Any]
Box = tuple[int, int, int, int]  # left, top, width, height of a node's body; its title sits on top

TITLE = 30
GROUP_MARGIN, GROUP_HEAD = 20, 90  # a group's head holds its own title and the title of the node below it

QUALITY = ", best quality, extremely detailed"
NEGATIVE = (
    "longbody, lowres, bad anatomy, bad hands, missing fingers, extra digit, fewer digits, cropped, "
    "worst quality, low quality"
)
STEPS, TIMESTEP, SEED = 20, 799, 1
SCENE_VARIATION, AUTO = 1, -1
SAMPLER, SCHEDULER = "ddim", "ddim_uniform"

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
    "SCPLoadStatistics": NodeType(_widgets(("statistics", "COMBO")), (("statistics", "SCP_STATISTICS"),)),
    "SCPPriorLatent": NodeType(
        (
            *_sockets(("statistics", "SCP_STATISTICS"), ("labels", "SCP_LABELS")),
            Slot("model", "MODEL", optional=True),
            *_widgets(("method", "COMBO"), ("seed", "INT"), ("strength", "FLOAT"), ("batch_size", "INT")),
            Slot("width", "INT", widget=True, optional=True),
            Slot("height", "INT", widget=True, optional=True),
            Slot("scene_variation", "FLOAT", widget=True, optional=True),
            Slot("shrinkage", "FLOAT", widget=True, optional=True),
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
        for place, number in enumerate(self._run_order()):
            self._nodes[number - 1]["order"] = place
        for node in self._nodes:
            for slot in node["outputs"]:
                slot["links"] = slot["links"] or None
        extra: Json = {"ds": {"scale": 0.66, "offset": [125, 290]}, "workflowRendererVersion": "LG"}
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


class Example(NamedTuple):
    """What one workflow differs in."""

    name: str
    files: str  # how the names of its files begin
    palette: str
    prompt: str
    cfg: float
    size: tuple[int, int]  # width, height of the picture; 0, 0: those of the segmentation image
    advanced: bool  # KSamplerAdvanced with the noised latent, instead of KSampler with denoise
    note: str

    @property
    def checkpoint(self) -> str:
        return f"{self.files}_checkpoint.safetensors"

    @property
    def controlnet(self) -> str:
        return f"{self.files}_controlnet.safetensors"

    @property
    def statistics(self) -> str:
        return f"{self.files}.safetensors"

    @property
    def picture(self) -> str:
        return f"{self.files}_labels.png"


class _Ends(NamedTuple):
    """What the groups hand to each other: node ids."""

    labels: int
    loader: int
    hint: int
    apply: int


# The layout: left edges of the columns, and the top of the lower row.
_A, _B, _C, _D, _E, _F, _G = 0, 310, 770, 1100, 1500, 1870, 2200
_LOWER = 720
# Wires that pass nodes by run between the groups, and right of what they come from.
_CORRIDOR = 613


def read_labels(graph: Graph, example: Example) -> tuple[int, list[int]]:
    """Add what reads a picture as labels; return it, and it alone as a list of nodes."""
    labels = graph.add("SCPLabelsFromImage", (_B, 0, 400, 575), [example.palette, 24, 0.5])
    return labels, [labels]


def _segmentation(graph: Graph, example: Example) -> int:
    picture = graph.add("LoadImage", (_A, 0, 280, 320), [example.picture, "image"])
    labels, nodes = read_labels(graph, example)
    nodes, source = [picture, *nodes], picture
    if any(example.size):
        # Apply ControlNet cuts a picture of another shape and the prior stretches it: fitted first, they stay together.
        fit = graph.add(
            "ImageScale", (_A, 390, 280, 130), ["nearest-exact", *example.size, "disabled"], title="Fit to Size"
        )
        graph.link(picture, "IMAGE", fit, "image")
        nodes, source = [*nodes, fit], fit
    graph.link(source, "IMAGE", labels, "image")
    graph.group("1 Segmentation", nodes)
    return labels


def controlled(graph: Graph, example: Example, labels: int) -> _Ends:
    """Add the group of the models, the prompts and the ControlNet; return what the others need of it."""
    loader = graph.add("CheckpointLoaderSimple", (_C, 0, 270, 98), [example.checkpoint])
    positive = graph.add(
        "CLIPTextEncode", (_D, 90, 340, 110), [example.prompt + QUALITY], title="Prompt", colours=GREEN
    )
    negative = graph.add("CLIPTextEncode", (_D, 250, 340, 110), [NEGATIVE], title="Negative Prompt", colours=RED)
    control = graph.add("ControlNetLoader", (_D, 410, 340, 58), [example.controlnet])
    hint = graph.add("SCPHintFromLabels", (_D, 518, 340, 58), ["auto"])
    apply = graph.add("ControlNetApplyAdvanced", (_E, 90, 280, 186), [1, 0, 1])
    graph.link(loader, "CLIP", positive, "clip")
    graph.link(loader, "CLIP", negative, "clip")
    graph.link(positive, "CONDITIONING", apply, "positive")
    graph.link(negative, "CONDITIONING", apply, "negative")
    graph.link(control, "CONTROL_NET", apply, "control_net")
    graph.link(hint, "hint", apply, "image")
    graph.group("2 ControlNet", [loader, positive, negative, control, hint, apply])
    return _Ends(labels, loader, hint, apply)


def started(graph: Graph, example: Example, ends: _Ends) -> tuple[int, int]:
    """Add the group that makes the starting latent; return the nodes of the latent and of where sampling starts."""
    statistics = graph.add("SCPLoadStatistics", (_C, _LOWER, 270, 120), [example.statistics])
    values = ["joint", SEED, "fixed", 1, 1, *example.size, SCENE_VARIATION, AUTO]
    prior = graph.add("SCPPriorLatent", (_D, _LOWER, 340, 690), values)
    graph.link(statistics, "statistics", prior, "statistics")
    read = [graph.link(ends.labels, "labels", ends.hint, "labels"), graph.link(ends.labels, "labels", prior, "labels")]
    down = graph.bend(read[1:], _C - 30, _CORRIDOR, after=graph.bend(read, _C - 30, 160))
    graph.bend(read[1:], _D - 25, _CORRIDOR, after=down)
    models = [graph.link(ends.loader, "MODEL", prior, "model")] if any(example.size) else []
    start = graph.add(
        "SCPDenoiseStart", (_E, _LOWER + (260 if example.advanced else 70), 280, 240), [TIMESTEP, STEPS, SCHEDULER]
    )
    onward = [graph.link(ends.loader, "MODEL", start, "model")]
    nodes, latent = [statistics, prior, start], prior
    if example.advanced:
        latent = graph.add("SCPNoisedLatent", (_E, _LOWER, 280, 174), [TIMESTEP, SEED, "fixed", STEPS, SCHEDULER])
        onward.append(graph.link(ends.loader, "MODEL", latent, "model"))
        graph.link(prior, "latent", latent, "latent")
        nodes.append(latent)
    down = graph.bend([*models, *onward], _D - 42, _CORRIDOR - 30, after=graph.bend([*models, *onward], _D - 42, 70))
    graph.bend(onward, _E - 25, _CORRIDOR, after=down)
    graph.group("3 Start", nodes, OCHRE)
    return latent, start


def decoded(graph: Graph, example: Example, ends: _Ends, latent: int, start: int) -> tuple[int, int]:
    """Add the sampler and what decodes its latent; return both."""
    if example.advanced:
        values = ["disable", SEED, "fixed", STEPS, example.cfg, SAMPLER, SCHEDULER, 0, 10000, "disable"]
        sampler = graph.add("KSamplerAdvanced", (_F, 0, 280, 334), values)
        begins = [graph.link(start, "start_at_step", sampler, "start_at_step")]
        graph.bend(begins, _F - 30, _CORRIDOR)
    else:
        # Steps and denoise come by wire; what stands here is what the page would show without it.
        values = [SEED, "fixed", STEPS, example.cfg, SAMPLER, SCHEDULER, 1]
        sampler = graph.add("KSampler", (_F, 0, 280, 262), values)
        for name, x in (("steps", _F - 45), ("denoise", _F - 25)):
            graph.bend([graph.link(start, name, sampler, name)], x, _CORRIDOR)
    decode = graph.add("VAEDecode", (_G, 0, 200, 46))
    graph.link(ends.loader, "MODEL", sampler, "model")
    graph.link(ends.apply, "positive", sampler, "positive")
    graph.link(ends.apply, "negative", sampler, "negative")
    upward = [graph.link(latent, "latent", sampler, "latent_image")]
    graph.bend(upward, _F - 65, _CORRIDOR, after=None if example.advanced else graph.bend(upward, _E, _LOWER + 10))
    graph.link(sampler, "LATENT", decode, "samples")
    pictures = [graph.link(ends.loader, "VAE", decode, "vae")]
    graph.bend(pictures, _G - 25, -43, after=graph.bend(pictures, _D - 25, -43))
    return sampler, decode


def _sample(graph: Graph, example: Example, ends: _Ends, latent: int, start: int) -> None:
    sampler, decode = decoded(graph, example, ends, latent, start)
    image = graph.add("SaveImage", (_G, 110, 400, 466), [f"scp-diff/{example.name}"])
    graph.link(decode, "IMAGE", image, "images")
    graph.group("4 Sample", [sampler, decode, image])


def build(example: Example) -> Json:
    """Return the workflow of one example."""
    graph = Graph(example.name)
    labels = _segmentation(graph, example)
    ends = controlled(graph, example, labels)
    latent, start = started(graph, example, ends)
    _sample(graph, example, ends, latent, start)
    left, top, note = -GROUP_MARGIN, _LOWER - GROUP_HEAD + TITLE, example.note
    graph.add("MarkdownNote", (left, top, 750, 530), [note], title="Read Me First", colours=NOTE)
    return graph.save()


# Notes: plain words for whoever opens the graph; Markdown, as the page shows it. No code marks: Nodes 2.0 shows them
# blue on blue.

_KSAMPLER = """\
## How it is wired
**SCP Prior Latent** takes the place of Empty Latent Image. **SCP Denoise Start** tells KSampler the **denoise** \
and **steps** that start at the paper's timestep. Keep **scheduler** the same in both nodes.
"""

_ADVANCED = """\
## How it is wired
The other wiring, for **KSampler (Advanced)**: **SCP Noised Latent** adds the noise, so **add_noise** stays \
**disable**; **SCP Denoise Start** gives **start_at_step**. Keep **timestep**, **steps** and **scheduler** the same in \
all of them. With the same seed the picture is the one KSampler gives.
"""


def _change_first(look: str, size: str) -> str:
    return f"""\
## What to change first
1. **Load Image**: your segmentation picture. The legend in **SCP Labels From Image** shows what was read; if \
it is wrong, choose another **palette**.
2. **Prompt**: {look}.
3. **seed** of SCP Prior Latent: other colours and light. **seed** of the sampler: other details.
4. **timestep** of SCP Denoise Start: lower stays closer to the prior, higher gives the model more freedom \
(999: all of it).
5. **Size**: {size}
"""


def _released_note(title: str, files: str, look: str, size: tuple[int, int], wiring: str) -> str:
    width, height = size
    sizes = (
        f"{width} x {height} is what the model was trained on. "
        "For another, set it in **Fit to Size** and in **SCP Prior Latent**."
    )
    return f"""\
# {title}, with the authors' weights
A photo from a segmentation picture. The sampler starts from what each class usually looks like at each place \
(**3 Start**), not from pure noise.

## Which file goes where
From **huggingface.co/c7w/SCP-Diff**, once:

| download | put it into | and run once |
|---|---|---|
| **{files}/{files}.ckpt** (13.7 GB) | models/checkpoints | SCP Convert Checkpoint |
| three **{files}/{files}_10000_..._mean_std.npy** | models/scp_statistics | SCP Convert Statistics |
| your segmentation picture, as **{files}_labels.png** | input | |

Press **R**. You have **{files}_checkpoint.safetensors**, **{files}_controlnet.safetensors** and \
**{files}.safetensors**, which the loaders here name. Both models come from the one .ckpt: its U-Net was trained too, \
so a stock Stable Diffusion 2.1 does not fit its ControlNet.

{_change_first(look, sizes)}
{wiring}"""


_MINIMAL_NOTE = f"""\
# SCP-Diff: from a segmentation picture to an image
The sampler starts from what each class usually looks like at each place (**3 Start**), not from pure noise.

## Which file goes where
Choose your own in the loaders:

| here | folder | what it is |
|---|---|---|
| **scp_demo_checkpoint.safetensors** | models/checkpoints | your Stable Diffusion 2.1 |
| **scp_demo_controlnet.safetensors** | models/controlnet | a segmentation ControlNet for it |
| **scp_demo.safetensors** | models/scp_statistics | statistics of a data set |
| **scp_demo_labels.png** | input | your segmentation picture |

The templates **cityscapes**, **ade20k** and **coco-stuff** say where the authors' files are and how they get here. \
Files of the names above are made by make demo and make comfy: tiny and **never trained**, they show that the graph \
runs and cannot draw.

{_change_first("what you want to see", "that of the segmentation picture, as long as **width** and **height** are 0.")}
{_KSAMPLER}"""


def _released(
    files: str, title: str, prompt: str, cfg: float, size: tuple[int, int], look: str, *, advanced: bool = False
) -> Example:
    wiring = _ADVANCED if advanced else _KSAMPLER
    note = _released_note(title, files, look, size, wiring)
    return Example(files, files, files, prompt, cfg, size, advanced, note)


EXAMPLES = (
    Example("minimal", "scp_demo", "cityscapes", "Realistic city road scenes", 4, (0, 0), False, _MINIMAL_NOTE),
    _released(
        "cityscapes",
        "Cityscapes",
        "Realistic city road scenes",
        4,
        (1024, 512),
        "weather, season, time of day; the authors' words stand there now",
    ),
    _released(
        "ade20k",
        "ADE20K",
        "diverse images depicting various scenes",
        7.5,
        (512, 512),
        "name the place (a kitchen, a beach); the authors' words stand there now",
        advanced=True,
    ),
    _released(
        "coco-stuff",
        "COCO-Stuff",
        "Realistic image",
        7.5,
        (512, 384),
        "say what is in the picture; the authors' words stand there now",
    ),
)


def main(folder: Path) -> None:
    """Write every workflow into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for example in EXAMPLES:
        path = folder / f"{example.name}.json"
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        temporary.write_text(json.dumps(build(example), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(temporary, path)
        print(path)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        sys.exit("usage: make_workflows.py [FOLDER]")
    main(Path(sys.argv[1]) if len(sys.argv) == 2 else FOLDER)
