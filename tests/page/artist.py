"""What an artist does in ComfyUI's page, done by a real browser; and what the page complains of meanwhile."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from playwright.sync_api import BrowserContext, ConsoleMessage, Locator, Page, Request, Response, Route
from playwright.sync_api import TimeoutError as PageTimeout

SCREENSHOTS = Path(__file__).resolve().parent / "screenshots"
# Nodes the page makes by itself, without the host knowing them.
PAGES_OWN = ("MarkdownNote", "Note", "PrimitiveNode", "Reroute")
# The page opens a graph of its own last of all.
READY = """() => window.app?.graph && window.app.extensionManager && window.LiteGraph
    && Object.keys(LiteGraph.registered_node_types).length > 100
    && app.extensionManager.workflow.activeWorkflow && app.graph.nodes.length
    && !document.querySelector('.p-blockui-mask, #splash-loader')"""
# What front end 1.32.9 complains of on any machine without a network, whatever packs are there.
HARMLESS = {
    r"/user\.css\b": "users may have a style sheet of their own; these have none",
    r"/api/userdata\b": "files that are there once a user has saved something",
    r"/templates/index(\.\w+)?\.json|core workflow templates|Localized templates for": "the host's own templates are "
    "a package that is not installed",
    r"/extensions/scp-diff/docs/\w+/\w+\.md": "a help page is asked for in the language first, then without",
    r"api\.comfy\.org": "not to be reached from here",
    r"Missing required properties for pan/zoom": "the mask editor, before it has measured its picture",
    r"reading 'id'\)\s+at onChange": "the page's own settings, stored before they are declared",
}


def harmless(complaint: str) -> bool:
    """Whether a complaint is one every page makes here."""
    return any(re.search(pattern, complaint) for pattern in HARMLESS)


class Artist:
    """A page of the host and somebody in front of it.

    Attributes:
        page: playwright's page, for what is not an act of everybody's.
        vue: whether the page draws its nodes as Nodes 2.0.
        complaints: errors and warnings of the console, exceptions, and answers of 400 and more, harmless ones aside.
    """

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.url, self.vue, self.complaints = url, False, list[str]()
        self.page: Page = context.new_page()
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self._complain(f"exception: {error}"))
        self.page.on("response", self._answered)
        self.page.route("**/*", self._fence)
        self.page.goto(url, wait_until="domcontentloaded")
        self.page.wait_for_function(READY, timeout=90_000)
        self.vue = self.page.evaluate("app.extensionManager.setting.get('Comfy.VueNodes.Enabled')")

    def _complain(self, text: str) -> None:
        if not harmless(text):
            self.complaints.append(text[:600])

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self._complain(f"{message.type}: {message.text} ({message.location.get('url', '')})")

    def _answered(self, response: Response) -> None:
        if response.status >= 400:
            self._complain(f"HTTP {response.status} {response.request.method} {response.url}")

    def _fence(self, route: Route, request: Request) -> None:
        # The page may speak to the server under test and to nobody else.
        if request.url.startswith((self.url, "data:", "blob:")):
            route.continue_()
        else:
            route.abort()

    # The page

    def picture(self, name: str) -> None:
        """Keep a screenshot, for people to look at."""
        SCREENSHOTS.mkdir(exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png")

    def settle(self) -> None:
        """Wait until the page has drawn what it knows: two frames, since the first may have been under way."""
        self.page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def until(self, act: Callable[[], Any], seen: Locator) -> None:
        """Do something until its effect is seen: on a busy machine clicks come too far apart, or at an old drawing."""
        for _ in range(3):
            act()
            with contextlib.suppress(PageTimeout):
                seen.wait_for(timeout=10_000)
                return
        seen.wait_for()

    def dialog(self) -> str:
        """Wait for a dialog and return its text."""
        box = self.page.locator(".p-dialog:visible").last
        box.wait_for()
        return box.inner_text()

    def dismiss(self) -> None:
        """Close whatever dialog is open."""
        self.page.keyboard.press("Escape")
        self.page.wait_for_function("() => !document.querySelector('.p-dialog')")

    # Graphs

    def open_template(self, name: str) -> None:
        """Choose a template of this pack in the Templates dialog."""
        page, before = self.page, self.page.evaluate("app.graph.id")
        page.locator(".templates-tab-button").click()
        page.locator(".p-dialog").get_by_text("scp-diff", exact=True).click()
        page.locator(f'[data-testid="template-workflow-{name}"]').click()
        page.wait_for_function(
            """([name, before]) => app.extensionManager.workflow.activeWorkflow?.filename === name
                && app.graph.id !== before && app.graph.nodes.length > 0""",
            arg=[name, before],
        )
        page.wait_for_function("() => !document.querySelector('.p-dialog')")

    def drop(self, graph: Mapping[str, Any], name: str = "dropped.json") -> None:
        """Drop a saved workflow onto the canvas, and wait until it is open."""
        self.page.evaluate(
            """([name, text]) => {
                const transfer = new DataTransfer(), canvas = document.querySelector('#graph-canvas')
                transfer.items.add(new File([text], name, { type: 'application/json' }))
                const { x, y, width, height } = canvas.getBoundingClientRect()
                for (const type of ['dragenter', 'dragover', 'drop'])
                    canvas.dispatchEvent(new DragEvent(type, { bubbles: true, cancelable: true,
                        dataTransfer: transfer, clientX: x + width / 2, clientY: y + height / 2 }))
            }""",
            [name, json.dumps(graph)],
        )
        self.page.wait_for_function("(id) => app.graph.id === id", arg=graph["id"])

    def missing(self) -> list[str]:
        """Return the types of nodes in the open graph that the page does not know."""
        types = self.page.evaluate(
            """() => {
                const saved = app.graph.serialize(), inside = saved.definitions?.subgraphs ?? []
                const own = new Set(inside.map(subgraph => subgraph.id))
                const nodes = [saved, ...inside].flatMap(graph => graph.nodes)
                return nodes.map(node => node.type).filter(
                    type => !LiteGraph.registered_node_types[type] && !own.has(type))
            }"""
        )
        return sorted(set(types) - set(PAGES_OWN))

    def clear(self) -> None:
        """Empty the open graph."""
        self.page.evaluate("app.graph.clear()")

    def add(self, kind: str, place: tuple[int, int] = (200, 200)) -> int:
        """Add a node and return its id."""
        return self.page.evaluate(
            """([kind, place]) => {
                const node = LiteGraph.createNode(kind)
                node.pos = place
                app.graph.add(node)
                return node.id
            }""",
            [kind, list(place)],
        )

    def connect(self, source: int, output: int, target: int, name: str) -> None:
        """Lead an output to an input of another node."""
        self.page.evaluate(
            """([source, output, target, name]) => {
                const end = app.graph.getNodeById(target)
                app.graph.getNodeById(source).connect(output, end, end.findInputSlot(name))
            }""",
            [source, output, target, name],
        )

    def find(self, words: str) -> int:
        """Double-click on the canvas, type, and take the first node that is offered; return its id."""
        canvas, known = self.page.locator("#graph-canvas"), self.page.evaluate("app.graph.nodes.map(node => node.id)")
        box = canvas.bounding_box()
        field = self.page.locator(".comfy-vue-node-search-container input:visible").first
        self.until(lambda: canvas.dblclick(position={"x": box["width"] / 2, "y": box["height"] / 3}), field)
        field.press_sequentially(words)
        self.page.locator(".p-autocomplete-option", has_text=words).first.wait_for()
        self.picture(f"search-{words.split()[0].lower()}")
        self.page.keyboard.press("Enter")
        found = self.page.wait_for_function(
            "known => app.graph.nodes.find(node => !known.includes(node.id))?.id ?? null", arg=known
        )
        return found.json_value()

    def select(self, node: int) -> None:
        """Bring a node to the middle of the view, clear of panels at its sides, and click on its title."""
        x, y = self.page.evaluate(
            """(id) => {
                const { pos } = app.graph.getNodeById(id), view = app.canvas.canvas.getBoundingClientRect()
                const [left, top] = [view.width / 2, view.height / 4]
                app.canvas.ds.scale = 1
                app.canvas.ds.offset = [left - pos[0], top - pos[1]]
                app.canvas.setDirty(true, true)
                return [view.x + left + 60, view.y + top - LiteGraph.NODE_TITLE_HEIGHT / 2]
            }""",
            node,
        )
        self.settle()
        self.page.mouse.click(x, y)

    def set(self, kind: str, **values: Any) -> None:
        """Set widgets on every node of a kind ("" = any that has all of them), in subgraphs too, as typing would."""
        self.page.evaluate(
            """([kind, values]) => {
                const all = graph => graph.nodes.flatMap(node => node.subgraph ? all(node.subgraph) : [node])
                for (const node of all(app.graph)) {
                    const widgets = Object.keys(values).map(name => node.widgets?.find(one => one.name === name))
                    if ((kind && node.type !== kind) || widgets.some(one => !one)) continue
                    for (const widget of widgets) {
                        widget.value = values[widget.name]
                        widget.callback?.(widget.value, app.canvas, node)
                    }
                }
            }""",
            [kind, values],
        )

    def fit(self, nodes: Sequence[int] = ()) -> None:
        """Bring the graph that is shown, or some of its nodes, to fill the view."""
        self.page.evaluate(
            """(ids) => {
                const { graph } = app.canvas
                app.canvas.deselectAll()
                const boxes = (ids.length ? ids.map(id => graph.getNodeById(id)) : graph.nodes)
                    .map(node => node.boundingRect)
                const left = Math.min(...boxes.map(b => b[0])), top = Math.min(...boxes.map(b => b[1]))
                const right = Math.max(...boxes.map(b => b[0] + b[2]))
                const bottom = Math.max(...boxes.map(b => b[1] + b[3]))
                const view = app.canvas.canvas.getBoundingClientRect(), menu = 150, margin = 110
                const scale = Math.min((view.width - 2 * margin) / (right - left),
                    (view.height - menu - margin) / (bottom - top), 1.5)
                app.canvas.ds.scale = scale
                app.canvas.ds.offset = [margin / scale - left, menu / scale - top]
                app.canvas.setDirty(true, true)
            }""",
            list(nodes),
        )
        self.settle()

    # Runs

    def press_run(self) -> None:
        """Click the Run button, having started to listen."""
        self.page.evaluate(
            """() => {
                window.scpRun = { shown: {}, end: null }
                const run = window.scpRun
                app.api.addEventListener('executed', ({ detail }) => {
                    if (detail.output?.images?.length) run.shown[detail.display_node ?? detail.node] = detail.output
                })
                for (const kind of ['execution_success', 'execution_error', 'execution_interrupted'])
                    app.api.addEventListener(kind, ({ detail }) => {
                        run.end ??= { kind, node: detail.node_id, type: detail.node_type,
                                      message: detail.exception_message ?? '' }
                    })
            }"""
        )
        self.page.locator('[data-testid="queue-button"] button').first.click()

    def run(self, seconds: float = 60) -> dict[str, Any]:
        """Run the graph to its end; return the page's last event: kind, and where it failed: node, type, message.

        What is refused before it runs has kind "refused", and the dialog's text for a message.
        """
        self.press_run()
        self.page.wait_for_function(
            "() => window.scpRun.end || document.querySelector('.p-dialog')", timeout=seconds * 1000
        )
        return self.page.evaluate("window.scpRun.end") or {"kind": "refused", "message": self.dialog()}

    def shown(self) -> dict[str, list[tuple[int, int]]]:
        """Wait until every node with pictures has those of the last run; return {node type: their sizes}."""
        look = (
            """id => [...document.querySelectorAll(`[data-node-id="${id}"] img`)]"""
            if self.vue
            else "id => app.graph.getNodeById(id)?.imgs ?? []"
        )
        # A node inside a subgraph, "1:2", is drawn only where that is open.
        found = self.page.wait_for_function(
            f"""() => {{
                const pictures = {look}, found = {{}}
                for (const [id, {{ images }}] of Object.entries(window.scpRun.shown)) {{
                    if (id.includes(':')) continue
                    const names = images.map(one => one.filename)
                    const there = pictures(id).filter(one => one.complete && one.naturalWidth
                        && names.includes(new URL(one.src).searchParams.get('filename')))
                    if (!there.length) return null
                    found[app.graph.getNodeById(id).type] = there.map(one => [one.naturalWidth, one.naturalHeight])
                }}
                return found
            }}"""
        )
        self.settle()
        return found.json_value()

    def made(self, kind: str) -> bytes:
        """Return the first picture that the node of a kind shows, as the host serves it."""
        find = "kind => app.graph.nodes.find(node => node.type === kind).imgs[0].src"
        return self.page.request.get(self.page.evaluate(find, kind)).body()

    # Help, and languages

    def help(self, node: int) -> str:
        """Open the help of a node by the button over it; return the heading of what is shown."""
        self.select(node)
        self.page.locator('[data-testid="info-button"]').first.click()
        heading = self.page.locator(".node-help-content h1")
        heading.wait_for()
        return heading.inner_text()

    def close_help(self) -> None:
        """Go back from a help page."""
        self.page.locator(".node-help-content").locator("xpath=..").locator("button").first.click()
        self.page.locator(".node-help-content").wait_for(state="detached")

    def speak(self, language: str) -> None:
        """Choose the page's language, and press R, which names the nodes anew.

        The page does that itself, but front end 1.32.9 does not wait until it knows the words.
        """
        self.page.evaluate("(language) => app.extensionManager.setting.set('Comfy.Locale', language)", language)
        self.page.wait_for_function(
            """(language) => document.getElementById('vue-app').__vue_app__
                .config.globalProperties.$i18n.locale === language""",
            arg=language,
        )
        self.page.evaluate("app.extensionManager.command.execute('Comfy.RefreshNodeDefinitions')")
