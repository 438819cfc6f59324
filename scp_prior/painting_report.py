"""What was painted, in words. Each function gives the text, and whether it is a warning.

Short lines, and the one that matters first: a node shows some thirty characters of two or three.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .classes import ClassTable
from .ids import UNLABELLED
from .labels import class_shares
from .painting import fitted_mask, hard_mask
from .sizes import stretched

_MOST_NAMED = 12


def paint_report(labels: Tensor, table: ClassTable, class_id: int, mask: Tensor | None) -> tuple[str, bool]:
    """Of `painting.paint`: how much was painted, what became of the mask, and what the map now holds.

    Args:
        labels: `(B, H, W)`, the maps painted.
        mask: as it was given to `paint`.
    """
    name, size = table.name_of(class_id), tuple(labels.shape[1:])
    if mask is None:
        return f"{name} everywhere, {size[1]}x{size[0]}", False
    where = hard_mask(mask)
    share = float(fitted_mask(where, size).float().mean())
    if share:
        first = f"{name}: {share:.1%} painted"
    elif bool(where.any()):
        first = f"all of the mask was lost in resizing: no {name}"
    else:
        first = f"the mask is empty: no {name}"
    resized, stretched = _resized(tuple(where.shape[1:]), size)
    return "\n".join(filter(None, (first, resized, _contents(labels, table)))), stretched or not share


def compose_report(labels: Tensor, table: ClassTable, ids: Sequence[int | None], masks: Tensor) -> tuple[str, bool]:
    """Of `painting.compose`: the classes of the maps, and the masks that left nothing to be seen."""
    present = class_shares(labels)
    layers = hard_mask(masks).view(-1, len(ids), labels.shape[1] * labels.shape[2]).any(-1).any(0).tolist()
    asked = [(number, i, some) for number, (i, some) in enumerate(zip(ids, layers, strict=True), 1) if i is not None]
    empty = [f"mask {number} ({table.name_of(i)}) is empty" for number, i, some in asked if not some]
    drawn = dict.fromkeys(i for _, i, some in asked if some)
    covered = [f"{table.name_of(i)} lies wholly under later masks" for i in drawn if i not in present]
    maps = f"{len(labels)} maps, " if len(labels) > 1 else ""
    lines = [f"{maps}{_contents(labels, table)}", *empty, *covered]
    return "\n".join(lines), bool(empty or covered)


def mask_report(labels: Tensor, table: ClassTable, ids: Sequence[int]) -> tuple[str, bool]:
    """Of `painting.class_mask`: how much of the picture the class has, or what there is in its place."""
    shares, name = class_shares(labels), table.name_of(ids[0])
    share = sum(shares.get(class_id, 0.0) for class_id in ids)
    if share:
        return f"{name}: {share:.1%} of the picture", False
    there = [table.name_of(other) for other in shares]
    more = f" and {len(there) - _MOST_NAMED} more" if len(there) > _MOST_NAMED else ""
    return f"no {name} in this map; there is: {', '.join(there[:_MOST_NAMED])}{more}", True


def _contents(labels: Tensor, table: ClassTable) -> str:
    shares = class_shares(labels)
    bare = shares.pop(UNLABELLED, 0.0)
    named = f"{len(shares)} class{'' if len(shares) == 1 else 'es'}"
    return f"{named}, {bare:.1%} {table.name_of(UNLABELLED)}" if bare else named


def _resized(given: tuple[int, int], wanted: tuple[int, int]) -> tuple[str, bool]:
    (h, w), (height, width) = given, wanted
    if given == wanted:
        return "", False
    if stretched(given, wanted):
        return f"mask stretched from {w}x{h} to {width}x{height}", True
    return f"mask resized from {w}x{h}", False
