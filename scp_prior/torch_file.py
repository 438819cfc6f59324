"""Open a torch checkpoint (.ckpt, .pt, .pth, .bin): its tensors by name, none of them read, nothing run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from .errors import SCPError
from .pickle_machine import shown
from .stored import Stored
from .torch_pickle import Inert, TorchMachine
from .torch_zip import Directory, read_directory

PICKLES = (".ckpt", ".pt", ".pth", ".bin")
MAX_PICKLE = 32 << 20  # of a checkpoint with optimizer states, 1 MB


class TorchFile(NamedTuple):
    """What a checkpoint holds.

    tensors: those of the state dict, by name. step: how many steps it was trained for, where it says so.
    size: of the file. identity: a SHA-256 over the pickle and every record's name, size and checksum, which differs
    for files of other content without reading it.
    """

    tensors: Mapping[str, Stored]
    step: int | None
    size: int
    identity: str


def open_torch_file(path: Path) -> TorchFile:
    """Read what a checkpoint says it holds: the dictionary at its top, or the one it calls `state_dict`.

    Raises:
        SCPError: it cannot be read, is of an old format, damaged, holds no dictionary, or names something that would
            have to be imported; the message says which. Nothing of it is run in any case.
    """
    directory = read_directory(path)
    data = _read_pickle(path, directory)
    content = TorchMachine(memoryview(data), path.name, directory.records).run()
    inner = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(inner, dict):
        kind = shown(inner.name) if isinstance(inner, Inert) else type(inner).__name__
        raise SCPError(f"{path.name}: expected a dictionary of tensors in it, got {kind}.")
    step = content.get("global_step")
    return TorchFile(
        {key: value for key, value in inner.items() if isinstance(value, Stored)},
        step if type(step) is int else None,
        directory.size,
        _identity(data, directory),
    )


def _read_pickle(path: Path, directory: Directory) -> bytes:
    record = directory.records["data.pkl"]
    order = directory.records.get("byteorder")
    if record.size > MAX_PICKLE:
        raise SCPError(
            f"{path.name} cannot be read as a checkpoint: its pickle has {record.size / 1e6:.0f} MB, and that of a "
            "whole training has 1 MB. Nothing of it was run."
        )
    try:
        with path.open("rb") as file:
            if order is not None:
                file.seek(order.start)
                if file.read(min(order.size, 16)) != b"little":
                    raise SCPError(f"{path.name} was written on a big-endian machine; save it anew on another.")
            file.seek(record.start)
            return file.read(record.size)
    except OSError as error:
        raise SCPError(f"Cannot read {path}: {error.strerror or error}.") from error


def _identity(data: bytes, directory: Directory) -> str:
    digest = hashlib.sha256(data)
    for name, record in sorted(directory.records.items()):
        digest.update(f"{name!r} {record.size} {record.checksum}\n".encode())
    return digest.hexdigest()
