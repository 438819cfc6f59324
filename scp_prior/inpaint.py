"""A photo's latent with a prior's in its place where a mask says so."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .batches import common_batch, dealt_out
from .errors import SCPError
from .painting import hard_mask
from .sizes import latent_size_of


class Inpainted(NamedTuple):
    """samples: `(B, C, h, w)` float32, LATENT units. noise_mask: `(B, 1, H, W)` float32, 1 where the prior is."""

    samples: Tensor
    noise_mask: Tensor


def grown(mask: Tensor, pixels: int) -> Tensor:
    """A mask with all that lies within so many pixels of it, corners included.

    Args:
        mask: `(B, H, W)` bool.
        pixels: how far it grows to each side, 0 or more.

    Returns:
        `(B, H, W)` bool.
    """
    if not pixels:
        return mask
    for axis in (1, 2):
        # How many marked pixels lie up to here; the difference over a window is how many lie in it.
        count = mask.to(torch.int32).cumsum(axis, dtype=torch.int32)
        size = mask.shape[axis]
        last = torch.arange(size, device=mask.device).add(pixels).clamp_max(size - 1)
        before = torch.arange(size, device=mask.device) - pixels - 1
        until = count.index_select(axis, last)
        shape = (1, size, 1) if axis == 1 else (1, 1, size)
        left_out = count.index_select(axis, before.clamp_min(0)) * (before >= 0).view(shape)
        mask = until > left_out
    return mask


def cells_of_mask(mask: Tensor, downscale: int) -> Tensor:
    """The latent cells a mask touches: `(B, H, W)` bool of a picture -> `(B, h, w)` bool."""
    b, height, width = mask.shape
    cells = mask.view(b, height // downscale, downscale, width // downscale, downscale)
    return cells.any(4).any(2)


def inpainted(prior: Tensor, photo: Tensor, mask: Tensor, downscale: int) -> Inpainted:
    """The prior in the cells the mask touches, the photo in all others.

    Args:
        prior: `(B, C, h, w)`, LATENT units.
        photo: `(N, C, h, w)`, the encoded photos.
        mask: `(M, H, W)` bool at the size of the photos, True where they are to be replaced.
        downscale: pixels per cell along one side.

    Returns:
        As many as the most of B, N and M, item i made of item i mod B, N and M. The noise mask is at the size of the
        photos and the same all over a cell, so that the sampler, which scales it down, finds the very same cells.

    Raises:
        SCPError: the numbers of latents, photos and masks do not fit together.
    """
    total = common_batch(latents=len(prior), photos=len(photo), masks=len(mask))
    cells = cells_of_mask(mask, downscale)
    prior, photo, cells = (dealt_out(part, total) for part in (prior.float(), photo.float(), cells))
    blocks = cells.repeat_interleave(downscale, 1).repeat_interleave(downscale, 2)
    return Inpainted(torch.where(cells.unsqueeze(1), prior, photo), blocks.unsqueeze(1).float())


def mask_for(mask: Tensor, photo_size: tuple[int, int]) -> Tensor:
    """The mask as `(M, H, W)` bool, see `painting.hard_mask`.

    Args:
        mask: as for `hard_mask`.
        photo_size: (H, W) of the photos.

    Raises:
        SCPError: it is no mask, of another size, or marks nothing at all.
    """
    marked = hard_mask(mask)
    if not bool(marked.any()):
        # The host's Load Image hands out an empty mask of another size where none was drawn.
        raise SCPError(
            "The mask is empty, so there is nothing to replace. Draw one on the photo (Open in MaskEditor), or take a "
            "class by SCP Mask From Labels."
        )
    if tuple(marked.shape[1:]) != tuple(photo_size):
        raise SCPError(
            f"The mask is {_wide_high(marked.shape[1:])} pixels (width x height), the photo {_wide_high(photo_size)}. "
            "Draw it on this photo, or resize one to the size of the other."
        )
    return marked


def check_photo(photo_size: tuple[int, int], latent_size: tuple[int, int], downscale: int) -> None:
    """Whether a photo of (H, W) pixels has a latent of (h, w) cells.

    Raises:
        SCPError: it has none, or one of another size; the message names sizes that can be.
    """
    wanted = tuple(side * downscale for side in latent_size)
    if tuple(photo_size) == wanted:
        return
    advice = f"Resize the photo and its mask; the latent wired in is for {_wide_high(wanted)}."
    latent_size_of(photo_size, downscale, "The photo", advice)
    raise SCPError(
        f"The photo is {_wide_high(photo_size)} pixels (width x height), the latent is for {_wide_high(wanted)}. "
        f"Resize the photo and its mask to {_wide_high(wanted)}, or set width {photo_size[1]} and height "
        f"{photo_size[0]} on SCP Prior Latent."
    )


def _wide_high(size: tuple[int, ...]) -> str:
    return f"{size[1]}x{size[0]}"
