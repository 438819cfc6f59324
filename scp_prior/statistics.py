"""Statistics: what a statistics file holds, and how it is saved and opened (safetensors, format version 1)."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .errors import SCPError
from .files import write_safetensors
from .ids import MAX_CLASS_ID
from .layout import SHAPES, check_layout
from .pseudo_counts import Shrinkage
from .resample import resample_cells, resample_moments
from .sources import FileSource, MemorySource, TensorSource

FORMAT = "scp-statistics"
VERSION = "1"
JOINT = ("joint.count", "joint.mean", "joint.std")
SPATIAL = ("spatial.mean", "spatial.std")
TARGET = ("target.mean", "target.std")
SCENE = ("scene.share", "scene.correlation", "scene.within", "scene.count")

_MAX_DOWNSCALE = 64
_DIGITS = re.compile(r"\d{1,5}", re.ASCII)
_REPLACEMENT = re.compile(r"\s*(\d{1,5})\s*->\s*(\d{1,5})\s*", re.ASCII)
_FLOAT_MAX = torch.finfo(torch.float32).max
# Far above any latent, and its square is still a float32.
_LATENT_MAX = 1e15


class Cells(NamedTuple):
    """Joint statistics of n classes: count (n, h, w), mean and std (n, C, h, w), float32, LATENT units."""

    count: Tensor
    mean: Tensor
    std: Tensor


class ClassMoments(NamedTuple):
    """Categorical statistics of all K classes: count (K,) int64, mean and std (K, C) float32, LATENT units.

    A count of 0 means that it is not known how often the class was seen, not that it never was: the released
    categorical files do not say. Every class of the file has a mean and a std.
    """

    count: Tensor
    mean: Tensor
    std: Tensor


class Moments(NamedTuple):
    """Spatial statistics: mean and std (C, h, w) float32, LATENT units."""

    mean: Tensor
    std: Tensor


class Scene(NamedTuple):
    """Scene effects of all K classes, see `scene_fit`.

    share (K, C) in 0..1, correlation (K, C, K, C) and within (K, C, C) float32; count (K,) int64, pictures that taught.
    """

    share: Tensor
    correlation: Tensor
    within: Tensor
    count: Tensor


class Statistics:
    """Latent statistics of a data set, per class and position (joint), per class, and per position.

    Large parts stay in the file until a class is asked for. Latents are in the host's LATENT units: raw VAE output,
    before the model's scale factor.

    Attributes:
        metadata: the file's strings (dataset, class_names, vae, image_size, ...).
        class_ids: (K,) int64, ascending ids of the classes the file knows.
        downscale: image pixels per latent cell along one side, 1..64.
        class_names: class id -> name, as the file says; empty where it does not.
        shrinkage: how far each cell is to be believed, or None where the file does not say.
        label_rule: how label maps become rows of these statistics.
        derived: what others computed from these statistics and want to find again; it goes when they go.
    """

    def __init__(self, source: TensorSource, metadata: Mapping[str, str]):
        self._source = source
        self.metadata = dict(metadata)
        _check_metadata(self.metadata, source.name)
        self.downscale = _downscale(self.metadata.get("latent_downscale", "8"), source.name)
        self.class_names = _class_names(self.metadata.get("class_names", "{}"), source.name)
        self.label_rule = LabelRule.parse(self.metadata.get("label_rule", "nearest"), source.name)
        self.shrinkage = _shrinkage(self.metadata, source.name)
        self.sizes = check_layout(source)
        self.class_ids = source.read("class_ids").to(torch.int64)
        _check_ids(self.class_ids, source.name)
        self.derived: dict[Any, Any] = {}
        self._rows = {int(k): row for row, k in enumerate(self.class_ids)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Statistics:
        """Statistics held in memory.

        Args:
            tensors: keys, shapes and dtypes of the file format (see `layout.py`); absent parts are absent keys.
            metadata: strings; `format`, `version` and what follows from the tensors are filled in.

        Raises:
            SCPError: a part is missing its partner, shapes disagree, a dtype is not the format's, a value is not finite
                or a std is negative, or the metadata are not strings or not to be understood.
        """
        source = MemorySource({key: tensor.detach().cpu() for key, tensor in tensors.items()})
        statistics = cls(source, {**metadata, "format": FORMAT, "version": VERSION})
        for key in SHAPES:
            if key in source.shapes:
                _check_values(key, source.read(key), source.name)
        statistics.metadata.setdefault("latent_channels", str(statistics.channels))
        statistics.metadata.setdefault("latent_downscale", "8")
        return statistics

    @property
    def name(self) -> str:
        """What to call these statistics in a message: the file's name where there is one."""
        return self._source.name

    @property
    def channels(self) -> int:
        """Number of latent channels C."""
        return self.sizes["C"]

    @property
    def latent_size(self) -> tuple[int, int] | None:
        """(h, w) of the stored grid, or None where the file holds categorical statistics only."""
        return (self.sizes["h"], self.sizes["w"]) if "h" in self.sizes else None

    @property
    def dataset(self) -> str:
        """Name of the data set, or "" where the file does not say."""
        return self.metadata.get("dataset", "")

    @property
    def has_joint(self) -> bool:
        """Whether the file holds statistics per class and position."""
        return "joint.mean" in self._source.shapes

    @property
    def has_categorical(self) -> bool:
        """Whether the file holds statistics per class."""
        return "class.mean" in self._source.shapes

    @property
    def has_spatial(self) -> bool:
        """Whether the file holds statistics per position."""
        return "spatial.mean" in self._source.shapes

    @property
    def has_target(self) -> bool:
        """Whether the file says what cells are drawn toward, and how far."""
        return "target.mean" in self._source.shapes

    @property
    def has_scene(self) -> bool:
        """Whether the file knows what a whole picture shares."""
        return "scene.share" in self._source.shapes

    def row_of(self, class_id: int) -> int | None:
        """Row of a class in (K, ...) tensors, or None where the file does not know it."""
        return self._rows.get(class_id)

    def joint(self, rows: Sequence[int]) -> Cells:
        """Joint statistics of the classes in these rows; nothing else is read.

        Raises:
            SCPError: the file holds no joint statistics, has changed since it was opened, or holds a value no
                statistics can have.
        """
        return Cells(*self._read(JOINT, rows))

    def counts(self, rows: Sequence[int]) -> Tensor:
        """How often each cell of the classes in these rows was seen, (n, h, w) float32; no moments are read.

        Raises:
            SCPError: as `joint`.
        """
        return self._read(JOINT[:1], rows)[0]

    def joint_at(self, rows: Tensor, positions: Tensor) -> Cells:
        """Joint statistics of single cells: count (m,), mean and std (m, C).

        Args:
            rows, positions: (m,) int64, class row and row-major position of each cell.

        Raises:
            SCPError: as `joint`.
        """
        self._require(JOINT)
        parts = self._source.cells(JOINT, rows, positions)
        for key, part in zip(JOINT, parts, strict=True):
            _check_values(key, part, self.name)
        count, mean, std = (part.float() for part in parts)
        return Cells(count.squeeze(1), mean, std)

    def categorical(self) -> ClassMoments:
        """Categorical statistics of every class."""
        count, mean, std = self._read(("class.count", "class.mean", "class.std"))
        return ClassMoments(count.to(torch.int64), mean, std)

    def spatial(self) -> Moments:
        """Spatial statistics of the whole grid."""
        return Moments(*self._read(SPATIAL))

    def target(self, rows: Sequence[int]) -> Moments:
        """What the cells of the classes in these rows are drawn toward: mean and std (n, C, gh, gw), LATENT units."""
        return Moments(*self._read(TARGET, rows))

    def scene(self) -> Scene:
        """Scene effects of every class.

        Raises:
            SCPError: the file holds none, or a share or a correlation that cannot be.
        """
        share, correlation, within, count = self._read(SCENE)
        if bool((share >= 1).any()) or bool((share < 0).any()):
            raise SCPError(f"{self.name}: scene.share must be within 0 and 1. Make the file again.")
        if float(correlation.abs().max()) > 1.01 or float(within.abs().max()) > 1.01:
            raise SCPError(f"{self.name}: it holds a correlation above 1. Make the file again.")
        return Scene(share, correlation, within, count.to(torch.int64))

    def resample(self, latent_size: tuple[int, int]) -> Statistics:
        """The same statistics on another grid: interpolated moments, each cell weighted by its count.

        Nothing is read or computed until a class is asked for. A cell that saw nothing has no weight, so it cannot
        pull a neighbour toward zero. Counts become fractional.
        """
        if self.latent_size in (None, tuple(latent_size)):
            return self
        return Statistics(_Resampled(self, latent_size), self.metadata)

    def tensors(self) -> dict[str, Tensor]:
        """Every stored part, read into memory, under the file format's keys."""
        return {key: self._source.read(key) for key in self._source.shapes}

    def describe(self) -> dict[str, object]:
        """A summary that can be written as JSON: metadata, parts, and per class its name, count and known cells."""
        shares: dict[int, float] = {}
        if self.has_joint:
            for row, class_id in enumerate(self.class_ids.tolist()):
                shares[class_id] = float((self.joint([row]).count > 0).float().mean())
        counts = self.categorical().count.tolist() if self.has_categorical else [None] * len(self.class_ids)
        return {
            "name": self.name,
            "metadata": self.metadata,
            "latent_channels": self.channels,
            "latent_size": list(self.latent_size) if self.latent_size else None,
            "parts": [part for part, keys in _PARTS.items() if keys[-1] in self._source.shapes],
            "classes": [
                {
                    "id": class_id,
                    "name": self.class_names.get(class_id, ""),
                    "count": count,
                    "cells": shares.get(class_id),
                }
                for class_id, count in zip(self.class_ids.tolist(), counts, strict=True)
            ],
        }

    def _read(self, keys: tuple[str, ...], rows: Sequence[int] | None = None) -> list[Tensor]:
        self._require(keys)
        read = self._source.read_many(keys, rows)
        for key, tensor in zip(keys, read, strict=True):
            _check_values(key, tensor, self.name)
        return [tensor if key == "class.count" else tensor.float() for key, tensor in zip(keys, read, strict=True)]

    def _require(self, keys: tuple[str, ...]) -> None:
        missing = [key for key in keys if key not in self._source.shapes]
        if missing:
            raise SCPError(
                f"{self.name} holds no {' and '.join(missing)}. Choose a method it can serve, or another file."
            )


