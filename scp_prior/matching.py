"""Do these labels belong to these statistics?"""

from __future__ import annotations

from torch import Tensor

from .classes import ANY, ClassTable, palette, palettes, tables
from .errors import SCPError
from .labels import convert_labels
from .statistics import Statistics


def labels_for(statistics: Statistics, labels: Tensor, table: ClassTable) -> Tensor:
    """Labels in the ids the statistics use.

    Args:
        statistics: whose palette, data set or class names say which ids those are.
        labels: (B, H, W) int64 in the ids of `table`.

    Returns:
        (B, H, W) int64; `labels` itself where the ids are the same (or the file does not say).

    Raises:
        SCPError: the labels are of another data set.
    """
    wanted = table_of(statistics)
    if table.name in (wanted, ANY):
        return labels
    if wanted is not None:
        if wanted in table.convert_to:
            return convert_labels(labels, table, wanted)
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
