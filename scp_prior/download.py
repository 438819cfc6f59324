"""One released data set -> the files ComfyUI's loaders read, in their folders.

What is not made yet, which released files that takes, is there space, get them, convert, remove: every step leaves
something the next run goes on from, and nothing lies where a loader would take it before it is whole.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from .errors import SCPError
from .gather import Gathering, Watch
from .host_folders import make_folder, words_of
from .originals import Original
from .released import STATISTICS, WEIGHTS, ReleasedFile, released_files
from .target import Target


class Wish(NamedTuple):
    """What is wanted of a data set.

    Args:
        statistics_only: leave out the model files.
        dtype: of the model files, float16 or float32.
        keep_original: keep what was downloaded (True), or remove it once converted, even if it was put there by hand
            (False). None removes what was downloaded, unless an earlier wish was to keep it.
    """

    statistics_only: bool = False
    dtype: str = "float16"
    keep_original: bool | None = None

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of released files this takes."""
        return STATISTICS if self.statistics_only else (*STATISTICS, WEIGHTS)


def missing(target: Target, wish: Wish) -> list[ReleasedFile]:
    """The released files that something not made yet is made of."""
    files = released_files(target.dataset)
    return [files[kind] for kind in wish.kinds if not target.is_made(kind, wish.dtype)]


def download(target: Target, wish: Wish, watch: Watch) -> None:
    """Get, verify, convert and put in place whatever of a released data set is not there yet.

    What is there and whole stays as it is; where all is, the network is not asked.

    Raises:
        UnreachableError: something has to be downloaded, and the hub cannot be reached.
        SCPError: no space, a file that is not the released one, or one that cannot be converted or written.
    """
    kinds = [file.kind for file in missing(target, wish)]
    for path in dict.fromkeys(path for kind in wish.kinds if kind not in kinds for path in target.made(kind)):
        watch.say(f"{path} is there already")
    _require_way(target, kinds, wish.dtype)
    if kinds:
        gathering = Gathering(target, kinds, wish.dtype, wish.keep_original is True, watch)
        # The small ones first: they are of use while the large one comes, and if that fails.
        if STATISTICS[0] in kinds:
            _make_statistics(target, gathering.get(STATISTICS), watch)
        if WEIGHTS in kinds:
            _make_weights(target, gathering.get([WEIGHTS])[WEIGHTS], wish.dtype, watch)
    _tidy(target, wish, watch)


def _require_way(target: Target, kinds: Collection[str], dtype: str) -> None:
    """Before anything is downloaded: what stands there and is not ours is not written over."""
    for path in filter(None, (target.in_the_way(kind, dtype) for kind in kinds)):
        raise SCPError(f"{path} is in the way: it is damaged, or another file of that name. Move it away.")


def _make_statistics(target: Target, originals: Mapping[str, Original], watch: Watch) -> None:
    from .release import convert_release, find_release_files
    from .statistics import save_statistics

    out = target.made(STATISTICS[0])[0]
    files = find_release_files([originals[kind].path for kind in STATISTICS])
    statistics = convert_release(**files, dataset=target.dataset)
    make_folder(out.parent)
    save_statistics(statistics, out)
    watch.say(f"{out}: made")


def _make_weights(target: Target, original: Original, dtype: str, watch: Watch) -> None:
    from .weights import convert_weights

    controlnet, checkpoint = target.made(WEIGHTS)
    for path in (controlnet, checkpoint):
        make_folder(path.parent)
    progress = watch.progress(f"converting {original.path.name}")
    convert_weights(
        original.path, controlnet.parent, checkpoint.parent, name=target.dataset, dtype=dtype, progress=progress
    )
    if not target.is_made(WEIGHTS, dtype):
        raise SCPError(f"{original.path} does not hold both a model and its ControlNet. Remove it, and run this again.")
    for path in (controlnet, checkpoint):
        watch.say(f"{path}: made, {dtype}")


def _tidy(target: Target, wish: Wish, watch: Watch) -> None:
    """Remove or keep the files all was made of."""
    originals = [original for kind in wish.kinds if (original := target.original(kind)).there]
    if wish.keep_original is True:
        for original in originals:
            original.keep()
    kept = [original for original in originals if wish.keep_original is not False and original.kept]
    gone = [original for original in originals if original not in kept]
    if gone:
        words = f"{len(gone)} released files in {target.originals} removed, {_size(gone)} (--keep-original keeps them)"
        for original in gone:
            original.remove()
        watch.say(words)
    if kept:
        watch.say(
            f"{len(kept)} released files in {target.originals} stay, {_size(kept)} (--remove-original removes them)"
        )
    _remove_if_empty(target.originals)


def _size(originals: Collection[Original]) -> str:
    return words_of(sum(original.path.stat().st_size for original in originals))


def _remove_if_empty(folder: Path) -> None:
    for path in (folder, folder.parent):
        if not path.is_dir() or any(path.iterdir()):
            return
        # Somebody may put a file there in this moment.
        with contextlib.suppress(OSError):
            path.rmdir()
