"""Combos of class names, which the page narrows to the classes at hand (web/class_menus.js).

Without the page's part they offer the classes of every palette, and whoever writes a graph by hand may write any name.
"""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..scp_prior.labels import class_shares
from ..scp_prior.naming import NO_CLASS, names_of
from .compat import with_extra
from .palettes import all_palettes
from .say import tell_page
from .wires import LabelMaps


def class_input(name: str, *, default: str, first: str, tooltip: str, **more: Any) -> io.Combo.Input:
    """A combo of class names.

    Args:
        first: the palette whose classes come first in the list.
        more: further arguments of `io.Combo.Input`.
    """
    tables, palettes = _tables()
    ordered = [tables[palettes[first]], *tables.values()]
    options = list(dict.fromkeys(class_name for names in ordered for class_name in names if class_name != NO_CLASS))
    combo = io.Combo.Input(name, options=[*options, NO_CLASS], default=default, tooltip=tooltip, **more)
    return with_extra(combo, scp_classes={"palettes": palettes, "tables": tables})


def tell_menus(node: type[io.ComfyNode], maps: LabelMaps) -> None:
    """Tell the page what the running node made, for the menus after it: palette, and the classes present."""
    table = maps.palette.table
    present = [table.name_of(class_id) for class_id in class_shares(maps.labels)]
    tell_page(node, "scp-diff.labels", palette=maps.palette.name, present=present)


def _tables() -> tuple[dict[str, list[str]], dict[str, str]]:
    """Class names of each table, and the table of each palette: palettes share tables, and this is sent to the page."""
    tables: dict[str, list[str]] = {}
    palettes: dict[str, str] = {}
    # A broken file of the user's is told of where it is used; a menu cannot.
    for palette in all_palettes()[0]:
        tables[palette.table.name] = list(names_of(palette.table))
        palettes[palette.name] = palette.table.name
    return tables, palettes
