"""The prior methods: how joint, categorical and spatial statistics become one mean and spread per class and cell.

Every function takes `Evidence` of n classes and returns a `Resolved` with the same n. Where a piece of evidence is
missing the next broader one stands in, and `origin` says which.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

# Where a cell's statistics came from, as reported in PriorMaps.origin.
CELL, CLASS, SPATIAL, NONE = 0, 1, 2, 3
ORIGIN_NAMES = {CELL: "its own cell", CLASS: "the class", SPATIAL: "the position", NONE: "nothing"}


class Evidence(NamedTuple):
    """What is known about n classes on a grid of h x w cells; float32, LATENT units.

    count (n, 1, h, w); mean, std (n, C, h, w): joint. class_mean, class_std (n, C, 1, 1), class_known (n, 1, 1, 1)
    bool: categorical. spatial_mean, spatial_std (1, C, h, w): spatial.
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
    """mean, std (n, C, h, w) float32 in LATENT units; origin (n, 1, h, w) uint8, one of CELL, CLASS, SPATIAL, NONE."""

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
    broad = klass(e, o)
    if o.mean_pseudo_count == 0 and o.variance_pseudo_count == 0:
        return joint_class(e, o)
    n, a, b = e.count, o.mean_pseudo_count, o.variance_pseudo_count
    seen = n > 0
    mean = torch.where(seen, (n * e.mean + a * broad.mean) / (n + a).clamp_min(1e-12), broad.mean)
    within = n * (e.std**2 + (e.mean - mean) ** 2)
    variance = torch.where(seen, (within + b * broad.std**2) / (n + b).clamp_min(1e-12), broad.std**2)
    return Resolved(mean, variance.sqrt(), torch.where(seen, CELL, broad.origin).to(torch.uint8))


def joint_class(e: Evidence, o: Options) -> Resolved:
    """The cell where anything was seen there, else the class: the authors' `class-spatial-joint`."""
    return _cell_or(e, klass(e, o))


def joint_spatial(e: Evidence, o: Options) -> Resolved:
    """The cell where anything was seen there, else the position: the authors' `spatial-class-joint`, their default."""
    return _cell_or(e, spatial(e, o))


def klass(e: Evidence, _: Options) -> Resolved:
    """The same statistics wherever the class appears: the authors' `class`."""
    known, shape = e.class_known, e.mean.shape
    return Resolved(
        torch.where(known, e.class_mean, e.spatial_mean).expand(shape),
        torch.where(known, e.class_std, e.spatial_std).expand(shape),
        torch.where(known, CLASS, SPATIAL).to(torch.uint8).expand(shape[0], 1, *shape[2:]),
    )


def spatial(e: Evidence, _: Options) -> Resolved:
    """The statistics of the position, whatever the class: the authors' `spatial`."""
    shape = e.mean.shape
    origin = torch.full((shape[0], 1, *shape[2:]), SPATIAL, dtype=torch.uint8)
    return Resolved(e.spatial_mean.expand(shape), e.spatial_std.expand(shape), origin)


def mixture(e: Evidence, o: Options) -> Resolved:
    """Moments of a mixture of spatial (weight w) and class (1 - w): the authors' `spatial-class`, weights summing to 1.

    mean m = w mu_s + (1 - w) mu_k; variance w (s_s^2 + (mu_s - m)^2) + (1 - w) (s_k^2 + (mu_k - m)^2).
    """
    place, broad, w = spatial(e, o), klass(e, o), o.weight
    mean = w * place.mean + (1 - w) * broad.mean
    variance = w * (place.std**2 + (place.mean - mean) ** 2) + (1 - w) * (broad.std**2 + (broad.mean - mean) ** 2)
    return Resolved(mean, variance.sqrt(), broad.origin)


def normal(e: Evidence, _: Options) -> Resolved:
    """Zeros: the host's own start."""
    shape = e.mean.shape
    origin = torch.full((shape[0], 1, *shape[2:]), NONE, dtype=torch.uint8)
    return Resolved(torch.zeros(shape), torch.zeros(shape), origin)


def _cell_or(e: Evidence, other: Resolved) -> Resolved:
    seen = e.count > 0
    return Resolved(
        torch.where(seen, e.mean, other.mean),
        torch.where(seen, e.std, other.std),
        torch.where(seen, CELL, other.origin).to(torch.uint8),
    )


class Method(NamedTuple):
    """A method and the parts of a file it cannot do without."""

    resolve: Callable[[Evidence, Options], Resolved]
    needs: tuple[str, ...]


METHODS: dict[str, Method] = {
    "joint": Method(joint, ("joint", "class")),
    "joint-spatial": Method(joint_spatial, ("joint", "spatial")),
    "joint-class": Method(joint_class, ("joint", "class")),
    "class": Method(klass, ("class",)),
    "spatial": Method(spatial, ("spatial",)),
    "mixture": Method(mixture, ("class", "spatial")),
    "normal": Method(normal, ()),
}
