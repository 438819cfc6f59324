"""Make the pictures of the templates and of the README: `python scripts/make_pictures.py [NAME ...]`.

Every template is run as it is saved, in the real host; what it shows is put together. Those with the authors' weights
run on stand-ins, which cannot draw: of them the label map and the prior are shown. `graph` is the page with the graph
of `minimal` after a run, `demo` the sheet of `make demo`.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import demo_model
import demo_set
import graph_convert
from comfy_server import Server
from layout import ROOT, HarnessError, replacing
from PIL import Image
from setup_browser import setup_browser
from setup_host import make_base

FOLDER, IMAGES = ROOT / "example_workflows", ROOT / "docs" / "images"
WIDE, GAP, GROUND = 512, 4, (32, 32, 32)
SHEET_WIDE = 1100
_THREE_ROWS = 0.553  # of a picture of the classes' coverage, as a share of its width
Prompt = dict[str, dict[str, Any]]
Pictures = Mapping[str, Image.Image]  # by the title of the node that shows it


def save(picture: Image.Image, path: Path) -> None:
    """Write a JPEG, whole or not at all."""
    with replacing(path) as temporary:
        picture.save(temporary, format="JPEG", quality=85)
    print(path, flush=True)


def run(server: Server, prompt: Prompt) -> Pictures:
    """Run a prompt; return the first picture of every node that shows or loads one."""
    shown: dict[str, Image.Image] = {}
    for number, png in server.pictures(server.run(prompt, timeout=900)):
        shown.setdefault(prompt[number]["_meta"]["title"], Image.open(io.BytesIO(png)).convert("RGB"))
    for node in prompt.values():
        if node["class_type"] == "LoadImage":
            with Image.open(server.base / "input" / node["inputs"]["image"]) as picture:
                shown[node["_meta"]["title"]] = picture.convert("RGB")
    return shown


def until_prior(prompt: Prompt) -> Prompt:
    """Return the part of a prompt that makes the prior's preview, and a node that asks for it."""
    (prior,) = (number for number, node in prompt.items() if node["class_type"] == "SCPPriorLatent")
    kept, wanted = {}, [prior]
    for number in wanted:  # grows while it is read
        kept[number] = prompt[number]
        wanted += [value[0] for value in prompt[number]["inputs"].values() if isinstance(value, list)]
    asks = {"class_type": "PreviewImage", "inputs": {"images": [prior, 1]}, "_meta": {"title": "Preview"}}
    return {**kept, "shown": asks}


def fit(picture: Image.Image, width: int, *, flat: bool = False) -> Image.Image:
    """Return a picture at a width; `flat` ones keep their hard edges."""
    size = (width, round(width * picture.height / picture.width))
    return picture.resize(size, Image.Resampling.NEAREST if flat else Image.Resampling.LANCZOS)


def beside(pictures: Sequence[Image.Image], *, flat: Sequence[bool]) -> Image.Image:
    """Put pictures of one shape side by side."""
    width = (WIDE - GAP * (len(pictures) - 1)) // len(pictures)
    fitted = [fit(picture, width, flat=hard) for picture, hard in zip(pictures, flat, strict=True)]
    made = Image.new("RGB", (WIDE, max(picture.height for picture in fitted)), GROUND)
    for place, picture in enumerate(fitted):
        made.paste(picture, (place * (width + GAP), 0))
    return made


def above(upper: Image.Image, below: Image.Image) -> Image.Image:
    """Put a strip of pictures above a large one."""
    large = fit(below, WIDE)
    made = Image.new("RGB", (WIDE, upper.height + GAP + large.height), GROUND)
    made.paste(upper, (0, 0))
    made.paste(large, (0, upper.height + GAP))
    return made


