"""How much a cell of the joint statistics is believed, learned from the data themselves.

A cell's mean and variance are drawn toward a *target*: what its class looks like around there. The target is itself
made from broad to narrow (all -> class -> place -> ever closer neighbours of the class), each step moving only as far
as its evidence allows: residual * n / (n + a), with n the photos that speak for it and a the step's pseudo-count.
Pseudo-counts are chosen by cross-validation over folds of photos, means and variances apart, so that 20 photos and
20 000 each get what held-out photos say is best. Of two choices that differ by less than chance, the simpler is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .coarse import CoarseGrid
from .pseudo_counts import Shrinkage, held_out_correction

# "Never": a step with this pseudo-count does not move anything.
NEVER = 1e9
# Steps from broad to narrow, and how far each looks, as a share of the height. `place` is shared by all classes.
_NEIGHBOURS = {"wide": 0.25, "middle": 0.12, "near": 0.06, "corner": 0.0}
_PLACE_SCALE = 0.12
_MEAN_START = {"class": 6.0, "place": 16.0, "wide": 16.0, "middle": 16.0, "near": 32.0, "corner": 64.0, "cell": 16.0}
_VARIANCE_START = {"class": 4.0, "wide": 64.0, "middle": 64.0, "near": 128.0, "corner": 256.0, "cell": 128.0}
# Variances learned from n photos are too small by a factor of about 1 + c / n; these are tried as c.
_MISSING_PHOTOS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)
_FACTORS = (0.25, 0.5, 2.0, 4.0)
_LEAST, _MOST = 2.0**-3, 2.0**13
_MEAN_COUNTS = (*(2.0**i for i in range(-3, 14)), NEVER)
_VARIANCE_COUNTS = (*(2.0**i for i in range(0, 14, 2)), NEVER)
# What leaving the start values must gain: nats (for means: of relative squared error) per squared octave and photo.
_MEAN_PRICE, _VARIANCE_PRICE = 0.002, 0.001
_END_OCTAVES = 4.0
# The simpler of two is taken unless it loses by more than this many standard errors over the folds.
_DOUBT = 0.5
_FEWEST_PICTURES = 4
# Pseudo-counts are chosen by the classes most often seen; the others have next to no say anyway.
_CLASSES_TRIED = 32
# Cell counts are chosen on about so many cells, evenly spread.
_CELLS_TRIED = 2048
_TINY = 1e-10
# Of its class's variance, what every corner of the target keeps.
_LEAST_SHARE = 0.01


class ClassSums(NamedTuple):
    """One class's sums in each of F folds: count (F, 1, h, w), sums and squares (F, C, h, w), float64, LATENT units."""

    count: Tensor
    sums: Tensor
    squares: Tensor


class Target(NamedTuple):
    """mean and std (K, C, gh, gw) float32 in LATENT units on the coarse grid, and how cells are drawn toward them."""

    mean: Tensor
    std: Tensor
    shrinkage: Shrinkage


def fit_target(read: Callable[[int], ClassSums], pictures: Tensor, latent_size: tuple[int, int]) -> Target:
    """Choose pseudo-counts by cross-validation and make the target from all photos.

    Args:
        read: sums of class k, for k in 0..K-1; called a few times for each, so that no two classes need be in memory.
        pictures: (F, K), how many photos of each fold show each class.
        latent_size: (h, w) of the sums.

    Returns:
        Target; of a data set of many classes, the 32 most often seen decide. With fewer than four photos, or all in one
        fold, it is made with the start values.
    """
    whole = choosing = _Fit(read, pictures.double(), latent_size)
    if pictures.shape[1] > _CLASSES_TRIED:
        seen = pictures.sum(0).argsort(descending=True, stable=True)[:_CLASSES_TRIED].sort().values
        choosing = _Fit(lambda k: read(int(seen[k])), pictures[:, seen].double(), latent_size)
    return whole.target(choosing.choose())


class _Chosen(NamedTuple):
    """Pseudo-counts of every step, for means and for variances, and what variances are multiplied with."""

    mean: Mapping[str, float]
    variance: Mapping[str, float]
    inflation: float


