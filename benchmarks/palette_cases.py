"""Segmentation pictures whose palette is known: real label maps, painted, then treated as users' pictures have been."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from scp_prior.classes import palette, table
from scp_prior.ids import UNLABELLED
from scp_prior.labels import hint_from_labels

PALETTES = {
    "ade20k": ("ade20k", "ade20k-controlnet", "ade20k-oneformer", "ade20k-grey"),
    "coco-stuff": (
        *("coco-stuff", "coco-stuff-controlnet", "coco-stuff-panoptic", "coco-stuff-oneformer", "coco-stuff-grey"),
    ),
    "cityscapes": ("cityscapes", "cityscapes-grey"),
    "cityscapes-ids": ("cityscapes-ids", "cityscapes-ids-grey"),
}
"""Palettes that maps of each table are painted in."""

VERSIONS = ("exact", "jpeg 70", "half, smooth", "x 1.6, smooth", "x 0.37, nearest", "x 1.7, nearest", "screenshot")

SAME_COLOURS = {"cityscapes-ids": "cityscapes", "coco-stuff-controlnet": "coco-stuff"}
"""Palettes no picture can tell from another one, and which of the two detection names first."""

_DEFAULT_DATA = Path(__file__).resolve().parents[2] / "shared"
# CamVid's numbers as Cityscapes trainIds, so that its drives stand in for Cityscapes, which may not be passed on.
_CAMVID = (10, 2, 5, 0, 1, 8, 7, 4, 13, 11, 18)


class Case(NamedTuple):
    """A picture.

    Attributes:
        palette: what it is painted in; "photo" for what is no map at all.
        source: the file it was made of.
        version: one of VERSIONS.
        held_out: whether the bounds of detection were chosen without it.
        picture: `(1, H, W, 3)` uint8.
    """

    palette: str
    source: str
    version: str
    held_out: bool
    picture: Tensor

    @property
    def blurred_ids(self) -> bool:
        """An id picture whose ids are no longer what they were."""
        return self.palette.endswith("-grey") and not ("nearest" in self.version or self.version == "exact")


def data_folder() -> Path | None:
    """Where the real maps lie (SCP_TEST_DATA, or shared/ beside this repository); None where they do not."""
    data = Path(os.environ.get("SCP_TEST_DATA", _DEFAULT_DATA)) / "data"
    return data if data.is_dir() else None


def cases(data: Path, every: int = 1) -> Iterator[Case]:
    """Every picture in every palette and version; of CamVid, whose maps look alike, one in `every`."""
    for name, source, held_out, ids in _maps(data, every):
        for painted in PALETTES[name]:
            hint = hint_from_labels(torch.from_numpy(ids)[None], palette(painted))[0]
            exact = hint.mul(255).round().to(torch.uint8).numpy()
            yield from _versions(painted, source, held_out, exact)
    for path in sorted(data.glob("ade20k_mini/*_color/*/*.png")):
        yield from _versions("ade20k", path.name, False, _opened(path))
    for path in sorted(data.glob("ade20k_mini/preprocessor_screens/*.png")):
        painted = "coco-stuff-panoptic" if "_coco_" in path.name else "ade20k"
        yield from _versions(painted, path.name, False, _opened(path))


def photos(data: Path) -> Iterator[Case]:
    """What no palette should be found for."""
    for path in sorted([*data.glob("*_mini/images/*/*.jpg"), *data.glob("camvid_mini/val/*.png")]):
        yield Case("photo", path.name, "exact", False, torch.from_numpy(_opened(path))[None])


def _maps(data: Path, every: int) -> Iterator[tuple[str, str, bool, np.ndarray]]:
    for name, patterns in (
        ("ade20k", ("ade20k_mini/annotations/*/*.png", "ade20k_labels_only/**/*.png")),
        ("coco-stuff", ("coco_stuff_mini/annotations/*/*.png", "coco_stuff_labels_only/**/*.png")),
    ):
        for path in (found for pattern in patterns for found in sorted(data.glob(pattern))):
            yield name, path.name, False, np.asarray(Image.open(path)).astype(np.int64)
    train_ids = np.full(256, UNLABELLED)
    train_ids[: len(_CAMVID)] = _CAMVID
    all_ids = np.zeros(256, dtype=np.int64)
    for train_id, class_id in table("cityscapes").convert_to["cityscapes-ids"].items():
        all_ids[train_id] = class_id
    for number, path in enumerate(sorted(data.glob("camvid_mini/*annot/*.png"))):
        if number % every == 0:
            ids = train_ids[np.asarray(Image.open(path))]
            yield "cityscapes", path.name, number % 4 > 0, ids
            yield "cityscapes-ids", path.name, number % 4 > 0, all_ids[ids]


def _versions(painted: str, source: str, held_out: bool, exact: np.ndarray) -> Iterator[Case]:
    picture = Image.fromarray(exact)
    sizes = {"half, smooth": 0.5, "x 1.6, smooth": 1.6, "x 0.37, nearest": 0.37, "x 1.7, nearest": 1.7}
    made = {"exact": exact, "jpeg 70": _jpeg(picture, 70)}
    if not painted.endswith("-grey"):
        # An id picture is all but black on a screen: nobody takes one of that.
        made["screenshot"] = _screenshot(picture)
    for version, factor in sizes.items():
        filtering = Image.Resampling.NEAREST if "nearest" in version else Image.Resampling.BILINEAR
        size = round(picture.width * factor), round(picture.height * factor)
        made[version] = np.asarray(picture.resize(size, filtering))
    for version in (name for name in VERSIONS if name in made):
        yield Case(painted, source, version, held_out, torch.from_numpy(made[version].copy())[None])


def _jpeg(picture: Image.Image, quality: int) -> np.ndarray:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=quality)
    with Image.open(stream) as again:
        return np.asarray(again)


def _screenshot(picture: Image.Image) -> np.ndarray:
    """Another aspect ratio, blended edges, dark colours five steps up (as in the real ones), saved as JPEG 85."""
    size = round(picture.width * 0.83), round(picture.height * 0.9)
    shown = np.asarray(picture.resize(size, Image.Resampling.LANCZOS)).astype(np.float64)
    lifted = (shown + 5 * (1 - shown / 255)).round().clip(0, 255).astype(np.uint8)
    return _jpeg(Image.fromarray(lifted), 85)


def _opened(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.array(picture.convert("RGB"))
