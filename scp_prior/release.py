"""The authors' released statistics (three .npy files per data set) -> Statistics."""

from __future__ import annotations

import datetime
import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from .classes import released_palette, table
from .errors import SCPError
from .ids import MAX_CLASS_ID
from .npy import Tree, read_object_npy
from .statistics import Statistics

SCALE_FACTOR = 0.18215  # LATENT units -> model units of Stable Diffusion 1 and 2
DOWNSCALE = 8
VAE = "stabilityai/stable-diffusion-2-1 (first stage of the release)"
DATASETS = ("cityscapes", "ade20k", "coco-stuff")
# The authors rewrite void to "roof" before anything else, on COCO-Stuff only.
_LABEL_RULES = {"coco-stuff": "nearest; 255->150"}
_MAX_COUNT = 2**31 - 1

# The joint name ends like the spatial one but for "_class": none of these endings is the end of another.
_ENDINGS = {
    "categorical": "_categorical_mean_std.npy",
    "spatial": "_spatial_mean_std.npy",
    "joint": "_spatial_class_mean_std.npy",
}

_Path = str | os.PathLike[str]


class _Joint(NamedTuple):
    """ids (K,), count (K, h, w) float64, mean and std (K, C, h, w) float32; 0 in cells that saw nothing."""

    ids: np.ndarray
    count: np.ndarray
    mean: np.ndarray
    std: np.ndarray


class _Spatial(NamedTuple):
    """mean and std (C, h, w) float32."""

    mean: np.ndarray
    std: np.ndarray


class _Class(NamedTuple):
    """mean and std (C,) of one class; std None where the file cannot know it."""

    mean: np.ndarray
    std: np.ndarray | None


def find_release_files(paths: _Path | Iterable[_Path]) -> dict[str, Path | None]:
    """The released files among files and folders, by the ends of their names.

    Args:
        paths: a folder, a file, or several of either. Of a folder only the released statistics count, and it must
            hold those of one data set; subfolders are not searched.

    Returns:
        {"categorical": path, "spatial": path, "joint": path}, None where there is no such file.

    Raises:
        SCPError: none found, a file of another name, or two of one kind.
    """
    paths = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    found: dict[str, Path | None] = dict.fromkeys(_ENDINGS)
    for path in map(Path, paths):
        for kind, file in _in_folder(path) if path.is_dir() else [(_kind_of_file(path), path)]:
            other = found[kind]
            if other is not None and other.resolve() != file.resolve():
                raise SCPError(f"There are two {kind} files, {other} and {file}. Give the files of one data set.")
            found[kind] = file
    if not any(found.values()):
        where = ", ".join(map(str, paths)) or "no path"
        raise SCPError(
            f"No released statistics in {where}: expected files named {_expected_names()} in it, not in folders below."
        )
    return found


def convert_release(
    categorical: _Path | None = None,
    spatial: _Path | None = None,
    joint: _Path | None = None,
    *,
    dataset: str,
    scale_factor: float = SCALE_FACTOR,
) -> Statistics:
    """Statistics from the authors' released files; nothing in the files is executed.

    A part whose file is not given is derived from the joint one where that is given (law of total variance, float64).
    Every class of the categorical file is kept, and every class the joint file saw anywhere; the authors resized labels
    bilinearly, so ids that are in no label map may be among them. A class whose categorical std is missing or not a
    number (the authors drew it once) gets the std pooled from its joint cells where these saw it at least twice,
    otherwise the mean std of the other classes. A position no class was seen at gets, in derived spatial statistics,
    the moments pooled over all positions.

    Args:
        categorical: `*_categorical_mean_std.npy`, {class id: {"mean": (C,), "std": (C,)}}, model units.
        spatial: `*_spatial_mean_std.npy`, {"mean", "std": (C, h, w)}, model units.
        joint: `*_spatial_class_mean_std.npy`, {"mean", "std": (N, C, h, w), "count": (N, 1, h, w)}, index = class id.
        dataset: cityscapes, ade20k or coco-stuff.
        scale_factor: LATENT units -> model units; means and stds are divided by it.

    Returns:
        Statistics in LATENT units. `class.count` is the number of latent cells the joint file saw of the class, and 0
        where there is no joint file.

    Raises:
        SCPError: no file given, an unknown data set, a file that is not what its argument says, files that do not
            belong together, or a value that is not a finite number (naming the class).

    Source: the authors' `<set>_10000_*_mean_std.npy` (huggingface.co/c7w/SCP-Diff).
    """
    files = {"categorical": categorical, "spatial": spatial, "joint": joint}
    paths = {kind: Path(path) for kind, path in files.items() if path is not None}
    _check_arguments(paths, dataset, scale_factor)

    joint_part = _read_joint(paths["joint"], scale_factor) if "joint" in paths else None
    spatial_part = _read_spatial(paths["spatial"], scale_factor) if "spatial" in paths else None
    class_part = _read_categorical(paths["categorical"], scale_factor) if "categorical" in paths else {}
    _check_agreement(paths, joint_part, spatial_part, class_part)

    tensors = _assemble(joint_part, spatial_part, class_part)
    if not len(tensors["class_ids"]):
        # Spatial statistics are of every class alike, and the format asks for at least one.
        tensors["class_ids"] = np.array(table(dataset).ids, dtype=np.int64)
    return Statistics.from_tensors(
        {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in tensors.items()},
        _metadata(dataset, paths, tensors),
    )


