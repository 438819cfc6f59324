"""Photos and their label maps, paired by name: never by position, which one stray file would shift."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .errors import SCPError

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
MAP_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".webp")

_NOT_DATA = frozenset({"__macosx", "thumbs.db", "desktop.ini"})


class Pair(NamedTuple):
    """A photo and its label map.

    Attributes:
        name: what both have in common: the path below their folders without suffix, parts joined by "/".
        photo, label: the files.
    """

    name: str
    photo: Path
    label: Path


class Side(NamedTuple):
    """Where the photos, or the label maps, of a data set are.

    Attributes:
        folder: searched with its sub-folders.
        suffixes: ends of file names that count, in order of preference, upper or lower case; the rest of the name,
            with the sub-folders, is the pair's name. Any other file is passed over.
        what: "photo" or "label map".
    """

    folder: Path
    suffixes: tuple[str, ...]
    what: str


def find_pairs(photos: Side, labels: Side, *, preferred: bool = False) -> tuple[tuple[Pair, ...], tuple[str, ...]]:
    """All pairs, by name, and what is wrong with the rest.

    Args:
        preferred: of several label maps of one name, take the one whose suffix comes first instead of none.

    Returns:
        The pairs, and a sentence for each photo without a map, map without a photo, and name that is there twice.

    Raises:
        SCPError: a folder is missing, both are the same, or there is not one pair.
    """
    for side in (photos, labels):
        if not side.folder.is_dir():
            raise SCPError(f"There is no folder {side.folder}; expected the {side.what}s there.")
    if photos.folder.resolve() == labels.folder.resolve():
        raise SCPError(f"Photos and label maps are both looked for in {photos.folder}. Give each a folder of its own.")
    problems: list[str] = []
    photo_of = _only(_by_name(photos, labels.folder), photos, problems, None)
    label_of = _only(_by_name(labels, photos.folder), labels, problems, labels.suffixes if preferred else None)
    pairs = []
    for name in sorted(photo_of.keys() | label_of.keys()):
        photo, label = photo_of.get(name, ()), label_of.get(name, ())
        if photo and label:
            pairs.append(Pair(name, photo[0], label[0]))
        elif photo and name not in label_of:
            problems.append(f"{photo[0]} has no label map: expected {_expected(name, labels)}.")
        elif label and name not in photo_of:
            problems.append(f"{label[0]} has no photo: expected {_expected(name, photos)}.")
    if not pairs:
        shown = "".join(f"\n  {problem}" for problem in problems[:4])
        raise SCPError(
            f"No photo in {photos.folder} has a label map of the same name in {labels.folder} "
            f"({len(photo_of)} photos, {len(label_of)} label maps).{shown}"
        )
    return tuple(pairs), tuple(problems)


def _by_name(side: Side, other: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in _files(side.folder, (), other.resolve()):
        rank = _rank(path, side.suffixes)
        if rank is not None:
            relative = path.relative_to(side.folder).as_posix()[: -len(side.suffixes[rank])]
            # One name, two spellings: macOS takes accents apart, other systems do not.
            found.setdefault(unicodedata.normalize("NFC", relative), []).append(path)
    return found


def _only(
    found: dict[str, list[Path]], side: Side, problems: list[str], ranked: tuple[str, ...] | None
) -> dict[str, tuple[Path, ...]]:
    """The one file of each name; of a name that is there twice, none, and a problem."""
    single: dict[str, tuple[Path, ...]] = {}
    for name, paths in sorted(found.items()):
        best = _first(paths, ranked) if ranked else sorted(paths)
        single[name] = tuple(best) if len(best) == 1 else ()
        if len(best) > 1:
            files = " and ".join(str(path) for path in best)
            problems.append(f"{files} are {side.what}s of one name, so neither is used: keep one of them.")
    return single


def _rank(path: Path, suffixes: tuple[str, ...]) -> int | None:
    """Which of the suffixes the file ends in; None where in none, or where nothing is left of its name."""
    name = path.name.lower()
    ends = (n for n, suffix in enumerate(suffixes) if name.endswith(suffix.lower()) and len(name) > len(suffix))
    return next(ends, None)


def _first(paths: list[Path], suffixes: tuple[str, ...]) -> list[Path]:
    best = min(_rank(path, suffixes) for path in paths)
    return [path for path in sorted(paths) if _rank(path, suffixes) == best]


def _files(folder: Path, above: tuple[Path, ...], leave_out: Path) -> Iterator[Path]:
    """Files below a folder, links followed unless they lead back to a folder above; nothing below `leave_out`."""
    real = folder.resolve()
    if real in above or (above and real == leave_out):
        return
    try:
        with os.scandir(folder) as listing:
            entries = sorted((entry.name, entry.is_dir()) for entry in listing if _is_data(entry.name))
    except OSError as error:
        raise SCPError(f"Cannot read the folder {folder}: {error.strerror or error}.") from error
    for name, is_folder in entries:
        if is_folder:
            yield from _files(folder / name, (*above, real), leave_out)
        else:
            yield folder / name


def _is_data(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in _NOT_DATA


def _expected(name: str, side: Side) -> str:
    rest = f" (or {', '.join(side.suffixes[1:])})" if len(side.suffixes) > 1 else ""
    return f"{side.folder / name}{side.suffixes[0]}{rest}"
