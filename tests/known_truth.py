"""For tests of scene effects: prior maps made of nothing but random numbers, and their covariance written out."""

from __future__ import annotations

import torch
from torch import Tensor

from scp_prior.prior import PriorMaps
from scp_prior.scene import SceneMaps


def random_maps(
    size=(3, 4), channels: int = 2, effects: int = 3, rank: int = 4, batch: int = 1, seed: int = 0, scene: bool = True
) -> PriorMaps:
    """Maps whose marginals are N(mean, std^2); some cells are moved by no effect."""
    g = torch.Generator().manual_seed(seed)
    mean = torch.randn(batch, channels, *size, generator=g)
    std = 0.3 + torch.rand(batch, channels, *size, generator=g)
    maps = PriorMaps(mean, std, torch.zeros(batch, *size, dtype=torch.uint8))
    if not scene:
        return maps
    slot = torch.randint(0, effects + 1, (batch, *size), generator=g)
    slot[0, 0, 0] = effects
    factor = torch.randn(effects, channels, rank, generator=g, dtype=torch.float64)
    share = 0.2 + 0.6 * torch.rand(effects, channels, 1, generator=g, dtype=torch.float64)
    factor = factor / factor.norm(dim=2, keepdim=True) * share.sqrt()
    rows = torch.randn(effects, channels, channels, generator=g, dtype=torch.float64)
    correlation = rows @ rows.mT + torch.eye(channels)
    scale = (1 - share).sqrt() / correlation.diagonal(dim1=1, dim2=2).sqrt()[:, :, None]
    within = torch.linalg.cholesky(correlation * scale * scale.mT)
    within = torch.cat([within, torch.eye(channels, dtype=torch.float64)[None]])
    return maps._replace(scene=SceneMaps(slot, factor.flatten(0, 1).float(), within.float()))


def dense_covariance(maps: PriorMaps, item: int) -> Tensor:
    """(h w C, h w C) float64, cell-major, entry by entry as the model says."""
    std = maps.std[item].double().flatten(1).T
    n, c = std.shape
    slots = maps.scene.slot[item].flatten().tolist()
    effects = len(maps.scene.within) - 1
    shared = maps.scene.factor.double() @ maps.scene.factor.double().T
    within = maps.scene.within.double()
    made = torch.zeros(n, c, n, c, dtype=torch.float64)
    for p in range(n):
        for q in range(n):
            for i in range(c):
                for j in range(c):
                    value = 0.0
                    if slots[p] < effects and slots[q] < effects:
                        value += shared[slots[p] * c + i, slots[q] * c + j]
                    if p == q:
                        value += float(within[slots[p]][i] @ within[slots[p]][j])
                    made[p, i, q, j] = std[p, i] * std[q, j] * value
    return made.reshape(n * c, n * c)


def cell_major(values: Tensor) -> Tensor:
    """(C, h, w) -> (h w C,) float64."""
    return values.double().flatten(1).T.reshape(-1)
