"""Data sets as they lie on disk after download, and anybody's own two folders: pairs of photo and label map."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .classes import UNLABELLED, ClassTable, Palette, load_table
from .classes import palette as built_in_palette
from .classes import table as built_in_table
from .detection import palette_fits
from .errors import SCPError
from .labels import convert_labels, labels_from_image, to_latent_grid
from .pairs import MAP_SUFFIXES, PHOTO_SUFFIXES, Pair, Side, find_pairs
from .photos import as_rgb, ids_of, read_map, read_photo, stored_size

__all__ = ["KINDS", "SPLITS", "Dataset", "Example", "Pair", "Pixels", "load_pair", "load_pixels", "open_dataset"]

SPLITS: dict[str, tuple[str, ...]] = {
    "cityscapes": ("train", "val"),
    "ade20k": ("training", "validation"),
    "coco-stuff": ("train2017", "val2017"),
}
"""Official splits that have label maps."""

KINDS = (*SPLITS, "folder")

LEAST_MATCH = 0.9
"""Share of a colour-coded map that must be in colours of its palette; the rest counts as unlabelled."""

_LABEL_IDS = "_gtFine_labelIds.png"
_FEW_COLOURS = 1 << 16
_TABLE_FILES = (".csv", ".json")


class Pixels(NamedTuple):
    """A pair as read: photo (H, W, 3) uint8, label (h, w) int64."""

    photo: np.ndarray
    label: np.ndarray


class Example(NamedTuple):
    """A pair as an encoder wants it: photo (3, H, W) float32 in -1..1, label (h, w) int64."""

    photo: Tensor
    label: Tensor


@dataclass(frozen=True, eq=False)
class MapReader:
    """How the label maps of a data set are read.

    Attributes:
        palette: grey: maps of ids, all of them in its table; of colours: maps in those colours; None: maps of any ids.
        either: the palette is of a user's own table, and a map may hold its ids or its colours.
    """

    palette: Palette | None = None
    either: bool = False

    def __call__(self, path: Path) -> np.ndarray:
        """Ids of the data set's table, (H, W) int64.

        Raises:
            SCPError: the file cannot be read, or holds ids or colours that do not belong to the palette.
        """
        picture = read_map(path)
        ids = ids_of(picture, path)
        if self.palette is not None and not self.palette.grey and self._shows_colours(picture, ids, path):
            return self._from_colours(picture, path)
        if ids is None:
            raise SCPError(
                f"{path} is a colour picture; expected class ids as grey values. "
                "If its colours stand for classes, name their palette or give your own class table."
            )
        if self.palette is not None:
            _check_known(ids, self.palette.table, path)
        return ids

    def _shows_colours(self, picture: Image.Image, ids: np.ndarray | None, path: Path) -> bool:
        """Whether a picture shows colours of the palette rather than ids, which these are if it does."""
        if ids is None or not self.either:
            return True
        colours = None if picture.mode.startswith("I") else as_rgb(picture, path).getcolors(_FEW_COLOURS)
        known = set(map(tuple, self.palette.colours.tolist()))
        exact = colours is not None and {colour for _, colour in colours} <= known
        if picture.mode in ("P", "PA", "RGB", "RGBA"):
            # Paint programs save few colours as indices of their own choosing: where every colour is one of the
            # table's, the colours are what was meant. Where indices are ids, both readings agree.
            return exact or bool(_strangers(ids, (*self.palette.table.ids, UNLABELLED)))
        # A mask in black and white as grey 0 and 255: ids only where the table has both.
        return exact and bool(_strangers(ids, self.palette.table.ids))

    def _from_colours(self, picture: Image.Image, path: Path) -> np.ndarray:
        if picture.mode.startswith("I"):
            raise SCPError(f"{path} holds 16 bit ids; expected a picture in colours of {self.palette.name}.")
        image = torch.from_numpy(np.array(as_rgb(picture, path))).unsqueeze(0)
        read = labels_from_image(image, self.palette)
        matched = 1 - float(read.unmatched.float().mean())
        if matched < LEAST_MATCH:
            best, score = palette_fits(image)[0]
            better = f"Palette {best} fits better." if score > matched else "Check the palette or class table."
            raise SCPError(
                f"Only {matched:.0%} of {path} is in colours of {self.palette.name}; expected {LEAST_MATCH:.0%} or "
                f"more. {better}"
            )
        return read.labels[0].numpy()


@dataclass(frozen=True, eq=False)
class CityscapesReader:
    """Cityscapes maps as trainIds, whichever of the two kinds of file there is."""

    def __call__(self, path: Path) -> np.ndarray:
        """trainIds 0..18 and 255, (H, W) int64.

        Raises:
            SCPError: as `MapReader`.
        """
        if not path.name.lower().endswith(_LABEL_IDS.lower()):
            return MapReader(built_in_palette("cityscapes-grey"))(path)
        ids = MapReader(built_in_palette("cityscapes-ids-grey"))(path)
        labels = torch.from_numpy(ids).unsqueeze(0)
        return convert_labels(labels, built_in_table("cityscapes-ids"), "cityscapes")[0].numpy()


@dataclass(frozen=True, eq=False)
class Dataset:
    """Pairs of photo and label map, and how to read them. Can be pickled, for worker processes.

    Attributes:
        name: data set the statistics will be of: a family of class tables, or "folder" where the classes are the
            user's own.
        pairs: by name.
        palette: palette the statistics will name; "" where the classes are the user's own.
        table: names of the classes, or None where nobody said.
        problems: what was wrong with files that are in no pair, a sentence each.
    """

    name: str
    pairs: tuple[Pair, ...]
    palette: str
    table: ClassTable | None
    problems: tuple[str, ...] = ()
    reader: Callable[[Path], np.ndarray] = field(default_factory=MapReader, repr=False)

    def read_label(self, path: Path) -> np.ndarray:
        """Class ids of a label map, (H, W) int64.

        Raises:
            SCPError: the file cannot be read or holds something that is no class.
        """
        return self.reader(path)

    def read_photo(self, path: Path) -> np.ndarray:
        """A photo, (H, W, 3) uint8; see `photos.read_photo`.

        Raises:
            SCPError: the file cannot be read.
        """
        return read_photo(path)


def open_dataset(
    kind: str,
    *,
    root: str | os.PathLike[str] | None = None,
    split: str | None = None,
    images: str | os.PathLike[str] | None = None,
    labels: str | os.PathLike[str] | None = None,
    palette: str | None = None,
    table: str | os.PathLike[str] | None = None,
) -> Dataset:
    """List a data set; no picture is opened.

    Args:
        kind: one of `KINDS`.
        root, split: for the three public data sets; the split is one of `SPLITS`.
        images, labels: for `folder`: two folders, paired by name below them without suffix.
        palette: for `folder`: name of a built-in palette the maps are painted in, or a class table file (.csv, .json).
            Without palette and table the maps hold ids.
        table: for `folder`: class table file; maps hold its ids or its colours.

    Raises:
        SCPError: arguments that do not belong together, an unknown kind or split, a missing folder, or not one pair.
    """
    if kind not in KINDS:
        raise SCPError(f"No data set {kind!r}. Choose one of: {', '.join(KINDS)}.")
    if kind == "folder":
        if root is not None or split is not None or images is None or labels is None:
            raise SCPError("A data set of the kind 'folder' takes the two folders images and labels, no root or split.")
        return _folder(Path(images), Path(labels), palette, table)
    if any(given is not None for given in (images, labels, palette, table)) or root is None:
        raise SCPError(f"The data set {kind} takes a root folder and a split, nothing else: its layout is known.")
    if split not in SPLITS[kind]:
        raise SCPError(f"{kind} has no split {split!r} with label maps. Choose one of: {', '.join(SPLITS[kind])}.")
    return _OPENERS[kind](Path(root), split)


def load_pixels(dataset: Dataset, pair: Pair, size: tuple[int, int], grid: tuple[int, int] | None = None) -> Pixels:
    """Read a pair and bring the photo to `size`, in bytes: what is cheapest to hand from one process to another.

    Args:
        size: (H, W) of the photo wanted; its proportions are not kept, and neither are the map's. The filter is
            antialiased bicubic, as for the photos Stable Diffusion was trained on.
        grid: (h, w) of the label map wanted, taken nearest straight from the full map; None leaves it as it is.

    Raises:
        SCPError: a file cannot be read, or photo and map differ in size; both files are named.
    """
    try:
        photo, label = dataset.read_photo(pair.photo), dataset.read_label(pair.label)
    except SCPError as error:
        raise SCPError(f"{error} (Pair {pair.name}: {pair.photo} and {pair.label}.)") from error
    if photo.shape[:2] != label.shape:
        raise SCPError(_size_message(pair, photo.shape[:2], label.shape))
    if photo.shape[:2] != tuple(size):
        picture = Image.fromarray(photo).resize((size[1], size[0]), Image.Resampling.BICUBIC)
        photo = np.array(picture)
    if grid is not None:
        label = to_latent_grid(torch.from_numpy(label).unsqueeze(0), grid)[0].numpy()
    return Pixels(photo, label)


def load_pair(dataset: Dataset, pair: Pair, size: tuple[int, int], grid: tuple[int, int] | None = None) -> Example:
    """Read a pair as an encoder wants it.

    Args:
        size, grid: as for `load_pixels`.

    Returns:
        Photo (3, H, W) float32 in -1..1 (x / 127.5 - 1), label (h, w) int64, at full size where no grid is given.

    Raises:
        SCPError: as `load_pixels`.
    """
    photo, label = load_pixels(dataset, pair, size, grid)
    return Example(torch.from_numpy(photo).permute(2, 0, 1).float().div_(127.5).sub_(1), torch.from_numpy(label))


def _cityscapes(root: Path, split: str) -> Dataset:
    photos = _below(root, "leftImg8bit_trainvaltest", "leftImg8bit") / split
    labels = _below(root, "gtFine_trainvaltest", "gtFine") / split
    pairs, problems = find_pairs(
        Side(photos, ("_leftImg8bit.png",), "photo"),
        Side(labels, ("_gtFine_labelTrainIds.png", _LABEL_IDS), "label map"),
        preferred=True,
    )
    name = "cityscapes"
    return Dataset(name, pairs, name, built_in_table(name), problems, CityscapesReader())


def _ade20k(root: Path, split: str) -> Dataset:
    return _images_and_annotations("ade20k", root, "ADEChallengeData2016", split)


def _coco_stuff(root: Path, split: str) -> Dataset:
    return _images_and_annotations("coco-stuff", root, "dataset", split)


def _images_and_annotations(name: str, root: Path, archive: str, split: str) -> Dataset:
    pairs, problems = find_pairs(
        Side(_below(root, archive, "images") / split, (".jpg", ".jpeg", ".png"), "photo"),
        Side(_below(root, archive, "annotations") / split, (".png",), "label map"),
    )
    return Dataset(name, pairs, name, built_in_table(name), problems, MapReader(built_in_palette(f"{name}-grey")))


def _folder(images: Path, labels: Path, palette: str | None, table: str | os.PathLike[str] | None) -> Dataset:
    if palette and Path(palette).suffix.lower() in _TABLE_FILES:
        if table is not None:
            raise SCPError(f"Two class tables were given, {palette} and {table}. Give one.")
        palette, table = None, palette
    if palette and table is not None:
        raise SCPError(f"Give a palette ({palette}) or a class table ({table}), not both: each names the classes.")
    pairs, problems = find_pairs(Side(images, PHOTO_SUFFIXES, "photo"), Side(labels, MAP_SUFFIXES, "label map"))
    if table is not None:
        own, colours = load_table(table)
        # Not called after the file: "cityscapes.csv" of somebody's own classes must not pass for Cityscapes.
        return Dataset("folder", pairs, "", own, problems, MapReader(colours, either=True))
    if not palette:
        return Dataset("folder", pairs, "", None, problems, MapReader())
    known = built_in_palette(palette)
    return Dataset(known.table.dataset, pairs, known.name, known.table, problems, MapReader(known))


_OPENERS: dict[str, Callable[[Path, str], Dataset]] = {
    "cityscapes": _cityscapes,
    "ade20k": _ade20k,
    "coco-stuff": _coco_stuff,
}


def _below(root: Path, archive: str, name: str) -> Path:
    """The folder `name` in root, or in the folder of the archive it was unpacked from."""
    packed = root / archive / name
    return packed if packed.is_dir() and not (root / name).is_dir() else root / name


def _check_known(ids: np.ndarray, table: ClassTable, path: Path) -> None:
    strange = _strangers(ids, (*table.ids, UNLABELLED))
    if strange:
        shown = ", ".join(map(str, strange[:8])) + (", ..." if len(strange) > 8 else "")
        raise SCPError(f"{path} holds ids that are no classes of {table.name}: {shown}. Is it a map of other classes?")


def _strangers(ids: np.ndarray, known: Iterable[int]) -> list[int]:
    """Ids that are not among the known ones, ascending."""
    present = np.bincount(ids.ravel()) > 0
    present[[class_id for class_id in known if class_id < len(present)]] = False
    return np.flatnonzero(present).tolist()


def _size_message(pair: Pair, photo: tuple[int, ...], label: tuple[int, ...]) -> str:
    message = (
        f"Photo and label map differ in size: {pair.photo} is {photo[1]}x{photo[0]} (width x height), "
        f"{pair.label} is {label[1]}x{label[0]}."
    )
    if stored_size(pair.photo) == (label[1], label[0]):
        return (
            f"{message} The map fits the photo as stored, but its EXIF orientation says to turn it. "
            "Remove the orientation from the photo, or turn the map as well."
        )
    return f"{message} A map must have one pixel for each of its photo's."