class _Evidence(NamedTuple):
    """Coarse sums, (..., K, 1 | C, gh, gw), and photos showing each class, (..., K, 1, 1, 1)."""

    count: Tensor
    sums: Tensor
    pictures: Tensor


class _Fit:
    def __init__(self, read: Callable[[int], ClassSums], pictures: Tensor, latent_size: tuple[int, int]):
        self._read, self._classes = read, pictures.shape[1]
        self._grid = CoarseGrid(latent_size)
        stride = max(1, round(math.sqrt(latent_size[0] * latent_size[1] / _CELLS_TRIED)))
        self._some = (..., slice(stride // 2, None, stride), slice(stride // 2, None, stride))
        self._pictures = pictures.view(*pictures.shape, 1, 1, 1)
        coarse = [[self._grid.pool(part) for part in read(k)[:2]] for k in range(self._classes)]
        self._held = _Evidence(*(torch.stack(parts, dim=1) for parts in zip(*coarse, strict=True)), self._pictures)
        self._all = _Evidence(*(part.sum(0) for part in self._held))
        self._rest = _Evidence(*(whole - part for whole, part in zip(self._all, self._held, strict=True)))
        self._values = self._held.count.sum() * self._held.sums.shape[2]
        whole, within = zip(*(_variances_of(self._whole(k)) for k in self._every), strict=True)
        count = self._all.count.sum((1, 2, 3)).unsqueeze(1)
        self._variance = (torch.stack(whole) * count).sum(0) / count.sum()  # (C,)
        self._noise = torch.stack(within)  # (K, C)
        self._typical_noise = (self._noise * count).sum(0) / count.sum()
        folds = self._held.count.sum((1, 2, 3, 4))
        # Hardly a photo shows none of the classes most often seen.
        self._photos_of = pictures.max(1).values
        self._photos = float(self._photos_of.sum())
        self._able = int((folds > 0).sum()) > 1 and self._photos >= _FEWEST_PICTURES

    def choose(self) -> _Chosen:
        mean_steps, variance_steps, inflation = dict(_MEAN_START), dict(_VARIANCE_START), 1.0
        if self._able:
            mean_steps = self._choose(self._mean_loss, mean_steps, _MEAN_PRICE)
            mean_steps["cell"] = self._choose_mean_count(mean_steps)
            held, rest = self._residuals(mean_steps)
            loss = _VarianceLoss(self._grid, held, rest, self._variance, self._values)
            variance_steps = self._choose(loss, variance_steps, _VARIANCE_PRICE)
            variance_steps["cell"], inflation = self._choose_variance_count(mean_steps, rest, variance_steps)
        return _Chosen(mean_steps, variance_steps, inflation)

    def target(self, chosen: _Chosen) -> Target:
        mean_steps, variance_steps, inflation = chosen
        mean = mean_target(self._grid, self._all, mean_steps)
        residuals = [_residual(self._whole(k), self._mean(mean[k], k, mean_steps), mean_steps) for k in self._every]
        pooled = torch.stack([self._grid.pool(residual) for residual in residuals])
        variance = variance_target(self._grid, self._all._replace(sums=pooled), variance_steps)
        shrinkage = Shrinkage(
            mean_steps["cell"], variance_steps["cell"], inflation, {"mean": mean_steps, "variance": variance_steps}
        )
        return Target(mean.float(), variance.sqrt().float(), shrinkage)

    @property
    def _every(self) -> range:
        return range(self._classes)

    def _whole(self, k: int) -> ClassSums:
        return ClassSums(*(part.sum(0) for part in self._read(k)))

    def _mean(self, coarse: Tensor, k: int, steps: Mapping[str, float]) -> Tensor:
        target = self._grid.spread(coarse)
        whole = self._whole(k)
        return target + _moved(whole.sums - whole.count * target, whole.count, steps["cell"])

    def _choose(self, loss: Callable[[Mapping], Tensor], start: dict[str, float], price: float) -> dict[str, float]:
        """The best steps from the start values, or simpler ones that are as good: the class alone, or little more."""
        best = _search(loss, start, price / self._photos)
        for of_class in (0.0, start["class"]):
            plain = {**dict.fromkeys(start, NEVER), "class": of_class, "cell": start["cell"]}
            for simple in (_search(loss, plain, price / self._photos, rounds=1), plain):
                if _as_good(loss(simple), loss(best)):
                    best = simple
        return best

    def _mean_loss(self, steps: Mapping[str, float]) -> Tensor:
        """Squared error of the target at held-out photos, (F,), up to a constant."""
        mean = mean_target(self._grid, self._rest, steps)
        weighted = (self._held.count * mean - 2 * self._held.sums) * mean * self._weight
        return weighted.sum((1, 2, 3, 4)) / self._values

    @property
    def _weight(self) -> Tensor:
        """(K, C, 1, 1): between the weight of an error without the sampler's noise, and the same for all under much."""
        return 1 / (self._noise + self._typical_noise).clamp_min(_TINY)[..., None, None]

    def _choose_mean_count(self, steps: Mapping[str, float]) -> float:
        coarse = mean_target(self._grid, self._rest, steps)
        losses = torch.zeros(len(_MEAN_COUNTS), dtype=torch.float64)
        for k in self._every:
            held, rest, target = self._fold_cells(k, coarse[:, k])
            residual = rest.sums - rest.count * target
            for i, count in enumerate(_MEAN_COUNTS):
                mean = target + _moved(residual, rest.count, count)
                losses[i] += ((held.count * mean - 2 * held.sums) * mean * self._weight[k]).sum()
        return _cheapest(losses / self._tried_values(), _MEAN_START["cell"], _MEAN_PRICE / self._photos, _MEAN_COUNTS)

    def _fold_cells(self, k: int, coarse: Tensor) -> tuple[ClassSums, ClassSums, Tensor]:
        """Class k on some cells: each fold's own sums, those of all others, and the target others make of it."""
        held = ClassSums(*(part[self._some] for part in self._read(k)))
        rest = ClassSums(*(part.sum(0) - part for part in held))
        return held, rest, self._grid.spread(coarse)[self._some]

    def _tried_values(self) -> Tensor:
        counts = [self._read(k).count[self._some].sum() for k in self._every]
        return torch.stack(counts).sum().clamp_min(1) * self._held.sums.shape[2]

    def _residuals(self, steps: Mapping[str, float]) -> tuple[_Evidence, _Evidence]:
        """Squared residuals about what the other folds say: of each fold's photos, and of the others themselves."""
        coarse = mean_target(self._grid, self._rest, steps)
        held_sums, rest_sums = [], []
        for k in self._every:
            held, target = self._read(k), self._grid.spread(coarse[:, k])
            rest = ClassSums(*(part.sum(0) - part for part in held))
            mean = target + _moved(rest.sums - rest.count * target, rest.count, steps["cell"])
            held_sums.append(self._grid.pool(_squares_about(held, mean)))
            rest_sums.append(self._grid.pool(_residual(rest, mean, steps)))
        held, rest = (torch.stack(sums, dim=1) for sums in (held_sums, rest_sums))
        return self._held._replace(sums=held), self._rest._replace(sums=rest)

    def _choose_variance_count(
        self, mean_steps: Mapping[str, float], rest: _Evidence, steps: Mapping[str, float]
    ) -> tuple[float, float]:
        coarse_mean = mean_target(self._grid, self._rest, mean_steps)
        coarse = variance_target(self._grid, rest, steps)
        cells = [self._variance_cells(k, coarse_mean[:, k], coarse[:, k], mean_steps) for k in self._every]
        losses = torch.stack([sum(self._loss_of(cell, count, 1.0) for cell in cells) for count in _VARIANCE_COUNTS])
        values = self._tried_values()
        chosen = _cheapest(losses / values, _VARIANCE_START["cell"], _VARIANCE_PRICE / self._photos, _VARIANCE_COUNTS)
        # Folds are unequal: each is judged by photos as many as there are outside of it.
        photos = (self._photos - self._photos_of).clamp_min(1).view(1, -1, 1)
        inflated = [sum(self._loss_of(cell, chosen, 1 + c / photos) for cell in cells) for c in _MISSING_PHOTOS]
        return chosen, 1 + _MISSING_PHOTOS[int(torch.stack(inflated).argmin())] / self._photos

    def _variance_cells(self, k: int, coarse_mean: Tensor, coarse: Tensor, steps: Mapping[str, float]) -> _Cells:
        held, rest, target = self._fold_cells(k, coarse_mean)
        mean = target + _moved(rest.sums - rest.count * target, rest.count, steps["cell"])
        variance = self._grid.spread(coarse)[self._some]
        here = rest.count.sum(0) > 0  # most classes are absent from most cells
        parts = (held.count, _squares_about(held, mean), rest.count, _residual(rest, mean, steps), variance)
        return _Cells(*(part.permute(1, 0, 2, 3)[:, :, here[0]].contiguous() for part in parts))

    def _loss_of(self, cells: _Cells, count: float, inflation: float | Tensor) -> Tensor:
        moved = _moved(cells.residual - cells.count * cells.target, cells.count, count)
        variance = (cells.target + moved).clamp_min(_TINY) * inflation
        return _nats(variance, cells.held_count, cells.held, self._variance.view(-1, 1, 1)).sum()


class _Cells(NamedTuple):
    """One class on some cells, (1 | C, F, m): held-out count and squares; the others' count, squares and target."""

    held_count: Tensor
    held: Tensor
    count: Tensor
    residual: Tensor
    target: Tensor


class _VarianceLoss:
    """Negative log likelihood of held-out residuals under a variance target, per fold and value."""

    def __init__(self, grid: CoarseGrid, held: _Evidence, rest: _Evidence, variance: Tensor, values: Tensor):
        self._grid, self._held, self._rest = grid, held, rest
        self._variance, self._values = variance.view(-1, 1, 1), values

    def __call__(self, steps: Mapping[str, float]) -> Tensor:
        variance = variance_target(self._grid, self._rest, steps)
        return _nats(variance, self._held.count, self._held.sums, self._variance).sum((1, 2, 3, 4)) / self._values


def mean_target(grid: CoarseGrid, evidence: _Evidence, steps: Mapping[str, float]) -> Tensor:
    """(..., K, C, gh, gw): all -> class -> place -> neighbours, each step by its count."""
    count, sums, pictures = evidence
    everything = sums.sum((-4, -2, -1), keepdim=True) / count.sum((-4, -2, -1), keepdim=True).clamp_min(_TINY)
    of_class = sums.sum((-2, -1), keepdim=True) / count.sum((-2, -1), keepdim=True).clamp_min(_TINY)
    mean = everything + _moved(pictures * (of_class - everything), pictures, steps["class"])
    mean = mean.expand_as(sums)
    if steps["place"] < NEVER:
        residual = (sums - count * mean).sum(-4, keepdim=True)
        mean = mean + _smoothed(grid, residual, count.sum(-4, keepdim=True), _PLACE_SCALE, steps["place"])
    for step, scale in _NEIGHBOURS.items():
        if steps[step] < NEVER:
            mean = mean + _smoothed(grid, sums - count * mean, count, scale, steps[step])
    return mean


def variance_target(grid: CoarseGrid, evidence: _Evidence, steps: Mapping[str, float]) -> Tensor:
    """(..., K, C, gh, gw), as `mean_target` of squared residuals; the class's step in logarithms."""
    count, sums, pictures = evidence
    everything = sums.sum((-4, -2, -1), keepdim=True) / count.sum((-4, -2, -1), keepdim=True).clamp_min(_TINY)
    everything = everything.clamp_min(_TINY)
    of_class = sums.sum((-2, -1), keepdim=True) / count.sum((-2, -1), keepdim=True).clamp_min(_TINY)
    ratio = (of_class.clamp_min(_TINY) / everything).log()
    variance = everything * _moved(pictures * ratio, pictures, steps["class"]).exp()
    # Steps toward much calmer neighbours may overshoot.
    least = _LEAST_SHARE * variance
    variance = variance.expand_as(sums)
    for step, scale in _NEIGHBOURS.items():
        if steps[step] < NEVER:
            variance = variance + _smoothed(grid, sums - count * variance, count, scale, steps[step])
    return torch.maximum(variance, least).clamp_min(_TINY)


def _moved(residual: Tensor, count: Tensor, pseudo_count: float) -> Tensor:
    """residual / (n + a), 0 where there is no evidence at all."""
    weight = count + pseudo_count
    return torch.where(weight > 0, residual / weight.clamp_min(_TINY), 0)


def _smoothed(grid: CoarseGrid, residual: Tensor, count: Tensor, scale: float, pseudo_count: float) -> Tensor:
    return _moved(grid.smooth(residual, scale), grid.smooth(count, scale), pseudo_count)


def _squares_about(sums: ClassSums, mean: Tensor) -> Tensor:
    return (sums.squares - 2 * mean * sums.sums + sums.count * mean**2).clamp_min(0)


def _residual(sums: ClassSums, mean: Tensor, steps: Mapping[str, float]) -> Tensor:
    return _squares_about(sums, mean) * held_out_correction(sums.count, steps["cell"])


def _variances_of(sums: ClassSums) -> tuple[Tensor, Tensor]:
    """(C,) variance of a class over all its cells, and that of photos about the mean of their cell."""
    count = sums.count.sum().clamp_min(1)
    mean = sums.sums.sum((1, 2)) / count
    whole = (sums.squares.sum((1, 2)) / count - mean**2).clamp_min(_TINY)
    free = (sums.count - 1).clamp_min(0).sum()
    squares = (sums.squares - sums.sums**2 / sums.count.clamp_min(1)).clamp_min(0).sum((1, 2))
    return whole, (squares / free).clamp_min(_TINY) if free > 0 else whole


def _nats(variance: Tensor, count: Tensor, residual: Tensor, scale: Tensor) -> Tensor:
    """Negative log likelihood of n values with that sum of squared residuals, averaged over noise levels.

    Without noise, with a quarter and with all of the latents' own variance: a prior serves every start of the sampler.
    """
    return sum(
        0.5 * (count * ((variance + noise).log() + noise / (variance + noise)) + residual / (variance + noise))
        for noise in (0.0, 0.25 * scale, scale)
    )


def _search(
    loss: Callable[[Mapping[str, float]], Tensor], start: dict[str, float], price: float, rounds: int = 3
) -> dict[str, float]:
    """Coordinate descent over pseudo-counts, in octaves; leaving the start costs something."""
    home = _VARIANCE_START if "place" not in start else _MEAN_START

    def cost(steps: Mapping[str, float]) -> float:
        return float(loss(steps).sum()) + price * sum(_octaves(steps[key], home[key]) for key in keys)

    keys = [key for key in start if key != "cell"]
    steps, best = dict(start), cost(start)
    for _ in range(rounds):
        before = best
        for key in keys:
            for value in _tries(key, steps[key], home[key]):
                tried = {**steps, key: value}
                if (found := cost(tried)) < best:
                    steps, best = tried, found
        if before - best < 1e-6:
            break
    return steps


def _tries(key: str, value: float, home: float) -> list[float]:
    end = 0.0 if key == "class" else NEVER
    if value in (0.0, NEVER):
        return [home, 4 * home, 32 * home, end]
    return [tried for factor in _FACTORS if _LEAST <= (tried := value * factor) <= _MOST] + [end]


def _octaves(value: float, home: float) -> float:
    return _END_OCTAVES if value in (0.0, NEVER) else math.log2(value / home) ** 2


def _cheapest(losses: Tensor, home: float, price: float, counts: Sequence[float]) -> float:
    costs = losses + price * torch.tensor([_octaves(count, home) for count in counts])
    return counts[int(costs.argmin())]


def _as_good(simple: Tensor, other: Tensor) -> bool:
    """Whether the simpler one's losses (F,) are lower, or higher within the doubt there is over folds."""
    loss = simple - other
    return float(loss.sum()) <= _DOUBT * float(loss.std()) * math.sqrt(len(loss)) + 1e-9
