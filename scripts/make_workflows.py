"""Write the example workflows, as the page would save them: `python scripts/make_workflows.py [FOLDER]`.

Standard library only. The same call writes the same bytes, so a change of a graph is a change of this file.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import workflow_notes as notes
from layout import replacing
from workflow_graph import GREEN, GROUP_HEAD, GROUP_MARGIN, NOTE, OCHRE, RED, TITLE, Box, Graph, Json

FOLDER = Path(__file__).resolve().parent.parent / "example_workflows"

QUALITY = ", best quality, extremely detailed"
NEGATIVE = (
    "longbody, lowres, bad anatomy, bad hands, missing fingers, extra digit, fewer digits, cropped, "
    "worst quality, low quality"
)
STEPS, TIMESTEP, SEED = 20, 799, 1
SCENE_VARIATION, AUTO = 1, -1
GROW = 2  # pixels; small as the picture is
SAMPLER, SCHEDULER = "ddim", "ddim_uniform"
# The demo's model: how its files begin, and the width and height it was trained at.
DEMO, DEMO_SIZE = "scp_demo", (256, 128)


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
    kind: str = "street"  # how it is laid out: a name in _BUILDERS
    regions: str = ""  # prompts of single classes
    strengths: str = ""  # of single classes

    @property
    def one_sided(self) -> bool:
        """Whether the ControlNet is on the positive side only; the demo's was trained so that guidance needs it."""
        return self.files == DEMO

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
    negative: int
    regions: int | None
    column: int  # the left edge of the nodes before the sampler, in both rows


class _Photo(NamedTuple):
    """What is inpainted: the input picture, and the node of the mask."""

    name: str
    mask: int
    way: tuple[int, int]  # a point between the mask's node and the corridor


# The layout: left edges of the columns, and the top of the lower row.
_A, _B, _C, _D, _E, _F, _G = 0, 310, 770, 1150, 1570, 1960, 2310
_LOWER = 720
_REGIONS_WIDTH = 410
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
    nodes, words, left = [loader, positive, negative, control, hint], positive, _E
    regions = None
    if example.regions:
        regions = graph.add("SCPRegionPrompts", (_E, 90, 340, 300), [example.regions, 1, 0, 0], colours=GREEN)
        left += _REGIONS_WIDTH
        graph.link(positive, "CONDITIONING", regions, "conditioning")
        clip = [graph.link(loader, "CLIP", regions, "clip")]
        graph.bend(clip, _E - 30, 45, after=graph.bend(clip, _D - 25, 45))
        nodes.append(regions)
        words = regions
    apply = graph.add("ControlNetApplyAdvanced", (left, 90, 280, 186), [1, 0, 1])
    graph.link(loader, "CLIP", positive, "clip")
    graph.link(loader, "CLIP", negative, "clip")
    graph.link(words, "conditioning" if example.regions else "CONDITIONING", apply, "positive")
    sides = [graph.link(negative, "CONDITIONING", apply, "negative")]
    pictures = [
        graph.link(control, "CONTROL_NET", apply, "control_net"),
        graph.link(hint, "hint", apply, "image"),
    ]
    if example.regions:
        graph.bend(sides, left - 40, 425, after=graph.bend(sides, _E - 40, 425))
        for place, link in enumerate(pictures):
            graph.bend([link], left - 30, 470 + 45 * place)
    graph.group("2 ControlNet", [*nodes, apply])
    return _Ends(labels, loader, hint, apply, negative, regions, left)


def _prior_values(example: Example) -> list[Any]:
    """Values of SCP Prior Latent's widgets."""
    return ["joint", SEED, "fixed", 1, 1, *example.size, SCENE_VARIATION, AUTO, "mean", example.strengths]


