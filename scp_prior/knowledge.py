"""How well statistics know the classes of a label map: what the legend says below each of them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .classes import ClassTable
from .ids import UNLABELLED
from .labels import class_shares, to_latent_grid
from .matching import labels_for
from .methods import CELL, CLASS, METHODS, NONE, SPATIAL
from .prior import prior_maps
from .statistics import Statistics

# What a file is judged by: the first of these it has the parts for, and where the class's own cells then come from.
_JUDGED_BY = (("joint", CELL), ("joint-spatial", CELL), ("class", CLASS), ("spatial", SPATIAL), ("normal", NONE))


class Knowledge(NamedTuple):
    """By id of the label map's own table, most frequent first: what the file knows of a class, and what stands in."""

    known: dict[int, str]
    fallback: dict[int, str]


def knowledge(statistics: Statistics, labels: Tensor, table: ClassTable) -> Knowledge:
    """What statistics know of each class of a label map, and for how much of it something else has to stand in.

    The prior is asked itself (`joint` where the file can), at the latent size of the label map.

    Args:
        statistics: of the label map's data set.
        labels: (B, H, W) int64, ids of `table`.

    Returns:
        Texts of a few words. `known` has every class of the map; `fallback` those a mark belongs to.

    Raises:
        SCPError: the labels are of another data set, or the file cannot be read.
    """
    ids = labels_for(statistics, labels, table)
    size = tuple(max(1, round(side / statistics.downscale)) for side in labels.shape[1:])
    method, own = _judged_by(statistics)
    origin = prior_maps(statistics, ids, method, latent_size=size, scene_variation=0.0).origin
    grid = to_latent_grid(labels, size, statistics.label_rule.grid)
    by_class = METHODS[method].needs not in ((), ("spatial",))
    instead = "the place" if statistics.row_of(UNLABELLED) is None else "unlabelled"
    known, fallback = {}, {}
    for class_id in class_shares(labels):
        row, cells = _row(statistics, class_id, table), origin[grid == class_id]
        known[class_id] = "" if row is None else _known(statistics, row)
        if row is None and by_class:
            fallback[class_id] = f"not in this file: {instead} stands in"
        elif not len(cells):
            fallback[class_id] = "too small here for a cell of the latent"
        elif bool((cells > own).any()):
            fallback[class_id] = _stands_in(cells, own, statistics.has_target)
    return Knowledge(known, fallback)


def _judged_by(s: Statistics) -> tuple[str, int]:
    here = {"joint": s.has_joint, "class": s.has_categorical, "spatial": s.has_spatial}
    return next((method, own) for method, own in _JUDGED_BY if all(here[part] for part in METHODS[method].needs))


def _row(s: Statistics, class_id: int, table: ClassTable) -> int | None:
    one = int(labels_for(s, torch.tensor([[[class_id]]]), table))
    return s.row_of(dict(s.label_rule.replace).get(one, one))


def _known(s: Statistics, row: int) -> str:
    kept = s.derived.setdefault("known classes", {})
    if row not in kept:
        kept[row] = _of_cells(s, row) if s.has_joint else _of_class(s, row)
    return kept[row]


def _of_cells(s: Statistics, row: int) -> str:
    # A photo counts at most once in a cell, so there were at least as many as the busiest cell has counted.
    count = s.counts([row])[0]
    photos, seen = int(count.max()), float((count > 0).float().mean())
    return f"{photos:,}+ photo{'' if photos == 1 else 's'}, {_percent(seen)} of {count.numel():,} cells"


def _of_class(s: Statistics, row: int) -> str:
    count = int(s.categorical().count[row]) if s.has_categorical else 0
    return f"{count:,} cells" if count else ""


def _stands_in(cells: Tensor, own: int, target: bool) -> str:
    share = float((cells > own).float().mean())
    instead = "the place" if bool((cells > CLASS).any()) else "class nearby" if target else "the class"
    return f"unseen at {_percent(share)}: {instead} stands in"


def _percent(share: float) -> str:
    """Never "0 %" of something, nor "100 %" of less than all."""
    if 0 < share < 0.01:
        return "< 1 %"
    return "> 99 %" if 0.99 < share < 1 else f"{share:.0%}".replace("%", " %")
