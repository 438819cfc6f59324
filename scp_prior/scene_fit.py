"""Scene effects, learned: what the cells of one picture share beyond their class and place.

A picture's class mean differs from what its cells' means say: a dark street has a dark road and dark houses. In units
of each cell's spread, z = m + s (u_k + e): one draw of u = (u_1 ... u_K) per picture, correlated between classes and
channels, and e for each cell by itself. The variances of u_k and e add up to 1, so each cell keeps its mean and spread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from .pictures import FOLDS, Picture, Tally

# A class that covers fewer cells of a picture says more about single cells than about the picture.
FEWEST_CELLS = 8
# At least so much of a cell's variance is its own.
MOST_SHARE = 0.9
_FEWEST_PICTURES = 4
_LEAST_EIGENVALUE = 1e-3
# Cross-validation looks at so many classes (those most often seen) and pictures.
_CLASSES_TRIED, _PICTURES_TRIED = 48, 512
# Neighbouring cells of a photo are alike: so many say no more than one.
_CELLS_ALIKE = 64.0
_TINY = 1e-12


class Scene(NamedTuple):
    """share (K, C): of each cell's variance, what a picture's cells of that class share. correlation (K, C, K, C):
    of these effects. within (K, C, C): correlation of channels in what remains. count (K,): pictures that taught."""

    share: np.ndarray
    correlation: np.ndarray
    within: np.ndarray
    count: np.ndarray


class Residuals(NamedTuple):
    """Per picture and class: mean residual (N, K, C) in units of spread (0 where not used), cells (N, K; 0 = unused).

    field: (K, C, C), sums over pictures of (m - mean m)(m - mean m)^T, m being the cells' means. shown: (K,), how many
    of these pictures show each class.
    """

    value: np.ndarray
    count: np.ndarray
    field: np.ndarray
    shown: np.ndarray


class _Trust(NamedTuple):
    """Pseudo-counts, in pictures: of correlations between classes and within one, of a class's share; and how much of
    all shares is kept."""

    between: float = 8.0
    channels: float = 4.0
    share: float = 8.0
    kept: float = 1.0


_TRIED: tuple[tuple[str, tuple[float, ...]], ...] = (
    ("between", (1.0, 4.0, 16.0, 64.0, 1e9)),
    ("kept", (0.0, 0.25, 0.5, 0.75, 0.9)),
    ("channels", (1.0, 16.0, 64.0)),
    ("share", (2.0, 32.0)),
    ("between", (2.0, 8.0, 32.0)),
)


def fit_scene(
    pictures: Sequence[Picture],
    tallies: Mapping[int, Tally],
    class_ids: Sequence[int],
    mean: np.ndarray,
    std: np.ndarray,
    products: np.ndarray,
    cells: np.ndarray,
) -> Scene | None:
    """Learn scene effects; None where pictures are too few to tell.

    Args:
        class_ids: (K,) ascending.
        mean, std: (K, h w, C) of every cell as the prior will have them, LATENT units.
        products: (K, C, C), sums over all cells of all pictures of z z^T.
        cells: (K,), how many cells these are.
    """
    if len(pictures) < _FEWEST_PICTURES or len({picture.key % FOLDS for picture in pictures}) < 2:
        return None
    residuals = residuals_of(pictures, class_ids, mean, std)
    if not residuals.count.any():
        return None
    folds = np.array([picture.key % FOLDS for picture in pictures])
    trust = _choose(residuals, folds)
    share, correlation = _effects(residuals.value, residuals.count, trust)
    used = residuals.count > 0
    return Scene(
        share.astype(np.float32),
        correlation.astype(np.float32),
        _within(residuals, tallies, class_ids, products, cells).astype(np.float32),
        used.sum(0).astype(np.int64),
    )


def residuals_of(pictures: Sequence[Picture], class_ids: Sequence[int], mean: np.ndarray, std: np.ndarray) -> Residuals:
    """Residuals of the pictures' class means, about the means of the cells each class covered."""
    ids = np.asarray(class_ids)
    (k, _, c), n = mean.shape, len(pictures)
    value, count = np.zeros((n, k, c)), np.zeros((n, k))
    field, shown = np.zeros((k, c, c)), np.zeros(k)
    for index, picture in enumerate(pictures):
        row = np.searchsorted(ids, picture.labels)
        order = np.argsort(row, kind="stable")
        row = row.take(order)
        starts = np.concatenate(([0], np.flatnonzero(row[1:] != row[:-1]) + 1))
        present, sizes = row.take(starts), np.diff(starts, append=len(row))
        here = mean[row, order].astype(np.float64)
        expected = np.add.reduceat(here, starts) / sizes[:, None]
        spread = np.add.reduceat(std[row, order].astype(np.float64), starts) / sizes[:, None]
        value[index, present] = (picture.means - expected) / spread
        count[index, present] = sizes
        offset = here - np.repeat(expected, sizes, axis=0)
        for which, part in zip(present, np.split(offset, starts[1:]), strict=True):
            # einsum and not a matrix product: BLAS may round by the number of its threads.
            field[which] += np.einsum("ni,nj->ij", part, part)
        shown[present] += 1
    unused = count < FEWEST_CELLS
    count[unused] = 0
    value[unused] = 0
    return Residuals(value, count, field, shown)


