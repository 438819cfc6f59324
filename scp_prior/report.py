"""What a prior had to do without, in words."""

from __future__ import annotations

from torch import Tensor

from .classes import table
from .labels import class_shares
from .matching import table_of
from .methods import CLASS, METHODS, NONE, SPATIAL
from .prior import PriorMaps
from .statistics import Statistics


def report(statistics: Statistics, labels: Tensor, maps: PriorMaps, method: str) -> tuple[str, bool]:
    """One or two lines about where a prior's cells came from.

    Args:
        labels: (B, H, W), ids of the statistics.
        maps: what `prior_maps` made of them.

    Returns:
        The text, and whether the label map holds a class the statistics do not know.
    """
    height, width = maps.mean.shape[-2:]
    lines = [f"{method}, {width}x{height} latent"]
    if statistics.latent_size not in (None, (height, width)):
        stored = "{1}x{0}".format(*statistics.latent_size)
        lines.append(f"statistics resampled from {stored} to {width}x{height} cells")
    if "joint" in METHODS[method].needs:
        lines += _stood_in(maps, stand_in(statistics, method))
    if method == "joint":
        lines += _scene(statistics)
    unknown = _unknown(statistics, labels) if METHODS[method].needs not in ((), ("spatial",)) else []
    if unknown:
        lines.append(f"not in {statistics.name}, treated as unlabelled: {', '.join(unknown)}")
    return "\n".join(lines), bool(unknown)


def stand_in(statistics: Statistics, method: str) -> str:
    """What stands in for a cell of a class that was never seen there."""
    return "class nearby" if method == "joint" and statistics.has_target else "class"


def _scene(statistics: Statistics) -> list[str]:
    if not statistics.has_scene:
        return ["no scene effects in this file: every cell is drawn by itself"]
    if not bool(statistics.scene().share.any()):
        return ["its photos share nothing that could be measured: every cell is drawn by itself"]
    return []


def _stood_in(maps: PriorMaps, of_class: str) -> list[str]:
    shares = maps.origin.flatten().cpu().bincount(minlength=NONE + 1).double() / maps.origin.numel()
    return [
        f"{shares[origin]:.1%} never seen there: from the {what}"
        for origin, what in ((CLASS, of_class), (SPATIAL, "place"))
        if shares[origin] > 0
    ]


def _unknown(statistics: Statistics, labels: Tensor) -> list[str]:
    replaced = dict(statistics.label_rule.replace)
    known_table = table_of(statistics)
    names = statistics.class_names or (table(known_table).names if known_table else {})
    return [
        f"{names[class_id]} (class {class_id}, {share:.1%})" if class_id in names else f"class {class_id} ({share:.1%})"
        for class_id, share in class_shares(labels).items()
        if statistics.row_of(replaced.get(class_id, class_id)) is None
    ]
