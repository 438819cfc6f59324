"""Telling the artist what was done: in the node, and in the log."""

from __future__ import annotations

import logging
import sys
from typing import Any

from comfy_api.latest import io

_log = logging.getLogger("scp-diff")


def say(node: type[io.ComfyNode], text: str, *, warn: bool = False) -> None:
    """Show `text` inside the running node, and log it (as a warning where the picture may suffer)."""
    _log.log(logging.WARNING if warn else logging.INFO, "[SCP-Diff] %s: %s", node.__name__, text.replace("\n", "; "))
    server = _server_showing(node)
    if server is not None:
        server.send_progress_text(text, node.hidden.unique_id)


def tell_page(node: type[io.ComfyNode], event: str, **what: Any) -> None:
    """Send the pack's own script in the page that queued the graph an event about the running node."""
    server = _server_showing(node)
    if server is not None and server.client_id is not None:
        server.send_sync(event, {"node": node.hidden.unique_id, **what}, server.client_id)


def _server_showing(node: type[io.ComfyNode]) -> Any:
    # Not imported: a host may run graphs without its server, and importing it there would start half of one.
    module = sys.modules.get("server")
    server = getattr(getattr(module, "PromptServer", None), "instance", None)
    return server if node.hidden is not None and node.hidden.unique_id is not None else None
