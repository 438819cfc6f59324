"""Where tensors come from: memory, or a safetensors file that is mapped only while it is being read."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .errors import SCPError
from .lookalikes import lookalike

# What safetensors calls the types we know; any other keeps its name in the file.
_DTYPES = {
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "U8": "uint8",
    "I8": "int8",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
}


class TensorSource(abc.ABC):
    """Named tensors whose shapes and dtypes are known and whose values are read on demand.

    Attributes:
        name: what to call the source in a message.
        shapes: of each key.
        dtypes: of each key, as torch spells it ("float32"); a file's own spelling where we know no such type.
        fractional_counts: whether counts may be fractional, as those of resampled statistics are.
    """

    name: str
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]
    fractional_counts: bool = True

    @abc.abstractmethod
    def read_many(self, keys: Iterable[str], rows: Sequence[int] | None = None) -> list[Tensor]:
        """The tensors under `keys`, or only these rows of their first dimension."""

    def cells(self, keys: Sequence[str], rows: Tensor, positions: Tensor) -> list[Tensor]:
        """Cells (m, channels) of (K, [C,] h, w) tensors; `rows` and row-major `positions` (m,) int64 say which."""
        present, index = rows.unique(return_inverse=True)
        return [_gather(part, index, positions) for part in self.read_many(keys, present.tolist())]

    def read(self, key: str) -> Tensor:
        """The whole tensor under `key`."""
        return self.read_many([key])[0]


class MemorySource(TensorSource):
    """Tensors held in memory."""

    def __init__(self, tensors: Mapping[str, Tensor], name: str = "these statistics"):
        self._tensors = dict(tensors)
        self.name = name
        self.shapes = {key: tuple(tensor.shape) for key, tensor in self._tensors.items()}
        self.dtypes = {key: str(tensor.dtype).removeprefix("torch.") for key, tensor in self._tensors.items()}

    def read_many(self, keys: Iterable[str], rows: Sequence[int] | None = None) -> list[Tensor]:
        index = None if rows is None else torch.as_tensor(list(rows), dtype=torch.int64)
        return [self._tensors[key] if index is None else self._tensors[key][index] for key in keys]


class FileSource(TensorSource):
    """Tensors of a safetensors file.

    The file is opened anew for each read (0.03 ms): held open, it could not be replaced on Windows.

    Raises:
        SCPError: on opening or reading, where the file is missing, not a safetensors file, cut short, or replaced
            since it was opened.
    """

    fractional_counts = False

    def __init__(self, path: Path):
        self._path = path
        self.name = path.name
        self._stamp = self._fingerprint()
        try:
            with safe_open(path, framework="pt") as file:
                self.metadata: dict[str, str] = file.metadata() or {}
                slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
                self.shapes = {key: tuple(part.get_shape()) for key, part in slices.items()}
                self.dtypes = {key: _DTYPES.get(code := part.get_dtype(), code) for key, part in slices.items()}
        except (SafetensorError, OSError) as error:
            found = lookalike(path)
            raise SCPError(
                f"{self.name} cannot be read as a safetensors file: {found}."
                if found
                else f"{self.name} cannot be read as a safetensors file ({error}). It is of another kind, or its "
                "download or copy was cut short: get or make it again."
            ) from error

    def read_many(self, keys: Iterable[str], rows: Sequence[int] | None = None) -> list[Tensor]:
        with self._opened() as file:
            return [_rows(file, key, rows) for key in keys]

    def cells(self, keys: Sequence[str], rows: Tensor, positions: Tensor) -> list[Tensor]:
        """As in TensorSource, through the mapping: of the file, only the pages these cells lie on are read."""
        with self._opened() as file:
            return [_gather(file.get_tensor(key), rows, positions) for key in keys]

    @contextlib.contextmanager
    def _opened(self) -> Iterator[safe_open]:
        if self._fingerprint() != self._stamp:
            raise SCPError(f"{self.name} was replaced while it was in use. Queue the graph again to load the new file.")
        try:
            with safe_open(self._path, framework="pt") as file:
                yield file
        except (SafetensorError, OSError) as error:
            raise SCPError(f"{self.name} cannot be read any more ({error}). Get or make it again.") from error

    def _fingerprint(self) -> tuple[int, int]:
        try:
            status = self._path.stat()
        except OSError as error:
            raise SCPError(f"There is no statistics file {self._path} ({error.strerror}).") from error
        if not self._path.is_file():
            raise SCPError(f"{self._path} is a folder; expected a statistics file (.safetensors).")
        return status.st_mtime_ns, status.st_size


def _rows(file: safe_open, key: str, rows: Sequence[int] | None) -> Tensor:
    # Copies, never views: a view would keep the mapping, and so the file, in use.
    mapped = file.get_tensor(key)
    return mapped.clone() if rows is None else mapped.index_select(0, torch.tensor(rows))


def _gather(part: Tensor, rows: Tensor, positions: Tensor) -> Tensor:
    # (K, h, w) and (K, C, h, w) alike as (K, C or 1, h w).
    return part.view(len(part), -1, part.shape[-2] * part.shape[-1])[rows, :, positions]
