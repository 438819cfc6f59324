"""Released .npy files that somebody has put into a folder: which series they are, and of which data set."""

from __future__ import annotations

import os
from pathlib import Path

from .released import STATISTICS, datasets, released_files

# Somebody may have linked a whole disk in there.
_MOST_FOLDERS = 2000


def dropped_series(root: str | os.PathLike[str]) -> dict[str, list[Path]]:
    """The released statistics in a folder and the folders below it.

    Returns:
        {series: its files, one to three}. A series is what stands before the ending of its files' names, behind the
        folder it lies in: "ade20k_10000", "downloads/ade20k_10000". Empty where there is no such folder.
    """
    endings = [released_files(datasets()[0])[kind].ending for kind in STATISTICS]
    found: dict[str, list[Path]] = {}
    for visited, (folder, below, names) in enumerate(os.walk(root)):
        below[:] = sorted(name for name in below if not name.startswith("."))
        place = Path(folder)
        for name in sorted(names):
            # No ending is the end of another: the joint one has "_class" before it.
            ending = next((ending for ending in endings if name.endswith(ending)), None)
            if ending:
                series = (place.relative_to(root) / name.removesuffix(ending)).as_posix()
                found.setdefault(series, []).append(place / name)
        if visited >= _MOST_FOLDERS:
            break
    return found


def dataset_of(series: str) -> str | None:
    """The data set a series is of, by its name; None where that tells of none."""
    name = series.rsplit("/", 1)[-1].lower().replace("_", "-")
    return next((dataset for dataset in datasets() if name.startswith(dataset)), None)
