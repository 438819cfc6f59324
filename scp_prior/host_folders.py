"""Where a ComfyUI keeps its models, from the command line, which runs without it."""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from .errors import SCPError

_PACK = Path(__file__).absolute().parents[1]
_SIGNS = ("models", "custom_nodes", "main.py")


def find_comfyui(asked: str | os.PathLike[str] | None = None, pack: Path = _PACK) -> Path:
    """The folder that holds ComfyUI's `models`.

    Args:
        asked: what the user named; None takes the ComfyUI in whose custom_nodes this pack lies.
        pack: where this pack lies.

    Raises:
        SCPError: the folder is not there or looks like no ComfyUI, or none was named and the pack lies in none.
    """
    if asked is None:
        base = pack.parent.parent
        if pack.parent.name == "custom_nodes" and any((base / sign).exists() for sign in ("models", "main.py")):
            return base
        raise SCPError(
            f"This pack lies in {pack}, which is in no ComfyUI/custom_nodes: name your ComfyUI's folder with --comfyui."
        )
    base = Path(asked).expanduser().absolute()
    if not base.is_dir():
        raise SCPError(f"--comfyui {asked}: there is no such folder.")
    if any((base / sign).exists() for sign in _SIGNS):
        return base
    inner = next((base / name for name in ("ComfyUI", "comfyui") if (base / name / "models").is_dir()), None)
    hint = f" Did you mean {inner}?" if inner else ""
    raise SCPError(f"--comfyui {asked} does not look like a ComfyUI: expected one of {', '.join(_SIGNS)} in it.{hint}")


def too_full(needs: Iterable[tuple[Path, int]]) -> list[tuple[Path, int, int]]:
    """The disks on which some bytes will not fit.

    Args:
        needs: (a file or folder to be, bytes it will take), any number of them on one disk.

    Returns:
        (the folder, bytes needed on its disk, bytes free on it) of each disk that is too full.
    """
    disks: dict[int, list] = defaultdict(list)
    for path, size in needs:
        folder = _existing(path)
        disks[folder.stat().st_dev].append((folder, size))
    sums = [(entries[0][0], sum(size for _, size in entries)) for entries in disks.values()]
    checked = [(folder, needed, shutil.disk_usage(folder).free) for folder, needed in sums]
    return [entry for entry in checked if entry[1] > entry[2]]


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, if they are not there.

    Raises:
        SCPError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SCPError(f"Cannot make the folder {folder}: {error.strerror or error}.") from error


def words_of(size: int | None) -> str:
    """A number of bytes as file managers say it: 13.7 GB, powers of 1000."""
    if size is None:
        return "an unknown number of bytes"
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"
