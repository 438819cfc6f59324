"""Where the files made of a released data set belong, and whether they are there whole."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

from .errors import SCPError
from .originals import Original
from .released import STATISTICS, released_files

ORIGINALS = "scp_downloads"
_STORED = {"float16": "F16", "float32": "F32"}
DTYPES = tuple(_STORED)


class Target(NamedTuple):
    """Where the files of one data set go.

    Args:
        dataset: cityscapes, ade20k or coco-stuff.
        models: ComfyUI's models folder.
    """

    dataset: str
    models: Path

    @property
    def originals(self) -> Path:
        """The folder of the files as released, which no loader lists."""
        return self.models / ORIGINALS / self.dataset

    def made(self, kind: str) -> list[Path]:
        """What is made of the released file of this kind."""
        return [self.models / name for name in released_files(self.dataset)[kind].becomes]

    def original(self, kind: str) -> Original:
        """The released file of this kind; where its name is not certain, the one that is there."""
        file = released_files(self.dataset)[kind]
        names = [path.rpartition("/")[2] for path in file.paths]
        found = [path.name for path in self.originals.glob(f"*{file.ending}")] if self.originals.is_dir() else []
        name = next((name for name in names if name in found), found[0] if len(found) == 1 else names[0])
        return Original(self.originals / name)

    def is_made(self, kind: str, dtype: str) -> bool:
        """Whether all that is made of the released file of this kind is there, whole and of the dtype asked for."""
        if kind in STATISTICS:
            return all(_is_statistics(path) for path in self.made(kind))
        return all(_is_model(path, dtype) for path in self.made(kind))

    def in_the_way(self, kind: str, dtype: str) -> Path | None:
        """A file of one of these names that is not what belongs there, nor made by `convert` at another dtype."""
        return next((path for path in self.made(kind) if path.exists() and not _may_stand(path, kind, dtype)), None)


def _may_stand(path: Path, kind: str, dtype: str) -> bool:
    if kind in STATISTICS:
        return _is_statistics(path)
    return _is_model(path, dtype) or "source_identity" in _header(path)[1]


def _is_statistics(path: Path) -> bool:
    from .statistics import load_statistics

    if not path.is_file():
        return False
    try:
        load_statistics(path)
    except SCPError:
        return False
    return True


def _is_model(path: Path, dtype: str) -> bool:
    sizes, _ = _header(path)
    # Most of it: ids are integers in every file.
    return bool(sizes) and max(sizes, key=sizes.__getitem__) == _STORED[dtype]


def _header(path: Path) -> tuple[dict[str, int], dict[str, str]]:
    """Number of elements of each dtype, and metadata, of a whole safetensors file; both empty for any other."""
    from safetensors import SafetensorError, safe_open

    sizes: dict[str, int] = {}
    try:
        with safe_open(path, framework="np") as file:
            for key in file.keys():  # noqa: SIM118 - it is no dict
                part = file.get_slice(key)
                sizes[part.get_dtype()] = sizes.get(part.get_dtype(), 0) + math.prod(part.get_shape())
            return sizes, file.metadata() or {}
    except (SafetensorError, OSError):
        return {}, {}
