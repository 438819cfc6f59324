"""Menus of class names follow the palette, opened by real clicks, in both renderers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator

import pytest
from artist import READY, Artist
from conftest import VIEW, settings_of
from layout import ROOT
from menus import choose, opened, value

from scp_prior.classes import table
from scp_prior.naming import names_of

CITYSCAPES, ADE20K = (list(names_of(table(name))) for name in ("cityscapes", "ade20k"))


@pytest.fixture(scope="module", params=[False, True], ids=["canvas", "nodes2"])
def page_of(server, browser, request) -> Iterator[Artist]:
    """An artist in front of the page, with nodes drawn either way; one page, as they take long to load."""
    context = browser.new_context(viewport=VIEW)
    context.add_init_script("localStorage.setItem('vueNodesBannerDismissed', 'true')")
    with settings_of(server, context, {"Comfy.VueNodes.Enabled": request.param}):
        yield Artist(context, server.url)
    context.close()


@pytest.fixture
def artist(page_of) -> Artist:
    """The same artist, in front of an empty graph."""
    page_of.page.evaluate("app.canvas.setGraph(app.graph)")
    page_of.clear()
    page_of.complaints.clear()
    return page_of


def show(artist: Artist) -> None:
    """Bring all nodes into view; only what was drawn once knows how large it is."""
    artist.page.evaluate("app.canvas.setDirty(true, true)")
    artist.settle()
    artist.fit()


def add(artist: Artist, kind: str, **wires: int) -> int:
    """Add a node to the right of the others, its inputs wired from the first output of these."""
    place = 350 * artist.page.evaluate("app.graph.nodes.length")
    node = artist.add(kind, (place, 100))
    artist.page.evaluate(
        """([id, wires]) => {
            const node = app.graph.getNodeById(id)
            for (const [name, origin] of Object.entries(wires))
                app.graph.getNodeById(origin).connect(0, node, name === '*' ? 0 : node.findInputSlot(name))
        }""",
        [node, wires],
    )
    show(artist)
    return node


def offered(artist: Artist, node: int, widget: str = "class_name") -> list[str]:
    """What a combo offers; it is closed again, by choosing what it has."""
    entries = opened(artist, node, widget)
    names = [text.strip() for text in entries.all_inner_texts()]
    entries.nth(names.index(value(artist, node, widget))).click()
    entries.first.wait_for(state="hidden")
    return names


def test_a_menu_offers_exactly_the_classes_of_the_palette_on_its_node(artist: Artist) -> None:
    paint = add(artist, "SCPPaintLabels")
    assert offered(artist, paint) == ADE20K
    choose(artist, paint, "palette", "cityscapes")
    assert offered(artist, paint) == CITYSCAPES
    assert value(artist, paint, "class_name") == "sky"
    choose(artist, paint, "palette", "coco-stuff")
    assert value(artist, paint, "class_name") == "sky-other"
    choose(artist, paint, "palette", "cityscapes")
    choose(artist, paint, "class_name", "rider")
    choose(artist, paint, "palette", "ade20k")
    # There is no rider in ADE20K.
    assert value(artist, paint, "class_name") == ADE20K[0]
    assert offered(artist, paint) == ADE20K
    assert artist.complaints == []


def test_wired_labels_have_the_last_word_however_far_up(artist: Artist) -> None:
    base = add(artist, "SCPPaintLabels")
    car = add(artist, "SCPPaintLabels", labels=base)
    way = add(artist, "Reroute", **{"*": car})
    mask = add(artist, "SCPMaskFromLabels", labels=way)
    assert offered(artist, mask) == ADE20K
    choose(artist, base, "palette", "cityscapes")
    assert offered(artist, car) == offered(artist, mask) == CITYSCAPES
    # Its own palette is not used now, and leaves the class alone.
    choose(artist, car, "class_name", "rider")
    choose(artist, car, "palette", "coco-stuff")
    assert value(artist, car, "class_name") == "rider"
    assert offered(artist, car) == CITYSCAPES
    artist.picture(f"class-menus-{'nodes2' if artist.vue else 'canvas'}")
    assert artist.complaints == []


def test_after_a_run_the_classes_of_the_map_come_first(artist: Artist) -> None:
    base = add(artist, "SCPPaintLabels")
    # Another class in each renderer: what it still has from before the host does not make again.
    made = "car" if artist.vue else "truck"
    choose(artist, base, "palette", "cityscapes")
    choose(artist, base, "class_name", made)
    add(artist, "SCPPreviewLabels", labels=base)
    mask = add(artist, "SCPMaskFromLabels", labels=base)
    assert artist.run()["kind"] == "execution_success"
    assert offered(artist, mask) == [made, *(name for name in CITYSCAPES if name != made)]
    assert artist.shown().keys() == {"SCPPreviewLabels"}
    assert artist.complaints == []


def test_auto_is_named_by_a_run(artist: Artist, base) -> None:
    name = f"street-{1 + artist.vue}.png"
    shutil.copy(ROOT / "demo" / "maps" / name, base / "input" / name)
    read = add(artist, "SCPLabelsFromImage", image=add(artist, "LoadImage"))
    artist.set("LoadImage", image=name)
    artist.set("SCPLabelsFromImage", palette="auto")
    add(artist, "SCPPreviewLabels", labels=read)
    mask = add(artist, "SCPMaskFromLabels", labels=read)
    assert {*CITYSCAPES, *ADE20K} < set(offered(artist, mask))
    assert artist.run()["kind"] == "execution_success"
    names = offered(artist, mask)
    assert sorted(names) == sorted(CITYSCAPES)
    assert names[0] == "road"
    assert artist.complaints == []


def test_a_saved_graph_keeps_its_classes_and_r_keeps_the_menus(artist: Artist) -> None:
    paint = add(artist, "SCPPaintLabels")
    choose(artist, paint, "palette", "cityscapes")
    choose(artist, paint, "class_name", "rider")
    # Whatever somebody typed into the file stays, too.
    saved = json.loads(json.dumps(artist.page.evaluate("app.graph.serialize()")))
    saved["id"] = "00000000-0000-4000-8000-000000000001"
    saved["nodes"].append(json.loads(json.dumps(saved["nodes"][0])) | {"id": 99, "pos": [500, 100]})
    saved["nodes"][1]["widgets_values"][1] = "Traffic-Light"
    saved["last_node_id"] = 99
    artist.clear()
    artist.drop(saved)
    show(artist)
    for _ in range(2):
        assert value(artist, paint, "class_name") == "rider"
        assert value(artist, 99, "class_name") == "Traffic-Light"
        assert offered(artist, paint) == CITYSCAPES
        artist.page.evaluate("app.refreshComboInNodes()")
    add(artist, "SCPPreviewLabels", labels=99)
    assert artist.run()["kind"] == "execution_success"
    assert artist.complaints == []


def test_masks_and_their_background(artist: Artist) -> None:
    node = add(artist, "SCPLabelsFromMasks")
    choose(artist, node, "palette", "cityscapes")
    assert value(artist, node, "background") == "unlabelled"
    assert offered(artist, node, "background") == CITYSCAPES
    assert artist.complaints == []


@pytest.mark.parametrize(
    ("within", "made"),
    [("SCPMaskFromLabels", ("bus", "train")), ("SCPPaintLabels", ("wall", "fence"))],
    ids=["mask-within", "paint-within"],
)
def test_into_and_out_of_a_subgraph(artist: Artist, within: str, made: tuple[str, str]) -> None:
    base = add(artist, "SCPPaintLabels")
    choose(artist, base, "palette", "cityscapes")
    choose(artist, base, "class_name", made[artist.vue])
    add(artist, "SCPMaskFromLabels", labels=base)
    add(artist, "SCPPreviewLabels", labels=base)
    artist.page.evaluate(
        """(kind) => {
            const node = app.graph.nodes.find(one => one.type === kind)
            window.inner = app.graph.convertToSubgraph(new Set([node])).subgraph
        }""",
        within,
    )
    # Any key will do: it is what a menu is opened with.
    menu = """() => {
        document.dispatchEvent(new KeyboardEvent('keydown', { key: 'Shift' }))
        const mask = [...window.inner.nodes, ...app.graph.nodes].find(node => node.type === 'SCPMaskFromLabels')
        return mask.widgets.find(widget => widget.name === 'class_name').options.values.slice()
    }"""
    assert artist.page.evaluate(menu) == CITYSCAPES
    assert artist.run()["kind"] == "execution_success"
    assert artist.page.evaluate(menu)[:2] == [made[artist.vue], CITYSCAPES[0]]


def test_without_the_pages_part_the_menu_offers_every_class(browser, server) -> None:
    context = browser.new_context()
    artist = Artist(context, server.url)
    nothing = {"body": "", "content_type": "text/javascript"}
    artist.page.route("**/class_menus.js", lambda route: route.fulfill(**nothing))
    artist.page.reload()
    artist.page.wait_for_function(READY)
    artist.clear()
    paint = artist.add("SCPPaintLabels")
    artist.set("SCPPaintLabels", palette="cityscapes", class_name="rider")
    values = "(id) => app.graph.getNodeById(id).widgets.find(one => one.name === 'class_name').options.values"
    assert {*ADE20K, *CITYSCAPES} <= set(artist.page.evaluate(values, paint))
    add(artist, "SCPPreviewLabels", labels=paint)
    assert artist.run()["kind"] == "execution_success"
    # The page says once that it has nobody for the pack's own event.
    assert all("scp-diff.labels" in complaint for complaint in artist.complaints)
    context.close()
