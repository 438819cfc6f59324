"""From moments in folds and notes of pictures to the parts of a statistics file that only `joint` uses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from .moments import Accumulator
from .pictures import FOLDS, Pictures
from .prior import options_for
from .scene_fit import fit_scene
from .shrinkage import ClassSums, fit_target
from .statistics import Statistics
from .table import PriorTable


def fit_prior(folds: Sequence[Accumulator], pictures: Pictures, moments: Statistics) -> Statistics:
    """`moments` with the target cells are drawn toward and, where there are pictures enough, scene effects.

    Args:
        folds: the moments of each fold of pictures.
        pictures: notes of single pictures.
        moments: statistics of all folds together.
    """
    ids = moments.class_ids.tolist()

    def read(row: int) -> ClassSums:
        count, sums = zip(*(fold.cell_sums(ids[row]) for fold in folds), strict=True)
        values = torch.from_numpy(np.stack(sums))
        channels = values.shape[1] // 2
        return ClassSums(torch.from_numpy(np.stack(count)).double().unsqueeze(1), *values.split(channels, dim=1))

    with _one_thread():
        return _fit(folds, pictures, moments, read)


def _fit(
    folds: Sequence[Accumulator], pictures: Pictures, moments: Statistics, read: Callable[[int], ClassSums]
) -> Statistics:
    ids = moments.class_ids.tolist()
    none = np.zeros(FOLDS, dtype=np.int64)
    shown = np.stack([pictures.tallies[k].shown if k in pictures.tallies else none for k in ids], axis=1)
    target = fit_target(read, torch.from_numpy(shown), moments.latent_size)
    tensors = moments.tensors() | {"target.mean": target.mean, "target.std": target.std}
    metadata = {**moments.metadata, "shrinkage": target.shrinkage.to_json()}
    steadied = Statistics.from_tensors(tensors, metadata)

    mean, std = _every_cell(steadied)
    products = np.stack([sum(fold.channel_products(k) for fold in folds if k in fold.class_ids) for k in ids])
    cells = moments.categorical().count.double().numpy()
    scene = fit_scene(pictures.kept(), pictures.tallies, ids, mean, std, products, cells)
    if scene is None:
        return steadied
    tensors |= {f"scene.{part}": torch.from_numpy(array) for part, array in scene._asdict().items()}
    return Statistics.from_tensors(tensors, metadata)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Thousands of small operations: threads would spend their time waiting for one another, and round by chance."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _every_cell(statistics: Statistics) -> tuple[np.ndarray, np.ndarray]:
    """mean and std (K, h w, C) of the `joint` prior."""
    table = PriorTable(statistics, "joint", statistics.latent_size, options_for(statistics, "joint"))
    moments = []
    for class_id in statistics.class_ids.tolist():
        cells = table.cells_of(torch.full((1, *statistics.latent_size), class_id))
        moments.append(table.values.index_select(0, cells))
    return tuple(part.contiguous().numpy() for part in torch.stack(moments).chunk(2, dim=2))
