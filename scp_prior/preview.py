"""Latents as colours, without a VAE."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# The linear approximation of Stable Diffusion 1 and 2's decoder that ComfyUI's own previews use, for latents in model
# units.
SD_FACTORS = (
    (0.3512, 0.2297, 0.3227),
    (0.3250, 0.4974, 0.2350),
    (-0.2829, 0.1762, 0.2721),
    (-0.2120, -0.2616, -0.7177),
)
SD_SCALE = 0.18215
# A node shows its picture some 350 pixels wide, and blurs what is smaller.
_LEAST_SIDE = 512


def latent_to_rgb(
    latent: Tensor,
    factors: Sequence[Sequence[float]] | None = None,
    bias: Sequence[float] | None = None,
    scale: float = SD_SCALE,
) -> Tensor:
    """A small colour picture of a latent.

    Args:
        latent: (B, C, h, w), LATENT units.
        factors: (C, 3) colour of each channel, as a latent format of the host gives it; by default SD's for 4
            channels, and otherwise the latent's own three principal components.
        bias: (3,) added to the colours.
        scale: LATENT units -> model units.

    Returns:
        (B, h, w, 3) float32, 0..1.
    """
    pixels = latent.float().movedim(1, -1) * scale
    if factors is None and pixels.shape[-1] == len(SD_FACTORS):
        factors = SD_FACTORS
    if factors is None:
        return _principal(pixels)
    rgb = pixels @ torch.tensor(factors, dtype=torch.float32, device=pixels.device)
    if bias is not None:
        rgb = rgb + torch.tensor(bias, dtype=torch.float32, device=pixels.device)
    return ((rgb + 1) / 2).clamp(0, 1)


def enlarged(picture: Tensor) -> Tensor:
    """(B, H, W, 3), each pixel made a square of so many that the longer side has 512 at least."""
    times = -(-_LEAST_SIDE // max(picture.shape[1:3]))
    return picture if times == 1 else picture.repeat_interleave(times, 1).repeat_interleave(times, 2)


def _principal(pixels: Tensor) -> Tensor:
    flat = pixels.flatten(0, -2)
    centred = flat - flat.mean(0)
    _, vectors = torch.linalg.eigh(centred.T @ centred)
    components = centred @ vectors[:, -3:].flip(-1)
    if components.shape[-1] < 3:
        components = components[:, :1].expand(-1, 3)
    spread = components.std(0, correction=0).clamp_min(1e-6)
    return (0.5 + components / (4 * spread)).clamp(0, 1).view(*pixels.shape[:-1], 3)
