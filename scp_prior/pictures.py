"""What is kept of single pictures: the mean of each class and where it was, never the latent itself.

From these come scene effects, that is what a whole picture shares. The residual of a picture's class mean needs the
final means of the cells the class covered, so both are kept until the end. At most MOST pictures are: those with the
smallest digests of their latents, so that the choice is the same in whatever order, batches and processes they came.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .errors import SCPError

FOLDS = 5
MOST = 4096

_KEYS = ("key", "classes", "ids", "counts", "means", "runs", "run_ids", "run_lengths")
_TALLIES = ("tally_ids", "shown", "between")


class Picture(NamedTuple):
    """One picture: its digest; per class present, id (n,), cells (n,) and mean latent (n, C) float32; label runs.

    run_ids, run_lengths (r,): the label grid in row-major order, as runs of equal ids.
    """

    key: int
    ids: np.ndarray
    counts: np.ndarray
    means: np.ndarray
    run_ids: np.ndarray
    run_lengths: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        """(h w,) uint16 class ids."""
        return np.repeat(self.run_ids, self.run_lengths)


class Tally(NamedTuple):
    """Of one class, over all pictures: how many of each fold show it (FOLDS,), and the sum of n z z^T (C, C) over
    pictures, z being a picture's mean and n its cells."""

    shown: np.ndarray
    between: np.ndarray


class Pictures:
    """The kept pictures, and tallies of all."""

    def __init__(self, channels: int):
        self._channels = channels
        self._kept: list[Picture] = []
        self._bound = np.inf
        self.tallies: dict[int, Tally] = {}

    def add(self, latent: np.ndarray, labels: np.ndarray) -> None:
        """Take note of one picture: latent (C, h w) floats, labels (h w,) class ids within 0..65535."""
        key = digest(latent)
        labels = labels.astype(np.uint16)
        order = np.argsort(labels, kind="stable")
        ordered = labels.take(order)
        starts = _starts(ordered)
        counts = np.diff(starts, append=len(ordered))
        ids = ordered.take(starts)
        sums = np.add.reduceat(latent.take(order, axis=1), starts, axis=1, dtype=np.float64)
        means = (sums / counts).T
        products = counts[:, None, None] * means[:, :, None] * means[:, None, :]
        for class_id, product in zip(ids.tolist(), products, strict=True):
            tally = self._tally(class_id)
            tally.shown[key % FOLDS] += 1
            tally.between[...] += product
        if key <= self._bound:
            runs = _starts(labels)
            lengths = np.diff(runs, append=len(labels)).astype(np.uint32)
            self._kept.append(
                Picture(key, ids, counts.astype(np.uint32), means.astype(np.float32, "C"), labels.take(runs), lengths)
            )
            self._trim(2 * MOST)

    def merge(self, other: Pictures) -> None:
        """Add what another has noted."""
        for class_id, theirs in other.tallies.items():
            ours = self._tally(class_id)
            ours.shown[...] += theirs.shown
            ours.between[...] += theirs.between
        self._kept += other._kept
        self._trim(2 * MOST)

    def kept(self) -> list[Picture]:
        """The kept pictures, in the order of their digests."""
        self._trim(0)
        return self._kept

    def state(self) -> dict[str, Tensor]:
        """Everything, as tensors; `from_state` gives an equal one."""
        kept, c = self.kept(), self._channels
        ids = sorted(self.tallies)
        arrays = {
            "key": np.array([p.key for p in kept], dtype=np.int64),
            "classes": np.array([len(p.ids) for p in kept], dtype=np.int64),
            "ids": _joined([p.ids for p in kept], np.int32),
            "counts": _joined([p.counts for p in kept], np.int32),
            "means": np.concatenate([p.means for p in kept] or [np.zeros((0, c), np.float32)]),
            "runs": np.array([len(p.run_ids) for p in kept], dtype=np.int64),
            "run_ids": _joined([p.run_ids for p in kept], np.int32),
            "run_lengths": _joined([p.run_lengths for p in kept], np.int32),
            "tally_ids": np.array(ids, dtype=np.int64),
            "shown": np.array([self.tallies[k].shown for k in ids], dtype=np.int64).reshape(-1, FOLDS),
            "between": np.array([self.tallies[k].between for k in ids], dtype=np.float64).reshape(-1, c, c),
        }
        return {key: torch.from_numpy(array) for key, array in arrays.items()}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], channels: int, cells: int) -> Pictures:
        """The one whose `state` this is.

        Raises:
            SCPError: a part is missing, or parts do not fit together.
        """
        try:
            parts = {key: state[key].numpy() for key in (*_KEYS, *_TALLIES)}
            made = cls(channels)
            made._kept = _pictures(parts, channels, cells)
            for index, class_id in enumerate(parts["tally_ids"].tolist()):
                tally = made._tally(class_id)
                tally.shown[...] = parts["shown"][index]
                tally.between[...] = parts["between"][index]
        except (KeyError, ValueError, IndexError) as error:
            raise SCPError(
                f"The checkpoint's pictures do not fit together ({error}). Start again without it."
            ) from error
        made._trim(0)
        return made

    def _tally(self, class_id: int) -> Tally:
        if class_id not in self.tallies:
            c = self._channels
            self.tallies[class_id] = Tally(np.zeros(FOLDS, dtype=np.int64), np.zeros((c, c)))
        return self.tallies[class_id]

    def _trim(self, slack: int) -> None:
        """Order what is kept and drop what is too much; rarely, so that adding stays cheap."""
        if len(self._kept) <= slack:
            return
        self._kept.sort(key=_order)
        del self._kept[MOST:]
        if len(self._kept) == MOST:
            self._bound = self._kept[-1].key


