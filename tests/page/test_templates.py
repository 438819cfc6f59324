"""Every template of the pack, chosen in the real dialog and run by the real button."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from artist import Artist
from layout import ROOT
from menus import choose
from PIL import Image

WORKFLOWS = sorted((ROOT / "example_workflows").glob("*.json"))
# The size of the demo's model; the templates of other weights run on stand-ins, made as small, in fewer steps.
WIDTH, HEIGHT, STEPS = 256, 128, 4


def types_of(path: Path) -> list[str]:
    return [node["type"] for node in json.loads(path.read_text(encoding="utf-8"))["nodes"]]


LARGEST = max(WORKFLOWS, key=lambda path: len(types_of(path)))
# Nodes that show a picture in themselves when they have run.
SHOWING = {
    *("SaveImage", "PreviewImage", "SCPLabelsFromImage", "SCPPreviewLabels", "SCPPriorLatent"),
    *("SCPReduceStatistics",),
}


def runs_as_saved(path: Path) -> bool:
    return "scp_demo_" in path.read_text(encoding="utf-8")


def shrink(artist: Artist) -> None:
    artist.set("", width=WIDTH, height=HEIGHT)
    artist.set("", steps=STEPS)


def opens_and_runs(artist: Artist, path: Path, kind: str = "") -> None:
    # What the host still has from another template it would not make again, nor show.
    artist.page.request.post(f"{artist.url}/api/free", data={"free_memory": True})
    artist.open_template(path.stem)
    assert artist.missing() == []
    assert artist.page.evaluate("app.graph.nodes.map(node => node.type).sort()") == sorted(types_of(path))
    artist.fit()
    artist.picture(f"{path.stem}{kind}-opened")
    if not runs_as_saved(path):
        shrink(artist)
    end = artist.run(300)
    assert end["kind"] == "execution_success", end
    shown = artist.shown()
    assert set(shown) >= SHOWING & set(types_of(path))
    if {"KSampler", "KSamplerAdvanced"} & set(types_of(path)):
        assert shown["SaveImage"] == [[WIDTH, HEIGHT]]
    artist.fit()
    artist.picture(f"{path.stem}{kind}-run")
    assert artist.complaints == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_template_opens_from_the_dialog_and_runs(artist: Artist, path: Path) -> None:
    opens_and_runs(artist, path)


def test_the_largest_template_opens_and_runs_in_nodes_2(open_page) -> None:
    opens_and_runs(open_page(vue=True), LARGEST, "-nodes2")


def test_a_class_chosen_in_the_menu_of_ones_own_map_gives_another_picture(artist: Artist) -> None:
    def saved() -> bytes:
        assert artist.run(300)["kind"] == "execution_success"
        artist.shown()
        return artist.made("SaveImage")

    artist.open_template("paint")
    artist.fit()
    before = saved()
    find = "app.graph.nodes.find(node => node.title === 'Paint Building').id"
    building = artist.page.evaluate(find)
    artist.fit([building])
    choose(artist, building, "class_name", "vegetation")
    artist.fit()
    after = saved()
    artist.picture("paint-own-map")
    pictures = [np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), dtype=float) for png in (before, after)]
    # Leaves are greener than walls.
    green = [picture[..., 1].mean() - picture[..., [0, 2]].mean() for picture in pictures]
    assert green[1] > green[0] + 5
    assert artist.complaints == []


def test_every_template_has_its_picture_in_the_dialog(artist: Artist) -> None:
    artist.page.locator(".templates-tab-button").click()
    artist.page.locator(".p-dialog").get_by_text("scp-diff", exact=True).click()
    for path in WORKFLOWS:
        card = artist.page.locator(f'[data-testid="template-workflow-{path.stem}"]')
        card.scroll_into_view_if_needed()
        picture = card.locator("img").first
        picture.wait_for()
        size = "image => image.complete && image.naturalWidth && [image.naturalWidth, image.naturalHeight]"
        shown = artist.page.wait_for_function(size, arg=picture.element_handle()).json_value()
        # The page shows one of its own where a template has none.
        with Image.open(path.with_suffix(".jpg")) as own:
            assert tuple(shown) == own.size
    artist.picture("templates")
    assert artist.complaints == []
