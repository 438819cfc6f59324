"""A segmentation picture in one palette, painted in another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from .classes import Palette, tables
from .conversion import conversion, converts
from .detection import Detection, detect_palette, palette_fits
from .errors import SCPError
from .ids import UNLABELLED
from .labels import (
    DEFAULT_TOLERANCE,
    class_shares,
    convert_labels,
    hint_from_labels,
    labels_from_image,
    where_any,
)

MOST_UNMATCHED = 0.5
"""Share of a picture that may match no colour before recolouring it is refused."""

_AS_GOOD = 0.02
_LISTED = 5


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
    conversion(from_palette.table, to_palette.table)  # refuses what cannot be before a pixel is read
    read = labels_from_image(image, from_palette, tolerance)
    share = float(read.unmatched.float().mean())
    if share > MOST_UNMATCHED:
        raise SCPError(
            f"{share:.0%} of the picture matches no colour of palette '{from_palette.name}'. Choose the palette it is "
            f"painted in (from_palette: auto finds it), or raise tolerance (now {tolerance:g})."
        )
    lost = lost_classes(read.labels, from_palette, to_palette)
    unmatched = read.unmatched
    if lost:
        unmatched = unmatched | where_any(read.labels, list(lost))
    ids = convert_labels(read.labels, from_palette.table, to_palette.table)
    names = {from_palette.table.name_of(class_id): part for class_id, part in lost.items()}
    return Recoloured(hint_from_labels(ids, to_palette), unmatched, share, names)


def lost_classes(labels: Tensor, from_palette: Palette, to_palette: Palette) -> dict[int, float]:
    """The classes of a label map that a palette has no colour for, so that it paints them as unlabelled.

    Args:
        labels: `(B, H, W)` int64 ids of the table of `from_palette`.
        from_palette: how they were read. What a built-in one paints as nothing ("out of roi") is nothing to lose.
        to_palette: how they shall be painted; of a table that shares classes.

    Returns:
        id -> share of the picture, largest first.

    Raises:
        SCPError: the tables share no classes, or as for `class_shares`.
    """
    mapping = conversion(from_palette.table, to_palette.table)
    coloured = {class_id for class_id, there in mapping.items() if there != UNLABELLED and there in to_palette.paint}
    nothing = from_palette.unlabelled_colour if from_palette.table.name in tables() else None
    return {
        class_id: share
        for class_id, share in class_shares(labels).items()
        if class_id not in coloured
        and class_id != UNLABELLED
        and (nothing is None or from_palette.paint.get(class_id) != nothing)
    }


def lost_words(lost: Mapping[str, float], to_palette: Palette) -> str:
    """A line about the classes a palette has no colour for, given their names and shares; "" where there are none."""
    named = [f"{name} {share:.1%}" for name, share in lost.items()]
    more = f" and {len(named) - _LISTED} more" if len(named) > _LISTED else ""
    return f"no colour in {to_palette.name}: {', '.join(named[:_LISTED])}{more}" if named else ""


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
    if fitting and found.fit - palette_fits(image, fitting)[0][1] < _AS_GOOD:
        doubt = f"{found.palette.name} fits about as well, but shares no classes with {to_palette.name}"
        runner_up = found.palette.name, found.fit
        return detect_palette(image, fitting)._replace(sure=False, doubt=doubt, runner_up=runner_up)
    raise SCPError(
        f"The picture {found.words.splitlines()[0]}. Its classes are others than those of '{to_palette.name}', so it "
        f"cannot be turned into that. Choose a to_palette of {found.palette.table.dataset}, or choose from_palette."
    )
