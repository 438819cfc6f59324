"""Writing files so that no reader ever meets half of one, and the same content is always the same bytes."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from .errors import SCPError

try:
    import fcntl
except ImportError:  # Windows, which removes no file that is being written
    fcntl = None


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it onto `path` when the block ends without an exception.

    Until then whatever stood at `path` stays as it was, and after an exception the temporary file is gone.

    Raises:
        SCPError: the folder is missing or not writable, or the disk is full.
    """
    target = Path(path)
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
    except OSError as error:
        raise SCPError(
            f"Cannot write {target}: {error.strerror or error}. Choose a folder you can write to."
        ) from error
    if fcntl is None:
        os.close(handle)  # Windows renames no open file either
    else:
        # While it is open, it tells another process that this is no leftover; not every file system can.
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    temporary = Path(name)
    try:
        yield temporary
        _flush(temporary)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    except OSError as error:
        # Windows replaces no file that is in use; ComfyUI keeps the models it has loaded open.
        held = " If a program has it open, such as ComfyUI, close that first." * isinstance(error, PermissionError)
        raise SCPError(f"Cannot write {target}: {error.strerror or error}.{held}") from error
    finally:
        temporary.unlink(missing_ok=True)
        if fcntl is not None:
            os.close(handle)


def remove_leftovers(path: Path) -> None:
    """Remove what runs killed while they wrote this file have left beside it; each may be as large as it.

    What another run is still writing stays.
    """
    for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        if not _in_use(part):
            with contextlib.suppress(OSError):
                part.unlink()


def _in_use(part: Path) -> bool:
    if fcntl is None:
        return False
    try:
        with part.open("rb+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def write_safetensors(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file whole or not at all; equal content gives equal bytes.

    Raises:
        SCPError: it cannot be written; whatever stood there before still does.
    """
    with atomic_write(path) as temporary:
        try:
            save_file(dict(tensors), temporary, metadata=dict(metadata))
        except SafetensorError as error:
            raise SCPError(f"Cannot write {path}: {' '.join(str(error).split())}.") from error
        _sort_header(temporary)


def _sort_header(path: Path) -> None:
    """Put the metadata in order: safetensors writes them in another one each time."""
    with path.open("rb+") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        metadata = header.pop("__metadata__", {})
        ordered = {"__metadata__": dict(sorted(metadata.items())), **header}
        text = json.dumps(ordered, separators=(",", ":"), ensure_ascii=False).encode()
        # The format allows spaces behind the header, and the data must stay where they are.
        if len(text) <= length:
            file.seek(8)
            file.write(text.ljust(length))


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _umask() -> int:
    # mkstemp makes private files; a statistics file is as public as any other model. The mask can only be read by
    # setting it.
    mask = os.umask(0)
    os.umask(mask)
    return mask
