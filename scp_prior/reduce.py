"""Photos, label maps and an encoder in, statistics out: one pass, constant memory, and it survives being killed.

Three things overlap: workers decode photos, the encoder runs in the calling thread, and a third adds up what it gave.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import logging
import os
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from torch import Tensor

from .checkpoint import Progress, load_checkpoint, save_checkpoint
from .collector import Collector
from .datasets import Dataset, Pair
from .errors import SCPError
from .files import remove_leftovers
from .loader import Batch, Loading, WorkersLostError, load_batches
from .statistics import Statistics


class PosteriorEncoder(Protocol):
    """What a reduction needs of an encoder; `vae.Encoder` is one."""

    channels: int
    downscale: int
    name: str

    def encode(self, photos: Tensor) -> tuple[Tensor, Tensor]:
        """Photos (B, 3, H, W) in -1..1 -> posterior mean and variance (B, C, h, w), LATENT units."""


@dataclass(frozen=True)
class Plan:
    """What decides the result of a reduction, to the last bit on one device.

    Attributes:
        size: (H, W) every photo is brought to, multiples of the encoder's downscale.
        batch_size: photos encoded together.
        limit, seed: reduce only this many pairs, drawn without replacement; None = all.
        on_error: "stop" at the first pair that cannot be read, or "skip" it and go on.
    """

    size: tuple[int, int]
    batch_size: int = 4
    limit: int | None = None
    seed: int = 0
    on_error: str = "stop"

    def indices(self, pairs: int) -> list[int]:
        """Which of the pairs are reduced, ascending."""
        if self.limit is None or self.limit >= pairs:
            return list(range(pairs))
        return sorted(random.Random(self.seed).sample(range(pairs), self.limit))

    def check(self, encoder: PosteriorEncoder) -> None:
        """Refuse a plan that cannot be carried out.

        Raises:
            SCPError: a number out of range, or a size that is no multiple of the encoder's downscale.
        """
        step = encoder.downscale
        if min(self.size) < step or any(side % step for side in self.size):
            lower = [max(side // step, 1) * step for side in self.size]
            upper = [max(-(-side // step), 1) * step for side in self.size]
            raise SCPError(
                f"The size {self.size[0]}x{self.size[1]} (height x width) is no multiple of {step}, the factor of this "
                f"VAE. Use {lower[0]}x{lower[1]} or {upper[0]}x{upper[1]}."
            )
        if self.batch_size < 1 or (self.limit is not None and self.limit < 1):
            raise SCPError(f"Batch size and limit must be at least 1; they are {self.batch_size} and {self.limit}.")
        if self.on_error not in ("stop", "skip"):
            raise SCPError(f"on_error is 'stop' or 'skip'; it is {self.on_error!r}.")


class Share(NamedTuple):
    """Which of several processes this is: it does every `world`-th batch, from `rank` on."""

    rank: int = 0
    world: int = 1


class Step(NamedTuple):
    """What is reported after each batch: pairs done and to do by this process, classes met, pairs skipped."""

    done: int
    total: int
    classes: int
    skipped: int


class Saving(NamedTuple):
    """Where and how often progress is saved: every so many images or seconds, whichever comes first."""

    path: Path
    images: int = 1000
    seconds: float = 60.0


def reduce(
    dataset: Dataset,
    encoder: PosteriorEncoder,
    plan: Plan,
    *,
    loading: Loading | None = None,
    saving: Saving | None = None,
    resume: bool = False,
    share: Share | None = None,
    report: Callable[[Step], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> Progress:
    """Encode every pair once and add it up.

    Args:
        loading: how photos are decoded: in how many worker processes or threads.
        saving: where progress is kept while it runs; the caller removes the file when the result is safe.
        resume: go on from that file where it is there. The result is the uninterrupted run's, bit for bit.
        report: called in the calling thread after each batch.
        stop: asked after each batch; once it says yes, progress is saved and returned as it is.

    Returns:
        Progress; `finished` tells whether it is the whole. Statistics come from `finish`.

    Raises:
        SCPError: a pair cannot be read (and `plan.on_error` is "stop"), the encoder refuses, a worker process is lost,
            or progress cannot be saved. What was saved before stands.
    """
    plan.check(encoder)
    share = share or Share()
    described = describe_plan(dataset, encoder, plan, share)
    grid = (plan.size[0] // encoder.downscale, plan.size[1] // encoder.downscale)
    batches = my_batches(plan, len(dataset.pairs), share)
    progress = Progress(Collector(encoder.channels, grid), 0, (), timestamp())
    if saving:
        remove_leftovers(saving.path)
    if saving and resume and saving.path.exists():
        progress = _resume(saving.path, dataset, plan, described, batches)
    elif saving:
        # Better to learn now than in an hour that nothing can be written there.
        save_checkpoint(saving.path, progress, described)

    saved = _Clock(saving)
    todo, pairs = batches[progress.batches :], sum(map(len, batches))
    stream = load_batches(dataset, todo, plan.size, grid, loading or Loading())
    with closing(stream), ThreadPoolExecutor(1) as adder:
        adding: Future[Progress] = _done(progress)
        try:
            for indices, batch in zip(todo, stream, strict=False):
                _refuse_problems(batch, plan)
                these = [dataset.pairs[i] for i in indices]
                encoded = _encode(encoder, batch, these)
                progress = adding.result()
                adding = adder.submit(_add, progress, batch, encoded, these)
                saved.count(len(batch.labels))
                stopping = stop is not None and stop()
                if saving and (stopping or saved.due()):
                    save_checkpoint(saving.path, adding.result(), described)
                if report:
                    report(_step(progress, batch, plan, pairs))
                if stopping:
                    break
            progress = adding.result()
        except BaseException as error:
            progress = _last_good(adding, progress)
            if saving:
                _save_anyway(saving.path, progress, described)
            # What ends this process may end its workers as well, and them first.
            if not (isinstance(error, WorkersLostError) and stop is not None and stop()):
                raise
    if saving and share.world > 1:
        # What comes now is waiting for the others, who may fail.
        save_checkpoint(saving.path, progress, described)
    return progress


def can_resume(path: Path, dataset: Dataset, encoder: PosteriorEncoder, plan: Plan) -> bool:
    """Whether `reduce` would go on from this checkpoint; False where there is none."""
    try:
        described = describe_plan(dataset, encoder, plan)
        _resume(path, dataset, plan, described, my_batches(plan, len(dataset.pairs), Share()))
    except SCPError:
        return False
    return True


def finished(progress: Progress, dataset: Dataset, plan: Plan, share: Share | None = None) -> bool:
    """Whether every batch of this process is in."""
    return progress.batches == len(my_batches(plan, len(dataset.pairs), share or Share()))


def finish(progress: Progress, dataset: Dataset, encoder: PosteriorEncoder, plan: Plan) -> Statistics:
    """Statistics of a finished reduction, with everything a file says of itself.

    Raises:
        SCPError: every pair was skipped.
    """
    if progress.skipped and not progress.collected.images:
        reasons = " ".join(why for _, why in progress.skipped[:3])
        raise SCPError(f"Not one of the {len(progress.skipped)} pairs could be used. {reasons}")
    names = dataset.table.names if dataset.table else {}
    return progress.collected.statistics(
        dataset=dataset.name,
        class_names=json.dumps({str(k): names[k] for k in sorted(names)}, ensure_ascii=False),
        palette=dataset.palette,
        label_rule="nearest",
        latent_channels=str(encoder.channels),
        latent_downscale=str(encoder.downscale),
        vae=encoder.name,
        image_size=f"{plan.size[0]}x{plan.size[1]}",
        created=progress.created,
        software="scp-diff, scp_prior reduce",
        source=_source(progress, dataset, plan),
    )


def my_batches(plan: Plan, pairs: int, share: Share) -> list[list[int]]:
    """Pair indices of each batch of this process; together the processes have the batches of one."""
    indices = plan.indices(pairs)
    batches = [indices[i : i + plan.batch_size] for i in range(0, len(indices), plan.batch_size)]
    return batches[share.rank :: share.world]


def describe_plan(
    dataset: Dataset, encoder: PosteriorEncoder, plan: Plan, share: Share | None = None
) -> dict[str, str]:
    """Everything that decides the result, in words; a checkpoint is only good for the same.

    But not `on_error`: who was stopped by a damaged photo may go on with "skip".
    """
    share = share or Share()
    listed = "\n".join(pair.name for pair in dataset.pairs)
    return {
        "data set": f"{dataset.name}, {len(dataset.pairs)} pairs {hashlib.sha256(listed.encode()).hexdigest()[:12]}",
        "palette": dataset.palette,
        "classes": _classes(dataset),
        "VAE": encoder.name,
        "precision": f"{getattr(encoder, 'dtype', 'unknown')} on {getattr(encoder, 'device', 'unknown')}",
        "size": f"{plan.size[0]}x{plan.size[1]}",
        "batch size": str(plan.batch_size),
        "limit": f"{plan.limit} with seed {plan.seed}" if plan.limit else "none",
        "process": f"{share.rank + 1} of {share.world}",
    }


def _classes(dataset: Dataset) -> str:
    """Names and colours of a user's own table may change between runs while its file name does not."""
    if dataset.table is None:
        return "any ids"
    colours = getattr(dataset.reader, "palette", None)
    facts = (
        sorted(dataset.table.names.items()),
        [] if colours is None else list(zip(colours.colours.tolist(), colours.ids.tolist(), strict=False)),
    )
    return f"{dataset.table.name} {hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]}"