class LabelRule(NamedTuple):
    """How a label map is brought to the grid (`nearest` or `majority`), and which ids stand for which.

    Written in the file's metadata as "nearest; 255->150": the released COCO-Stuff statistics count unlabelled pixels
    as class 150.
    """

    grid: str
    replace: tuple[tuple[int, int], ...] = ()

    @classmethod
    def parse(cls, text: str, name: str) -> LabelRule:
        """Read the metadata's spelling.

        Raises:
            SCPError: the text is not of that form, or an id is outside 0..65535.
        """
        grid, *pairs = (part.strip() for part in text.split(";"))
        found = [match for pair in pairs if (match := _REPLACEMENT.fullmatch(pair))]
        replace = tuple((int(match[1]), int(match[2])) for match in found)
        ids_fit = all(class_id <= MAX_CLASS_ID for pair in replace for class_id in pair)
        if grid not in ("nearest", "majority") or len(replace) < len(pairs) or not ids_fit:
            raise SCPError(
                f"{name}: its label_rule is {_shown(text)}; expected e.g. 'nearest' or 'nearest; 255->150', "
                f"with ids within 0..{MAX_CLASS_ID}."
            )
        return cls(grid, replace)


_PARTS = {"joint": JOINT, "class": ("class.mean",), "spatial": SPATIAL, "target": TARGET, "scene": SCENE}