def started(graph: Graph, example: Example, ends: _Ends, photo: _Photo | None = None) -> tuple[int, int]:
    """Add the group that makes the starting latent; return the nodes of the latent and of where sampling starts."""
    left = ends.column
    statistics = graph.add("SCPLoadStatistics", (_C, _LOWER, 270, 120), [example.statistics])
    prior = graph.add("SCPPriorLatent", (_D, _LOWER, 340, 790), _prior_values(example))
    graph.link(statistics, "statistics", prior, "statistics")
    read = [graph.link(ends.labels, "labels", ends.hint, "labels"), graph.link(ends.labels, "labels", prior, "labels")]
    if ends.regions is not None:
        read.append(graph.link(ends.labels, "labels", ends.regions, "labels"))
    down = graph.bend(read[1:], _C - 30, _CORRIDOR, after=graph.bend(read, _C - 30, 160))
    down = graph.bend(read[1:], _D - 25, _CORRIDOR, after=down)
    if ends.regions is not None:
        graph.bend(read[2:], _E - 55, 560, after=graph.bend(read[2:], _E - 55, _CORRIDOR, after=down))
    models = [graph.link(ends.loader, "MODEL", prior, "model")] if any(example.size) else []
    nodes, latent, below = [statistics, prior], prior, 70
    vaes = [graph.link(ends.loader, "VAE", prior, "vae")] if example.one_sided else []
    if photo is not None:
        latent, below = _inpainted(graph, photo, prior, left, nodes, vaes, ends), 290
    if vaes:
        down = graph.bend(vaes, _D - 65, _CORRIDOR + 35, after=graph.bend(vaes, _D - 65, 95))
        if photo is not None:
            graph.bend(
                vaes[1:], left - 40, _CORRIDOR + 35, after=graph.bend(vaes[1:], _D - 30, _CORRIDOR + 35, after=down)
            )
    if example.advanced:
        below = 260
    start = graph.add("SCPDenoiseStart", (left, _LOWER + below, 280, 240), [TIMESTEP, STEPS, SCHEDULER])
    onward = [graph.link(ends.loader, "MODEL", start, "model")]
    if example.advanced:
        latent = graph.add("SCPNoisedLatent", (left, _LOWER, 280, 174), [TIMESTEP, SEED, "fixed", STEPS, SCHEDULER])
        onward.append(graph.link(ends.loader, "MODEL", latent, "model"))
        graph.link(prior, "latent", latent, "latent")
        nodes.append(latent)
    down = graph.bend([*models, *onward], _D - 45, _CORRIDOR - 30, after=graph.bend([*models, *onward], _D - 45, 70))
    graph.bend(onward, left - 25, _CORRIDOR, after=down)
    graph.group("3 Start", [*nodes, start], OCHRE)
    return latent, start


def _inpainted(
    graph: Graph, photo: _Photo, prior: int, left: int, nodes: list[int], vaes: list[int], ends: _Ends
) -> int:
    """Add what keeps a photo around the prior to the start's nodes; return the node of the latent."""
    picture = graph.add("LoadImage", (_C, _LOWER + 200, 270, 310), [photo.name, "image"], title="Photo")
    latent = graph.add("SCPInpaintLatent", (left, _LOWER, 280, 170), [GROW])
    nodes += [picture, latent]
    graph.link(prior, "latent", latent, "latent")
    shown = [graph.link(picture, "IMAGE", latent, "image")]
    y = _CORRIDOR + 50
    graph.bend(shown, left - 55, y, after=graph.bend(shown, _D - 30, y, after=graph.bend(shown, _D - 85, _LOWER + 150)))
    vaes.append(graph.link(ends.loader, "VAE", latent, "vae"))
    covered = [graph.link(photo.mask, "mask", latent, "mask")]
    down = graph.bend(covered, _C - 50, _CORRIDOR + 10, after=graph.bend(covered, *photo.way))
    graph.bend(covered, left - 70, _CORRIDOR + 10, after=down)
    return latent


def decoded(graph: Graph, example: Example, ends: _Ends, latent: int, start: int) -> tuple[int, int]:
    """Add the sampler and what decodes its latent; return both."""
    shift = ends.column - _E
    left, right = _F + shift, _G + shift
    if example.advanced:
        values = ["disable", SEED, "fixed", STEPS, example.cfg, SAMPLER, SCHEDULER, 0, 10000, "disable"]
        sampler = graph.add("KSamplerAdvanced", (left, 0, 280, 334), values)
        begins = [graph.link(start, "start_at_step", sampler, "start_at_step")]
        graph.bend(begins, left - 30, _CORRIDOR)
    else:
        # Steps and denoise come by wire; what stands here is what the page would show without it.
        values = [SEED, "fixed", STEPS, example.cfg, SAMPLER, SCHEDULER, 1]
        sampler = graph.add("KSampler", (left, 0, 280, 262), values)
        for name, x in (("steps", left - 45), ("denoise", left - 25)):
            graph.bend([graph.link(start, name, sampler, name)], x, _CORRIDOR)
    decode = graph.add("VAEDecode", (right, 0, 200, 46))
    graph.link(ends.loader, "MODEL", sampler, "model")
    graph.link(ends.apply, "positive", sampler, "positive")
    if example.one_sided:
        bare = [graph.link(ends.negative, "CONDITIONING", sampler, "negative")]
        y = 425 if example.regions else 330
        graph.bend(bare, left - 75, y, after=graph.bend(bare, _E - 40, y))
    else:
        graph.link(ends.apply, "negative", sampler, "negative")
    upward = [graph.link(latent, "latent", sampler, "latent_image")]
    passes = None
    if latent == graph.first("SCPPriorLatent"):
        passes = graph.bend(upward, ends.column, _LOWER + 10)
    graph.bend(upward, left - 65, _CORRIDOR, after=passes)
    graph.link(sampler, "LATENT", decode, "samples")
    pictures = [graph.link(ends.loader, "VAE", decode, "vae")]
    graph.bend(pictures, right - 25, -43, after=graph.bend(pictures, _D - 25, -43))
    return sampler, decode