def _check_arguments(paths: Mapping[str, Path], dataset: str, scale_factor: float) -> None:
    if dataset not in DATASETS:
        raise SCPError(f"There is no released data set '{dataset}'. Choose one of: {', '.join(DATASETS)}.")
    if not paths:
        raise SCPError("No released file given: expected at least one of categorical, spatial and joint.")
    if not (math.isfinite(scale_factor) and scale_factor > 0):
        raise SCPError(f"The scale factor must be a positive number; it is {scale_factor}. The release uses 0.18215.")


# Finding


def _in_folder(folder: Path) -> list[tuple[str, Path]]:
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file())
    except OSError as error:
        raise SCPError(f"Cannot look into {folder}: {error.strerror or error}.") from error
    found = [(kind, path) for path in files if (kind := _kind(path.name))]
    sets = sorted({path.name.removesuffix(_ENDINGS[kind]) for kind, path in found})
    if len(sets) > 1:
        raise SCPError(
            f"{folder} holds the files of several data sets ({', '.join(sets)}): name the three files instead."
        )
    return found


def _kind(name: str) -> str | None:
    return next((kind for kind, ending in _ENDINGS.items() if name.endswith(ending)), None)


def _kind_of_file(path: Path) -> str:
    kind = _kind(path.name)
    if kind is None:
        raise SCPError(f"{path.name} is not named like a released file: expected {_expected_names()}.")
    if not path.exists():
        raise SCPError(f"There is no file or folder {path}.")
    return kind


def _expected_names() -> str:
    return ", ".join(f"*{ending}" for ending in _ENDINGS.values())


# Reading, model units -> LATENT units


def _read_joint(path: Path, scale_factor: float) -> _Joint:
    mean, std, count = _arrays(read_object_npy(path), ("mean", "std", "count"), path)
    if mean.ndim != 4 or std.shape != mean.shape or count.shape not in _count_shapes(mean):
        raise SCPError(
            f"{path.name}: expected mean and std (classes, channels, h, w) and count (classes, 1, h, w); "
            f"came {mean.shape}, {std.shape} and {count.shape}."
        )
    count = count.reshape(len(mean), *mean.shape[2:])
    # Views of the file's bytes up to here: only the classes that were seen are copied.
    ids = np.flatnonzero(count.any(axis=(1, 2)))
    count = count[ids].astype(np.float64)
    _check_counts(count, ids, path)
    seen = (count > 0)[:, None]
    mean = _scaled(np.where(seen, mean[ids], 0), scale_factor)
    std = _scaled(np.where(seen, std[ids], 0), scale_factor)
    for row, class_id in enumerate(ids):
        _check_moments(mean[row], std[row], f"{path.name}: class {class_id}")
    return _Joint(ids, count, mean, std)


def _count_shapes(mean: np.ndarray) -> tuple[tuple[int, ...], ...]:
    n, _, h, w = mean.shape
    return (n, 1, h, w), (n, h, w)


def _check_counts(count: np.ndarray, ids: np.ndarray, path: Path) -> None:
    if not len(ids):
        raise SCPError(f"{path.name}: its counts are all zero, so it holds no statistics.")
    good = np.isfinite(count) & (count >= 0) & (count <= _MAX_COUNT) & (count == np.floor(count))
    if not good.all():
        row = int(np.flatnonzero(~good.all(axis=(1, 2)))[0])
        raise SCPError(
            f"{path.name}: class {ids[row]} has the count {count[row][~good[row]][0]:g}; "
            "expected whole numbers from 0. Download the file again."
        )


def _read_spatial(path: Path, scale_factor: float) -> _Spatial:
    mean, std = _arrays(read_object_npy(path), ("mean", "std"), path)
    if mean.ndim != 3 or std.shape != mean.shape:
        raise SCPError(
            f"{path.name}: expected mean and std of one shape (channels, h, w); came {mean.shape} and {std.shape}."
        )
    mean, std = _scaled(mean, scale_factor), _scaled(std, scale_factor)
    _check_moments(mean, std, f"{path.name}: the spatial part")
    return _Spatial(mean, std)


