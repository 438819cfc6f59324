"""Which palette was a segmentation picture painted in?

A palette is judged by the flat parts of a picture: pixels whose four neighbours have nearly the same colour. Edges that
JPEG or smooth resizing has blurred have colours of their own, which in a palette of 170 always come near to something.

Nine parts of the judgement are how near those pixels are to colours of the palette, and one part is how usual the
classes are that they would be: where two palettes share colours (`cityscapes` and `coco-stuff-panoptic` agree on road,
sky, car, ...; the first 133 colours of `ade20k-oneformer` are those of `coco-stuff-oneformer`), a street of nothing but
what Cityscapes consists of is Cityscapes.

Palettes of exactly the same colours cannot be told apart by any picture. Of them the first candidate stands for all:
`cityscapes` for `cityscapes-ids`, `coco-stuff` for `coco-stuff-controlnet`, a built-in one for a user's copy of it.

The bounds below were chosen on 51 photos and on the label maps of 12 + 1 ADE20K, 14 + 2 COCO-Stuff and 25 CamVid
pictures, each painted in every palette it could be in, and each compressed, resized in four ways, and made to look like
a screenshot. `benchmarks/palettes.py` prints what they come to, on those and on 75 CamVid maps more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .classes import Palette, palette, palettes
from .colour_match import nearest_rows, pack_colours
from .errors import SCPError
from .ids import UNLABELLED
from .labels import DEFAULT_TOLERANCE, check_image, readable_colours

FITS_FROM = 0.5
"""Below this fit nothing fits. Photos come to 0.45 (three of 51 lie in the colours of some class), maps to 0.79."""

_PIXELS = 1 << 16
_SURE_FROM = 0.75
_USUAL_PART = 0.1
# Where nobody knows what a table's usual classes are: about what other data sets' pictures have of theirs.
_USUAL_UNKNOWN = 0.5

# Either lead over every other palette makes the first sure: of fit, or of fit and usual classes (of both) together.
_CLEAR_FIT = 0.01
_CLEAR_LEAD = 0.04

# Steps of a channel within which neighbours are of one colour, and how many such pixels make a judgement.
_FLAT = 4
_ENOUGH = 256

# Share of pixels none of whose neighbours has exactly their colour. Photos: from 0.56 on; compressed maps: up to 0.49.
_PHOTO_FROM = 0.5
# In id pictures, share of the pixels at edges whose id lies between those of two opposite neighbours. As they are, or
# resized by nearest pixel: up to 0.04; compressed or smoothly resized: from 0.15 on.
_BLURRED_FROM = 0.08


class Detection(NamedTuple):
    """What `detect_palette` found.

    Attributes:
        palette: the likeliest palette.
        fit: how near the flat parts of the picture are to its colours, 0..1.
        sure: whether it can be relied on.
        doubt: why not; "" where it can.
        same_colours: names of other candidates of exactly the same colours.
        runner_up: name and fit of the next palette, or None where there was one candidate.
    """

    palette: Palette
    fit: float
    sure: bool
    doubt: str
    same_colours: tuple[str, ...]
    runner_up: tuple[str, float] | None

    @property
    def words(self) -> str:
        """What was found, for the artist: the palette, its fit, the runner-up, and any doubt."""
        same = f" (or {', '.join(self.same_colours)}: the same colours)" if self.same_colours else ""
        after = f"; next: {self.runner_up[0]}, {self.runner_up[1]:.0%}" if self.runner_up else ""
        found = f"looks like {self.palette.name}{same}: fits {self.fit:.0%}{after}"
        return f"{found}\nconfidence high" if self.sure else f"{found}\nconfidence LOW: {self.doubt}"


def palette_fits(image: Tensor, candidates: Sequence[Palette] | None = None) -> list[tuple[str, float]]:
    """How well each palette explains a picture, likeliest first.

    The fit is the mean over (a regular sample of 65 536 of) the flat pixels of (1 - (d / 24)^2)^2, where d is the
    distance to the palette's nearest colour in 8 bit RGB steps, and 0 from 24 on: 1 means that every pixel has a colour
    of the palette exactly, 0 that none is near. Grey-id palettes count exact ids.

    Args:
        image: as for `detect_palette`.
        candidates: the palettes; by default the built-in ones.

    Returns:
        (palette name, fit in 0..1) of every candidate; those of exactly the same colours follow each other.
    """
    check_image(image)
    judged = _judge(_sample(image), built_in_palettes() if candidates is None else candidates)
    return [(name, one.fit) for one in judged for name in (one.palette.name, *one.same_colours)]


def built_in_palettes() -> list[Palette]:
    """The default candidates."""
    return [palette(name) for name in palettes()]


class _Sample(NamedTuple):
    """Colours of the flat pixels, ascending, with the share of each; and shares that tell what was done to the picture.

    lonely: of all pixels, those of a colour none of their neighbours has. between: of those at edges, those between.
    """

    codes: np.ndarray
    shares: np.ndarray
    lonely: float
    between: float


class _Judged(NamedTuple):
    lead: float
    fit: float
    palette: Palette
    same_colours: tuple[str, ...]


def detect_palette(image: Tensor, candidates: Sequence[Palette] | None = None) -> Detection:
    """The palette a segmentation picture was most likely painted in, and whether that is sure.

    Args:
        image: `(B, H, W, 3)`, floats in 0..1 or uint8; a fourth channel, alpha, is ignored. All of one palette.
        candidates: the palettes it may be; by default the built-in ones. Of several with the same colours the first
            stands for all, so built-in ones come first. At least one.

    Raises:
        SCPError: no palette fits (the message names the nearest), or the image is none.
    """
    check_image(image)
    sample = _sample(image)
    judged = _judge(sample, built_in_palettes() if candidates is None else candidates)
    best, rest = judged[0], judged[1:]
    if best.fit < FITS_FROM:
        raise SCPError(
            f"No palette fits this picture; the nearest is '{best.palette.name}' ({best.fit:.0%}). Expected a "
            "segmentation map: flat areas, each in a colour of its class. Put one here, or choose the palette yourself."
        )
    doubt = _doubt(best, rest, sample)
    runner_up = (rest[0].palette.name, rest[0].fit) if rest else None
    return Detection(best.palette, best.fit, not doubt, doubt, best.same_colours, runner_up)


def _doubt(best: _Judged, rest: Sequence[_Judged], sample: _Sample) -> str:
    if best.fit < _SURE_FROM:
        return f"only {best.fit:.0%} of it fits"
    if sample.lonely > _PHOTO_FROM:
        return "it is as restless as a photo"
    if best.palette.grey and sample.between > _BLURRED_FROM:
        return "ids were blurred by JPEG or smooth resizing, which makes other ids of them; save as PNG, resize nearest"
    rival = next((other for other in rest if not _clear(best, other)), None)
    return f"{rival.palette.name} fits about as well; choose the palette if you know it" if rival else ""


def _clear(best: _Judged, other: _Judged) -> bool:
    if best.fit - other.fit >= _CLEAR_FIT:
        return True
    known = best.palette.table.usual and other.palette.table.usual
    return bool(known) and best.lead - other.lead >= _CLEAR_LEAD


def _judge(sample: _Sample, candidates: Sequence[Palette]) -> list[_Judged]:
    alike: dict[bytes, list[Palette]] = {}
    for candidate in candidates:
        colours, _, _ = readable_colours(candidate, DEFAULT_TOLERANCE)
        alike.setdefault(np.unique(colours, axis=0).tobytes(), []).append(candidate)
    ranked = []
    for position, (first, *others) in enumerate(alike.values()):
        colours, ids, reach = readable_colours(first, DEFAULT_TOLERANCE)
        if first.grey and UNLABELLED not in first.table.usual:
            # A data set that leaves no pixel out has no 255 in its id pictures.
            colours, ids = colours[ids != UNLABELLED], ids[ids != UNLABELLED]
        rows, squared = nearest_rows(sample.codes, colours, reach)
        near = rows < len(colours)
        weights = (sample.shares * (1 - squared / max(reach, 1.0) ** 2) ** 2)[near]
        fit = round(min(1.0, float(weights.sum())), 9)
        usual = float(weights[np.isin(ids[rows[near]], list(first.table.usual))].sum())
        lead = (1 - _USUAL_PART) * fit + _USUAL_PART * (usual if first.table.usual else _USUAL_UNKNOWN * fit)
        judged = _Judged(lead, fit, first, tuple(other.name for other in others))
        # Of equal ones that with fewer colours, as it had less room to fit by chance.
        ranked.append((-round(lead, 9), first.grey, len(colours), position, judged))
    return [entry[-1] for entry in sorted(ranked, key=lambda entry: entry[:-1])]


def _sample(image: Tensor) -> _Sample:
    count, height, width = image.shape[:3]
    step = max(1, math.ceil(math.sqrt(count * height * width / _PIXELS)))
    rows, columns = (torch.arange(min(step // 2, size - 1), size, step) for size in (height, width))
    scale = 1.0 if image.dtype == torch.uint8 else 255.0
    pixels = image.detach()[..., :3]

    def at(down: int, right: int) -> np.ndarray:
        r, c = (rows + down).clamp(0, height - 1), (columns + right).clamp(0, width - 1)
        part = pixels[:, r.to(pixels.device)[:, None], c.to(pixels.device)]
        return pack_colours(part.cpu().reshape(-1, 3), scale).numpy()

    middle, up, down, left, right = at(0, 0), at(-1, 0), at(1, 0), at(0, -1), at(0, 1)
    flat, lonely = np.ones(len(middle), dtype=bool), np.ones(len(middle), dtype=bool)
    for around in (up, down, left, right):
        lonely &= around != middle
        for shift in (16, 8, 0):
            flat &= np.abs((around >> shift & 255) - (middle >> shift & 255)) <= _FLAT
    edges, between = np.zeros(len(middle), dtype=bool), np.zeros(len(middle), dtype=bool)
    for one, other in ((up, down), (left, right)):
        edges |= (one != middle) | (other != middle)
        # Of grey pictures, which this is asked of, the packed colours are in the order of the greys.
        between |= (np.minimum(one, other) < middle) & (middle < np.maximum(one, other))
    judged = middle[flat] if flat.sum() >= _ENOUGH else middle
    codes, counts = np.unique(judged, return_counts=True)
    return _Sample(codes, counts / counts.sum(), float(lonely.mean()), float(between.sum() / max(1, edges.sum())))
