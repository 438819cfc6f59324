"""Combos, which ComfyUI 0.3.75 does not check itself for V3 nodes."""

from __future__ import annotations

from collections.abc import Iterable


def check_choice(what: str, given: str | None, options: Iterable[str]) -> bool | str:
    """For `validate_inputs`: True where `given` is an option (or is None: wired, and known only later), else words."""
    options = tuple(options)
    if given is None or given in options:
        return True
    return f"There is no {what} '{given}'. Choose one of: {', '.join(options)}."
