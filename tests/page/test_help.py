"""The help of every node, opened by its button; and how nodes are named in each language."""

from __future__ import annotations

import json

import pytest
from artist import Artist
from comfy_server import Server
from layout import ROOT

MODULE = "custom_nodes.scp-diff"


@pytest.fixture(scope="module")
def nodes(server: Server) -> dict[str, dict]:
    """The host's description of the pack's nodes."""
    return {name: told for name, told in server.object_info().items() if told["python_module"] == MODULE}


def test_every_node_has_help_behind_its_button(artist: Artist, nodes) -> None:
    assert nodes
    for name, told in nodes.items():
        artist.clear()
        heading = artist.help(artist.add(name))
        assert heading == told["display_name"]
        shown = artist.page.locator(".node-help-content").inner_text()
        for port in (*told["input_order"].get("required", ()), *told["input_order"].get("optional", ())):
            assert port in shown, f"{name}: {port}"
        for picture in artist.page.locator(".node-help-content img").all():
            artist.page.wait_for_function("image => image.complete && image.naturalWidth", arg=picture.element_handle())
        # A page wider than its panel would have to be scrolled sideways.
        assert artist.page.locator(".node-help-content").evaluate("box => box.scrollWidth <= box.clientWidth + 1"), name
        artist.picture(f"help-{name}")
        artist.close_help()
    assert artist.complaints == []


@pytest.fixture(scope="module")
def words() -> dict[str, dict]:
    """What the pack's locales/ say, {language: nodeDefs}."""
    return {
        path.parent.name: json.loads(path.read_text(encoding="utf-8"))
        for path in (ROOT / "locales").glob("*/nodeDefs.json")
    }


def named(artist: Artist) -> dict[str, str]:
    """{node id: title} of the pack's nodes, as a new node would be called."""
    titles = """module => Object.entries(LiteGraph.registered_node_types)
        .filter(([, node]) => node.nodeData?.python_module === module).map(([id, node]) => [id, node.title])"""
    return dict(artist.page.evaluate(titles, MODULE))


def wait_for_names(artist: Artist, words: dict[str, dict]) -> None:
    artist.page.wait_for_function(
        "words => Object.entries(words).every(([id, node]) => "
        "LiteGraph.registered_node_types[id].title === node.display_name)",
        arg=words,
    )
    assert named(artist) == {name: node["display_name"] for name, node in words.items()}


@pytest.mark.parametrize("language", ["zh", "ja"])
def test_nodes_speak_the_language_the_page_is_switched_to(artist: Artist, words, language: str) -> None:
    wait_for_names(artist, words["en"])
    artist.speak(language)
    wait_for_names(artist, words[language])
    artist.clear()
    node = artist.add("SCPPriorLatent")
    told = words[language]["SCPPriorLatent"]
    labels = artist.page.evaluate(
        """id => {
            const node = app.graph.getNodeById(id), text = slot => slot.label || slot.localized_name || slot.name
            return { inputs: Object.fromEntries(node.inputs.map(slot => [slot.name, text(slot)])),
                     widgets: Object.fromEntries(node.widgets.map(widget => [widget.name, widget.label])),
                     outputs: node.outputs.map(text) }
        }""",
        node,
    )
    expected = {name: port["name"] for name, port in told["inputs"].items()}
    assert {name: labels["inputs"][name] for name in expected} == expected
    assert {name: labels["widgets"][name] for name in expected if name in labels["widgets"]}.items() <= expected.items()
    assert labels["outputs"] == [port["name"] for port in told["outputs"].values()]
    artist.fit()
    artist.picture(f"language-{language}")
    artist.speak("en")
    wait_for_names(artist, words["en"])
    assert artist.complaints == []


def test_a_page_that_starts_in_chinese_has_the_packs_words(open_page, words) -> None:
    """Front end 1.32.9 loads the language after it has merged what packs say, and loses that."""
    artist = open_page(language="zh")
    artist.speak("zh")
    wait_for_names(artist, words["zh"])


def test_a_tooltip_is_in_the_pages_language(artist: Artist, words) -> None:
    artist.speak("zh")
    wait_for_names(artist, words["zh"])
    artist.clear()
    node = artist.add("SCPPriorLatent")
    artist.fit([node])
    place = artist.page.evaluate(
        """id => {
            const node = app.graph.getNodeById(id), widget = node.widgets.find(one => one.name === 'method')
            const [x, y] = app.canvas.ds.convertOffsetToCanvas([node.pos[0] + 60, node.pos[1] + widget.y + 10])
            const view = app.canvas.canvas.getBoundingClientRect()
            return [x + view.x, y + view.y]
        }""",
        node,
    )
    artist.page.mouse.move(place[0] - 3, place[1])
    artist.page.mouse.move(*place)
    tooltip = artist.page.locator(".node-tooltip")
    tooltip.wait_for()
    assert tooltip.inner_text() == words["zh"]["SCPPriorLatent"]["inputs"]["method"]["tooltip"]
    artist.picture("tooltip-zh")
