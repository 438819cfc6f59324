"""The blueprint: found by its name among the nodes, dropped as one node, wired by two wires, run."""

from __future__ import annotations

import json

import pytest
from artist import Artist
from layout import ROOT

NAME = "Segmentation to Image (SCP-Diff)"
PATH = ROOT / "subgraphs" / f"{NAME}.json"


def dropped(artist: Artist) -> int:
    """The blueprint between Load Image and Save Image; its id."""
    artist.clear()
    node = artist.find("Segmentation to Image")
    x, y = artist.page.evaluate("id => [...app.graph.getNodeById(id).pos]", node)
    load, save = artist.add("LoadImage", (x - 360, y)), artist.add("SaveImage", (x + 500, y))
    artist.set("LoadImage", image="cityscapes_labels.png")
    artist.connect(load, 0, node, "segmentation")
    artist.connect(node, 0, save, "images")
    return node


@pytest.mark.parametrize("vue", [False, True], ids=["nodes1", "nodes2"])
def test_a_beginner_drops_one_node_and_gets_a_picture(open_page, vue: bool) -> None:
    artist: Artist = open_page(vue=vue)
    node = dropped(artist)
    assert artist.missing() == []
    shown = artist.page.evaluate("id => app.graph.getNodeById(id).widgets.map(widget => widget.label)", node)
    assert shown == [
        *("ckpt_name", "control_net_name", "statistics", "palette", "text"),
        *("seed", "control after generate", "class_strength", "timestep", "cfg"),
    ]
    artist.set("", width=256, height=128)
    artist.set("", steps=4)
    end = artist.run()
    assert end["kind"] == "execution_success", end
    assert artist.shown()["SaveImage"] == [[256, 128]]
    artist.fit()
    artist.picture(f"blueprint-{'nodes2' if vue else 'nodes1'}")
    assert artist.complaints == []


def test_its_inside_is_laid_out_to_be_read(artist: Artist) -> None:
    node = dropped(artist)
    artist.page.evaluate(
        """id => {
            const node = app.graph.getNodeById(id)
            app.canvas.openSubgraph(node.subgraph, node)
        }""",
        node,
    )
    inside = json.loads(PATH.read_text(encoding="ascii"))["definitions"]["subgraphs"][0]
    artist.page.wait_for_function("count => app.canvas.graph.nodes.length === count", arg=len(inside["nodes"]))
    artist.fit()
    artist.picture("blueprint-inside")
    assert artist.complaints == []
