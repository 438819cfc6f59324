"""All palettes on offer: the built-in ones, and class tables of the user's own in the `scp_statistics` model folder."""

from __future__ import annotations

import functools
import os

from ..scp_prior.classes import ANY, Palette, any_ids, load_table, palettes
from ..scp_prior.classes import palette as built_in_palette
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
    return _palette_at(name, folders.palette_path(name))


def all_palettes() -> tuple[list[Palette], list[str]]:
    """Every palette on offer, in the order of `palette_names`; and what is wrong with files that can be none of them.

    The folder is looked through once, however many files there are.
    """
    found, problems = [*map(built_in_palette, palettes()), any_ids()], []
    for name, path in folders.palette_files().items():
        try:
            found.append(_palette_at(name, path))
        except SCPError as error:
            problems.append(str(error))
    return found, problems


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
    """The palettes `auto` chooses from: all but ids of no names; and what is wrong with files, as `all_palettes`."""
    found, problems = all_palettes()
    return [one for one in found if one.name != ANY], problems


def fingerprint(*names: str | None) -> tuple:
    """Changes when a file behind one of the names does; any may be behind `auto`, or None, a name that is wired in."""
    files = folders.palette_files()
    behind = sorted(files) if AUTO in names or None in names else [name for name in names if name in files]
    return (*names, *(_status(name, files[name]) for name in behind))


def _status(name: str, path: str) -> tuple:
    try:
        status = os.stat(path)
    except OSError:
        return (name,)
    return name, path, status.st_mtime_ns, status.st_size


def _palette_at(name: str, path: str) -> Palette:
    try:
        status = os.stat(path)
    except OSError as error:
        raise SCPError(f"Cannot read the class table {path}: {error.strerror or error}.") from error
    read = _read(name, path, status.st_mtime_ns, status.st_size)
    if isinstance(read, str):
        raise SCPError(read)
    return read


@functools.lru_cache(maxsize=1024)
def _read(name: str, path: str, _changed: int, _size: int) -> Palette | str:
    """The palette, or what is wrong with the file: every schema the host asks for would read a broken one again."""
    try:
        return load_table(path, name)[1]
    except SCPError as error:
        return str(error)
