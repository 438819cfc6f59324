"""Expected negative log likelihood of latents nobody has learned from, under a prior, at a noise level.

What the sampler starts from is latent + sigma * noise. Over that noise the expectation is taken exactly, so no draw is
made and sigma 0 is the likelihood of the latent itself. Everything in float64; sigma in the units of the latents given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .prior import PriorMaps
    from .scene import SceneMaps

_LOG_2_PI = math.log(2 * math.pi)


def cell_nll(latents: Tensor, mean: Tensor, std: Tensor, sigma: float) -> Tensor:
    """Negative log likelihood of each value by itself, in nats: 0.5 log(2 pi v) + ((z - m)^2 + sigma^2) / (2 v).

    Here v = std^2 + sigma^2: the expectation over the noise of -log N(z + sigma n; m, v).

    Args:
        latents, mean, std: (B, C, h, w), std > 0.

    Returns:
        (B, C, h, w) float64.
    """
    variance = std.double() ** 2 + sigma**2
    squared = (latents.double() - mean.double()) ** 2 + sigma**2
    return 0.5 * (_LOG_2_PI + variance.log() + squared / variance)


def picture_nll(latents: Tensor, maps: PriorMaps, sigmas: Sequence[float]) -> Tensor:
    """Negative log likelihood of whole pictures, in nats per value.

    With scene effects the values of a picture are jointly Gaussian: a block of channels for each cell, plus the effects
    its classes share, which are of low rank. Woodbury's identity and the matrix determinant lemma keep that linear in
    the number of cells. Without scene effects it is the mean of `cell_nll`.

    Args:
        latents: (B, C, h, w).
        maps: of the same pictures.
        sigmas: S noise levels.

    Returns:
        (B, S) float64.
    """
    if maps.scene is None:
        cells = (cell_nll(latents, maps.mean, maps.std, sigma).mean((1, 2, 3)) for sigma in sigmas)
        return torch.stack(list(cells), dim=1)
    offset = (latents.double() - maps.mean.double()).flatten(2).mT
    std, slot = maps.std.double().flatten(2).mT, maps.scene.slot.flatten(1)
    rows = [_scene_nll(*cells, maps.scene, sigmas) for cells in zip(offset, std, slot, strict=True)]
    return torch.stack(rows)


def effects_of(slot: Tensor, scene: SceneMaps) -> tuple[Tensor, Tensor]:
    """The scene effects that reach these cells.

    Args:
        slot: (N,) int64, row of each cell in `scene.within`, the last one being "no effect".

    Returns:
        present (J,) int64, slots that occur and have an effect, ascending; factor (J, C, M') float64 with M' at most
        J * C, whose product with its own transpose is the covariance of those effects in units of the cells' std.
    """
    effects, channels = len(scene.within) - 1, scene.within.shape[-1]
    present = slot.unique()
    present = present[present < effects]
    factor = scene.factor.double().view(effects, channels, scene.factor.shape[1])[present]
    rows = factor.flatten(0, 1)
    if rows.shape[1] > rows.shape[0]:
        # The same covariance by fewer numbers: a picture holds few of a data set's classes.
        values, vectors = torch.linalg.eigh(rows @ rows.T)
        factor = (vectors * values.clamp_min(0).sqrt()).reshape(len(present), channels, len(rows))
    return present, factor


def cell_blocks(std: Tensor, slot: Tensor, scene: SceneMaps) -> Tensor:
    """Covariance between the channels of each cell, given the scene's effects.

    Args:
        std: (N, C) float64; slot: (N,) int64.

    Returns:
        (N, C, C) float64.
    """
    within = scene.within.double()
    blocks = (within @ within.mT)[slot]
    return blocks * std[:, :, None] * std[:, None, :]


def _scene_nll(offset: Tensor, std: Tensor, slot: Tensor, scene: SceneMaps, sigmas: Sequence[float]) -> Tensor:
    """(S,) for one picture: offset (latent minus mean) and std (N, C) float64, slot (N,)."""
    # Covariance is A + U F F' U', A of a block per cell: with the blocks' eigenvectors once, any sigma only adds to
    # their eigenvalues.
    values, vectors = torch.linalg.eigh(cell_blocks(std, slot, scene))
    values = values.clamp_min(torch.finfo(values.dtype).tiny)
    turned = vectors.mT * std[:, None, :]  # (N, eigenvector, channel): what an effect does to each of them
    residual = (vectors.mT @ offset[:, :, None]).squeeze(-1)
    present, factor = effects_of(slot, scene)
    index = torch.full((len(scene.within),), len(present), dtype=torch.int64)
    index[present] = torch.arange(len(present))
    own = index[slot]
    return torch.stack([_at_sigma(sigma, values, turned, residual, own, factor) for sigma in sigmas])


def _at_sigma(sigma: float, values: Tensor, turned: Tensor, residual: Tensor, own: Tensor, factor: Tensor) -> Tensor:
    precision = 1 / (values + sigma**2)
    log_determinant = -precision.log().sum()
    squared = (precision * residual**2).sum() + sigma**2 * precision.sum()
    if factor.numel():
        effects, _, rank = factor.shape
        flat = factor.reshape(-1, rank)

        def gathered(parts: Tensor) -> Tensor:
            # The last row takes the cells that no effect moves.
            total = parts.new_zeros(effects + 1, *parts.shape[1:])
            return total.index_add_(0, own, parts)[:-1]

        def between(weights: Tensor) -> Tensor:
            per_effect = gathered(turned.mT @ (weights[:, :, None] * turned))
            return flat.T @ (per_effect @ factor).reshape(-1, rank)

        capacity = torch.eye(rank, dtype=flat.dtype) + between(precision)
        root = torch.linalg.cholesky(capacity)
        seen = flat.T @ gathered((turned.mT @ (precision * residual)[:, :, None]).squeeze(-1)).reshape(-1, 1)
        log_determinant = log_determinant + 2 * root.diagonal().log().sum()
        squared = squared - (torch.linalg.solve_triangular(root, seen, upper=False) ** 2).sum()
        if sigma:
            squared = squared - sigma**2 * torch.cholesky_solve(between(precision**2), root).trace()
    return 0.5 * (_LOG_2_PI + (log_determinant + squared) / values.numel())