def map_of(legend: Image.Image, like: Image.Image) -> Image.Image:
    """Return the map above a legend; it has the shape of another picture."""
    return legend.crop((0, 0, legend.width, legend.width * like.height // like.width))


def _drawn(shown: Pictures, first: str = "Load Image") -> Image.Image:
    return above(beside([shown[first], shown["SCP Prior Latent"]], flat=[first != "Photo", True]), shown["Save Image"])


def _painted(shown: Pictures) -> Image.Image:
    result = shown["Save Image"]
    small = beside([map_of(shown["SCP Preview Labels"], result), shown["SCP Prior Latent"]], flat=[True, True])
    return above(small, result)


def _expected(shown: Pictures) -> Image.Image:
    prior = shown["SCP Prior Latent"]
    return beside([shown["Load Image"].resize(prior.size, Image.Resampling.NEAREST), prior], flat=[True, True])


def _recoloured(shown: Pictures) -> Image.Image:
    return beside([shown["Load Image"], shown["Save Image"]], flat=[True, True])


def _reduced(shown: Pictures) -> Image.Image:
    small = beside([shown["Load Image"], shown["SCP Prior Latent"]], flat=[True, True])
    known = shown["SCP Reduce Statistics"]
    return above(small, known.crop((0, 0, known.width, round(known.width * _THREE_ROWS))))


MADE: Mapping[str, Callable[[Pictures], Image.Image]] = {
    "minimal": _drawn,
    "paint": _painted,
    "regions": _drawn,
    "inpaint": partial(_drawn, first="Photo"),
    "recolor": _recoloured,
    "own-statistics": _reduced,
    "cityscapes": _expected,
    "ade20k": _expected,
    "coco-stuff": _expected,
}
PAGES = ("graph", "painting", "demo")
_PAINTING = ("SCPPaintLabels", "LoadImage", "SCPPreviewLabels")
# Where the page shows a graph that fills its view, menus left out.
_GRAPH = {"x": 100, "y": 104, "width": 1700, "height": 1006}
_NODES = {**_GRAPH, "width": 1750, "height": 602}


def page_after_run(server: Server, template: str, kinds: Sequence[str] = ()) -> Image.Image:
    """Return the page with a template, run by the button; with `kinds`, near to its nodes of those types."""
    from playwright.sync_api import sync_playwright

    sys.path.append(str(ROOT / "tests" / "page"))
    from artist import Artist
    from conftest import FLAGS, VIEW, settings_of

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=setup_browser(), headless=True, args=list(FLAGS))
        context = browser.new_context(viewport=VIEW, locale="en-US")
        context.add_init_script("localStorage.setItem('vueNodesBannerDismissed', 'true')")
        near = {"LiteGraph.Canvas.MinFontSizeForLOD": 0, "Comfy.Locale": "en", "Comfy.Minimap.Visible": False}
        with settings_of(server, context, near):
            artist = Artist(context, server.url)
            artist.open_template(template)
            artist.fit()  # nodes out of view would not load their pictures
            end = artist.run(300)
            if end["kind"] != "execution_success":
                raise HarnessError(f"{template} did not run: {json.dumps(end)}")
            artist.shown()
            find = "kinds => app.graph.nodes.filter(node => kinds.includes(node.type)).map(node => node.id)"
            artist.fit(artist.page.evaluate(find, list(kinds)))
            # The page tells of a finished run in a box over the graph, for a while.
            artist.page.get_by_text("job completed").first.wait_for(state="hidden")
            png = artist.page.screenshot(clip=_NODES if kinds else _GRAPH)
        browser.close()
    return Image.open(io.BytesIO(png)).convert("RGB")


def sheet_of_demo(folder: Path) -> Image.Image:
    """Return the sheet of `make demo`."""
    import demo

    return Image.open(demo.demo(base=make_base(folder / "demo"), output=folder / "shown")[-1]).convert("RGB")


def main(names: Sequence[str]) -> None:
    """Make the pictures named."""
    with tempfile.TemporaryDirectory() as folder:
        base = make_base(Path(folder) / "base")
        if set(names) - {"demo"}:
            with Server(base, extra_nodes=[demo_model.install_nodes(base)]) as server:
                info = server.object_info()
                for name in (name for name in names if name in MADE):
                    prompt = graph_convert.load(FOLDER / f"{name}.json", info)
                    demo_set.prepare(prompt, base)
                    if MADE[name] is _expected:
                        prompt = until_prior(prompt)
                    save(MADE[name](run(server, prompt)), FOLDER / f"{name}.jpg")
                for name, template, kinds in (("graph", "minimal", ()), ("painting", "paint", _PAINTING)):
                    if name in names:
                        demo_set.prepare(graph_convert.load(FOLDER / f"{template}.json", info), base)
                        save(page_after_run(server, template, kinds), IMAGES / f"{name}.jpg")
        if "demo" in names:
            save(fit(sheet_of_demo(Path(folder)), SHEET_WIDE), IMAGES / "demo.jpg")


if __name__ == "__main__":
    known = (*MADE, *PAGES)
    wanted = sys.argv[1:] or known
    if not set(wanted) <= set(known):
        sys.exit(f"usage: make_pictures.py [NAME ...]; the names are {', '.join(known)}")
    try:
        main(wanted)
    except HarnessError as error:
        sys.exit(str(error))
