"""Menus of nodes, opened by real clicks, however the page draws them."""

from __future__ import annotations

from typing import Any

from artist import Artist


def value(artist: Artist, node: int, widget: str) -> Any:
    return artist.page.evaluate(
        "([id, name]) => app.graph.getNodeById(id).widgets.find(one => one.name === name).value", [node, widget]
    )


def opened(artist: Artist, node: int, widget: str):
    """Click on a combo; return the entries of the menu that opens."""
    artist.settle()
    if artist.vue:
        row = artist.page.locator(f'[data-node-id="{node}"] .lg-node-widget', has_text=widget)
        entries = artist.page.locator(".p-select-option")
        artist.until(row.locator(".p-select").click, entries.first)
    else:
        x, y = artist.page.evaluate(
            """([id, name]) => {
                const node = app.graph.getNodeById(id), { scale, offset } = app.canvas.ds
                const widget = node.widgets.find(one => one.name === name)
                const { x, y } = app.canvas.canvas.getBoundingClientRect()
                return [x + (node.pos[0] + node.size[0] / 2 + offset[0]) * scale,
                        y + (node.pos[1] + widget.y + 10 + offset[1]) * scale]
            }""",
            [node, widget],
        )
        entries = artist.page.locator(".litecontextmenu .litemenu-entry")
        artist.until(lambda: artist.page.mouse.click(x, y), entries.first)
    return entries


def choose(artist: Artist, node: int, widget: str, wanted: str) -> None:
    entries = opened(artist, node, widget)
    names = [text.strip() for text in entries.all_inner_texts()]
    entries.nth(names.index(wanted)).click()
    entries.first.wait_for(state="hidden")
    assert value(artist, node, widget) == wanted
