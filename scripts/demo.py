"""The main job in one command: `make demo`, or `make demo SEG=map.png PALETTE=cityscapes METHOD=joint`.

Starts the real host without a browser, posts the example workflow through its HTTP API, and leaves the pictures in
demo-output/: those of the graph, one from the host's own start for comparison, and a sheet of them. Streets (palettes
of Cityscapes) are drawn by the demo's trained model, see demo/MODEL_CARD.md. It knows nothing else: maps of other data
sets go through stand-ins that were never trained, see tiny_models.py.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import demo_model
import demo_set
import graph_convert
import numpy as np
import torch
from comfy_server import Server, end_with_host_on_sigterm
from demo_sheet import write_sheet
from layout import BASE, DEMO_OUTPUT, ROOT, HarnessError, replacing
from PIL import Image

from scp_prior import SCPError
from scp_prior.classes import palette, released_palette, table
from scp_prior.labels import convert_labels, labels_from_image

WORKFLOW = ROOT / "example_workflows" / "minimal.json"
LONGEST, MULTIPLE = 384, 64
STREET = (256, 128)
"""Width and height the demo's model was trained at."""
NORMAL = "demo_normal"
Prompt = dict[str, dict[str, Any]]


def fitting_size(width: int, height: int) -> tuple[int, int]:
    """Return (width, height) a CPU can sample in a minute: at most LONGEST pixels a side, multiples of MULTIPLE."""
    shrink = min(1.0, LONGEST / max(width, height))
    return tuple(max(MULTIPLE, round(side * shrink / MULTIPLE) * MULTIPLE) for side in (width, height))


def fit_segmentation(source: Path, target: Path, size: tuple[int, int] | None = None) -> tuple[int, int]:
    """Copy a user's segmentation image to the host's input, made small enough or of `size`; return (width, height).

    Nearest neighbour, because a mixed colour would be no class.
    """
    try:
        with Image.open(source) as image:
            size = size or fitting_size(*image.size)
            fitted = image if image.size == size else image.resize(size, Image.Resampling.NEAREST)
            target.parent.mkdir(parents=True, exist_ok=True)
            fitted.save(target, format="PNG")
    except OSError as error:
        raise HarnessError(f"SEG={source} is no picture that can be read: {error}") from error
    return size


def classes_to_add(picture: Path, palette_name: str) -> dict[int, tuple[int, int, int]]:
    """Return {id: colour} of the classes in a segmentation image which a street scene does not have.

    The demonstration's statistics are of street scenes; with these they know any map a little.
    """
    colours = palette(palette_name)
    names = table(colours.table.dataset)
    with Image.open(picture) as image:
        pixels = torch.from_numpy(np.array(image.convert("RGB")))[None]
    labels = convert_labels(labels_from_image(pixels, colours).labels, colours.table, names.name)
    paint = palette(released_palette(names.name)).paint
    strange = set(labels.unique().tolist()) - set(demo_set.class_ids(names).values()) - {255}
    return {label: paint[label] for label in sorted(strange) if label in paint}


def nodes_of(prompt: Mapping[str, Any], kind: str) -> list[str]:
    """Return the ids of a prompt's nodes of one type."""
    return [number for number, node in prompt.items() if node["class_type"] == kind]


def change(prompt: Prompt, kind: str, **values: Any) -> None:
    """Set inputs of every node of one type."""
    for number in nodes_of(prompt, kind):
        prompt[number]["inputs"].update(values)