def _read_categorical(path: Path, scale_factor: float) -> dict[int, _Class]:
    tree = read_object_npy(path)
    if not tree or not all(isinstance(key, int) and isinstance(value, dict) for key, value in tree.items()):
        raise SCPError(f"{path.name}: expected {{class id: mean and std}}; {_contents(tree)}.")
    classes = {key: _read_class(tree[key], scale_factor, f"{path.name}: class {key}") for key in sorted(tree)}
    if min(classes) < 0 or max(classes) > MAX_CLASS_ID:
        raise SCPError(f"{path.name}: class ids from {min(classes)} to {max(classes)}; expected 0 to {MAX_CLASS_ID}.")
    lengths = {len(part.mean) for part in classes.values()}
    if len(lengths) > 1:
        raise SCPError(f"{path.name}: its classes have {' and '.join(map(str, sorted(lengths)))} channels.")
    return classes


def _read_class(entry: Tree, scale_factor: float, where: str) -> _Class:
    mean, std = (entry.get(key) for key in ("mean", "std"))
    if not isinstance(mean, np.ndarray) or mean.ndim != 1:
        raise SCPError(f"{where}: expected a mean of shape (channels,); {_contents(entry)}.")
    mean = _scaled(mean, scale_factor)
    if std is None:
        _check_moments(mean, np.zeros_like(mean), where)
        return _Class(mean, None)
    if not isinstance(std, np.ndarray) or std.shape != mean.shape:
        raise SCPError(f"{where}: its std is not of the shape of its mean, {mean.shape}; {_contents(entry)}.")
    std = _scaled(std, scale_factor)
    unknown = bool(np.isnan(std).any())
    _check_moments(mean, np.where(np.isnan(std), 0, std), where)
    return _Class(mean, None if unknown else std)


def _arrays(tree: Tree, keys: tuple[str, ...], path: Path) -> list[np.ndarray]:
    if not all(isinstance(tree.get(key), np.ndarray) for key in keys) or len(tree) != len(keys):
        raise SCPError(f"{path.name}: expected the arrays {', '.join(keys)}; {_contents(tree)}.")
    return [tree[key] for key in keys]


def _contents(tree: Tree) -> str:
    """What a dictionary holds, for a message."""
    shown = [f"{ascii(str(key)[:20])[1:-1]} {_kind_of_value(value)}" for key, value in list(tree.items())[:4]]
    return f"it holds {', '.join(shown) or 'nothing'}{' ...' if len(tree) > 4 else ''}"


def _kind_of_value(value: object) -> str:
    return str(value.shape) if isinstance(value, np.ndarray) else f"({type(value).__name__})"


def _scaled(values: np.ndarray, scale_factor: float) -> np.ndarray:
    """Model units -> LATENT units, float32; what does not fit becomes infinite, and is refused as such."""
    with np.errstate(over="ignore"):
        return np.divide(values.astype(np.float32), np.float32(scale_factor), dtype=np.float32)


def _check_moments(mean: np.ndarray, std: np.ndarray, where: str) -> None:
    for name, values in (("mean", mean), ("std", std)):
        bad = int((~np.isfinite(values)).sum())
        if bad:
            raise SCPError(f"{where} has a {name} that is not a finite number ({bad} values). Download the file again.")
    if (std < 0).any():
        raise SCPError(f"{where} has a negative std. Download the file again.")


def _check_agreement(
    paths: Mapping[str, Path], joint: _Joint | None, spatial: _Spatial | None, classes: Mapping[int, _Class]
) -> None:
    """Refuse files of different data sets: channels and latent grids must agree."""
    shapes: dict[str, tuple[int, ...]] = {}
    if joint is not None:
        shapes["joint"] = joint.mean.shape[1:]
    if spatial is not None:
        shapes["spatial"] = spatial.mean.shape
    if classes:
        shapes["categorical"] = next(iter(classes.values())).mean.shape
    first, *others = shapes
    for other in others:
        common = min(len(shapes[first]), len(shapes[other]))
        if shapes[first][:common] != shapes[other][:common]:
            raise SCPError(
                f"{paths[first].name} is of shape {shapes[first]} and {paths[other].name} of shape {shapes[other]} "
                "(channels, h, w): they do not belong to one data set. Give the files of one set."
            )


# Assembling


def _assemble(joint: _Joint | None, spatial: _Spatial | None, classes: dict[int, _Class]) -> dict[str, np.ndarray]:
    joint_ids = set() if joint is None else set(joint.ids.tolist())
    ids = np.array(sorted(joint_ids | set(classes)), dtype=np.int64)
    tensors: dict[str, np.ndarray] = {"class_ids": ids}
    if joint is not None:
        joint = _spread(joint, ids)
        tensors["joint.count"] = joint.count.astype(np.int32)
        tensors["joint.mean"] = joint.mean
        tensors["joint.std"] = joint.std
    if joint is not None or classes:
        tensors |= _class_tensors(ids, classes, joint)
    if spatial is None and joint is not None:
        spatial = _spatial_marginal(joint)
    if spatial is not None:
        tensors["spatial.mean"] = spatial.mean
        tensors["spatial.std"] = spatial.std
    return tensors


