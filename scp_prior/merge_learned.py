"""The parts that only `joint` uses, of files put together: averages, since the photos are no longer there.

Moments merge exactly. How far to believe a cell, and scene effects, were learned from each file's photos; each file
speaks with the weight of its photos, class by class.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .pseudo_counts import Shrinkage
from .statistics import Statistics

_LEAST = 1e-3


def with_learned_parts(whole: Statistics, parts: Sequence[Statistics]) -> Statistics:
    """`whole` with the parts' average target and scene effects; without those that some part does not have.

    Args:
        whole: the merged moments.
        parts: files on the same grid, whose classes are among those of `whole`.
    """
    tensors, metadata = whole.tensors(), dict(whole.metadata)
    if all(part.has_target for part in parts):
        tensors |= _target(whole, parts)
        metadata["shrinkage"] = _shrinkage(parts).to_json()
        if all(part.has_scene for part in parts):
            tensors |= _scene(whole, parts)
    return Statistics.from_tensors(tensors, metadata)


def _rows(whole: Statistics, part: Statistics) -> Tensor:
    """Rows of `whole` that are the part's classes."""
    return torch.tensor([whole.row_of(class_id) for class_id in part.class_ids.tolist()])


def _target(whole: Statistics, parts: Sequence[Statistics]) -> dict[str, Tensor]:
    """Mixture moments at each corner, by how often the part has seen the class."""
    shape = (len(whole.class_ids), *parts[0].target([0]).mean.shape[1:])
    weight, first, second = torch.zeros(shape[0], 1, 1, 1), torch.zeros(shape), torch.zeros(shape)
    weight, first, second = weight.double(), first.double(), second.double()
    for part in parts:
        rows, n = _rows(whole, part), part.categorical().count.double().view(-1, 1, 1, 1)
        mean, std = (moment.double() for moment in part.target(range(len(rows))))
        weight.index_add_(0, rows, n)
        first.index_add_(0, rows, n * mean)
        second.index_add_(0, rows, n * (std**2 + mean**2))
    mean = first / weight
    variance = (second / weight - mean**2).clamp_min(0)
    return {"target.mean": mean.float(), "target.std": variance.sqrt().float()}


def _shrinkage(parts: Sequence[Statistics]) -> Shrinkage:
    """Averages by photos; of pseudo-counts the harmonic one, so that a part that never believes a cell has no veto."""
    weights = [max(float(part.metadata["images"]), 1.0) for part in parts]
    total = sum(weights)

    def harmonic(field: str) -> float:
        return total / sum(
            w / max(getattr(part.shrinkage, field), _LEAST) for w, part in zip(weights, parts, strict=True)
        )

    inflation = sum(w * part.shrinkage.inflation for w, part in zip(weights, parts, strict=True)) / total
    return Shrinkage(harmonic("mean"), harmonic("variance"), inflation, {})


def _scene(whole: Statistics, parts: Sequence[Statistics]) -> dict[str, Tensor]:
    """Averages that stay positive definite: D R D with D a class's share of the weight, summed over parts."""
    k, c = len(whole.class_ids), whole.channels
    count, share = torch.zeros(k, dtype=torch.int64), torch.zeros(k, c).double()
    for part in parts:
        count.index_add_(0, _rows(whole, part), part.scene().count)
    correlation, within = torch.zeros(k, c, k, c).double(), torch.zeros(k, c, c).double()
    for part in parts:
        rows, scene = _rows(whole, part), part.scene()
        weight = scene.count.double() / count[rows].clamp_min(1)
        root = weight.sqrt()
        share.index_add_(0, rows, weight.unsqueeze(1) * scene.share)
        within.index_add_(0, rows, weight.view(-1, 1, 1) * scene.within)
        weighted = root.view(-1, 1, 1, 1) * root.view(1, 1, -1, 1) * scene.correlation
        correlation[rows.unsqueeze(1), :, rows, :] += weighted.permute(0, 2, 1, 3)
    unknown = (count == 0).nonzero().flatten()
    within[unknown] = torch.eye(c).double()
    correlation[unknown, :, unknown, :] = torch.eye(c).double()
    return {
        "scene.share": share.float(),
        "scene.correlation": correlation.float(),
        "scene.within": within.float(),
        "scene.count": count,
    }
