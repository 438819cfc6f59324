"""Make the templates' pictures: each is run in the real host with the demo's trained model, and what it shows is put
together: `python scripts/make_thumbnails.py [NAME ...]`.

The model knows streets of one palette, so the graphs of other data sets keep the pictures they have.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import demo_set
import graph_convert
import numpy as np
from comfy_server import Server
from layout import ROOT, HarnessError
from PIL import Image
from setup_host import make_base

from scp_prior.classes import palette

FOLDER = ROOT / "example_workflows"
DEMO = ROOT / "demo"
SIZE, WIDE, GAP = (256, 128), 512, 4
PALETTE, MAP = "cityscapes", DEMO / "maps" / "street-1.png"
Prompt = dict[str, dict[str, Any]]
Pictures = Mapping[str, Image.Image]  # by the title of the node that shows it


def with_demo_model(prompt: Prompt) -> None:
    """Put the demo's model in place of the models a graph names, at its size, and its one prompt for all prompts."""
    vae = "demo-vae"
    for node in prompt.values():
        inputs = node["inputs"]
        for name, value in inputs.items():
            if isinstance(value, list) and prompt[value[0]]["class_type"] == "CheckpointLoaderSimple" and value[1] == 2:
                inputs[name] = [vae, 0]
        kind = node["class_type"]
        if kind == "CLIPTextEncode":
            node.update(class_type="SCPDemoPrompt", inputs={})
        elif kind == "KSampler":
            # The model was not trained with the ControlNet on both sides.
            negative = prompt[inputs["negative"][0]]["inputs"]
            inputs.update(negative=negative["negative"], cfg=3.0)
        elif kind == "SCPHintFromLabels":
            inputs["palette"] = PALETTE
        if {"width", "height"} <= set(inputs):
            inputs.update(width=SIZE[0], height=SIZE[1])
        for key, file in (
            ("ckpt_name", "scp-demo.safetensors"),
            ("control_net_name", "scp-demo-controlnet.safetensors"),
            ("statistics", "scp-demo-statistics.safetensors"),
        ):
            if isinstance(inputs.get(key), str):
                inputs[key] = file
    prompt[vae] = {
        "class_type": "VAELoader",
        "inputs": {"vae_name": "scp-demo-vae.safetensors"},
        "_meta": {"title": "VAE"},
    }


def place_model(base: Path) -> None:
    """Link the demo's weights into the model folders."""
    for folder, file in (
        ("checkpoints", "scp-demo"),
        ("controlnet", "scp-demo-controlnet"),
        ("vae", "scp-demo-vae"),
        ("scp_statistics", "scp-demo-statistics"),
    ):
        target = base / "models" / folder / f"{file}.safetensors"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((DEMO / "weights" / f"{file}.safetensors").read_bytes())
    (base / "custom_nodes" / "scp-demo").symlink_to(DEMO / "host_nodes", target_is_directory=True)


def mask_of(name: str, path: Path) -> None:
    """Write the picture a mask editor leaves that has painted a class of the demo's map."""
    colours = np.asarray(Image.open(MAP).convert("RGB"))
    known = palette(PALETTE)
    colour = known.paint[known.table.id_of(name)]
    hole = (colours == np.asarray(colour)).all(-1)
    Image.fromarray(np.dstack([colours, np.where(hole, 0, 255).astype(np.uint8)])).save(path)


def give_pictures(prompt: Prompt, base: Path) -> None:
    """Give every LoadImage its picture: the demo's map, or a mask of the class in the node's title."""
    (base / "input").mkdir(exist_ok=True)
    for node in prompt.values():
        if node["class_type"] != "LoadImage":
            continue
        title = node["_meta"]["title"]
        if title.startswith("Mask: "):
            name = f"{title[6:]}.png"
            mask_of(title[6:], base / "input" / name)
        else:
            name = MAP.name
            (base / "input" / name).write_bytes(MAP.read_bytes())
        node["inputs"]["image"] = name


def run(server: Server, prompt: Prompt) -> Pictures:
    """Run a prompt; return the picture of every node that shows one, and the input picture as "Load Image"."""
    outputs = server.run(prompt)
    found = {
        prompt[node]["_meta"]["title"]: Image.open(io.BytesIO(png)).convert("RGB")
        for node, png in server.pictures(outputs)
    }
    return {"Load Image": Image.open(MAP).convert("RGB"), **found}


def fit(picture: Image.Image, size: tuple[int, int], *, flat: bool = False) -> Image.Image:
    """Return a picture at a size; `flat` ones keep their hard edges."""
    return picture.resize(size, Image.Resampling.NEAREST if flat else Image.Resampling.LANCZOS)


def map_of(legend: Image.Image) -> Image.Image:
    """Return the map above a legend."""
    return legend.crop((0, 0, legend.width, legend.width * SIZE[1] // SIZE[0]))


def sheet(upper: list[Image.Image], below: Image.Image) -> Image.Image:
    """Put small pictures side by side above a large one."""
    width = (WIDE - GAP * (len(upper) - 1)) // len(upper)
    height = width * SIZE[1] // SIZE[0]
    large = fit(below, (WIDE, WIDE * SIZE[1] // SIZE[0]))
    made = Image.new("RGB", (WIDE, height + GAP + large.height), (32, 32, 32))
    for place, picture in enumerate(upper):
        made.paste(fit(picture, (width, height), flat=True), (place * (width + GAP), 0))
    made.paste(large, (0, height + GAP))
    return made


def _street(shown: Pictures) -> Image.Image:
    return sheet([shown["Load Image"], shown["SCP Prior Latent"]], shown["Save Image"])


def _painted(shown: Pictures) -> Image.Image:
    return sheet([map_of(shown["SCP Preview Labels"]), shown["SCP Prior Latent"]], shown["Save Image"])


def _recoloured(shown: Pictures) -> Image.Image:
    return sheet([shown["Load Image"]], shown["Save Image"])


def _reduced(shown: Pictures) -> Image.Image:
    return sheet([shown["Load Image"], shown["SCP Prior Latent"]], shown["SCP Reduce Statistics"])


MADE: Mapping[str, Callable[[Pictures], Image.Image]] = {
    "minimal": _street,
    "cityscapes": _street,
    "paint": _painted,
    "recolor": _recoloured,
    "own-statistics": _reduced,
}


def main(names: list[str]) -> None:
    """Make the pictures of the templates named."""
    with tempfile.TemporaryDirectory() as folder:
        base = make_base(Path(folder) / "base")
        place_model(base)
        with Server(base, extra_nodes=["scp-demo"]) as server:
            info = server.object_info()
            for name in names:
                prompt = graph_convert.load(FOLDER / f"{name}.json", info)
                if name == "recolor":
                    change = {"SCPRecolor": {"to_palette": "cityscapes-grey"}}
                    for node in prompt.values():
                        node["inputs"].update(change.get(node["class_type"], {}))
                demo_set.prepare(prompt, base)
                with_demo_model(prompt)
                give_pictures(prompt, base)
                path = FOLDER / f"{name}.jpg"
                temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
                MADE[name](run(server, prompt)).save(temporary, format="JPEG", quality=88)
                os.replace(temporary, path)
                print(path)


if __name__ == "__main__":
    wanted = sys.argv[1:] or list(MADE)
    if not set(wanted) <= set(MADE):
        sys.exit(f"usage: make_thumbnails.py [NAME ...]; the names are {', '.join(MADE)}")
    try:
        main(wanted)
    except HarnessError as error:
        sys.exit(str(error))
