"""What an evaluation keeps of the pictures it has seen: sums and moments, whose size does not depend on how many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .evaluation import ClassResult, MethodResult, NoiseLevel
from .frechet import RunningMoments, frechet_distance
from .likelihood import cell_nll, picture_nll
from .methods import CELL, CLASS, METHODS, NONE, SPATIAL
from .pooling import GRIDS, Pooling, cell_covariances
from .prior import PriorMaps
from .statistics import Statistics

_ORIGINS = {CELL: "cell", CLASS: "class", SPATIAL: "place", NONE: "none"}
_DEVIATIONS = (1.0, 2.0)


class Variant(NamedTuple):
    """A method, and with which scene_variation where both are judged."""

    method: str
    scene_variation: float | None


class Real:
    """Moments of the pictures themselves: at each cell, over each area, of each class."""

    def __init__(self, channels: int, size: tuple[int, int], pools: dict[tuple[int, int], Pooling]):
        self.channels, self.size, self.pools = channels, size, pools
        self.at_cells = RunningMoments(size[0] * size[1], channels)
        self.pooled = {grid: RunningMoments(pool.areas * channels) for grid, pool in pools.items()}
        self.of_class: dict[int, RunningMoments] = {}
        self.cells: dict[int, int] = {}

    @classmethod
    def of(cls, channels: int, size: tuple[int, int]) -> Real:
        """Of pictures of this size, with every pooled grid that is not finer than they are."""
        return cls(channels, size, {g: Pooling(g, size) for g in GRIDS if g[0] <= size[0] and g[1] <= size[1]})

    def add(self, values: Tensor, labels: Tensor) -> None:
        """Count pictures in: values (B, C, h, w) float64, labels (B, h, w)."""
        self.at_cells.add(values.flatten(2).mT)
        for grid, pool in self.pools.items():
            self.pooled[grid].add(pool.means(values))
        for class_id, cells in _by_class(labels):
            self.of_class.setdefault(class_id, RunningMoments(self.channels)).add(_cells(values)[cells])
            self.cells[class_id] = self.cells.get(class_id, 0) + len(cells)


class Row:
    """Everything that is counted of one method; its size depends on the grid and the classes, not on the pictures."""

    def __init__(self, variant: Variant, real: Real, noise: Sequence[NoiseLevel]):
        self._variant, self._real = variant, real
        self._sigmas = [level.sigma for level in noise]
        self._sums: dict[int, Tensor] = {}
        self._pictures = RunningMoments(len(self._sigmas))
        self._at_cells = RunningMoments(*real.at_cells.mean.shape)
        self._pooled = {grid: RunningMoments(*moments.mean.shape) for grid, moments in real.pooled.items()}
        self._of_class: dict[int, RunningMoments] = {}

    def add(self, values: Tensor, labels: Tensor, maps: PriorMaps) -> None:
        """Count pictures in: values (B, C, h, w) float64, labels (B, h, w), and what the method says of them."""
        nll = [cell_nll(values, maps.mean, maps.std, sigma) for sigma in self._sigmas]
        if maps.scene is None:
            self._pictures.add(torch.stack([part.mean((1, 2, 3)) for part in nll], dim=1))
        else:
            self._pictures.add(picture_nll(values, maps, self._sigmas))
        covariances = cell_covariances(maps)
        self._at_cells.add(maps.mean.flatten(2).mT, covariances.sum(0))
        for grid, moments in self._pooled.items():
            pool = self._real.pools[grid]
            moments.add(pool.means(maps.mean), pool.covariance(maps))
        self._count(nll, values, labels, maps, covariances.flatten(0, 1))

    def result(self, statistics: Statistics, grids: Sequence[tuple[int, int]]) -> MethodResult:
        """Everything so far, with distances on these pooled grids."""
        nll, within, shares, _ = self._shares(torch.stack(list(self._sums.values())).sum(0))
        pictures = self._pictures
        return MethodResult(
            method=self._variant.method,
            scene_variation=self._variant.scene_variation,
            nll=nll,
            within=within,
            fallback=self._fallback(shares),
            origin={name: share for name, share in zip(_ORIGINS.values(), shares, strict=True) if share},
            picture_nll=tuple(pictures.mean.tolist()),
            picture_nll_error=_standard_error(pictures),
            frechet_cell=self._frechet_cell(),
            frechet_pooled={grid_name(grid): self._frechet_pooled(grid) for grid in grids},
            classes=tuple(self._class_result(class_id, statistics) for class_id in sorted(self._sums)),
        )

    def _count(self, nll: list[Tensor], values: Tensor, labels: Tensor, maps: PriorMaps, covariances: Tensor) -> None:
        """Sums over cells, per class: each likelihood, values within so many std, cells by origin."""
        distance = (values - maps.mean).abs()
        inside = [(distance <= many * maps.std).double() for many in _DEVIATIONS]
        per_value = torch.stack([part.sum(1).flatten() for part in (*nll, *inside)])
        origin = maps.origin.flatten().long()
        per_cell = torch.cat([per_value, torch.nn.functional.one_hot(origin, len(_ORIGINS)).T.double()])
        means = _cells(maps.mean)
        for class_id, cells in _by_class(labels):
            summed = per_cell[:, cells].sum(1)
            self._sums[class_id] = self._sums.get(class_id, 0) + summed
            moments = self._of_class.setdefault(class_id, RunningMoments(means.shape[1]))
            moments.add(means[cells], covariances[cells].sum(0))

    def _shares(self, sums: Tensor) -> tuple[tuple[float, ...], tuple[float, float], tuple[float, ...], int]:
        levels = len(self._sigmas)
        cells = sums[levels + len(_DEVIATIONS) :].sum()
        per_value = (sums[: levels + len(_DEVIATIONS)] / (cells * self._real.channels)).tolist()
        origin = (sums[levels + len(_DEVIATIONS) :] / cells).tolist()
        return tuple(per_value[:levels]), tuple(per_value[levels:]), tuple(origin), int(cells)

    def _fallback(self, shares: Sequence[float]) -> float:
        needs = METHODS[self._variant.method].needs
        proper = CELL if "joint" in needs else CLASS if "class" in needs else SPATIAL
        return max(0.0, 1 - shares[list(_ORIGINS).index(proper)])

    def _class_result(self, class_id: int, statistics: Statistics) -> ClassResult:
        nll, within, shares, cells = self._shares(self._sums[class_id])
        prior, real = self._of_class[class_id], self._real.of_class[class_id]
        distance = None
        if real.count > 1:
            distance = float(frechet_distance(prior.gaussian(), real.gaussian()))
        name = statistics.class_names.get(class_id, "")
        return ClassResult(class_id, name, cells, nll, within, self._fallback(shares), distance)

    def _frechet_cell(self) -> tuple[float, ...] | None:
        if self._at_cells.count <= 2 * self._real.channels:
            return None
        prior, real = self._at_cells.gaussian(), self._real.at_cells.gaussian()
        noise = [sigma**2 for sigma in self._sigmas]
        return tuple(float(frechet_distance(prior.noised(v), real.noised(v)).mean()) for v in noise)

    def _frechet_pooled(self, grid: tuple[int, int]) -> tuple[float, ...]:
        prior, real = self._pooled[grid].gaussian(), self._real.pooled[grid].gaussian()
        noise = [self._real.pools[grid].noise(sigma, self._real.channels) for sigma in self._sigmas]
        return tuple(float(frechet_distance(prior.noised(v), real.noised(v))) for v in noise)


def _by_class(labels: Tensor) -> list[tuple[int, Tensor]]:
    """Each class of the batch and the flat indices of its cells."""
    flat = labels.flatten()
    return [(int(class_id), (flat == class_id).nonzero().squeeze(1)) for class_id in flat.unique()]


def _cells(values: Tensor) -> Tensor:
    """(B, C, h, w) -> (B h w, C)."""
    return values.movedim(1, -1).flatten(0, -2)


def _standard_error(moments: RunningMoments) -> tuple[float, ...] | None:
    if moments.count < 2:
        return None
    return tuple((moments.gaussian().covariance.diagonal() / moments.count).sqrt().tolist())


def grid_name(grid: tuple[int, int]) -> str:
    """As results name it: rows x columns."""
    return f"{grid[0]}x{grid[1]}"
