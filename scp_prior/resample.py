"""Moments on another latent grid."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def resample_cells(count: Tensor, mean: Tensor, std: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Joint statistics on another grid, by interpolating count-weighted first and second moments.

    Bilinear, with antialiasing where the grid gets coarser. The count of a new cell is the interpolated count: the
    number of photos that speak for it. Cells that saw nothing weigh nothing.

    Args:
        count: (n, h, w); mean, std: (n, C, h, w).
        size: the new (h', w').

    Returns:
        count (n, h', w'), mean and std (n, C, h', w') float32; zeros where nothing was seen.
    """
    weight = count.double().unsqueeze(1)
    mean, variance = mean.double(), std.double() ** 2
    # Second moments about the class's own mean: about zero, a small spread would drown in a large mean.
    centre = (weight * mean).sum((2, 3), keepdim=True) / weight.sum((2, 3), keepdim=True).clamp_min(1)
    offset = mean - centre
    new_weight = _interpolate(weight, size)
    divisor = torch.where(new_weight > 0, new_weight, 1)
    first = _interpolate(weight * offset, size) / divisor
    second = _interpolate(weight * (variance + offset**2), size) / divisor
    seen = new_weight > 0
    new_mean = torch.where(seen, centre + first, 0)
    new_std = torch.where(seen, (second - first**2).clamp_min(0).sqrt(), 0)
    return new_weight.squeeze(1).float(), new_mean.float(), new_std.float()


def resample_moments(mean: Tensor, std: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Spatial statistics on another grid: as `resample_cells`, all cells weighing the same.

    Args:
        mean, std: (C, h, w).

    Returns:
        mean and std (C, h', w') float32.
    """
    ones = torch.ones(1, *mean.shape[-2:])
    _, new_mean, new_std = resample_cells(ones, mean.unsqueeze(0), std.unsqueeze(0), size)
    return new_mean[0], new_std[0]


def _interpolate(x: Tensor, size: tuple[int, int]) -> Tensor:
    coarser = size[0] < x.shape[-2] or size[1] < x.shape[-1]
    # Rounding must not make a weight of nothing out of nothing, nor a negative one.
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=coarser)
