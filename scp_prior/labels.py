"""Segmentation picture to label map, label map to ControlNet hint, label map to latent grid.

A label map is int64 `(B, H, W)` holding ids of one class table, 255 where a pixel is unlabelled.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .classes import ANY, ClassTable, Palette
from .classes import table as built_in_table
from .colour_match import N_COLOURS, distinct_colours, nearest_rows, pack_colours
from .conversion import conversion
from .errors import SCPError
from .ids import MAX_CLASS_ID, UNLABELLED

DEFAULT_TOLERANCE = 24.0
"""Default tolerance in 8 bit RGB steps.

Preprocessor pictures saved from a browser are up to 20 steps off their palette; the palette of the ADE20K ControlNet
has its colours 30 apart, so from 26 on every colour inside its grid would match something.
"""

FEW_UNMATCHED = 0.05
"""Up to this share of a picture the pixels no colour is near to are edges, and not worth a warning."""

GRID_RULES = ("nearest", "majority")

MAX_TOLERANCE = 442.0
"""More than black to white: every pixel matches."""


class LabelsRead(NamedTuple):
    """What `labels_from_image` read.

    Attributes:
        labels: `(B, H, W)` int64 ids of the palette's table; `UNLABELLED` where nothing matched.
        unmatched: `(B, H, W)` bool, True where no colour of the palette was near enough.
    """

    labels: Tensor
    unmatched: Tensor


def labels_from_image(image: Tensor, palette: Palette, tolerance: float = DEFAULT_TOLERANCE) -> LabelsRead:
    """Read a segmentation picture: each pixel becomes the class whose colour is nearest.

    Args:
        image: `(B, H, W, 3)`, floats in 0..1 or uint8; a fourth channel, alpha, is ignored.
        palette: how the picture was painted.
        tolerance: greatest distance between a pixel and its class colour: Euclidean, in 8 bit RGB steps (0 exact,
            441.7 black to white). A pixel just as far from two colours gets the smaller id. Grey-id palettes take no
            tolerance, as the neighbouring grey is another class.

    Returns:
        Labels and unmatched mask on the image's device.

    Raises:
        SCPError: the image has another shape or dtype, or values that are no colours; the tolerance is no distance.
    """
    check_image(image)
    _check_tolerance(tolerance)
    colours, ids, reach = readable_colours(palette, tolerance)
    codes = _codes(image)
    present = distinct_colours(codes.numpy())
    rows, _ = nearest_rows(present, colours, reach)
    # Left uninitialised: only the entries of colours that occur are written and read, which spares the other pages.
    row_of = np.empty(N_COLOURS, dtype=np.uint8 if len(colours) < 256 else np.int32)
    row_of[present] = rows
    row = torch.from_numpy(row_of).index_select(0, codes)
    labels = torch.from_numpy(np.append(ids, UNLABELLED)).index_select(0, row.int())
    shape = image.shape[:3]
    unmatched = row == len(colours)
    return LabelsRead(labels.view(shape).to(image.device), unmatched.view(shape).to(image.device))


def hint_from_labels(labels: Tensor, palette: Palette) -> Tensor:
    """Paint a label map in a palette's colours: the picture a ControlNet takes as its hint.

    Args:
        labels: `(B, H, W)` integer ids of the palette's table; ids the palette does not paint get its colour for
            unlabelled pixels.
        palette: the colours.

    Returns:
        `(B, H, W, 3)` float32 in 0..1 on the labels' device.

    Raises:
        SCPError: the labels have another shape or dtype.
    """
    _check_labels(labels)
    colours = np.empty((max(palette.paint, default=0) + 2, 3), dtype=np.float32)
    colours[:] = palette.unlabelled_colour
    for class_id, colour in palette.paint.items():
        colours[class_id] = colour
    return _look_up(torch.from_numpy(colours / np.float32(255)), labels)


def to_latent_grid(labels: Tensor, size: tuple[int, int], rule: str = "nearest") -> Tensor:
    """Bring a label map to the size of a latent (or any other, smaller or larger).

    Args:
        labels: `(B, H, W)` integer ids.
        size: `(h, w)` wanted.
        rule: `"nearest"` takes the pixel at floor(i H / h), as `torch.nn.functional.interpolate(mode="nearest")` does
            and the released statistics were made. `"majority"` takes the most frequent id of the pixels y with
            floor(y h / H) = i, ties to the smaller id; along an axis that grows it is nearest.

    Returns:
        `(B, h, w)` int64 on the labels' device.

    Raises:
        SCPError: an unknown rule, a size that is not positive, or labels of another shape, dtype or range.
    """
    _check_labels(labels)
    if rule not in GRID_RULES:
        raise SCPError(f"No grid rule {rule!r}. Choose one of: {', '.join(GRID_RULES)}.")
    if len(size) != 2 or min(size) < 1:
        raise SCPError(f"Cannot bring a label map to the size {tuple(size)}: height and width must be at least 1.")
    height, width = (int(extent) for extent in size)
    if rule == "nearest":
        # The grid first: turning a whole picture of bytes into int64 would take longer than all the rest.
        return _nearest(labels, height, width).to(torch.int64).contiguous()
    labels = _nearest(labels, max(height, labels.shape[1]), max(width, labels.shape[2]))
    return _majority(labels, height, width)


def convert_labels(labels: Tensor, from_table: ClassTable, to_table: ClassTable | str) -> Tensor:
    """Rewrite ids of one class table as those of another that shares classes, e.g. Cityscapes ids as trainIds.

    Args:
        labels: `(B, H, W)` integer ids of `from_table`.
        from_table: the table the ids are from.
        to_table: the table wanted, or the name of a built-in one; see `conversion` for which ones share classes. Ids
            that nobody has named (`classes.any_ids`) are those of any table and stay as they are.

    Returns:
        `(B, H, W)` int64; `UNLABELLED` where the other table has no such class.

    Raises:
        SCPError: the two tables have no common classes.
    """
    _check_labels(labels)
    name = to_table if isinstance(to_table, str) else to_table.name
    if ANY in (name, from_table.name) or name == from_table.name:
        return labels.to(torch.int64)
    wanted = built_in_table(to_table) if isinstance(to_table, str) else to_table
    return _look_up(_id_table(conversion(from_table, wanted)), labels)


def class_shares(labels: Tensor) -> dict[int, float]:
    """The share of pixels each id has over the whole batch, largest first, equal shares by id.

    Raises:
        SCPError: labels of another shape, dtype or range.
    """
    counts = torch.bincount(checked_labels(labels).flatten()).cpu().numpy()
    present = np.flatnonzero(counts)
    ordered = present[np.argsort(-counts[present], kind="stable")]
    return {int(class_id): float(counts[class_id] / labels.numel()) for class_id in ordered}


def where_any(labels: Tensor, ids: Sequence[int]) -> Tensor:
    """Where a label map has one of some ids: bool, of the labels' shape and on their device."""
    found = torch.zeros_like(labels, dtype=torch.bool)
    for class_id in ids:
        found |= labels == class_id
    return found


