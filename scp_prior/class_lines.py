"""Text an artist writes with one class a line: "sky: storm clouds", "car: 0.5"."""

from __future__ import annotations

import re
from typing import NamedTuple

from .classes import ClassTable
from .errors import SCPError

# Whoever types Chinese or Japanese has the wide colon under the same key.
_COLON = re.compile("[:\uff1a]")


class ClassLine(NamedTuple):
    """One line: its number from 1, the class it names, that class's name in the table, and what stands after it."""

    number: int
    class_id: int
    name: str
    value: str


def class_lines(text: str, table: ClassTable, widget: str, example: str) -> list[ClassLine]:
    """Read "class: value", one a line; empty lines do not count.

    Args:
        table: whose names the classes go by; case, "-", "_" and blanks do not matter.
        widget: what the text was typed into, to begin a message with.
        example: a good line, to end one with.

    Returns:
        The lines in order, each of another class; the value is what follows the first colon, never empty.

    Raises:
        SCPError: a line has no colon, names no class or nothing after it, a class the table does not hold (the
            message names close ones), or one that an earlier line has named.
    """
    lines: list[ClassLine] = []
    first_of: dict[int, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        where = f"{widget}, line {number}"
        name, *rest = (part.strip() for part in _COLON.split(line, maxsplit=1))
        if not (name and rest and rest[0]):
            raise SCPError(f"{where}: '{line.strip():.60}' is not of the form 'class: ...'. Write e.g. '{example}'.")
        try:
            class_id = table.id_of(name)
        except SCPError as error:
            raise SCPError(f"{where}: {error}") from None
        if class_id in first_of:
            raise SCPError(
                f"{where}: {table.name_of(class_id)} is there twice, first in line {first_of[class_id]}. "
                "Give every class one line."
            )
        first_of[class_id] = number
        lines.append(ClassLine(number, class_id, table.name_of(class_id), rest[0]))
    return lines