def digest(latent: np.ndarray) -> int:
    """A number that stands for this latent: 32 bits, from its first channel."""
    return zlib.crc32(np.ascontiguousarray(latent[0], dtype=np.float32))


def _order(picture: Picture) -> tuple[int, bytes, bytes, bytes, bytes]:
    # Digests may meet: a constant photo, or one latent with two label maps. No order of arrival must show.
    return picture.key, *(part.tobytes() for part in (picture.ids, picture.means, picture.run_ids, picture.run_lengths))


def _starts(values: np.ndarray) -> np.ndarray:
    """Where runs of equal values begin."""
    return np.concatenate(([0], np.flatnonzero(values[1:] != values[:-1]) + 1))


def _joined(arrays: list[np.ndarray], kind: type) -> np.ndarray:
    return np.concatenate([array.astype(kind) for array in arrays]) if arrays else np.zeros(0, kind)


def _pictures(parts: Mapping[str, np.ndarray], channels: int, cells: int) -> list[Picture]:
    _check_parts(parts, channels)
    classes, runs = (np.split(np.arange(n.sum()), np.cumsum(n)[:-1]) for n in (parts["classes"], parts["runs"]))
    made = []
    for key, of_class, of_run in zip(parts["key"].tolist(), classes, runs, strict=len(parts["key"]) > 0):
        picture = Picture(
            key,
            parts["ids"][of_class].astype(np.uint16),
            parts["counts"][of_class].astype(np.uint32),
            parts["means"][of_class],
            parts["run_ids"][of_run].astype(np.uint16),
            parts["run_lengths"][of_run].astype(np.uint32),
        )
        if int(parts["run_lengths"][of_run].sum()) != cells:
            raise ValueError(f"a label map of {int(parts['run_lengths'][of_run].sum())} cells")
        ids, counts = np.unique(picture.labels, return_counts=True)
        if not (np.array_equal(ids, picture.ids) and np.array_equal(counts, picture.counts)):
            raise ValueError("a label map of other classes than its means")
        made.append(picture)
    return made


def _check_parts(parts: Mapping[str, np.ndarray], channels: int) -> None:
    """Refuse what no `state` is; numbers that would only hurt much later."""
    if any(parts[key].dtype.kind != "i" for key in (*_KEYS, *_TALLIES) if key not in ("means", "between")):
        raise ValueError("a part that should hold whole numbers")
    if any(parts[key].ndim != 1 or (parts[key] < 0).any() for key in _KEYS if key != "means"):
        raise ValueError("a negative number, or a shape")
    if parts["means"].dtype != np.float32 or parts["means"].shape != (parts["classes"].sum(), channels):
        raise ValueError(f"means of shape {parts['means'].shape} and dtype {parts['means'].dtype}")
    if not (np.isfinite(parts["means"]).all() and np.isfinite(parts["between"]).all()):
        raise ValueError("a mean that is not a finite number")