def readable_colours(palette: Palette, tolerance: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Colours to look for, (N, 3) uint8, the id of each, (N,) int64, and how far off a pixel may be."""
    if not palette.grey:
        return palette.colours, palette.ids, tolerance
    ids = np.array([class_id for class_id in palette.table.ids if class_id <= 255], dtype=np.int64)
    return np.repeat(ids.astype(np.uint8)[:, None], 3, axis=1), ids, 0.0


def _codes(image: Tensor) -> Tensor:
    pixels = image.detach().cpu().reshape(-1, image.shape[-1])
    return pack_colours(pixels, 1.0 if image.dtype == torch.uint8 else 255.0)


def _nearest(labels: Tensor, height: int, width: int) -> Tensor:
    for axis, wanted in ((1, height), (2, width)):
        extent = labels.shape[axis]
        if extent % wanted == 0:
            # Every n-th: a view, which is copied once at the end and not once per axis.
            labels = labels[:, :: extent // wanted] if axis == 1 else labels[:, :, :: extent // wanted]
        else:
            labels = labels.index_select(axis, _nearest_index(extent, wanted).to(labels.device))
    return labels


@functools.lru_cache(maxsize=64)
def _nearest_index(extent: int, wanted: int) -> Tensor:
    # Asked of torch itself, since its float32 scale now and then rounds floor(i H / h) down to the pixel before.
    line = torch.arange(extent, dtype=torch.float32).view(1, 1, -1)
    return F.interpolate(line, size=wanted, mode="nearest").view(-1).long()


def _majority(labels: Tensor, height: int, width: int) -> Tensor:
    """Most frequent id of each cell; the map is at least as large as the grid."""
    if labels.shape[1:] == (height, width):
        return labels
    values = checked_labels(labels).cpu().numpy()
    present = np.flatnonzero(np.bincount(values.ravel()))
    slot_of = np.zeros(present[-1] + 1, dtype=np.int64)
    slot_of[present] = np.arange(len(present))
    row = np.arange(values.shape[1]) * height // values.shape[1]
    column = np.arange(values.shape[2]) * width // values.shape[2]
    cell = (row[:, None] * width + column) * len(present)
    grids = np.empty((len(values), height, width), dtype=np.int64)
    for one, grid in zip(values, grids, strict=True):
        votes = np.bincount((cell + slot_of[one]).ravel(), minlength=height * width * len(present))
        # argmax takes the first of equals, and the slots ascend with the ids.
        grid[:] = present[votes.reshape(height, width, -1).argmax(axis=-1)]
    return torch.from_numpy(grids).to(labels.device)


def _id_table(mapping: Mapping[int, int]) -> Tensor:
    ids = np.full(max(mapping, default=0) + 2, UNLABELLED, dtype=np.int64)
    ids[list(mapping)] = list(mapping.values())
    return torch.from_numpy(ids)


def _look_up(entries: Tensor, labels: Tensor) -> Tensor:
    """Entry of each label; the last entry for every label there is none for."""
    last = len(entries) - 1
    labels = labels.to(torch.int64)
    lowest, highest = torch.aminmax(labels)
    if lowest < 0 or highest > last:
        labels = torch.where((labels < 0) | (labels > last), last, labels)
    found = entries.to(labels.device).index_select(0, labels.flatten())
    return found.view(*labels.shape, *entries.shape[1:])


def checked_labels(labels: Tensor) -> Tensor:
    """The label map as int64.

    Raises:
        SCPError: it is not `(B, H, W)` of integers, or holds an id outside 0..65535.
    """
    _check_labels(labels)
    labels = labels.to(torch.int64)
    lowest, highest = (int(bound) for bound in torch.aminmax(labels))
    if lowest < 0 or highest > MAX_CLASS_ID:
        raise SCPError(f"The label map holds ids from {lowest} to {highest}; class ids lie within 0..{MAX_CLASS_ID}.")
    return labels


def _check_labels(labels: Tensor) -> None:
    if labels.ndim != 3 or labels.numel() == 0:
        raise SCPError(f"Expected a label map of shape (batch, height, width), got {tuple(labels.shape)}.")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise SCPError(f"Expected a label map of whole numbers (int64), got {labels.dtype}.")


def check_image(image: Tensor, what: str = "segmentation picture") -> None:
    """Raise SCPError where a tensor is no picture: `(B, H, W, 3 or 4)`, floats in about 0..1 or uint8.

    Args:
        what: what it should be, to say so.
    """
    if image.ndim != 4 or image.shape[-1] not in (3, 4) or image.numel() == 0:
        raise SCPError(
            f"Expected a {what} of shape (batch, height, width, 3), or 4 with alpha, got {tuple(image.shape)}."
        )
    if image.dtype == torch.uint8:
        return
    if not image.is_floating_point():
        raise SCPError(f"Expected a picture of floats in 0..1 or of uint8, got {image.dtype}.")
    # One pass finds NaN, infinities and wrong units: NaN survives min and max.
    lowest, highest = (float(bound) for bound in torch.aminmax(image.detach()[..., :3]))
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        raise SCPError(f"The {what} holds NaN or infinite values. Check the node that makes it.")
    if lowest < -1 or highest > 2:
        raise SCPError(
            f"Expected a picture with values in 0..1, got {lowest:g}..{highest:g}. Divide by 255 or pass uint8."
        )


def _check_tolerance(tolerance: float) -> None:
    if not 0 <= tolerance <= MAX_TOLERANCE:
        raise SCPError(
            f"Expected a tolerance from 0 (exact colours) to {MAX_TOLERANCE:g} (any colour), got {tolerance}."
        )
