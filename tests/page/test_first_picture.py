"""The README's first picture: a class painted with the mouse, in the host's own mask editor."""

from __future__ import annotations

import io
import re

import numpy as np
from artist import Artist
from PIL import Image
from playwright.sync_api import Locator

MASK = "Mask: building"
# Parts of the picture's width and height: the sky between the houses, and the strokes that fill it.
LEFT, RIGHT, TOP, BOTTOM = 0.42, 0.58, 0.05, 0.45
STROKES = 5
# The mask is the last of the editor's canvases, as large as the picture; alpha is what is painted.
PAINTED = """([u, v]) => {
    const mask = [...document.querySelectorAll('#maskEditorCanvasContainer canvas')].at(-1)
    const at = [Math.floor(u * mask.width), Math.floor(v * mask.height)]
    return mask.getContext('2d').getImageData(...at, 1, 1).data[3] > 127
}"""


def run(artist: Artist) -> np.ndarray:
    assert artist.run(300)["kind"] == "execution_success"
    artist.shown()
    return np.asarray(Image.open(io.BytesIO(artist.made("SaveImage"))).convert("RGB"), dtype=float)


def mask_file(artist: Artist) -> str:
    return artist.page.evaluate("title => app.graph.nodes.find(node => node.title === title).widgets[0].value", MASK)


def open_mask_editor(artist: Artist) -> Locator:
    """Choose the editor in the menu of the mask's picture; return what is painted on once the mask is there."""
    x, y = artist.page.evaluate(
        """title => {
            const node = app.graph.nodes.find(node => node.title === title), { scale, offset } = app.canvas.ds
            const { x, y } = app.canvas.canvas.getBoundingClientRect()
            return [x + (node.pos[0] + node.size[0] * 0.5 + offset[0]) * scale,
                    y + (node.pos[1] + node.size[1] * 0.6 + offset[1]) * scale]
        }""",
        MASK,
    )
    entry = artist.page.locator(".litecontextmenu .litemenu-entry", has_text=re.compile("^Open in MaskEditor"))
    artist.until(lambda: artist.page.mouse.click(x, y, button="right"), entry)
    artist.picture("first-picture-menu")
    entry.click()
    artist.page.locator("#maskEditorCanvasContainer[style*=width]").wait_for()
    # The houses at the left, which the template's own mask has.
    artist.page.wait_for_function(PAINTED, arg=[0.05, 0.4])
    artist.settle()
    return artist.page.locator("#maskEditorCanvasContainer")


def paint(artist: Artist, canvas: Locator) -> None:
    """Fill the sky between the houses by strokes from above."""
    box, mouse = canvas.bounding_box(), artist.page.mouse

    def move(u: float, v: float, steps: int = 1) -> None:
        mouse.move(box["x"] + box["width"] * u, box["y"] + box["height"] * v, steps=steps)

    assert not artist.page.evaluate(PAINTED, [0.5, 0.2])
    for u in np.linspace(LEFT, RIGHT, STROKES).tolist():
        move(u, TOP)
        mouse.down()
        move(u, BOTTOM, steps=8)
        mouse.up()
        # A stroke is drawn after its events.
        artist.page.wait_for_function(PAINTED, arg=[u, (TOP + BOTTOM) / 2])
    artist.picture("first-picture-painted")


def test_a_class_painted_with_the_mouse_is_in_the_next_picture(artist: Artist) -> None:
    artist.open_template("paint")
    artist.fit()
    before, file = run(artist), mask_file(artist)

    paint(artist, open_mask_editor(artist))
    artist.page.locator(".mask-editor-dialog").get_by_role("button", name="Save").click()
    artist.page.wait_for_function("() => !document.querySelector('.p-dialog')")
    assert mask_file(artist) != file

    changed = np.abs(run(artist) - before).mean(axis=-1)
    artist.picture("first-picture-run")
    height, width = changed.shape
    rows, columns = slice(int(TOP * height), int(BOTTOM * height)), slice(int(LEFT * width), int(RIGHT * width))
    inside, elsewhere = changed[rows, columns].mean(), changed[:, : width // 4].mean()
    # A wall in front of what was blue sky; the houses at the left stay.
    assert inside > 40
    assert elsewhere < inside / 4
    assert artist.complaints == []
