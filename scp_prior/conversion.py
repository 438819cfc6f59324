"""From the ids of one class table to those of another."""

from __future__ import annotations

from collections.abc import Mapping

from .classes import ANY, ClassTable, plain_name, tables
from .errors import SCPError
from .ids import UNLABELLED


def conversion(from_table: ClassTable, to_table: ClassTable) -> Mapping[int, int]:
    """Ids of one class table -> ids of another; an id that is missing has no counterpart there.

    Tables of one data set convert as the data set says. A user's own table converts by the names of its classes. Ids
    that nobody has named (`classes.any_ids`) are those of any table.

    Raises:
        SCPError: the two tables share no classes.
    """
    if ANY in (from_table.name, to_table.name) or from_table.name == to_table.name:
        any_id = to_table.name == ANY
        return {class_id: class_id for class_id in from_table.ids if any_id or class_id in to_table.names}
    if to_table.name in from_table.convert_to:
        return {**from_table.convert_to[to_table.name], UNLABELLED: UNLABELLED}
    own = [one.name for one in (from_table, to_table) if one.name not in tables()]
    mapping = _by_name(from_table, to_table) if own else {}
    if not mapping:
        possible = [from_table.name, *from_table.convert_to]
        why = f"no class of {own[0]} has the name of one of the other" if own else "the classes are different ones"
        raise SCPError(
            f"Labels of {from_table.name!r} cannot be turned into {to_table.name!r}: {why}. "
            f"Possible: {', '.join(possible)}."
        )
    return {**mapping, UNLABELLED: UNLABELLED}


def converts(from_table: ClassTable, to_table: ClassTable) -> bool:
    """Whether `conversion` has an answer."""
    try:
        conversion(from_table, to_table)
    except SCPError:
        return False
    return True


def _by_name(from_table: ClassTable, to_table: ClassTable) -> dict[int, int]:
    there = {plain_name(name): class_id for class_id, name in reversed(to_table.names.items())}
    return {
        class_id: there[plain_name(name)]
        for class_id, name in from_table.names.items()
        if class_id != UNLABELLED and there.get(plain_name(name), UNLABELLED) != UNLABELLED
    }
