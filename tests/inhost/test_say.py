"""What nodes tell the page."""

from __future__ import annotations

import sys
from types import SimpleNamespace


def test_the_page_is_shown_words_and_never_markup(host, monkeypatch):
    """The host's page puts what a node says into itself as HTML, and whoever shares a graph writes words in it."""
    shown = []
    server = SimpleNamespace(send_progress_text=lambda text, node_id: shown.append((text, node_id)))
    monkeypatch.setitem(sys.modules, "server", SimpleNamespace(PromptServer=SimpleNamespace(instance=server)))
    say = sys.modules[host.nodes["SCPRegionPrompts"].__module__.rpartition(".")[0]].say.say
    node = SimpleNamespace(__name__="node", hidden=SimpleNamespace(unique_id="7"))
    say(node, "sky: <lora:fog:1> & <img src=x onerror=alert(1)>\n< 0.1 %")
    assert shown == [("sky: &lt;lora:fog:1&gt; &amp; &lt;img src=x onerror=alert(1)&gt;\n&lt; 0.1 %", "7")]
