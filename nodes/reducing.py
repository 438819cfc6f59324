"""What SCPReduceStatistics does: the library's reduction with the host's VAE, progress and cancel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import comfy.model_management
import comfy.utils
from torch import Tensor

from ..scp_prior import SCPError, Statistics, load_statistics, save_statistics
from ..scp_prior.checkpoint import checkpoint_path
from ..scp_prior.coverage import coverage
from ..scp_prior.datasets import Dataset, open_dataset
from ..scp_prior.loader import Loading
from ..scp_prior.reduce import Plan, Saving, Step, can_resume, finish, finished, reduce
from .vae import HostEncoder

_LISTED = 5


class Made(NamedTuple):
    """The statistics, opened from their file; words for the artist; whether every pair is in; a picture of coverage."""

    statistics: Statistics
    text: str
    complete: bool
    picture: Tensor


def make_statistics(
    vae,
    images: Path,
    labels: Path,
    palette: str | None,
    size: tuple[int, int],
    out: Path,
    *,
    on_error: str,
    batch_size: int,
) -> Made:
    """Reduce two folders of pictures to the file `out`, going on from its checkpoint where there is one.

    Raises:
        SCPError: as `reduce`; and the host's own exception when the user cancels, with the checkpoint kept.
    """
    dataset = open_dataset("folder", images=images, labels=labels, palette=palette)
    if dataset.problems and on_error == "stop":
        raise SCPError(f"{_some(dataset.problems)} Mend that, or set on_error to skip.")
    encoder, plan = HostEncoder(vae), Plan(size, batch_size, on_error=on_error)
    saving = Saving(checkpoint_path(out))
    progress = reduce(
        dataset,
        encoder,
        plan,
        # Threads: starting processes would run ComfyUI's own start again on Windows.
        loading=Loading(workers=2, threads=True),
        saving=saving,
        # What a cancelled run with other widgets left is of no use, and nobody asked for it.
        resume=can_resume(saving.path, dataset, encoder, plan),
        report=_progress_bar(),
        stop=comfy.model_management.processing_interrupted,
    )
    if not finished(progress, dataset, plan):
        comfy.model_management.throw_exception_if_processing_interrupted()
    save_statistics(finish(progress, dataset, encoder, plan), out)
    saving.path.unlink(missing_ok=True)
    statistics = load_statistics(out)
    left_out = [why for _, why in progress.skipped] + list(dataset.problems)
    return Made(statistics, _summary(statistics, out, dataset, left_out), not left_out, coverage(statistics))


def _progress_bar() -> Callable[[Step], None]:
    bar = comfy.utils.ProgressBar(1)

    def report(step: Step) -> None:
        bar.update_absolute(step.done, step.total)

    return report


def _some(lines: Sequence[str]) -> str:
    more = f" (and {len(lines) - _LISTED} more)" if len(lines) > _LISTED else ""
    return " ".join(lines[:_LISTED]) + more


def _summary(statistics: Statistics, out: Path, dataset: Dataset, skipped: list[str]) -> str:
    lines = [
        f"saved as {out.name}",
        f"{statistics.metadata['images']} of {len(dataset.pairs)} images, {len(statistics.class_ids)} classes",
    ]
    if skipped:
        lines.append(f"left out {len(skipped)}: {_some(skipped)}")
    return "\n".join(lines)
