"""Every template of the pack, chosen in the real dialog and run by the real button."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from artist import Artist
from layout import ROOT
from PIL import Image

WORKFLOWS = sorted((ROOT / "example_workflows").glob("*.json"))
# Kept small, as in tests/host: a step at this size takes a tenth of a second.
WIDTH, HEIGHT, STEPS = 256, 128, 4


def types_of(path: Path) -> list[str]:
    return [node["type"] for node in json.loads(path.read_text(encoding="utf-8"))["nodes"]]


LARGEST = max(WORKFLOWS, key=lambda path: len(types_of(path)))
# Nodes that show a picture in themselves when they have run.
SHOWING = {
    *("SaveImage", "PreviewImage", "SCPLabelsFromImage", "SCPPreviewLabels", "SCPPriorLatent"),
    *("SCPReduceStatistics",),
}


def shrink(artist: Artist) -> None:
    artist.set("", width=WIDTH, height=HEIGHT)
    artist.set("", steps=STEPS)


def opens_and_runs(artist: Artist, path: Path, kind: str = "") -> None:
    artist.open_template(path.stem)
    assert artist.missing() == []
    assert artist.page.evaluate("app.graph.nodes.map(node => node.type).sort()") == sorted(types_of(path))
    artist.fit()
    artist.picture(f"{path.stem}{kind}-opened")
    shrink(artist)
    end = artist.run()
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