class _Clock:
    """When the next checkpoint is due."""

    def __init__(self, saving: Saving | None):
        self._saving = saving
        self._restart()

    def count(self, images: int) -> None:
        self._images += images

    def due(self) -> bool:
        due = self._images >= self._saving.images or time.monotonic() - self._since >= self._saving.seconds
        if due:
            self._restart()
        return due

    def _restart(self) -> None:
        self._images, self._since = 0, time.monotonic()


def _resume(path: Path, dataset: Dataset, plan: Plan, described: dict[str, str], batches: list[list[int]]) -> Progress:
    progress = load_checkpoint(path, described)
    seen = ""
    for batch in batches[: progress.batches]:
        seen = _seen(seen, [dataset.pairs[i] for i in batch])
    if seen != progress.seen:
        raise SCPError(
            f"The checkpoint {path} counts photos or label maps that were changed since. Remove it and start again."
        )
    if progress.skipped and plan.on_error == "stop":
        raise SCPError(
            f"The checkpoint {path} has left out {len(progress.skipped)} pairs, the first because: "
            f"{progress.skipped[0][1]} Go on with on_error 'skip', or remove it and start again."
        )
    return progress


def _seen(before: str, pairs: Sequence[Pair]) -> str:
    """A digest of which files have been counted, in order: names, sizes, times of change."""
    facts = [before, *(f"{pair.name} {_stamp(pair.photo)} {_stamp(pair.label)}" for pair in pairs)]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return (0, 0)
    return status.st_size, status.st_mtime_ns


