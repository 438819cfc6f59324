"""The safetensors layout: where the tensors of such a file lie, and writing one without holding it in memory.

The layout: 8 bytes with the header's length, little-endian; the header, JSON, {name: {dtype, shape, data_offsets}} and
`__metadata__`; then the tensors' bytes without gaps. (github.com/huggingface/safetensors, "Format".)
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .errors import SCPError
from .stored import Stored

SAFETENSORS = (".safetensors", ".sft")
CODES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: code for code, dtype in CODES.items()}


class SafetensorsFile(NamedTuple):
    """What a file holds: its tensors, its metadata, its size."""

    tensors: Mapping[str, Stored]
    metadata: Mapping[str, str]
    size: int


class Planned(NamedTuple):
    """A tensor that is to be written."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def open_safetensors(path: Path) -> SafetensorsFile:
    """Read the header of a safetensors file.

    Raises:
        SCPError: it is damaged, cut short, of another kind, or holds tensors of an unusual dtype.
    """
    try:
        # The library's own reader is strict about the header and the file's length; past it both can be relied on.
        with safe_open(path, framework="pt"):
            pass
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
            size = file.seek(0, 2)
    except (SafetensorError, OSError, ValueError, struct.error) as error:
        raise SCPError(
            f"{path.name} cannot be read as a safetensors file ({error}). It is of another kind, or its download or "
            "copy was cut short: get it again."
        ) from error
    metadata = header.pop("__metadata__", None) or {}
    return SafetensorsFile(
        {name: _stored(path, name, entry, 8 + length) for name, entry in header.items()}, metadata, size
    )


def _stored(path: Path, name: str, entry: Mapping, start: int) -> Stored:
    dtype = CODES.get(entry["dtype"])
    if dtype is None:
        raise SCPError(f"{path.name}: {name} is of dtype {entry['dtype']}; expected one of {', '.join(CODES)}.")
    shape, (first, end) = tuple(entry["shape"]), entry["data_offsets"]
    stride = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    return Stored(dtype, shape, stride, start + first, end - first)


def header_of(tensors: Iterable[Planned], metadata: Mapping[str, str]) -> bytes:
    """The bytes in front of the tensors' own; texts of equal length give headers of equal length."""
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    at = 0
    for planned in tensors:
        offsets = [at, at + planned.nbytes]
        header[planned.name] = {
            "dtype": _NAMES[planned.dtype],
            "shape": list(planned.shape),
            "data_offsets": offsets,
        }
        at = offsets[1]
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    # Tensors that begin at multiples of 8 can be mapped as they are.
    text = text.ljust(-(-len(text) // 8) * 8)
    return struct.pack("<Q", len(text)) + text


def in_order(tensors: Sequence[Planned]) -> list[Planned]:
    """The same with wide numbers first, otherwise in order: so each begins at a multiple of its own width."""
    return sorted(tensors, key=lambda planned: -planned.dtype.itemsize)


def write_block(file: BinaryIO, block: Tensor) -> None:
    """Write the elements of a flat tensor."""
    file.write(memoryview(block.view(torch.uint8).numpy()))
