"""Text an artist writes with one class a line: "sky: storm clouds", "car: 0.5"."""

from __future__ import annotations

import re
from collections.abc import Set
from typing import NamedTuple

from .classes import ClassTable, plain_name
from .errors import SCPError
from .naming import ids_named

# Whoever types Chinese or Japanese has the wide colon under the same key.
_COLON = re.compile("[:\uff1a]")


class ClassLine(NamedTuple):
    """One line: its number from 1, the ids of the class it names, its name in the table, and what stands after it."""

    number: int
    class_ids: tuple[int, ...]
    name: str
    value: str


def class_lines(text: str, table: ClassTable, widget: str, example: str) -> list[ClassLine]:
    """Read "class: value", one a line; empty lines do not count.

    Args:
        table: whose names the classes go by, see `naming.ids_named`; a name may have colons itself.
        widget: what the text was typed into, to begin a message with.
        example: a good line, to end one with.

    Returns:
        The lines in order, each of another class; the value is what follows the name and its colon, never empty.

    Raises:
        SCPError: a line has no colon, names no class or nothing after it, a class the table does not hold (the
            message names close ones), or one that an earlier line has named.
    """
    lines: list[ClassLine] = []
    first_of: dict[tuple[int, ...], int] = {}
    names = {plain_name(name) for name in table.names.values()}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        where = f"{widget}, line {number}"
        name, value = _parts(line, names)
        if not (name and value):
            raise SCPError(f"{where}: '{line.strip():.60}' is not of the form 'class: ...'. Write e.g. '{example}'.")
        try:
            ids = ids_named(table, name)
        except SCPError as error:
            raise SCPError(f"{where}: {error}") from None
        if ids in first_of:
            raise SCPError(
                f"{where}: {table.name_of(ids[0])} is there twice, first in line {first_of[ids]}. "
                "Give every class one line."
            )
        first_of[ids] = number
        lines.append(ClassLine(number, ids, table.name_of(ids[0]), value))
    return lines


def _parts(line: str, names: Set[str]) -> tuple[str, str]:
    """Before and after the colon that ends the longest class name; the first colon where none does."""
    parts = [(line[: colon.start()].strip(), line[colon.end() :].strip()) for colon in _COLON.finditer(line)]
    named = [part for part in parts if part[1] and plain_name(part[0]) in names]
    return [*named[-1:], *parts, ("", "")][0]