class _Resampled(TensorSource):
    """Reads another file's parts on another grid."""

    def __init__(self, base: Statistics, size: tuple[int, int]):
        self._base = base
        self._size = size
        self._kept: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        self.name = base.name
        self.shapes = {
            key: (*shape[:-2], *size) if key.startswith(("joint.", "spatial.")) else shape
            for key, shape in base._source.shapes.items()
        }
        self.dtypes = {
            key: "float32" if key.startswith(("joint.", "spatial.")) else dtype
            for key, dtype in base._source.dtypes.items()
        }

    def read_many(self, keys: Iterable[str], rows: Sequence[int] | None = None) -> list[Tensor]:
        read: dict[str, Tensor] = {}
        for key in (keys := tuple(keys)):
            if key not in read:
                read.update(self._part_of(key, rows))
        return [read[key] for key in keys]

    def _part_of(self, key: str, rows: Sequence[int] | None) -> dict[str, Tensor]:
        """`key`, and what comes with it: moments are resampled together."""
        if key in JOINT:
            parts = [self._joint(row) for row in (range(len(self._base.class_ids)) if rows is None else rows)]
            return {name: torch.cat(part) for name, part in zip(JOINT, zip(*parts, strict=True), strict=True)}
        if key in SPATIAL:
            return dict(zip(SPATIAL, resample_moments(*self._base.spatial(), self._size), strict=True))
        return {key: self._base._source.read_many([key], rows)[0]}

    def _joint(self, row: int) -> tuple[Tensor, Tensor, Tensor]:
        # Kept: the next picture asks for other cells of mostly the same classes.
        if row not in self._kept:
            self._kept[row] = resample_cells(*self._base.joint([row]), self._size)
        return self._kept[row]


