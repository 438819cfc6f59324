"""Pairs of photos and label maps, decoded ahead of the encoder and handed over in order."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import queue
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .datasets import Dataset, Pair, load_pixels
from .errors import SCPError

# Batches made ready ahead of the encoder.
_READY = 2


class WorkersLostError(SCPError):
    """A worker process ended by itself: killed, or out of memory."""


class Loading(NamedTuple):
    """How photos are decoded: in `workers` processes, or threads where starting processes is not an option.

    0 workers: in the calling process, one after the other.
    """

    workers: int = 0
    threads: bool = False


class Batch(NamedTuple):
    """photos (B, 3, H, W) float32 in -1..1, labels (B, h, w) int64, problems: (pair, message) of what was left out."""

    photos: Tensor
    labels: Tensor
    problems: tuple[tuple[str, str], ...]


class _Job(NamedTuple):
    dataset: Dataset
    size: tuple[int, int]
    grid: tuple[int, int]


class _Loaded(NamedTuple):
    photo: np.ndarray | None
    labels: np.ndarray | None
    problem: tuple[str, str] | None


def load_batches(
    dataset: Dataset,
    batches: Sequence[Sequence[int]],
    size: tuple[int, int],
    grid: tuple[int, int],
    loading: Loading,
) -> Iterator[Batch]:
    """Yield each batch of pair indices, in order; closing the iterator ends the workers.

    A pair that cannot be read is in `problems` and not in the batch, which may thus be empty.

    Raises:
        WorkersLostError: a worker process was killed.
    """
    # Workers are told which pair each time: the list of all may be long, and each would get its own.
    job = _Job(dataclasses.replace(dataset, pairs=()), size, grid)
    pairs = [dataset.pairs[i] for batch in batches for i in batch]
    if not loading.workers:
        yield from _batches((_load(job, pair) for pair in pairs), batches)
        return
    with _executor(job, loading) as executor:
        ahead = _READY * max(map(len, batches), default=1) + 2 * loading.workers
        loaded = _in_order(executor, pairs, ahead)
        yield from _in_background(_batches(loaded, batches))


def _load(job: _Job, pair: Pair) -> _Loaded:
    try:
        photo, labels = load_pixels(job.dataset, pair, job.size, job.grid)
    except SCPError as error:
        return _Loaded(None, None, (pair.name, str(error)))
    # Small things cross between processes: 8-bit photos, and label maps of the latent's size.
    return _Loaded(photo, labels.astype(np.uint16), None)


def _batches(loaded: Iterator[_Loaded], batches: Sequence[Sequence[int]]) -> Iterator[Batch]:
    for batch in batches:
        yield _stack([next(loaded) for _ in batch])


def _stack(items: Sequence[_Loaded]) -> Batch:
    good = [item for item in items if item.problem is None]
    problems = tuple(item.problem for item in items if item.problem is not None)
    if not good:
        return Batch(torch.empty(0, 3, 0, 0), torch.empty(0, 0, 0, dtype=torch.int64), problems)
    photos = torch.from_numpy(np.stack([item.photo for item in good])).permute(0, 3, 1, 2)
    labels = torch.from_numpy(np.stack([item.labels for item in good]).astype(np.int64))
    return Batch(photos.float().div_(127.5).sub_(1), labels, problems)


def _in_order(executor: Executor, pairs: Sequence[Pair], ahead: int) -> Iterator[_Loaded]:
    waiting: deque[Future[_Loaded]] = deque()
    try:
        for pair in pairs:
            waiting.append(executor.submit(_work, pair))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenExecutor as error:
        raise WorkersLostError(
            "A process that decodes photos was killed, most often because memory ran out. Use fewer workers."
        ) from error


_END = object()


def _in_background(source: Iterator[Batch]) -> Iterator[Batch]:
    """Take from `source` in a thread of its own, so that stacking a batch overlaps with encoding the one before."""
    ready: queue.Queue[object] = queue.Queue(_READY)
    closed = threading.Event()

    def put(item: object) -> bool:
        while not closed.is_set():
            try:
                ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def fill() -> None:
        # Processes started from this thread inherit it: Ctrl-C would meet them while they still import, and each would
        # print a traceback.
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            for batch in source:
                if not put(batch):
                    return
            put(_END)
        except BaseException as error:  # handed over, to be raised where the batch is awaited
            put(error)

    thread = threading.Thread(target=fill, daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not _END:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        closed.set()
        thread.join()


# The job of this worker process; in threads, of this process, so threads take theirs from the initializer as well.
_own = threading.local()


def _start_worker(job: _Job) -> None:
    # Ctrl-C reaches every process of the terminal; whether it ends the run is for the one that saves progress to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A worker holds both ends of its queue, so it would wait for ever for a parent that was killed.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    _own.job = job


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _start_thread(job: _Job) -> None:
    _own.job = job


def _work(pair: Pair) -> _Loaded:
    return _load(_own.job, pair)


class _Pool(ProcessPoolExecutor):
    """Leaves at once: what is still queued is not wanted any more."""

    def __exit__(self, *_: object) -> None:
        self.shutdown(wait=True, cancel_futures=True)


class _Threads(ThreadPoolExecutor):
    """As `_Pool`."""

    def __exit__(self, *_: object) -> None:
        self.shutdown(wait=True, cancel_futures=True)


def _executor(job: _Job, loading: Loading) -> Executor:
    if loading.threads:
        return _Threads(loading.workers, initializer=_start_thread, initargs=(job,))
    # Not forked: a forked child of a process that has run torch may hang in its thread pool.
    context = multiprocessing.get_context("spawn")
    return _Pool(loading.workers, mp_context=context, initializer=_start_worker, initargs=(job,))
