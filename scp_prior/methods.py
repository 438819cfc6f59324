"""The prior methods: how joint, categorical and spatial statistics become one mean and spread per class and cell.

Every function takes `Evidence` about some cells and returns what the method makes of each. Where a piece of evidence
is missing the next broader one stands in, and `origin` says which.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

# Where a cell's statistics came from, as reported in PriorMaps.origin.
CELL, CLASS, SPATIAL, NONE = 0, 1, 2, 3


class Evidence(NamedTuple):
    """What is known about m cells, each with its class; float32, LATENT units.

    count (m, 1), mean, std (m, C): joint. class_mean, class_std (m, C), class_known (m, 1) bool: categorical.
    spatial_mean, spatial_std (m, C): spatial.
    """

    count: Tensor
    mean: Tensor
    std: Tensor
    class_mean: Tensor
    class_std: Tensor
    class_known: Tensor
    spatial_mean: Tensor
    spatial_std: Tensor


class Resolved(NamedTuple):
    """mean, std (m, C) float32 in LATENT units; origin (m, 1) int64, one of CELL, CLASS, SPATIAL, NONE."""

    mean: Tensor
    std: Tensor
    origin: Tensor


class Options(NamedTuple):
    """Numbers a method may use; each documented in `prior_maps`."""

    weight: float = 0.5
    mean_pseudo_count: float = 8.0
    variance_pseudo_count: float = 64.0


def joint(e: Evidence, o: Options) -> Resolved:
    """Each cell shrunk toward its class, by its count.

    mean m = (n mu_kp + a mu_k) / (n + a); variance (n (s_kp^2 + (mu_kp - m)^2) + b s_k^2) / (n + b): a cell seen
    rarely is mostly its class, a cell seen often is itself. With a = b = 0 this is `joint_class`.
    """
    broad = of_class(e, o)
    cell = _cell_or(e, broad)
    # Where nothing was seen `cell` already is the class, and any share of the class leaves it so.
    toward_mean, toward_spread = (
        p / torch.where(e.count > 0, e.count + p, 1) for p in (o.mean_pseudo_count, o.variance_pseudo_count)
    )
    mean = torch.lerp(cell.mean, broad.mean, toward_mean)
    variance = torch.lerp(cell.std**2 + (cell.mean - mean) ** 2, broad.std**2, toward_spread)
    return Resolved(mean, variance.sqrt(), cell.origin)


def joint_class(e: Evidence, o: Options) -> Resolved:
    """The cell where anything was seen there, else the class: the authors' `class-spatial-joint`."""
    return _cell_or(e, of_class(e, o))


def joint_spatial(e: Evidence, o: Options) -> Resolved:
    """The cell where anything was seen there, else the position: the authors' `spatial-class-joint`, their default."""
    return _cell_or(e, spatial(e, o))


def of_class(e: Evidence, _: Options) -> Resolved:
    """The same statistics wherever the class appears: the authors' `class`."""
    return Resolved(
        torch.where(e.class_known, e.class_mean, e.spatial_mean),
        torch.where(e.class_known, e.class_std, e.spatial_std),
        torch.where(e.class_known, CLASS, SPATIAL),
    )


def spatial(e: Evidence, _: Options) -> Resolved:
    """The statistics of the position, whatever the class: the authors' `spatial`."""
    return Resolved(e.spatial_mean, e.spatial_std, torch.full_like(e.class_known, SPATIAL, dtype=torch.int64))


def mixture(e: Evidence, o: Options) -> Resolved:
    """Moments of a mixture of spatial (weight w) and class (1 - w): the authors' `spatial-class`, weights summing to 1.

    mean m = w mu_s + (1 - w) mu_k; variance w (s_s^2 + (mu_s - m)^2) + (1 - w) (s_k^2 + (mu_k - m)^2).
    """
    place, broad, w = spatial(e, o), of_class(e, o), o.weight
    mean = w * place.mean + (1 - w) * broad.mean
    variance = w * (place.std**2 + (place.mean - mean) ** 2) + (1 - w) * (broad.std**2 + (broad.mean - mean) ** 2)
    return Resolved(mean, variance.sqrt(), broad.origin)


def normal(e: Evidence, _: Options) -> Resolved:
    """Zeros: the host's own start."""
    zeros = torch.zeros_like(e.mean)
    return Resolved(zeros, zeros, torch.full_like(e.class_known, NONE, dtype=torch.int64))


def _cell_or(e: Evidence, other: Resolved) -> Resolved:
    seen = e.count > 0
    return Resolved(
        torch.where(seen, e.mean, other.mean),
        torch.where(seen, e.std, other.std),
        torch.where(seen, CELL, other.origin),
    )


class Method(NamedTuple):
    """A method and the parts of a file it cannot do without."""

    resolve: Callable[[Evidence, Options], Resolved]
    needs: tuple[str, ...]


METHODS: dict[str, Method] = {
    "joint": Method(joint, ("joint", "class")),
    "joint-spatial": Method(joint_spatial, ("joint", "spatial")),
    "joint-class": Method(joint_class, ("joint", "class")),
    "class": Method(of_class, ("class",)),
    "spatial": Method(spatial, ("spatial",)),
    "mixture": Method(mixture, ("class", "spatial")),
    "normal": Method(normal, ()),
}