def load_statistics(path: str | os.PathLike[str]) -> Statistics:
    """Open a statistics file; its tensors stay on disk until they are asked for.

    Raises:
        SCPError: there is no such file, it is not a statistics file, it is cut short, of a newer version, or its
            shapes, dtypes or metadata are not the format's.
    """
    source = FileSource(Path(path))
    found = source.metadata.get("format")
    if found != FORMAT:
        raise SCPError(
            f"{source.name} is a safetensors file but not a statistics file"
            f"{f' (its format is {found!r})' if found else ''}. Choose a file made by `scp_prior convert` or `reduce`."
        )
    version = source.metadata.get("version", "")
    if version != VERSION:
        raise SCPError(f"{source.name} is of format version {version!r}; this pack reads {VERSION}. Update the pack.")
    return Statistics(source, source.metadata)


def save_statistics(statistics: Statistics, path: str | os.PathLike[str]) -> None:
    """Write a statistics file whole or not at all.

    Fractional counts of resampled statistics are rounded up, so that a cell that saw something keeps a count.

    Raises:
        SCPError: the file cannot be written, or the metadata are not strings; whatever stood there before still does.
    """
    metadata = {**statistics.metadata, "format": FORMAT, "version": VERSION}
    _check_metadata(metadata, statistics.name)
    tensors = {key: _stored(key, tensor) for key, tensor in statistics.tensors().items()}
    write_safetensors(path, tensors, metadata)


def _stored(key: str, tensor: Tensor) -> Tensor:
    # A copy: tensors that share memory, as views of one another do, cannot be saved.
    tensor = tensor.clone(memory_format=torch.contiguous_format)
    if not key.endswith((".count", "class_ids")):
        return tensor
    whole = tensor.ceil() if tensor.is_floating_point() else tensor
    return whole.to(torch.int32 if key == "joint.count" else torch.int64)


def _check_metadata(metadata: Mapping[str, str], name: str) -> None:
    for key, value in metadata.items():
        if not (isinstance(key, str) and isinstance(value, str)):
            raise SCPError(f"{name}: expected metadata of strings; came {_shown(key)}: {_shown(value)}. Use str().")
        try:
            f"{key}{value}".encode()
        except UnicodeEncodeError as error:
            raise SCPError(
                f"{name}: its metadata {_shown(key)}: {_shown(value)} cannot be written as UTF-8."
            ) from error


def _downscale(text: str, name: str) -> int:
    if not (_DIGITS.fullmatch(text) and 1 <= int(text) <= _MAX_DOWNSCALE):
        raise SCPError(
            f"{name}: its latent_downscale is {_shown(text)}; expected a whole number from 1 to {_MAX_DOWNSCALE}."
        )
    return int(text)


def _shrinkage(metadata: Mapping[str, str], name: str) -> Shrinkage | None:
    return Shrinkage.from_json(metadata["shrinkage"], name) if "shrinkage" in metadata else None


def _class_names(text: str, name: str) -> dict[int, str]:
    try:
        named = json.loads(text)
    except (ValueError, RecursionError):
        named = None
    if not (isinstance(named, dict) and all(_is_id(key) and isinstance(value, str) for key, value in named.items())):
        raise SCPError(
            f"{name}: its class_names are {_shown(text)}; expected a JSON object of id: name, "
            f"with ids within 0..{MAX_CLASS_ID}."
        )
    return {int(key): value for key, value in named.items()}


def _is_id(text: str) -> bool:
    return _DIGITS.fullmatch(text) is not None and int(text) <= MAX_CLASS_ID


def _shown(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def _check_ids(ids: Tensor, name: str) -> None:
    if len(ids) == 0 or int(ids.min()) < 0 or int(ids.max()) > MAX_CLASS_ID or bool((ids[1:] <= ids[:-1]).any()):
        raise SCPError(f"{name}: class_ids must be ascending, without repeats, within 0..{MAX_CLASS_ID}.")


def _check_values(key: str, tensor: Tensor, name: str) -> None:
    if not tensor.numel():
        return
    low, high = (float(bound) for bound in tensor.aminmax())
    # Everything is computed in float32, where a larger float64 is infinite; and nan compares as false.
    if not (low >= -_FLOAT_MAX and high <= _FLOAT_MAX):
        raise SCPError(f"{name}: {key} holds a value that is not a finite number. Make the file again.")
    if max(-low, high) > _LATENT_MAX and key.endswith((".mean", ".std")):
        raise SCPError(f"{name}: {key} holds {max(-low, high):.3g}, which no latent is. Make the file again.")
    if low < 0 and key.endswith((".std", ".count")):
        raise SCPError(f"{name}: {key} holds a negative value. Make the file again.")