def _sample(graph: Graph, example: Example, ends: _Ends, latent: int, start: int) -> None:
    sampler, decode = decoded(graph, example, ends, latent, start)
    image = graph.add("SaveImage", (_G + ends.column - _E, 110, 400, 466), [f"scp-diff/{example.name}"])
    graph.link(decode, "IMAGE", image, "images")
    graph.group("4 Sample", [sampler, decode, image])


def _rest(graph: Graph, example: Example, labels: int, left: int, photo: _Photo | None = None) -> Json:
    """Add all that comes after the labels, and the note below their group, which begins at `left`."""
    ends = controlled(graph, example, labels)
    latent, start = started(graph, example, ends, photo)
    _sample(graph, example, ends, latent, start)
    return _noted(graph, example, (left - GROUP_MARGIN, _LOWER - GROUP_HEAD + TITLE, 750, 530))


def _noted(graph: Graph, example: Example, box: Box) -> Json:
    graph.add("MarkdownNote", box, [example.note], title="Read Me First", colours=NOTE)
    return graph.save()


def _street(example: Example) -> Json:
    graph = Graph(example.name)
    return _rest(graph, example, _segmentation(graph, example), _A)


# What is painted one over the other; the first fills the map.
_REGIONS = ("sky", "building", "sidewalk", "road", "car")


def _painted(example: Example) -> Json:
    graph = Graph(example.name)
    width, gap = 300, 330
    left = _B + 60 - gap * len(_REGIONS)
    nodes, before = [], None
    for place, name in enumerate(_REGIONS):
        x = left + gap * place
        paint = graph.add(
            "SCPPaintLabels", (x, 0, width, 230), [example.palette, name, *DEMO_SIZE], title=f"Paint {name.title()}"
        )
        if before is not None:
            graph.link(before, "labels", paint, "labels")
            file = f"{example.files}_mask_{name}.png"
            mask = graph.add("LoadImage", (x - gap, 290, width, 310), [file, "image"], title=f"Mask: {name}")
            graph.link(mask, "MASK", paint, "mask")
            nodes.append(mask)
        nodes.append(paint)
        before = paint
    legend = graph.add("SCPPreviewLabels", (_B + 60, 250, 340, 350))
    graph.link(before, "labels", legend, "labels")
    graph.group("1 Paint", [*nodes, legend])
    return _rest(graph, example, before, left)


# What becomes what in the photo.
_REPLACED, _BY = "vegetation", "building"


def _replaced(example: Example) -> Json:
    graph = Graph(example.name)
    left = -720
    name = f"{example.files}_photo"
    picture = graph.add("LoadImage", (left, 0, 280, 320), [f"{name}_labels.png", "image"], title="Its Label Map")
    labels = graph.add("SCPLabelsFromImage", (left + 330, 0, 400, 575), [example.palette, 24, 0.5])
    mask = graph.add("SCPMaskFromLabels", (_B - 240, 160, 280, 130), [_REPLACED], title="What Is Replaced")
    paint = graph.add("SCPPaintLabels", (_B + 100, 0, 300, 230), [example.palette, _BY, 0, 0], title="What Comes There")
    graph.link(picture, "IMAGE", labels, "image")
    graph.link(labels, "labels", mask, "labels")
    graph.link(labels, "labels", paint, "labels")
    graph.link(mask, "mask", paint, "mask")
    graph.group("1 Replace a Class", [picture, labels, mask, paint])
    return _rest(graph, example, paint, left, _Photo(f"{name}.png", mask, (_B + 75, 330)))