def add_normal_start(prompt: Prompt, size: tuple[int, int]) -> None:
    """Add a second way through the graph: the same seed and settings, from the host's own empty latent."""
    sampler, decode = (nodes_of(prompt, kind)[0] for kind in ("KSampler", "VAEDecode"))
    width, height = size
    start = nodes_of(prompt, "SCPDenoiseStart")[0]
    empty = {"width": width, "height": height, "batch_size": 1}
    prompt["demo_empty"] = {"class_type": "EmptyLatentImage", "inputs": empty}
    own = {"latent_image": ["demo_empty", 0], "denoise": 1.0, "steps": prompt[start]["inputs"]["steps"]}
    prompt["demo_sampler"] = {"class_type": "KSampler", "inputs": {**prompt[sampler]["inputs"], **own}}
    samples = {**prompt[decode]["inputs"], "samples": ["demo_sampler", 0]}
    prompt["demo_decode"] = {"class_type": "VAEDecode", "inputs": samples}
    prompt[NORMAL] = {"class_type": "PreviewImage", "inputs": {"images": ["demo_decode", 0]}}


def add_previews(prompt: Prompt) -> None:
    """Add preview nodes for the pictures that the workflow makes without showing them."""
    wanted = (("hint", "SCPHintFromLabels", 0), ("prior_preview", "SCPPriorLatent", 1), ("result", "VAEDecode", 0))
    for name, kind, slot in wanted:
        found = nodes_of(prompt, kind)
        if not found:
            raise HarnessError(f"the workflow has no node {kind}, which makes the picture {name!r}.")
        prompt[f"demo_{name}"] = {"class_type": "PreviewImage", "inputs": {"images": [found[0], slot]}}


def take_segmentation(prompt: Prompt, source: Path, palette_name: str, base: Path) -> dict[int, tuple[int, int, int]]:
    """Put a user's segmentation image and palette into a prompt; return the classes to add to stand-in statistics."""
    name = f"demo_{source.stem}.png"
    street = is_street(palette_name)
    width, height = fit_segmentation(source, base / "input" / name, STREET if street else None)
    change(prompt, "LoadImage", image=name)
    for number in nodes_of(prompt, "SCPPriorLatent"):
        inputs = prompt[number]["inputs"]
        inputs.update({side: value for side, value in (("width", width), ("height", height)) if inputs.get(side)})
    return {} if street else classes_to_add(base / "input" / name, palette_name)


def is_street(palette_name: str) -> bool:
    """Whether a palette is one of Cityscapes', which the demo's model knows."""
    return palette(palette_name).table.dataset == "cityscapes"


def take_palette(prompt: Prompt, palette_name: str) -> None:
    """Read the picture in another palette; where it is not of streets, with stand-ins for the model."""
    change(prompt, "SCPLabelsFromImage", palette=palette_name)
    if not is_street(palette_name):
        use_stand_ins(prompt)
        change(prompt, "SCPHintFromLabels", palette="auto")


def use_stand_ins(prompt: Prompt) -> None:
    """Name other models than the demo's, which knows streets only and which the host cannot load by itself."""
    dataset = demo_set.dataset_of(prompt)[0]
    change(prompt, "SCPLoadStatistics", statistics=f"demo_{dataset}.safetensors")
    change(prompt, "CheckpointLoaderSimple", ckpt_name="stand_in_checkpoint.safetensors")
    change(prompt, "ControlNetLoader", control_net_name="stand_in_controlnet.safetensors")


def save_pictures(server: Server, outputs: Mapping[str, Any], prompt: Prompt, folder: Path) -> list[Path]:
    """Fetch what the graph showed through the API and write it to a folder."""
    names = {
        number: number.removeprefix("demo_")
        for number, node in prompt.items()
        if number.startswith("demo_") and node["class_type"] == "PreviewImage"
    }
    names.update(dict.fromkeys(nodes_of(prompt, "SCPLabelsFromImage")[:1], "legend"))
    folder.mkdir(parents=True, exist_ok=True)
    paths: dict[str, Path] = {}
    for number, picture in server.pictures(outputs):
        name = names.get(number)
        if name and name not in paths:
            paths[name] = folder / f"{name}.png"
            with replacing(paths[name]) as temporary:
                temporary.write_bytes(picture)
    missing = set(names.values()) - set(paths)
    if missing:
        raise HarnessError(f"the host returned no picture for: {', '.join(sorted(missing))}.")
    return [paths[name] for name in ("legend", "hint", "prior_preview", "normal", "result") if name in paths]


