"""All palettes on offer: the built-in ones, and class tables of the user's own in the `scp_statistics` model folder."""

from __future__ import annotations

import functools
import os

from ..scp_prior.classes import ANY, Palette, any_ids, load_table, palettes
from ..scp_prior.classes import palette as built_in_palette
from ..scp_prior.detection import built_in_palettes
from ..scp_prior.errors import SCPError
from . import folders
from .choices import check_choice

AUTO = "auto"
"""Not a palette: the combo entry for "find out which"."""


def palette_names(*, grey: bool = True) -> list[str]:
    """Names of all palettes, as combos show them: the built-in ones, then files of the user's, suffix included.

    Args:
        grey: also those whose grey values are ids, which are no colours to paint a hint in.
    """
    built_in = [*palettes(), ANY] if grey else [name for name in palettes() if not built_in_palette(name).grey]
    return [*built_in, *folders.palette_files()]


def get_palette(name: str) -> Palette:
    """A palette by the name a combo shows.

    Raises:
        SCPError: there is none of that name, or the user's file is wrong (the message names file, row and fault).
    """
    if name == ANY:
        return any_ids()
    if name in palettes():
        return built_in_palette(name)
    path = folders.palette_path(name)
    try:
        status = os.stat(path)
    except OSError as error:
        raise SCPError(f"Cannot read the class table {path}: {error.strerror or error}.") from error
    return _read(name, path, status.st_mtime_ns, status.st_size)


def check_palette(name: str | None, *more: str) -> bool | str:
    """For `validate_inputs`: True where `name` is a palette that can be read, one of `more`, or None; else words."""
    told = check_choice("palette", name, (*more, *palette_names()))
    if told is not True or name is None or name in more:
        return told
    try:
        get_palette(name)
    except SCPError as error:
        return str(error)
    return True


def candidates() -> tuple[list[Palette], list[str]]:
    """The palettes `auto` chooses from, built-in ones first; and what is wrong with files that can be none of them."""
    found, problems = built_in_palettes(), []
    for name in folders.palette_files():
        try:
            found.append(get_palette(name))
        except SCPError as error:
            problems.append(str(error))
    return found, problems


def fingerprint(*names: str | None) -> tuple:
    """Changes when a file behind one of the names does; behind `auto` are all of them."""
    files = folders.palette_files()
    behind = sorted(files) if AUTO in names else [name for name in names if name in files]
    return (*names, *(_status(name, files[name]) for name in behind))


def _status(name: str, path: str) -> tuple:
    try:
        status = os.stat(path)
    except OSError:
        return (name,)
    return name, path, status.st_mtime_ns, status.st_size


@functools.lru_cache(maxsize=64)
def _read(name: str, path: str, _changed: int, _size: int) -> Palette:
    return load_table(path, name)[1]
