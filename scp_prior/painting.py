"""Label maps made by hand: a mask and a class at a time, or many at once; and back to masks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .errors import SCPError
from .ids import UNLABELLED
from .labels import checked_labels, to_latent_grid, where_any
from .sizes import MAX_SIDE


def empty_map(height: int, width: int) -> Tensor:
    """A label map nobody has painted yet: `(1, height, width)` int64, all `UNLABELLED`.

    Raises:
        SCPError: a side is not within 1..16384.
    """
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise SCPError(
            f"A map of {width}x{height} pixels cannot be. Set width and height to 1..{MAX_SIDE}, e.g. 1024 and 512; "
            "0 takes the size of the mask, if one is wired in."
        )
    return torch.full((1, height, width), UNLABELLED, dtype=torch.int64)


def hard_mask(mask: Tensor) -> Tensor:
    """Where a mask says yes: half or more.

    Args:
        mask: `(M, H, W)`, floats in 0..1 of any precision, or bool. `(H, W)` and `(M, 1, H, W)`, which some nodes
            make, are taken as well.

    Returns:
        `(M, H, W)` bool on the mask's device.

    Raises:
        SCPError: it is no mask: another shape, values that are not finite, or far outside 0..1.
    """
    if mask.ndim < 2 or mask.numel() == 0 or (mask.ndim > 3 and mask.shape[1:-2].numel() != 1):
        raise SCPError(f"Expected a mask of shape (batch, height, width), got {tuple(mask.shape)}.")
    mask = mask.detach().reshape(-1, *mask.shape[-2:])
    if mask.dtype == torch.bool:
        return mask
    # One pass finds NaN and wrong units; a little outside is what a blur or a resize leaves.
    lowest, highest = (float(bound) for bound in torch.aminmax(mask))
    if not (lowest >= -1 and highest <= 2):
        raise SCPError(
            f"Expected a mask with values in 0..1, got {lowest:g}..{highest:g}. Check the node that makes it."
        )
    return mask >= 0.5


def fitted_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """A mask brought to a map's size by nearest pixel: `(M, h, w)` bool -> `(M, H, W)` bool."""
    if tuple(mask.shape[1:]) == tuple(size):
        return mask
    return to_latent_grid(mask.to(torch.uint8), size).to(torch.bool)


def paint(labels: Tensor, mask: Tensor | None, class_id: int) -> Tensor:
    """Label maps with one class painted over what was there.

    Args:
        labels: `(B, H, W)` integer ids.
        mask: where to paint, see `hard_mask`; of another size it is brought to the maps' by nearest pixel. None paints
            everything. One mask serves every map, and one map every mask.
        class_id: what to paint.

    Returns:
        `(max(B, M), H, W)` int64 on the labels' device; the labels given stay as they are.

    Raises:
        SCPError: labels or mask are none, or there are several of both and not as many.
    """
    labels = checked_labels(labels)
    if mask is None:
        return torch.full_like(labels, class_id)
    where = fitted_mask(hard_mask(mask), labels.shape[1:]).to(labels.device)
    if len(where) != len(labels) and 1 not in (len(where), len(labels)):
        raise SCPError(
            f"There are {len(where)} masks and {len(labels)} label maps. Wire one mask, or one for each map; for "
            "several classes on one map use SCP Labels From Masks."
        )
    return torch.where(where, class_id, labels)


def compose(masks: Tensor, ids: Sequence[int | None], background: int = UNLABELLED) -> Tensor:
    """Label maps of many masks at once: mask n is class n, and a later mask lies over the earlier ones.

    Args:
        masks: see `hard_mask`. Twice as many masks as classes make two maps, one after the other, and so on.
        ids: class of each mask; None leaves its mask out.
        background: class of the pixels no mask covers.

    Returns:
        `(len(masks) / len(ids), H, W)` int64 on the masks' device.

    Raises:
        SCPError: what came are no masks, there are no classes, or the masks are no multiple of them.
    """
    where = hard_mask(masks)
    if not ids or len(where) % len(ids):
        raise SCPError(
            f"There {_are(len(where), 'mask', 'masks')} and {_number(len(ids), 'class', 'classes')}. Write one class "
            "for each mask into `classes`, one a line, in the order of the masks; a line with - leaves its mask out."
        )
    layers = where.view(-1, len(ids), *where.shape[1:])
    labels = torch.full_like(layers[:, 0], background, dtype=torch.int64)
    for number, class_id in enumerate(ids):
        if class_id is not None:
            labels.masked_fill_(layers[:, number], class_id)
    return labels


def class_mask(labels: Tensor, ids: Sequence[int]) -> Tensor:
    """Where a label map has one of some ids: `(B, H, W)` integers -> `(B, H, W)` float32, 1 there and 0 elsewhere."""
    return where_any(checked_labels(labels), ids).to(torch.float32)


def _number(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


def _are(count: int, one: str, many: str) -> str:
    return f"{'is' if count == 1 else 'are'} {_number(count, one, many)}"
