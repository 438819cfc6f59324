"""The prior methods: how joint, categorical and spatial statistics become one mean and spread per class and cell.

Every function takes `Evidence` about some cells and returns what the method makes of each. Where a piece of evidence
is missing the next broader one stands in, and `origin` says which.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .pseudo_counts import held_out_correction

# Where a cell's statistics came from, as reported in PriorMaps.origin.
CELL, CLASS, SPATIAL, NONE = 0, 1, 2, 3


class Evidence(NamedTuple):
    """What is known about m cells, each with its class; float32, LATENT units.

    count (m, 1), mean, std (m, C): joint. class_mean, class_std (m, C), class_known (m, 1) bool: categorical.
    spatial_mean, spatial_std (m, C): spatial. target_mean, target_std (m, C): what the class looks like around there;
    the categorical where the file does not say.
    """

    count: Tensor
    mean: Tensor
    std: Tensor
    class_mean: Tensor
    class_std: Tensor
    class_known: Tensor
    spatial_mean: Tensor
    spatial_std: Tensor
    target_mean: Tensor
    target_std: Tensor


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
    inflation: float = 1.0
    held_out: bool = False


def joint(e: Evidence, o: Options) -> Resolved:
    """Each cell shrunk toward what its class looks like around there, by its count.

    mean m = (n mu_kp + a t) / (n + a); variance (n (s_kp^2 + (mu_kp - m)^2) + b t_s^2) / (n + b), with t and t_s the
    target's mean and std: a cell seen rarely is mostly its target, a cell seen often is itself. Numbers measured on
    held-out photos come with two corrections: squares about a mean that the photo itself is part of are too small
    (`held_out`), and so is every variance learned from few photos (`inflation`). With a = b = 0 this is `joint_class`,
    where the target is the class.
    """
    target = Resolved(e.target_mean, e.target_std, of_class(e, o).origin)
    cell = _cell_or(e, target)
    seen = e.count > 0
    # Where nothing was seen `cell` already is the target, and any share of the target leaves it so.
    toward_mean, toward_spread = (
        p / torch.where(seen, e.count + p, 1) for p in (o.mean_pseudo_count, o.variance_pseudo_count)
    )
    mean = torch.lerp(cell.mean, target.mean, toward_mean)
    squares = cell.std**2 + (cell.mean - mean) ** 2
    if o.held_out:
        squares = squares * torch.where(seen, held_out_correction(e.count, o.mean_pseudo_count), 1)
    variance = torch.lerp(squares, target.std**2, toward_spread) * o.inflation
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
