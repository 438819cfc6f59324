"""The palettes on offer, for every node that has a palette combo."""

from __future__ import annotations

from ..scp_prior.classes import ANY, Palette, any_ids, palettes
from ..scp_prior.classes import palette as built_in_palette


def palette_names() -> list[str]:
    """Names of every palette, as the combos show them."""
    return [*palettes(), ANY]


def get_palette(name: str) -> Palette:
    """A palette by the name a combo shows.

    Raises:
        SCPError: there is no such palette.
    """
    return any_ids() if name == ANY else built_in_palette(name)
