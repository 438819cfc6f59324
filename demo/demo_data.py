"""Scenes on disk, in shards, so that making them can be interrupted and training reads them without holding them all.

A shard is written whole or not at all, and a scene depends on nothing but its index and the seed: whatever is missing
is made by calling `make_scenes` again.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from scenes import scene
from torch import Tensor

SHARD = 500


def _shard_path(folder: Path, kind: str, number: int) -> Path:
    return folder / f"{kind}-{number:04d}.npy"


def _save(path: Path, array: np.ndarray) -> None:
    temporary = path.with_suffix(".part")
    with temporary.open("wb") as file:
        np.save(file, array)
    os.replace(temporary, path)


def _make_shard(folder: Path, number: int, first: int, count: int, seed: int) -> None:
    made = [scene(first + k, seed) for k in range(count)]
    _save(_shard_path(folder, "pictures", number), np.stack([one.picture for one in made]))
    _save(_shard_path(folder, "labels", number), np.stack([one.labels for one in made]))


def make_scenes(folder: Path, count: int, seed: int, processes: int | None = None) -> int:
    """Write scenes 0 to count - 1 of a seed below `folder`, less those already there; return how many were made."""
    folder.mkdir(parents=True, exist_ok=True)
    made = 0
    with ProcessPoolExecutor(processes or os.cpu_count() or 1) as pool:
        jobs = []
        for first in range(0, count, SHARD):
            number, size = first // SHARD, min(SHARD, count - first)
            label_file = _shard_path(folder, "labels", number)
            if label_file.exists() and len(np.load(label_file, mmap_mode="r")) >= size:
                continue
            jobs.append(pool.submit(_make_shard, folder, number, first, size, seed))
            made += size
        for job in jobs:
            job.result()
    return made


def _tensors(pictures: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float().div_(255)


class FreshScenes:
    """Scenes made as they are asked for, with what `Scenes` has: for the first few steps of a long training."""

    def __init__(self, count: int, seed: int):
        self.count, self._seed = count, seed

    def pictures(self, indices: Sequence[int]) -> Tensor:
        """Pictures (B, 3, H, W) float32 in 0..1, channels last in memory."""
        return _tensors([scene(i, self._seed).picture for i in indices])

    def labels(self, indices: Sequence[int]) -> Tensor:
        """Labels (B, H, W) int64."""
        return torch.from_numpy(np.stack([scene(i, self._seed).labels for i in indices])).long()


class Scenes:
    """Scenes that `make_scenes` wrote; read as they are asked for.

    Attributes:
        count: how many there are.
    """

    def __init__(self, folder: Path):
        self._pictures = [np.load(path, mmap_mode="r") for path in sorted(folder.glob("pictures-*.npy"))]
        self._labels = [np.load(path, mmap_mode="r") for path in sorted(folder.glob("labels-*.npy"))]
        self.count = sum(len(shard) for shard in self._labels)

    def pictures(self, indices: Sequence[int]) -> Tensor:
        """Pictures (B, 3, H, W) float32 in 0..1, channels last in memory."""
        return _tensors([self._pictures[i // SHARD][i % SHARD] for i in indices])

    def labels(self, indices: Sequence[int]) -> Tensor:
        """Labels (B, H, W) int64."""
        return torch.from_numpy(np.stack([self._labels[i // SHARD][i % SHARD] for i in indices])).long()
