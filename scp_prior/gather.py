"""The released files a conversion needs, each verified: from the hub, or from the folder they were put in by hand."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from .checksum import Expected
from .errors import SCPError
from .host_folders import make_folder, too_full, words_of
from .hub import Hub, Listing, UnreachableError
from .originals import Original
from .released import WEIGHTS, ReleasedFile, released_files, released_names, repository
from .target import Target

# Of a Lightning checkpoint's bytes, those of the weights: 6.7 of 13.7 GB are float32 weights, 0.364 of 1.667 billion
# of them the ControlNet's. No statistics file is longer than the three it is made of.
_WEIGHTS_SHARE = {"float16": 0.25, "float32": 0.5}
_CONTROLNET_SHARE = 0.22


class Watch(NamedTuple):
    """Who is told what happens.

    Args:
        say: one line about each thing done.
        progress: makes, for the name of a step, a function told of (bytes done, bytes in all), or None.
    """

    say: Callable[[str], None] = lambda line: None
    progress: Callable[[str], Callable[[int, int], None] | None] = lambda step: None


class Gathering:
    """The released files of some kinds, asked for once and then got kind by kind.

    Where the hub cannot be reached, files put there by hand are taken as they are.

    Args:
        target: where they belong.
        kinds: all that will be got.
        dtype: of the model files to be made, for the space they take.
        keep: whether what is downloaded is to stay.
        watch: who is told.

    Raises:
        SCPError: the hub lacks a file, or there is no space for all.
    """

    def __init__(self, target: Target, kinds: Collection[str], dtype: str, keep: bool, watch: Watch):
        self._keep, self._watch = keep, watch
        self._originals = {kind: target.original(kind) for kind in kinds}
        self._unreachable: UnreachableError | None = None
        known = released_files(target.dataset)
        self._expected = {kind: Expected(known[kind].bytes, known[kind].sha256) for kind in kinds}
        if all(original.downloaded for original in self._originals.values()):
            return
        try:
            self._hub = Hub(repository())
            self._listing = self._hub.listing()
        except UnreachableError as error:
            self._unreachable = error
            return
        self._names = released_names(target.dataset, self._listing.files, kinds)
        self._expected = _expected(target.dataset, self._names, self._listing)
        self._originals = {kind: Original(target.originals / Path(name).name) for kind, name in self._names.items()}
        _require_space(target, self._originals, {kind: self._expected[kind].size or 0 for kind in kinds}, dtype)
        make_folder(target.originals)

    def get(self, kinds: Collection[str]) -> dict[str, Original]:
        """Files of these kinds, whole and verified.

        Raises:
            UnreachableError: one is not there and the hub cannot be reached, or the connection was lost; what came is
                kept.
            SCPError: a file that is not the released one, or no space.
        """
        if self._unreachable and not all(self._originals[kind].there for kind in kinds):
            raise self._unreachable
        for kind in kinds:
            original = self._originals[kind]
            if not original.there:
                self._fetch(kind, original)
            elif not original.downloaded:
                self._check(kind, original)
        return {kind: self._originals[kind] for kind in kinds}

    def _fetch(self, kind: str, original: Original) -> None:
        name = self._names[kind]
        self._watch.say(f"{name}: {words_of(self._expected[kind].size)} from {self._hub.endpoint}")
        self._hub.fetch(
            name,
            self._listing,
            original.path,
            verified=lambda whole: original.note(whole, self._listing.commit, keep=self._keep),
            checking=self._watch.progress(f"checking {original.path.name}"),
        )

    def _check(self, kind: str, original: Original) -> None:
        """A file put there by hand, as far as it can be verified."""
        expected, name = self._expected[kind], original.path.name
        if expected.sha256 is None and expected.git is None:
            self._watch.say(f"{name}: taken as it is; its checksum can only be had from the hub")
        try:
            problem = expected.problem(original.path, self._watch.progress(f"checking {name}"))
        except OSError as error:
            raise SCPError(f"Cannot read {original.path}: {error.strerror or error}.") from error
        if problem:
            raise SCPError(f"{original.path} is not the released file: {problem}. Remove it, and run this again.")


def _expected(dataset: str, names: Mapping[str, str], listing: Listing) -> dict[str, Expected]:
    """Size and hash of each file by the hub, which must not contradict what is known here."""
    for kind, name in names.items():
        known, now = released_files(dataset)[kind], listing.files[name]
        if _contradicts(known, now):
            raise SCPError(
                f"{name} on the hub is not the file this version of the pack knows ({now.size} bytes, sha256 "
                f"{now.sha256}). Unset HF_ENDPOINT if it names a mirror, or get a newer version of this pack."
            )
    return {kind: listing.files[name] for kind, name in names.items()}


def _contradicts(known: ReleasedFile, now: Expected) -> bool:
    pairs = ((known.bytes, now.size), (known.sha256, now.sha256))
    return any(None not in pair and pair[0] != pair[1] for pair in pairs)


# Space


def _require_space(target: Target, originals: Mapping[str, Original], sizes: Mapping[str, int], dtype: str) -> None:
    needs = [
        (target.originals, max(0, sizes[kind] - _come(original.path)))
        for kind, original in originals.items()
        if not original.there
    ]
    needs += [need for kind in originals for need in _converted(target, kind, sizes[kind], dtype)]
    for folder, needed, free in too_full(needs):
        advice = " --statistics-only takes a few MB." if WEIGHTS in originals else ""
        raise SCPError(
            f"Not enough space on the disk of {folder}: {words_of(needed)} needed to download and convert, "
            f"{words_of(free)} free. Free {words_of(needed - free)} there, or name another --comfyui.{advice}"
        )


def _converted(target: Target, kind: str, size: int, dtype: str) -> list[tuple[Path, int]]:
    made = target.made(kind)
    if kind != WEIGHTS:
        return [(made[0], size)]
    shares = (_CONTROLNET_SHARE, 1 - _CONTROLNET_SHARE)
    return [(path, int(size * _WEIGHTS_SHARE[dtype] * share)) for path, share in zip(made, shares, strict=True)]


def _come(path: Path) -> int:
    """Bytes of it that an earlier run got."""
    return max((part.stat().st_size for part in path.parent.glob(f"{path.name}.*.part")), default=0)
