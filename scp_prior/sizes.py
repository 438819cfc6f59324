"""Image sizes and the latent sizes that belong to them."""

from __future__ import annotations

from .errors import SCPError

MAX_SIDE = 16384
"""Longest side of a picture in pixels: that of the host's own nodes."""

_ADVICE = "Resize the segmentation image, or set width and height on the node."


def latent_size_of(
    size: tuple[int, int], downscale: int, what: str = "The label map", advice: str = _ADVICE
) -> tuple[int, int]:
    """(h, w) of the latent of an image of (H, W) pixels.

    Args:
        what: what has that size, to begin a message with.
        advice: what to do about it, to end one with.

    Raises:
        SCPError: a side is not a multiple of the VAE's factor; the message names the two nearest that are.
    """
    height, width = size
    if height % downscale or width % downscale or min(size) < downscale:
        raise SCPError(
            f"{what} is {width}x{height} pixels (width x height); both sides must be multiples of {downscale} "
            f"for this VAE. {_nearest('width', width, downscale)}{_nearest('height', height, downscale)}{advice}"
        )
    return height // downscale, width // downscale


def stretched(given: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether bringing (h, w) to (H, W) changes its proportions, by more than rounding would."""
    (h, w), (height, width) = given, wanted
    return abs(w * height / (h * width) - 1) >= 0.01


def _nearest(side: str, pixels: int, downscale: int) -> str:
    lower = pixels // downscale * downscale
    if pixels and lower == pixels:
        return ""
    return f"The {side} could be {f'{lower} or ' if lower else ''}{lower + downscale}. "