def _recoloured(example: Example) -> Json:
    graph = Graph(example.name)
    picture = graph.add("LoadImage", (0, 0, 300, 330), [example.picture, "image"])
    recolor = graph.add("SCPRecolor", (350, 0, 340, 330), ["auto", example.palette, 24])
    shown = graph.add("SaveImage", (740, 0, 420, 330), [f"scp-diff/{example.name}"])
    graph.link(picture, "IMAGE", recolor, "image")
    graph.link(recolor, "image", shown, "images")
    graph.group("1 Recolor", [picture, recolor, shown])
    return _noted(graph, example, (-GROUP_MARGIN, 410, 1200, 140))


def _reduced(example: Example) -> Json:
    graph = Graph(example.name)
    loader = graph.add("CheckpointLoaderSimple", (0, 0, 300, 98), [example.checkpoint])
    folders = [f"{example.files}/{name}" for name in ("photos", "labels")]
    values = [*folders, example.palette, *DEMO_SIZE, "my_photos", "stop", 4]
    reduce = graph.add("SCPReduceStatistics", (350, 0, 360, 520), values)
    graph.link(loader, "VAE", reduce, "vae")
    graph.group("1 Make Statistics", [loader, reduce])
    picture = graph.add("LoadImage", (830, 0, 300, 330), [example.picture, "image"])
    labels = graph.add("SCPLabelsFromImage", (1180, 0, 360, 520), [example.palette, 24, 0.5])
    legend = graph.add("SCPPreviewLabels", (1610, 0, 400, 520))
    prior = graph.add("SCPPriorLatent", (1610, 660, 400, 790), _prior_values(example))
    graph.link(picture, "IMAGE", labels, "image")
    read = [graph.link(labels, "labels", legend, "labels"), graph.link(labels, "labels", prior, "labels")]
    graph.bend(read[1:], 1570, 590)
    known = [graph.link(reduce, "statistics", one, "statistics") for one in (legend, prior)]
    graph.bend(known, 1580, 606, after=graph.bend(known, 760, 606))
    decodes = [graph.link(loader, "VAE", prior, "vae")]
    down = graph.bend(decodes, 325, 575, after=graph.bend(decodes, 325, 120))
    graph.bend(decodes, 1592, 622, after=graph.bend(decodes, 745, 622, after=down))
    shown = graph.add("PreviewImage", (2060, 660, 400, 300))
    graph.link(prior, "preview", shown, "images")
    graph.group("2 Try Them on a Map", [picture, labels, legend, prior, shown])
    return _noted(graph, example, (-GROUP_MARGIN, 660, 750, 560))


_BUILDERS: dict[str, Callable[[Example], Json]] = {
    "street": _street,
    "paint": _painted,
    "inpaint": _replaced,
    "recolor": _recoloured,
    "own-statistics": _reduced,
}


def build(example: Example) -> Json:
    """Return the workflow of one example."""
    return _BUILDERS[example.kind](example)


def _released(
    files: str, title: str, prompt: str, cfg: float, size: tuple[int, int], look: str, *, advanced: bool = False
) -> Example:
    wiring = notes.ADVANCED if advanced else notes.KSAMPLER
    note = notes.released(title, files, look, size, wiring)
    return Example(files, files, files, prompt, cfg, size, advanced, note)


_ROADS = "Realistic city road scenes"
EXAMPLES = (
    Example("minimal", DEMO, "cityscapes", _ROADS, 3, (0, 0), False, notes.MINIMAL),
    _released(
        "cityscapes",
        "Cityscapes",
        _ROADS,
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
    Example("paint", DEMO, "cityscapes", _ROADS, 3, (0, 0), False, notes.PAINT, "paint"),
    Example(
        "regions",
        DEMO,
        "cityscapes",
        _ROADS,
        3,
        (0, 0),
        False,
        notes.REGIONS,
        regions="sky: storm clouds\nroad: wet cobblestones",
        strengths="car: 0.5",
    ),
    Example("inpaint", DEMO, "cityscapes", _ROADS, 3, (0, 0), False, notes.INPAINT, "inpaint"),
    Example("recolor", "ade20k-oneformer", "ade20k", "", 0, (0, 0), False, notes.RECOLOR, "recolor"),
    Example("own-statistics", DEMO, "cityscapes", "", 0, (0, 0), False, notes.OWN, "own-statistics"),
)


def main(folder: Path) -> None:
    """Write every workflow into a folder."""
    for example in EXAMPLES:
        path = folder / f"{example.name}.json"
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(build(example), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(path)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        sys.exit("usage: make_workflows.py [FOLDER]")
    main(Path(sys.argv[1]) if len(sys.argv) == 2 else FOLDER)
