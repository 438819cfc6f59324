"""A coarse grid over the latent cells, on which what neighbours share is kept and smoothed."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

# Rows of the coarse grid: fine enough for a horizon, coarse enough to cost next to nothing.
_MOST_ROWS, _MOST_COLUMNS = 16, 64


class CoarseGrid:
    """Brings fields of h x w cells to a coarse grid and back.

    Coarse values are the corners of a bilinear surface over the cells; `pool` is the adjoint of `spread`, so that each
    cell's evidence goes to the corners it is later read from, in the same shares.

    Attributes:
        size: (gh, gw), at most 16 rows and 64 columns, with the latent's proportions.
    """

    def __init__(self, latent_size: tuple[int, int]):
        h, w = latent_size
        rows = min(h, _MOST_ROWS)
        self.size = (rows, max(1, min(w, round(rows * w / h), _MOST_COLUMNS)))
        self._down, self._across = _bilinear(h, self.size[0]), _bilinear(w, self.size[1])
        self._cells = h * w / (self.size[0] * self.size[1])

    def pool(self, field: Tensor) -> Tensor:
        """(..., h, w) float64 -> (..., gh, gw), the average over the cells of each corner's surroundings."""
        return self._down.T @ field @ self._across / self._cells

    def spread(self, coarse: Tensor) -> Tensor:
        """(..., gh, gw) -> (..., h, w), bilinear."""
        return self._down @ coarse @ self._across.T

    def smooth(self, coarse: Tensor, scale: float) -> Tensor:
        """Gaussian average over corners, `scale` being its standard deviation as a share of the height; 0 is none."""
        if not scale:
            return coarse
        down, across = (_gaussian(n, scale * self.size[0]) for n in self.size)
        return down @ coarse @ across.T


def _bilinear(fine: int, coarse: int) -> Tensor:
    """(fine, coarse) float64 weights, rows summing to 1."""
    corners = torch.eye(coarse, dtype=torch.float64).unsqueeze(0)
    return F.interpolate(corners, size=fine, mode="linear", align_corners=False)[0].T.contiguous()


@cache
def _gaussian(n: int, scale: float) -> Tensor:
    """(n, n) float64 weights of an average that is reflected at the border, rows summing to 1."""
    at = torch.arange(n, dtype=torch.float64)
    weights = sum(
        torch.exp(-0.5 * ((at.unsqueeze(1) - mirrored) / scale) ** 2) for mirrored in (at, -1 - at, 2 * n - 1 - at)
    )
    return weights / weights.sum(1, keepdim=True)
