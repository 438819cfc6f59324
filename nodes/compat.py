"""What newer hosts can do and older ones cannot."""

from __future__ import annotations

import dataclasses
from typing import Any

from comfy_api.latest import io

_SCHEMA_KEYWORDS = frozenset(field.name for field in dataclasses.fields(io.Schema))


def search_aliases(*aliases: str) -> dict[str, Any]:
    """Keyword arguments for `io.Schema`; empty on a host that would lose the whole pack over them."""
    return {"search_aliases": list(aliases)} if "search_aliases" in _SCHEMA_KEYWORDS else {}


def with_extra(port: io.Input, **extra: Any) -> Any:
    """The input, with more in what the page is told of it; older hosts have no keyword for that on every kind."""
    port.extra_dict = {**(getattr(port, "extra_dict", None) or {}), **extra}
    return port