def _encode(encoder: PosteriorEncoder, batch: Batch, pairs: Sequence[Pair]) -> tuple[Tensor, Tensor] | None:
    if not len(batch.photos):
        return None
    try:
        return encoder.encode(batch.photos)
    except SCPError as error:
        raise SCPError(f"{error} (While encoding {_names(pairs)}.)") from error


def _add(progress: Progress, batch: Batch, encoded: tuple[Tensor, Tensor] | None, pairs: Sequence[Pair]) -> Progress:
    if encoded is not None:
        mean, variance = encoded
        try:
            progress.collected.add(mean, batch.labels, variance)
        except SCPError as error:
            raise SCPError(f"{error} (While adding {_names(pairs)}.)") from error
    return progress._replace(
        batches=progress.batches + 1, skipped=progress.skipped + batch.problems, seen=_seen(progress.seen, pairs)
    )


def _names(pairs: Sequence[Pair]) -> str:
    return ", ".join(pair.name for pair in pairs)


def _last_good(adding: Future[Progress], before: Progress) -> Progress:
    try:
        return adding.result()
    except Exception:  # adding failed, and added nothing; it is reported where it is raised
        return before


def _save_anyway(path: Path, progress: Progress, described: dict[str, str]) -> None:
    # Whatever ends the run (a cancel inside the encoder, a lost worker, a bad photo), the batches done are done; and
    # that they could not be saved must not hide why it ended.
    try:
        save_checkpoint(path, progress, described)
    except SCPError as error:
        logging.getLogger("scp-diff").warning("%s", error)


def _refuse_problems(batch: Batch, plan: Plan) -> None:
    if batch.problems and plan.on_error == "stop":
        raise SCPError(f"{batch.problems[0][1]} (on_error 'skip' would leave such pairs out and list them at the end.)")


def _step(before: Progress, batch: Batch, plan: Plan, pairs: int) -> Step:
    # Every batch of a process is full, but perhaps its last.
    done = min((before.batches + 1) * plan.batch_size, pairs)
    return Step(done, pairs, len(before.collected.class_ids), len(before.skipped) + len(batch.problems))


def _done(progress: Progress) -> Future[Progress]:
    future: Future[Progress] = Future()
    future.set_result(progress)
    return future


def timestamp() -> str:
    """Now, in UTC, or the time SOURCE_DATE_EPOCH says: two runs over the same data then give the same file."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    seconds = float(epoch) if epoch else time.time()
    return datetime.datetime.fromtimestamp(int(seconds), datetime.timezone.utc).isoformat(timespec="seconds")


def _source(progress: Progress, dataset: Dataset, plan: Plan) -> str:
    total = len(dataset.pairs)
    used = len(plan.indices(total))
    parts = [f"{used} of {total} pairs" if used < total else f"all {total} pairs"]
    if used < total:
        parts[0] += f", drawn without replacement with seed {plan.seed}"
    if progress.skipped:
        parts.append(f"{len(progress.skipped)} skipped")
    return "; ".join(parts)