def _spread(joint: _Joint, ids: np.ndarray) -> _Joint:
    """The joint part with an empty row for each class that only the categorical file knows."""
    if len(ids) == len(joint.ids):
        return joint
    rows = np.searchsorted(ids, joint.ids)
    parts = [np.zeros((len(ids), *part.shape[1:]), part.dtype) for part in joint[1:]]
    for empty, part in zip(parts, joint[1:], strict=True):
        empty[rows] = part
    return _Joint(ids, *parts)


def _class_tensors(ids: np.ndarray, classes: dict[int, _Class], joint: _Joint | None) -> dict[str, np.ndarray]:
    rows = [_class_row(row, classes.get(int(class_id)), joint) for row, class_id in enumerate(ids)]
    known = [part.std for part in rows if part.std is not None]
    if not known:
        raise SCPError("No class has a usable std: every class was seen once only. Give the joint file as well.")
    typical = np.mean(known, axis=0)
    count = np.zeros(len(ids)) if joint is None else joint.count.sum(axis=(1, 2))
    return {
        "class.count": count.astype(np.int64),
        "class.mean": np.stack([part.mean for part in rows]).astype(np.float32),
        "class.std": np.stack([typical if part.std is None else part.std for part in rows]).astype(np.float32),
    }


def _class_row(row: int, given: _Class | None, joint: _Joint | None) -> _Class:
    """The categorical file's moments of a class, completed by its joint cells where these can."""
    if joint is None or (given is not None and given.std is not None):
        return given
    pooled = _pool(joint.count[row], joint.mean[row], joint.std[row])
    return pooled if given is None else _Class(given.mean, pooled.std)


def _pool(count: np.ndarray, mean: np.ndarray, std: np.ndarray) -> _Class:
    """Moments of all cells (h, w) of a class together: law of total variance, float64; std None below two samples."""
    total = count.sum()
    weight = count / max(total, 1)
    pooled = np.einsum("hw,chw->c", weight, mean)
    variance = np.einsum("hw,chw->c", weight, std.astype(np.float64) ** 2 + (mean - pooled[:, None, None]) ** 2)
    return _Class(pooled, np.sqrt(variance) if total >= 2 else None)


def _spatial_marginal(joint: _Joint) -> _Spatial:
    """Moments of all classes together at each position: law of total variance, float64."""
    total = joint.count.sum(axis=0)
    weights = joint.count / np.maximum(total, 1)
    mean = np.einsum("khw,kchw->chw", weights, joint.mean)
    variance = np.zeros_like(mean)
    for weight, cell_mean, cell_std in zip(
        weights, joint.mean, joint.std, strict=True
    ):  # one class in memory at a time
        variance += weight * (cell_std.astype(np.float64) ** 2 + (cell_mean - mean) ** 2)
    if not total.all():
        pooled = _pool(total, mean, np.sqrt(variance))
        mean = np.where(total > 0, mean, pooled.mean[:, None, None])
        variance = np.where(total > 0, variance, 0 if pooled.std is None else pooled.std[:, None, None] ** 2)
    return _Spatial(mean.astype(np.float32), np.sqrt(variance).astype(np.float32))


def _metadata(dataset: str, paths: Mapping[str, Path], tensors: Mapping[str, np.ndarray]) -> dict[str, str]:
    grid = next((tensors[key] for key in ("joint.mean", "spatial.mean") if key in tensors), None)
    channels = (tensors["class.mean"] if grid is None else grid[..., 0, 0]).shape[-1]
    size = "unknown" if grid is None else f"{grid.shape[-2] * DOWNSCALE}x{grid.shape[-1] * DOWNSCALE}"
    names = {str(class_id): name for class_id, name in table(dataset).names.items()}
    return {
        "dataset": dataset,
        "class_names": json.dumps(names, ensure_ascii=False),
        "palette": released_palette(dataset),
        "label_rule": _LABEL_RULES.get(dataset, "nearest"),
        "latent_channels": str(channels),
        "latent_downscale": str(DOWNSCALE),
        "vae": VAE,
        "image_size": size,
        # Not in the files; the counts at one position are a lower bound only, as the joint pass skips images.
        "images": "unknown",
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "software": "scp-diff, scp_prior convert",
        "source": f"{', '.join(path.name for path in paths.values())}; SCP-Diff release, Apache-2.0",
    }
