"""Tensors that lie in a file, and reading them piece by piece."""

from __future__ import annotations

import contextlib
import math
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from .errors import SCPError

BLOCK = 8 << 20
# Of a tensor whose elements do not lie in a row, or lie over one another, this much is made at most.
MAX_VIEW = 1 << 30


class Stored(NamedTuple):
    """A tensor in a file: nothing of it is read yet.

    start: offset in bytes of its first element in the file. stride: in elements, as torch has it. stored: bytes of the
    storage it is a view of.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    start: int
    stored: int

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.numel * self.dtype.itemsize

    @property
    def span(self) -> int:
        """Elements from the first to the last in the file, both included."""
        return extent(self.shape, self.stride)

    @property
    def in_a_row(self) -> bool:
        """Whether its elements follow each other in the file in the order of its indices."""
        step = 1
        for size, stride in zip(reversed(self.shape), reversed(self.stride), strict=True):
            if size != 1 and stride != step:
                return False
            step *= size
        return True


def extent(shape: tuple[int, ...], stride: tuple[int, ...]) -> int:
    """Elements from the first to the last of a strided tensor, both included."""
    if 0 in shape:
        return 0
    return 1 + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))


class MappedFile(contextlib.AbstractContextManager):
    """A file, mapped into memory a window at a time, so that what was read does not count as memory in use."""

    def __init__(self, path: Path):
        self._path, self.name = path, path.name
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise SCPError(f"Cannot read {path}: {error.strerror or error}.") from error

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def blocks(self, stored: Stored, limit: int = BLOCK) -> Iterator[Tensor]:
        """A tensor's elements in order, as flat tensors of about `limit` bytes. Each is mapped while it is held.

        Raises:
            SCPError: the file was cut short meanwhile, or the tensor claims far more than the file holds of it.
        """
        if not stored.numel:
            return
        if stored.in_a_row:
            item = stored.dtype.itemsize
            step = max(limit // item, 1)
            for first in range(0, stored.numel, step):
                yield self._window(stored.dtype, stored.start + first * item, min(step, stored.numel - first))
            return
        # What it spans counts too: not aligned, that is copied whole.
        if max(stored.nbytes, stored.span * stored.dtype.itemsize) > MAX_VIEW:
            raise SCPError(
                f"{self._path.name} holds a tensor of shape {stored.shape} whose elements do not lie in a row; such "
                f"tensors are read up to {MAX_VIEW >> 30} GB. Get the file from where it was made."
            )
        whole = self._window(stored.dtype, stored.start, stored.span).as_strided(stored.shape, stored.stride)
        rows = max(limit * stored.shape[0] // stored.nbytes, 1)
        for first in range(0, stored.shape[0], rows):
            yield whole[first : first + rows].reshape(-1).contiguous()

    def read(self, stored: Stored) -> Tensor:
        """A tensor's own copy.

        Raises:
            SCPError: as `blocks`.
        """
        flat = torch.empty(stored.numel, dtype=stored.dtype)
        at = 0
        for block in self.blocks(stored):
            flat[at : at + block.numel()] = block
            at += block.numel()
        return flat.reshape(stored.shape)

    def _window(self, dtype: torch.dtype, start: int, count: int) -> Tensor:
        first = start // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
        length = start - first + count * dtype.itemsize
        try:
            if os.fstat(self._file.fileno()).st_size < first + length:
                raise SCPError(f"{self._path.name} has become shorter while it was read. Get it again.")
            # Private rather than read-only: torch warns of memory it may not write, though nobody writes.
            window = mmap.mmap(self._file.fileno(), length, access=mmap.ACCESS_COPY, offset=first)
            if hasattr(mmap, "MADV_WILLNEED"):
                window.madvise(mmap.MADV_WILLNEED)
        except (OSError, ValueError) as error:
            raise SCPError(f"Cannot read {self._path}: {getattr(error, 'strerror', None) or error}.") from error
        if start % dtype.itemsize:
            return torch.frombuffer(bytearray(window[start - first :]), dtype=dtype, count=count)
        return torch.frombuffer(window, dtype=dtype, count=count, offset=start - first)
