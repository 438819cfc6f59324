"""Several processes reducing one data set: torchrun's environment, and sums added up over all of them."""

from __future__ import annotations

import datetime
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

from .checkpoint import Progress
from .collector import Collector
from .errors import SCPError
from .ids import MAX_CLASS_ID
from .moments import Accumulator
from .pictures import Pictures
from .reduce import Share

DEFAULT_TIMEOUT = 600.0
_KEPT = "Checkpoints are kept: the same command with --resume goes on from them."


class StoppedError(SCPError):
    """The run was asked to stop while this process waited for the others."""


def share_of_environment() -> Share:
    """This process's share, as torchrun's RANK and WORLD_SIZE say; the only one where they are absent."""
    return Share(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))


@contextmanager
def process_group(share: Share, timeout: float = DEFAULT_TIMEOUT) -> Iterator[None]:
    """Join the other processes; does nothing where there are none.

    gloo, whatever the encoder runs on: what is exchanged is some megabytes, once.

    Raises:
        SCPError: they did not all come within `timeout` seconds.
    """
    if share.world > 1:
        with _explained(f"The {share.world} processes did not find each other within {timeout:g} s"):
            dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=timeout))
    yield
    # Not after an error: leaving in good order would mean waiting for processes that may be gone.
    if share.world > 1:
        dist.destroy_process_group()


def wait_for_all(
    share: Share, what: str, stop: Callable[[], bool] | None = None, timeout: float = DEFAULT_TIMEOUT
) -> None:
    """Wait until every process gets here.

    Raises:
        SCPError: one did not within `timeout` seconds (the message says which), or is gone.
        StoppedError: `stop` said yes meanwhile.
    """
    if share.world == 1:
        return
    failed: list[RuntimeError] = []

    def wait() -> None:
        try:
            dist.monitored_barrier(timeout=datetime.timedelta(seconds=timeout), wait_all_ranks=True)
        except RuntimeError as error:
            failed.append(error)

    # In a thread, since no signal reaches Python while it waits inside the barrier.
    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.2)
        if stop is not None and stop():
            raise StoppedError(f"Stopped while waiting for the other processes to come to {what}. {_KEPT}")
    if failed:
        with _explained(f"Not every process came to {what} within {timeout:g} s: one has failed, or is far behind"):
            raise failed[0]


def put_together(progress: Progress, share: Share) -> Progress:
    """What all processes have added up and left out, on every one of them.

    Raises:
        SCPError: one of them is gone.
    """
    if share.world == 1:
        return progress
    skipped: list[tuple[tuple[str, str], ...]] = [()] * share.world
    with _explained("The sums of all processes could not be added up: one has failed"):
        dist.all_gather_object(skipped, progress.skipped)
        collected = _add_up(progress.collected, share)
    return progress._replace(collected=collected, skipped=tuple(pair for own in skipped for pair in own))


def _add_up(collected: Collector, share: Share) -> Collector:
    notes: list[dict[str, Tensor]] = [{}] * share.world
    dist.all_gather_object(notes, collected.pictures.state())
    h, w = collected.latent_size
    pictures = Pictures(collected.channels)
    for state in notes:
        pictures.merge(Pictures.from_state(state, collected.channels, h * w))
    return Collector.of([_add_up_fold(fold) for fold in collected.folds], pictures)


def _add_up_fold(accumulator: Accumulator) -> Accumulator:
    """Each process may have met other classes; what is exchanged has a row for every class any of them met."""
    ids = _union_of_classes(accumulator)
    if not ids:
        return accumulator
    own = accumulator.state()
    row_of = {class_id: row for row, class_id in enumerate(own["class_ids"].tolist())}
    summed = {
        key: torch.stack([_sum(_row(own[key], row_of.get(class_id))) for class_id in ids])
        for key in ("count", "sums", "products")
    }
    images = _sum(own["images"])
    return Accumulator.from_state({**summed, "class_ids": torch.tensor(ids), "images": images})


def _union_of_classes(accumulator: Accumulator) -> list[int]:
    seen = torch.zeros(MAX_CLASS_ID + 1, dtype=torch.int64)
    seen[accumulator.class_ids] = 1
    return _sum(seen).nonzero().flatten().tolist()


def _row(table: Tensor, row: int | None) -> Tensor:
    return torch.zeros(table.shape[1:], dtype=table.dtype) if row is None else table[row]


def _sum(tensor: Tensor) -> Tensor:
    total = tensor.clone()
    dist.all_reduce(total)
    return total


@contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise SCPError(f"{what}. {_KEPT} ({first})") from error
