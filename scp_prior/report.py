"""What a prior had to do without, in words."""

from __future__ import annotations

from torch import Tensor

from .classes import table
from .labels import class_shares
from .matching import table_of
from .methods import METHODS, ORIGIN_NAMES
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
    lines = [f"{method}, {width}x{height} latent{_resampled(statistics, (height, width))}"]
    if "joint" in METHODS[method].needs:
        shares = maps.origin.flatten().bincount(minlength=len(ORIGIN_NAMES)).double() / maps.origin.numel()
        lines[0] += ": " + ", ".join(
            f"{share:.1%} from {ORIGIN_NAMES[origin]}" for origin, share in enumerate(shares.tolist()) if share > 0
        )
    unknown = _unknown(statistics, labels) if METHODS[method].needs not in ((), ("spatial",)) else []
    if unknown:
        lines.append(f"not in {statistics.name}, treated as unlabelled: {', '.join(unknown)}")
    return "\n".join(lines), bool(unknown)


def _resampled(statistics: Statistics, size: tuple[int, int]) -> str:
    stored = statistics.latent_size
    return "" if stored in (None, size) else f" (statistics resampled from {stored[1]}x{stored[0]})"


def _unknown(statistics: Statistics, labels: Tensor) -> list[str]:
    replaced = dict(statistics.label_rule.replace)
    known_table = table_of(statistics)
    names = statistics.class_names or (table(known_table).names if known_table else {})
    return [
        f"{names.get(class_id, 'unnamed')} (class {class_id}, {share:.1%})"
        for class_id, share in class_shares(labels).items()
        if statistics.row_of(replaced.get(class_id, class_id)) is None
    ]
