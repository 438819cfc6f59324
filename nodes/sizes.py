"""The size of the picture, asked for alike by every node that has to know it."""

from __future__ import annotations

from typing import NamedTuple

from comfy_api.latest import io
from torch import Tensor

from ..scp_prior.sizes import MAX_SIDE, latent_size_of


class Size(NamedTuple):
    """pixels: (H, W) of the picture. cells: (h, w) of its latent."""

    pixels: tuple[int, int]
    cells: tuple[int, int]


def size_inputs() -> list[io.Input]:
    """Width and height; where both are 0 the label map decides."""
    return [
        io.Int.Input(
            side,
            default=0,
            min=0,
            max=MAX_SIDE,
            step=8,
            optional=True,
            tooltip=f"{side.capitalize()} of the picture in pixels; 0 = that of the label map.",
        )
        for side in ("width", "height")
    ]


def size_of(labels: Tensor, width: int, height: int, downscale: int) -> Size:
    """The size asked for, or the label map's (B, H, W) where it is 0.

    Raises:
        SCPError: the VAE allows no such size.
    """
    pixels = (height or labels.shape[1], width or labels.shape[2])
    asked = "The size asked for (width and height on this node)" if width or height else "The label map"
    return Size(pixels, latent_size_of(pixels, downscale, asked))
