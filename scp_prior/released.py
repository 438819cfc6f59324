"""What the authors released, and which of the hub's files that is: data/released.json, and how to read it."""

from __future__ import annotations

import functools
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from .errors import SCPError

STATISTICS = ("categorical", "spatial", "joint")
WEIGHTS = "weights"


class ReleasedFile(NamedTuple):
    """One released file of one data set.

    Args:
        kind: categorical, spatial, joint or weights.
        paths: in the repository, the likeliest first; more than one where the release's own name is not certain.
        ending: of its name, whatever stands before it.
        what: what it holds, in words.
        becomes: what is made of it, under ComfyUI's models folder.
        listed: its size as the page shows it, None where not known.
        bytes: its exact size, None where not known.
        sha256: of its content, None where not known.
        page: the web page to download it from by hand: its own, or its folder's where its name is not certain.
    """

    kind: str
    paths: tuple[str, ...]
    ending: str
    what: str
    becomes: tuple[str, ...]
    listed: str | None
    bytes: int | None
    sha256: str | None
    page: str


def repository() -> str:
    """The hub repository, owner/name."""
    return _data()["repository"]


def licence() -> str:
    """The licence of everything in it."""
    return _data()["licence"]


def datasets() -> tuple[str, ...]:
    """The data sets there are files of."""
    return tuple(_data()["sets"])


def released_files(dataset: str) -> dict[str, ReleasedFile]:
    """The released files of a data set by kind.

    Raises:
        SCPError: there is no such data set.
    """
    data = _data()
    if dataset not in data["sets"]:
        raise SCPError(f"There is no released data set '{dataset}'. Choose one of: {', '.join(datasets())}.")
    entry = data["sets"][dataset]
    return {kind: _file(kind, dataset, entry, data) for kind in data["kinds"]}


def released_names(dataset: str, listing: Collection[str], kinds: Collection[str]) -> dict[str, str]:
    """Which of the repository's files are the released ones of a data set.

    The names in the list are taken where they are there. Otherwise any file in the data set's folder that ends like
    one, if all that do are of one series.

    Args:
        dataset: cityscapes, ade20k or coco-stuff.
        listing: every path in the repository.
        kinds: which kinds are wanted.

    Returns:
        {kind: path in the repository}.

    Raises:
        SCPError: one is not there, or it cannot be told which.
    """
    files = released_files(dataset)
    found = {WEIGHTS: _weights(dataset, files[WEIGHTS], listing)} if WEIGHTS in kinds else {}
    wanted = [kind for kind in STATISTICS if kind in kinds]
    if wanted:
        found |= _statistics(dataset, {kind: files[kind] for kind in wanted}, listing)
    return found


def _statistics(dataset: str, files: Mapping[str, ReleasedFile], listing: Collection[str]) -> dict[str, str]:
    known = [f"{dataset}/{stem}" for stem in _data()["sets"][dataset]["stems"]]
    # The ending of the spatial name is no ending of the joint one: what stands before it tells the series.
    there = {
        path.removesuffix(file.ending)
        for path in _in_folder(dataset, listing)
        for file in files.values()
        if path.endswith(file.ending)
    }
    whole = [stem for stem in there if all(stem + file.ending in listing for file in files.values())]
    stem = next((stem for stem in known if stem in whole), whole[0] if len(whole) == 1 else None)
    if stem is None:
        wanted = ", ".join(f"{known[0]}{file.ending}" for file in files.values())
        raise SCPError(f"The repository {repository()} has no {wanted}{_but(sorted(there), 'series')}. {_newer()}")
    return {kind: stem + file.ending for kind, file in files.items()}


def _weights(dataset: str, file: ReleasedFile, listing: Collection[str]) -> str:
    there = [path for path in _in_folder(dataset, listing) if path.endswith(file.ending)]
    found = next((path for path in file.paths if path in there), there[0] if len(there) == 1 else None)
    if found is None:
        others = _but(sorted(there), "files")
        raise SCPError(f"The repository {repository()} has no {file.paths[0]}{others}. {_newer()}")
    return found


def _in_folder(dataset: str, listing: Collection[str]) -> list[str]:
    return [path for path in listing if path.count("/") == 1 and path.startswith(f"{dataset}/")]


def _but(there: list[str], what: str) -> str:
    return f"; it has the {what} {', '.join(there)}" if there else ""


def _newer() -> str:
    return f"The authors may have renamed it: look at {_data()['page']}, and for a newer version of this pack."


def _file(kind: str, dataset: str, entry: Mapping, data: Mapping) -> ReleasedFile:
    ending = data["kinds"][kind]["ending"]
    stems = [dataset] if kind == WEIGHTS else entry["stems"]
    paths = tuple(f"{dataset}/{stem}{ending}" for stem in stems)
    return ReleasedFile(
        kind,
        paths,
        ending,
        data["kinds"][kind]["what"],
        tuple(name.format(set=dataset) for name in data["kinds"][kind]["becomes"]),
        **entry["files"][kind],
        page=f"{data['page']}/blob/main/{paths[0]}" if len(paths) == 1 else f"{data['page']}/tree/main/{dataset}",
    )


@functools.cache
def _data() -> dict:
    return json.loads((Path(__file__).parent / "data" / "released.json").read_text(encoding="utf-8"))
