"""What the effect benchmark measures of pictures, and how sure it is.

Everything keeps the maps apart, so that errors can be had by drawing maps (and seeds) again: the bootstrap of Efron,
the same draws for every start, so that differences between starts are paired.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from scp_prior.frechet import RunningMoments, frechet_distance

DRAWS = 200


class Measured(NamedTuple):
    """What is kept of one run, by map. hits, misses, extras: (N, K) pixels of each class that were told rightly, that
    are of the class and were not told so, and that were told so and are not. features, latents, colours: (N, D) what
    Frechet distances are taken of. small: (N, 3, h, w) uint8, the pictures in small."""

    hits: np.ndarray
    misses: np.ndarray
    extras: np.ndarray
    features: np.ndarray
    latents: np.ndarray
    colours: np.ndarray
    small: np.ndarray


DISTANCES = ("features", "latents", "colours")


def confusion(told: Tensor, truth: Tensor, classes: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hits, misses and extras of each map and class, (N, K) int64 each, of two (N, H, W) maps of ids."""
    hits, misses, extras = [], [], []
    for label in classes:
        here, said = truth == label, told == label
        hits.append((here & said).flatten(1).sum(1))
        misses.append((here & ~said).flatten(1).sum(1))
        extras.append((~here & said).flatten(1).sum(1))
    return tuple(torch.stack(part, 1).numpy() for part in (hits, misses, extras))


def mean_iou(run: Measured, weight: np.ndarray | None = None) -> float:
    """Mean over the classes of intersection over union, each over all maps together; maps count by `weight` (N,)."""
    hits, misses, extras = _sums(run, weight)
    union = hits + misses + extras
    return float((hits[union > 0] / union[union > 0]).mean())


def pixel_accuracy(run: Measured, weight: np.ndarray | None = None) -> float:
    """Share of pixels told as the map has them."""
    hits, misses, _ = _sums(run, weight)
    return float(hits.sum() / (hits + misses).sum())


def _sums(run: Measured, weight: np.ndarray | None) -> list[np.ndarray]:
    parts = (run.hits, run.misses, run.extras)
    return [part.sum(0) if weight is None else weight @ part for part in parts]


def distance(of: np.ndarray, real: np.ndarray) -> float:
    """Frechet distance between two sets of vectors, (N, D) and (M, D)."""
    moments = []
    for values in (of, real):
        running = RunningMoments(values.shape[1])
        running.add(torch.from_numpy(values))
        moments.append(running.gaussian())
    return float(frechet_distance(*moments))


def variety(colours: np.ndarray, real: np.ndarray) -> float:
    """How much pictures differ from map to map: the variance of their pooled colours, real pictures' being 1."""
    return float(colours.var(0, ddof=1).sum() / real.var(0, ddof=1).sum())


def apart(runs: Sequence[Measured]) -> float:
    """How much pictures of one map differ from seed to seed: root mean square over pixels in small, 0..1."""
    stack = np.stack([run.small for run in runs]).astype(np.float64) / 255
    return float(np.sqrt(stack.var(0, ddof=1).mean() * 2))


Quantity = Callable[[Measured, np.ndarray | None], float]


def quantities(real: Measured) -> dict[str, Quantity]:
    """Every measure of a run, as a function of it and of how often each map counts (integers, or None)."""

    def repeated(values: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
        return values if weight is None else np.repeat(values, weight, 0)

    found: dict[str, Quantity] = {"mIoU": mean_iou, "accuracy": pixel_accuracy}
    for name in DISTANCES:
        target = getattr(real, name)
        found[f"FD {name}"] = lambda run, w, name=name, target=target: distance(repeated(getattr(run, name), w), target)
    found["variety"] = lambda run, w: variety(repeated(run.colours, w), real.colours)
    return found


class Estimate(NamedTuple):
    """value, and its standard error over maps and seeds."""

    value: float
    error: float


def estimates(
    groups: Mapping[str, Sequence[Measured]], quantity: Quantity, against: str, seed: int = 0, draws: int = DRAWS
) -> dict[str, tuple[Estimate, Estimate]]:
    """The mean over a group's runs (its seeds), and its difference from the group `against`, each with its error.

    One draw of the bootstrap takes as many maps as there are, with repetition, and as many seeds as the group has; the
    groups share the draws, seed by seed where they have as many.
    """
    rng = np.random.default_rng(seed)
    count = len(next(iter(groups.values()))[0].hits)
    weights = [np.bincount(rng.integers(count, size=count), minlength=count) for _ in range(draws)]
    picks = rng.random((draws, max(len(runs) for runs in groups.values())))
    values = {name: float(np.mean([quantity(run, None) for run in runs])) for name, runs in groups.items()}
    drawn = {}
    for name, runs in groups.items():
        seeds = (picks[:, : len(runs)] * len(runs)).astype(int)
        of_draw = []
        for weight, chosen in zip(weights, seeds, strict=True):
            once = {k: quantity(runs[k], weight) for k in set(chosen.tolist())}
            of_draw.append(np.mean([once[k] for k in chosen.tolist()]))
        drawn[name] = np.array(of_draw)
    return {
        name: (
            Estimate(values[name], float(drawn[name].std(ddof=1))),
            Estimate(values[name] - values[against], float((drawn[name] - drawn[against]).std(ddof=1))),
        )
        for name in groups
    }
