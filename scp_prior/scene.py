"""Scene effects: what the cells of one picture share, drawn once per picture for the classes it shows."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .noise import scene_generator
from .statistics import Statistics

_LEAST_EIGENVALUE = 1e-6


class SceneMaps(NamedTuple):
    """How cells of one picture move together; z = mean + std * (u[slot] + within[slot] n).

    slot: (B, h, w) int64, which of P effects moves the cell; P = none.
    factor: (P * C, M) float32, class-major; factor @ factor.T is the covariance of the effects u = factor @ g, in units
        of each cell's std, g ~ N(0, I).
    within: (P + 1, C, C) float32, lower Cholesky factors of the channel covariance of what remains, in the same units;
        row P is the identity. For each channel the two variances sum to 1.
    """

    slot: Tensor
    factor: Tensor
    within: Tensor


def scene_maps(statistics: Statistics, rows: Tensor, variation: float) -> SceneMaps | None:
    """Scene effects of the classes in these label maps.

    Args:
        rows: (B, h, w) int64, each cell's row of the file's classes; K or more = a class the file does not know.
        variation: 0 = none, every cell and channel for itself; 1 = as measured.

    Returns:
        SceneMaps, or None where the file holds no scene effects or `variation` is 0.
    """
    if not statistics.has_scene or variation == 0:
        return None
    share, root, within = _of_file(statistics)
    k, c = share.shape
    present = (rows.flatten().bincount(minlength=k + 1)[:k] > 0).nonzero().flatten()
    slots = torch.full((k + 1,), len(present))
    slots[present] = torch.arange(len(present))

    # The present classes' rows of the factor of all: a picture is the same whatever else is in the batch.
    moved = share[present] * variation**2
    factor = moved.sqrt().reshape(-1, 1) * root[present].flatten(0, 1)

    mixed = torch.lerp(torch.eye(c, dtype=torch.float64), within[present], variation)
    remaining = (1 - moved).sqrt().unsqueeze(2) * _factor(mixed)
    within = torch.cat([remaining, torch.eye(c, dtype=torch.float64).unsqueeze(0)])
    return SceneMaps(slots[rows], factor.float(), within.float())


def _of_file(statistics: Statistics) -> tuple[Tensor, Tensor, Tensor]:
    """float64 share (K, C), root (K, C, K C) of the correlation, within (K, C, C); read and factored once."""
    if "scene" not in statistics.derived:
        share, correlation, within, _ = (part.double() for part in statistics.scene())
        k, c = share.shape
        root = _factor(correlation.reshape(k * c, k * c)).view(k, c, k * c)
        statistics.derived["scene"] = share, root, within
    return statistics.derived["scene"]


def scene_noise(scene: SceneMaps, item: int, noise: Tensor, seed: int, index: int) -> Tensor:
    """One item's noise in units of each cell's std: (C, h, w) independent noise in, noise with scene effects out."""
    c, h, w = noise.shape
    slot = scene.slot[item].flatten()
    drawn = torch.randn(scene.factor.shape[1], generator=scene_generator(seed, index))
    effects = (scene.factor @ drawn).view(-1, c)
    effects = torch.cat([effects, effects.new_zeros(1, c)])
    cells = noise.view(c, h * w).T
    own = (scene.within.index_select(0, slot) @ cells.unsqueeze(2)).squeeze(2)
    return (own + effects.index_select(0, slot)).T.reshape(c, h, w)


def _factor(correlation: Tensor) -> Tensor:
    """Lower Cholesky factors (..., n, n) of correlation matrices; what a file's rounding made indefinite is mended.

    Rows have length 1 whatever the file's diagonal: each cell's variance stays its own.
    """
    factor, failed = torch.linalg.cholesky_ex(correlation)
    if failed.any():
        values, vectors = torch.linalg.eigh(correlation)
        mended = (vectors * values.clamp_min(_LEAST_EIGENVALUE).unsqueeze(-2)) @ vectors.mT
        # Only where needed: a class's numbers must not depend on which others are shown.
        factor = torch.where((failed > 0)[..., None, None], torch.linalg.cholesky(mended), factor)
    return factor / torch.linalg.vector_norm(factor, dim=-1, keepdim=True)
