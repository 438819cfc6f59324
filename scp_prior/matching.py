"""Do these labels belong to these statistics?"""

from __future__ import annotations

from torch import Tensor

from .classes import ANY, ClassTable, palette, palettes, tables
from .classes import table as built_in_table
from .conversion import conversion, converts
from .errors import SCPError
from .labels import class_shares, convert_labels
from .statistics import Statistics


def labels_for(statistics: Statistics, labels: Tensor, table: ClassTable) -> Tensor:
    """Labels in the ids the statistics use.

    Args:
        statistics: whose palette, data set or class names say which ids those are.
        labels: (B, H, W) int64 in the ids of `table`; a user's own table is known by the names of its classes.

    Returns:
        (B, H, W) int64; `labels` itself where the ids are the same (or the file does not say).

    Raises:
        SCPError: the labels are of another data set, or classes in them have a name it does not know.
    """
    wanted = table_of(statistics)
    if table.name in (wanted, ANY):
        return labels
    if wanted is not None:
        if wanted in table.convert_to:
            return convert_labels(labels, table, wanted)
        known = built_in_table(wanted)
        if table.name not in tables() and converts(table, known):
            _require_all_known(statistics, labels, table, known)
            return convert_labels(labels, table, known)
        raise SCPError(
            f"The label map was read as {table.name}, but {statistics.name} holds statistics of {wanted}. "
            f"Choose a {wanted} palette in SCP Labels From Image, or load statistics of {table.dataset}."
        )
    _require_same_names(statistics, table)
    return labels


def table_of(statistics: Statistics) -> str | None:
    """Name of the class table the statistics use, or None where it is the user's own."""
    name = statistics.metadata.get("palette", "")
    if name in palettes():
        return palette(name).table.name
    return statistics.dataset if statistics.dataset in tables() else None


def _require_all_known(statistics: Statistics, labels: Tensor, table: ClassTable, known: ClassTable) -> None:
    there = conversion(table, known)
    others = [f"'{table.name_of(class_id)}'" for class_id in class_shares(labels) if class_id not in there]
    if others:
        raise SCPError(
            f"{known.name}, which {statistics.name} holds statistics of, has no class called {', '.join(others[:5])}"
            f"{' ...' if len(others) > 5 else ''}. Give them the names of its classes in {table.name}, or load "
            "statistics of your own classes."
        )


def _require_same_names(statistics: Statistics, table: ClassTable) -> None:
    differ = [
        f"{class_id} is '{table.names[class_id]}' in the label map and '{name}' in the statistics"
        for class_id, name in statistics.class_names.items()
        if class_id in table.names and table.names[class_id].casefold() != name.casefold()
    ]
    if differ:
        raise SCPError(
            f"The label map ({table.name}) and {statistics.name} number their classes differently: "
            f"{'; '.join(differ[:3])}{' ...' if len(differ) > 3 else ''}. Choose the palette these statistics were "
            "made with."
        )