def demo(
    seg: Path | None = None,
    palette_name: str | None = None,
    method: str | None = None,
    *,
    workflow: Path = WORKFLOW,
    base: Path = BASE,
    output: Path = DEMO_OUTPUT,
) -> list[Path]:
    """Run the demonstration and return the paths of its pictures.

    Raises HarnessError or SCPError with a message for the user.
    """
    if not workflow.is_file():
        raise HarnessError(f"there is no workflow {workflow}.")
    if seg and not seg.is_file():
        raise HarnessError(f"SEG={seg}: there is no such file.")
    if palette_name:
        palette(palette_name)  # a wrong name is told now, not when the host is up
    with Server(base, extra_nodes=[demo_model.install_nodes(base)]) as server:
        print(f"ComfyUI is up ({server.boot_seconds:.0f} s), its log is {server.log}", flush=True)
        prompt = graph_convert.load(workflow, server.object_info())
        more: dict[int, tuple[int, int, int]] = {}
        if palette_name:
            take_palette(prompt, palette_name)
        if seg:
            more = take_segmentation(prompt, seg, demo_set.dataset_of(prompt)[1], base)
        elif palette_name:
            # The street of the demonstration, painted in that palette.
            change(prompt, "LoadImage", image=f"demo_street_{palette_name}.png")
        if method:
            change(prompt, "SCPPriorLatent", method=method)
        add_previews(prompt)
        demo_set.prepare(prompt, base, more=more)
        with Image.open(base / "input" / prompt[nodes_of(prompt, "LoadImage")[0]]["inputs"]["image"]) as image:
            size = image.size
        add_normal_start(prompt, size)
        started = time.monotonic()
        outputs = server.run(prompt, timeout=1800)
        print(f"The graph ran twice, from both starts, in {time.monotonic() - started:.0f} s", flush=True)
        paths = save_pictures(server, outputs, prompt, output)
    return [*paths, write_sheet(output)]


def judge(folder: Path) -> str:
    """Words for how much of the pictures a segmenter that never saw them tells as the map has it."""
    sys.path.append(str(demo_model.DEMO))
    import segmenter

    network = segmenter.load(demo_model.WEIGHTS / segmenter.NAME)
    with Image.open(folder / "hint.png") as hint:
        pixels = torch.from_numpy(np.array(hint.convert("RGB")))[None]
    truth = labels_from_image(pixels, palette("cityscapes"), 0.0).labels[0]
    shares = {}
    for name in ("normal", "result"):
        with Image.open(folder / f"{name}.png") as image:
            picture = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None].float() / 255
        told = segmenter.segment(network, picture)[0][0]
        shares[name] = float((told == truth)[truth != 255].float().mean())
    return (
        f"A segmenter that saw neither agrees with the label map on {shares['result']:.1%} of the pixels "
        f"(from the host's own start: {shares['normal']:.1%}). One picture proves nothing: see docs/effect.md."
    )


def main() -> None:
    end_with_host_on_sigterm()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seg", type=Path, help="a segmentation image of your own")
    parser.add_argument("--palette", help="how its colours are to be read, e.g. cityscapes, ade20k, coco-stuff")
    parser.add_argument("--method", help="the prior, e.g. joint, class, spatial, normal")
    parser.add_argument("--workflow", type=Path, default=WORKFLOW)
    parser.add_argument("--output", type=Path, default=DEMO_OUTPUT)
    options = parser.parse_args()
    started = time.monotonic()
    try:
        paths = demo(options.seg, options.palette, options.method, workflow=options.workflow, output=options.output)
    except (HarnessError, SCPError, graph_convert.ConvertError) as error:
        sys.exit(f"demo: {error}")
    for path in paths:
        print(path)
    print(f"Done in {time.monotonic() - started:.0f} s. Look at {paths[-1]}.")
    street = is_street(options.palette or "cityscapes")
    print(judge(options.output) if street else "The model is a stand-in that was never trained: it cannot draw.")


if __name__ == "__main__":
    main()
