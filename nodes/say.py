"""Telling the artist what was done: in the node, and in the log."""

from __future__ import annotations

import logging
import sys

from comfy_api.latest import io

_log = logging.getLogger("scp-diff")


def say(node: type[io.ComfyNode], text: str, *, warn: bool = False) -> None:
    """Show `text` inside the running node, and log it (as a warning where the picture may suffer)."""
    _log.log(logging.WARNING if warn else logging.INFO, "[SCP-Diff] %s: %s", node.__name__, text.replace("\n", "; "))
    # Not imported: a host may run graphs without its server, and importing it there would start half of one.
    module = sys.modules.get("server")
    server = getattr(getattr(module, "PromptServer", None), "instance", None)
    if server is not None and node.hidden is not None and node.hidden.unique_id is not None:
        server.send_progress_text(text, node.hidden.unique_id)