def _choose(residuals: Residuals, folds: np.ndarray) -> _Trust:
    """The trust under which pictures of a left-out fold are least surprising."""
    seen = (residuals.count > 0).sum(0)
    classes = np.sort(np.argsort(-seen, kind="stable")[:_CLASSES_TRIED])
    classes = classes[seen[classes] > 0]
    value, count, folds = (part[:_PICTURES_TRIED] for part in (residuals.value, residuals.count, folds))
    value, count = value[:, classes], count[:, classes]

    def loss(trust: _Trust) -> float:
        return sum(
            _surprise(value[folds == fold], count[folds == fold], *_effects(value[rest], count[rest], trust))
            for fold in range(FOLDS)
            if (folds == fold).any() and (rest := folds != fold).any()
        )

    trust, best = _Trust(), loss(_Trust())
    for field, numbers in _TRIED:
        for number in numbers:
            tried = trust._replace(**{field: number})
            if (found := loss(tried)) < best:
                trust, best = tried, found
    return trust


def _effects(value: np.ndarray, count: np.ndarray, trust: _Trust) -> tuple[np.ndarray, np.ndarray]:
    """share (K, C) and correlation (K, C, K, C), positive definite, from (N, K, C) residuals and (N, K) cells."""
    n, k, c = value.shape
    used = (count > 0).astype(np.float64)
    seen, together = used.sum(0), used.T @ used
    # A picture is part of the means it is compared with.
    scaled = value * np.sqrt(np.where(seen > 1, seen / np.maximum(seen - 1, 1), 1))[:, None]
    flat = scaled.reshape(n, k * c)
    second = (flat.T @ flat).reshape(k, c, k, c) / np.maximum(together, 1)[:, None, :, None]
    diagonal = np.einsum("kckc->kc", second)

    # Of independent cells a mean of n has variance 1/n by itself, which is no scene effect.
    noise = ((used / np.maximum(count, 1)).sum(0) / np.maximum(seen, 1))[:, None]
    share = np.clip((diagonal - noise) / np.maximum(1 - noise, 0.5), 0, MOST_SHARE)
    typical = (share * seen[:, None]).sum(0) / max(seen.sum(), 1)
    share = (seen[:, None] * share + trust.share * typical) / (seen[:, None] + trust.share)
    share = np.where(seen[:, None] > 0, share, 0) * trust.kept

    scale = np.sqrt(np.maximum(diagonal, _TINY)).reshape(-1)
    correlation = np.clip(second.reshape(k * c, k * c) / np.outer(scale, scale), -1, 1)
    weight = together / (together + trust.between)
    np.fill_diagonal(weight, seen / (seen + trust.channels))
    correlation *= np.repeat(np.repeat(weight, c, axis=0), c, axis=1)
    return share, positive_definite(correlation, _LEAST_EIGENVALUE).reshape(k, c, k, c)


def _surprise(value: np.ndarray, count: np.ndarray, share: np.ndarray, correlation: np.ndarray) -> float:
    """Negative log likelihood of pictures' residuals under scene effects, up to a constant."""
    k, c = share.shape
    root = np.sqrt(share).reshape(-1)
    covariance = correlation.reshape(k * c, k * c) * np.outer(root, root)
    total = 0.0
    for residual, cells in zip(value, count, strict=True):
        present = np.flatnonzero(cells)
        if not len(present):
            continue
        index = (present[:, None] * c + np.arange(c)).ravel()
        here = covariance[np.ix_(index, index)] + np.diag(((1 - share[present]) / cells[present, None]).ravel())
        factor = np.linalg.cholesky(here)
        total += 0.5 * float(np.sum(np.linalg.solve(factor, residual[present].ravel()) ** 2))
        total += float(np.log(np.diag(factor)).sum())
    return total


def _within(
    residuals: Residuals,
    tallies: Mapping[int, Tally],
    class_ids: Sequence[int],
    products: np.ndarray,
    cells: np.ndarray,
) -> np.ndarray:
    """(K, C, C) correlation of channels within a picture, without what the cells' means explain."""
    k, c = products.shape[:2]
    correlations = np.empty((k, c, c))
    for row, class_id in enumerate(class_ids):
        # Where only some pictures are kept, they stand for all.
        stands_for = tallies[class_id].shown.sum() / max(residuals.shown[row], 1)
        within = products[row] - tallies[class_id].between - stands_for * residuals.field[row]
        correlations[row] = _correlation_of(within)
    typical = np.einsum("k,kij->ij", cells, correlations) / max(cells.sum(), 1)
    none = np.eye(c)
    typical = none + _evident(typical - none, cells.sum()) * (typical - none)
    return np.stack(
        [
            positive_definite(typical + _evident(own - typical, n) * (own - typical), 0.02)
            for own, n in zip(correlations, cells, strict=True)
        ]
    )


def _evident(deviation: np.ndarray, cells: float) -> float:
    """How much of a deviation between correlations is more than chance, 0 to 1.

    Of n independent values a correlation is off by 1/n in the square; what is left above that is kept, as in James and
    Stein's positive-part estimator.
    """
    pairs = len(deviation) * (len(deviation) - 1)
    energy = float((deviation**2).sum())
    return max(0.0, 1 - pairs * _CELLS_ALIKE / (max(cells, 1.0) * energy)) if energy > 0 else 0.0


def _correlation_of(covariance: np.ndarray) -> np.ndarray:
    variance = np.diag(covariance)
    if (variance <= _TINY).any():
        return np.eye(len(covariance))
    scale = np.sqrt(variance)
    return np.clip(covariance / np.outer(scale, scale), -1, 1)


def positive_definite(correlation: np.ndarray, least: float) -> np.ndarray:
    """The correlation matrix, with a unit diagonal and no eigenvalue to speak of below `least`."""
    correlation = (correlation + correlation.T) / 2
    np.fill_diagonal(correlation, 1)
    values, vectors = np.linalg.eigh(correlation)
    if values[0] < least:
        correlation = (vectors * np.maximum(values, least)) @ vectors.T
        scale = np.sqrt(np.diag(correlation))
        correlation = correlation / np.outer(scale, scale)
    correlation = (correlation + correlation.T) / 2
    np.fill_diagonal(correlation, 1)
    return correlation
