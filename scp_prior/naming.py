"""Classes by name: what a menu offers, and which id a typed name means."""

from __future__ import annotations

from .classes import ClassTable, plain_name
from .errors import SCPError
from .ids import UNLABELLED

NO_CLASS = "unlabelled"
"""How id 255 is called in every table, also in those that have no row for it."""


def names_of(table: ClassTable) -> tuple[str, ...]:
    """Every name `id_named` knows in this table, in the order of the ids, without repeats; the last is `NO_CLASS`."""
    return tuple(dict.fromkeys((*(name for i, name in table.names.items() if i != UNLABELLED), NO_CLASS)))


def id_named(table: ClassTable, name: str) -> int:
    """Id to paint a class with, by its name: the first of `ids_named`.

    Raises:
        SCPError: no class has that name; the message lists the closest ones.
    """
    return ids_named(table, name)[0]


def ids_named(table: ClassTable, name: str) -> tuple[int, ...]:
    """Ids that a class may have in a map, by its name, see `ClassTable.ids_of`; "unlabelled" is 255 in every table.

    Raises:
        SCPError: no class has that name; the message lists the closest ones.
    """
    try:
        return table.ids_of(name)
    except SCPError:
        if plain_name(name) == NO_CLASS:
            return (UNLABELLED,)
        raise


def ids_of_lines(table: ClassTable, text: str) -> list[int | None]:
    """Ids of class names written one a line; None for a line that is "-". Empty lines are passed over.

    Raises:
        SCPError: a line is no class; the message says which line, and lists the closest classes.
    """
    ids: list[int | None] = []
    for number, line in enumerate(text.splitlines(), 1):
        name = line.strip()
        if not name:
            continue
        try:
            ids.append(None if name == "-" else id_named(table, name))
        except SCPError as error:
            raise SCPError(f"Line {number} of the classes: {error}") from None
    return ids
