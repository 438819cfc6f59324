"""A segmentation picture in one palette, painted in another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .classes import Palette
from .conversion import conversion, converts
from .detection import Detection, detect_palette
from .errors import SCPError
from .ids import UNLABELLED
from .labels import (
    DEFAULT_TOLERANCE,
    class_shares,
    convert_labels,
    hint_from_labels,
    labels_from_image,
    readable_colours,
)

MOST_UNMATCHED = 0.5
"""Share of a picture that may match no colour before recolouring it is refused."""

_AS_GOOD = 0.02


class Recoloured(NamedTuple):
    """What `recolour` made.

    Attributes:
        image: `(B, H, W, 3)` float32 in 0..1, in colours of the palette asked for and no others.
        unmatched: `(B, H, W)` bool, True where no colour was near enough, or the class has no colour in that palette;
            painted as unlabelled.
        unmatched_share: share of pixels no colour was near to.
        lost: names of the classes that have no colour there, and the share of the picture of each, largest first.
    """

    image: Tensor
    unmatched: Tensor
    unmatched_share: float
    lost: Mapping[str, float]


def recolour(
    image: Tensor, from_palette: Palette, to_palette: Palette, tolerance: float = DEFAULT_TOLERANCE
) -> Recoloured:
    """Read a picture in one palette, and paint what was read in another.

    Args:
        image: `(B, H, W, 3)`, floats in 0..1 or uint8.
        from_palette: how it is painted.
        to_palette: how it shall be painted; of a table that shares classes with the first.
        tolerance: as for `labels_from_image`.

    Returns:
        Tensors on the image's device.

    Raises:
        SCPError: the palettes' tables share no classes; more than half of the picture matches no colour; or as for
            `labels_from_image`.
    """
    mapping = conversion(from_palette.table, to_palette.table)
    read = labels_from_image(image, from_palette, tolerance)
    share = float(read.unmatched.float().mean())
    if share > MOST_UNMATCHED:
        raise SCPError(
            f"{share:.0%} of the picture matches no colour of palette '{from_palette.name}'. Choose the palette it is "
            f"painted in (from_palette: auto finds it), or raise tolerance (now {tolerance:g})."
        )
    uncoloured = [class_id for class_id in _readable_ids(from_palette) if not _paints(to_palette, mapping, class_id)]
    # An empty picture of a class: its own colour is that of nothing, such as the black of "out of roi".
    nothing = from_palette.unlabelled_colour
    uncoloured = [class_id for class_id in uncoloured if from_palette.paint.get(class_id) != nothing]
    lost = torch.isin(read.labels, torch.tensor(uncoloured, device=read.labels.device, dtype=torch.int64))
    lost &= ~read.unmatched
    ids = convert_labels(read.labels, from_palette.table, to_palette.table)
    shares = class_shares(read.labels[lost].view(1, 1, -1)) if bool(lost.any()) else {}
    part = float(lost.float().mean())
    return Recoloured(
        hint_from_labels(torch.where(lost | read.unmatched, UNLABELLED, ids), to_palette),
        read.unmatched | lost,
        share,
        {from_palette.table.name_of(class_id): within * part for class_id, within in shares.items()},
    )


def detect_for(image: Tensor, to_palette: Palette, candidates: Sequence[Palette]) -> Detection:
    """The palette a picture that shall become `to_palette` was most likely painted in.

    As `detect_palette`, with what is wanted in mind: of palettes of the same colours the one whose table is that of
    `to_palette` is taken, so that no class gets lost on the way; and where several explain the picture equally well,
    one that can be turned into it.

    Args:
        image: as for `detect_palette`.
        to_palette: the palette wanted.
        candidates: the palettes it may be.

    Raises:
        SCPError: no palette fits, or the one that does shares no classes with `to_palette`.
    """
    ordered = sorted(candidates, key=lambda one: one.table.name != to_palette.table.name)
    found = detect_palette(image, ordered)
    if converts(found.palette.table, to_palette.table):
        return found
    fitting = [one for one in ordered if converts(one.table, to_palette.table)]
    other = detect_palette(image, fitting) if fitting else found
    if converts(other.palette.table, to_palette.table) and found.fit - other.fit < _AS_GOOD:
        doubt = f"{found.palette.name} fits about as well, but shares no classes with {to_palette.name}"
        return other._replace(sure=False, doubt=doubt, runner_up=(found.palette.name, found.fit))
    raise SCPError(
        f"The picture {found.words.splitlines()[0]}. Its classes are others than those of '{to_palette.name}', so it "
        f"cannot be turned into that. Choose a to_palette of {found.palette.table.dataset}, or choose from_palette."
    )


def _readable_ids(palette: Palette) -> Iterator[int]:
    _, ids, _ = readable_colours(palette, 0.0)
    yield from (class_id for class_id in ids.tolist() if class_id != UNLABELLED)


def _paints(palette: Palette, mapping: Mapping[int, int], class_id: int) -> bool:
    there = mapping.get(class_id, UNLABELLED)
    return there != UNLABELLED and there in palette.paint
