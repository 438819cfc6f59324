"""Latents pooled over a few large areas, where what a whole picture shares shows; and the prior's law of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .likelihood import cell_blocks, effects_of

if TYPE_CHECKING:
    from .prior import PriorMaps
    from .scene import SceneMaps

GRIDS = ((1, 1), (1, 2), (2, 2), (2, 3), (4, 6))
"""Areas as rows x columns; coarse ones need few pictures, fine ones tell more."""


def usable_grids(
    channels: int, latent_size: tuple[int, int], pictures: int
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Which of GRIDS have a covariance that this many pictures can tell: fewer than half as many dimensions.

    Returns:
        Those, and the ones left out.
    """
    small = [grid for grid in GRIDS if grid[0] <= latent_size[0] and grid[1] <= latent_size[1]]
    used = [grid for grid in small if 2 * channels * grid[0] * grid[1] < pictures]
    return used, [grid for grid in GRIDS if grid not in used]


class Pooling:
    """Means over `grid` areas, rows x columns, of a latent; each cell belongs to one of them."""

    def __init__(self, grid: tuple[int, int], latent_size: tuple[int, int]):
        self.areas = grid[0] * grid[1]
        rows, columns = (torch.arange(n) * g // n for n, g in zip(latent_size, grid, strict=True))
        self._area = (rows[:, None] * grid[1] + columns).flatten()
        self.cells = torch.bincount(self._area, minlength=self.areas).double()

    def means(self, values: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, areas * C) float64, area-major."""
        flat = values.double().flatten(2).permute(2, 0, 1)
        summed = flat.new_zeros(self.areas, *flat.shape[1:]).index_add_(0, self._area, flat)
        return (summed / self.cells[:, None, None]).permute(1, 0, 2).flatten(1)

    def noise(self, sigma: float, channels: int) -> Tensor:
        """(areas * C,): variance of the pooled noise where each value has noise of this sigma."""
        return (sigma**2 / self.cells).repeat_interleave(channels)

    def covariance(self, maps: PriorMaps) -> Tensor:
        """Covariance of `means` over all samples of these maps, summed over the batch: (areas * C, areas * C)."""
        if maps.scene is None:
            variances = self.means(maps.std.double() ** 2).sum(0)
            return (variances / self.cells.repeat_interleave(maps.std.shape[1])).diag()
        std, slot = maps.std.double().flatten(2).mT, maps.scene.slot.flatten(1)
        return torch.stack([self._of_picture(*cells, maps.scene) for cells in zip(std, slot, strict=True)]).sum(0)

    def _of_picture(self, std: Tensor, slot: Tensor, scene: SceneMaps) -> Tensor:
        channels = std.shape[1]
        blocks = cell_blocks(std, slot, scene)
        summed = blocks.new_zeros(self.areas, channels, channels).index_add_(0, self._area, blocks)
        own = torch.block_diag(*(summed / self.cells[:, None, None] ** 2))
        present, factor = effects_of(slot, scene)
        if not len(present):
            return own
        reach = torch.stack([self._means_of(std * (slot == effect)[:, None]) for effect in present], dim=1)
        rows = torch.einsum("ajc,jcm->acm", reach, factor).flatten(0, 1)
        return own + rows @ rows.T

    def _means_of(self, rows: Tensor) -> Tensor:
        summed = rows.new_zeros(self.areas, rows.shape[1]).index_add_(0, self._area, rows)
        return summed / self.cells[:, None]


def cell_covariances(maps: PriorMaps) -> Tensor:
    """Covariance between the channels of each cell, scene effects included: (B, h w, C, C) float64."""
    std = maps.std.double().flatten(2).mT
    scale = std[..., :, None] * std[..., None, :]
    if maps.scene is None:
        return (std**2).diag_embed()
    scene, channels = maps.scene, std.shape[-1]
    within = scene.within.double()
    blocks = within @ within.mT
    factor = scene.factor.double().view(len(within) - 1, channels, scene.factor.shape[1])
    blocks[:-1] += factor @ factor.mT
    return blocks[scene.slot.flatten(1)] * scale
