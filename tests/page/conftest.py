"""A real ComfyUI with the demo's model and stand-ins, and a real browser on its page."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import demo_model
import demo_set
import graph_convert
import pytest
from artist import Artist
from comfy_server import Server
from layout import ROOT
from playwright.sync_api import Browser, sync_playwright
from setup_browser import setup_browser
from setup_host import make_base

WORKFLOWS = sorted((ROOT / "example_workflows").glob("*.json"))
# No GPU, no sandbox where tests run as root, and nothing of the browser's own that would speak to a network.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
VIEW = {"width": 1920, "height": 1200}

OpenPage = Callable[..., Artist]


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base directory of the tests' own."""
    return make_base(tmp_path_factory.mktemp("page") / "base")


@pytest.fixture(scope="session")
def server(base: Path) -> Iterator[Server]:
    """A running ComfyUI that has every file the templates name: the demo's, or a stand-in."""
    with Server(base, extra_nodes=[demo_model.install_nodes(base)]) as running:
        info = running.object_info()
        for workflow in WORKFLOWS:
            demo_set.prepare(graph_convert.load(workflow, info), base)
        yield running
        problems = running.log_problems()
    assert not problems, f"{problems}\n{running.log_text()[-8000:]}"


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A browser without a window."""
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=setup_browser(), headless=True, args=list(FLAGS))
        yield running
        running.close()


@contextlib.contextmanager
def settings_of(server: Server, context: Any, settings: Mapping[str, Any]) -> Iterator[None]:
    """The user's settings changed for a while; the host keeps them, so every page would see them."""
    before = context.request.get(f"{server.url}/api/settings").json()
    for name, value in settings.items():
        context.request.post(f"{server.url}/api/settings/{name}", data=json.dumps(value))
    try:
        yield
    finally:
        for name in settings:
            context.request.post(f"{server.url}/api/settings/{name}", data=json.dumps(before.get(name)))


@pytest.fixture
def open_page(server: Server, browser: Browser) -> Iterator[OpenPage]:
    """Call `open_page(vue=False, language="en", **settings)` for an Artist in a browser window of its own."""
    with contextlib.ExitStack() as stack:

        def open_page(*, vue: bool = False, language: str = "en", **settings: Any) -> Artist:
            context = stack.enter_context(browser.new_context(viewport=VIEW, locale="en-US"))
            # A banner over the page that recommends the other renderer.
            context.add_init_script("localStorage.setItem('vueNodesBannerDismissed', 'true')")
            # Far away, Nodes 2.0 draws empty boxes; pictures of whole graphs are to show what is in them.
            near = {"LiteGraph.Canvas.MinFontSizeForLOD": 0}
            wanted = {"Comfy.VueNodes.Enabled": vue, "Comfy.Locale": language, **near, **settings}
            stack.enter_context(settings_of(server, context, wanted))
            return Artist(context, server.url)

        yield open_page


@pytest.fixture
def artist(open_page: OpenPage) -> Artist:
    """An artist in front of the page as it is by default."""
    return open_page()
