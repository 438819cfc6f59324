"""`python -m scp_prior reduce` and `merge`: statistics from photos, and from other statistics."""

from __future__ import annotations

import argparse
import glob
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cli_data import data_arguments, encoding_arguments, open_data
from .errors import SCPError
from .verbs import Verb, positive

if TYPE_CHECKING:
    from .checkpoint import Progress
    from .datasets import Dataset
    from .reduce import Plan, Share, Step

_LISTED = 20
INTERRUPTED = 130


def _reduce_arguments(parser: argparse.ArgumentParser) -> None:
    data = parser.add_argument_group("what to read")
    data_arguments(data)
    data.add_argument("--dry-run", action="store_true", help="list what would be read, and the classes in it")

    how = parser.add_argument_group("how to encode it")
    encoding_arguments(how)

    out = parser.add_argument_group("where to write it")
    out.add_argument("--out", type=Path, metavar="FILE", help="the .safetensors file to write")
    out.add_argument("--resume", action="store_true", help="go on from the checkpoint beside --out")
    out.add_argument("--save-every", type=positive, default=1000, metavar="N", help="photos between checkpoints")
    out.add_argument("--timeout", type=positive, default=600, metavar="S", help="torchrun: seconds to wait for others")


def _reduce(args: argparse.Namespace) -> int | None:
    from .reduce import Plan

    dataset = open_data(args)
    plan = Plan(args.size, args.batch_size, args.limit, args.seed, args.on_error)
    if args.dry_run:
        _show_plan(dataset, plan)
        return None
    _check_output(args)
    if dataset.problems and args.on_error == "stop":
        raise SCPError(f"{_listed(dataset.problems)} Mend that, or use --on-error skip.")
    return _run(args, dataset, plan)


def _run(args: argparse.Namespace, dataset: Dataset, plan: Plan) -> int | None:
    from .checkpoint import checkpoint_path
    from .distributed import StoppedError, process_group, put_together, share_of_environment, wait_for_all
    from .loader import Loading
    from .reduce import Saving, finish, finished, reduce
    from .statistics import save_statistics
    from .vae import load_encoder

    share = share_of_environment()
    try:
        encoder = load_encoder(args.vae, device=_device(args.device), dtype=args.dtype)
    except SCPError as error:
        if not Path(args.vae).expanduser().exists():
            args.usage_error(str(error))
        raise
    try:
        plan.check(encoder)
    except SCPError as error:
        args.usage_error(str(error))
    if args.resume:
        _require_same_processes(args.out, share.world)
    saving = Saving(checkpoint_path(args.out, share.rank, share.world), args.save_every)
    kept = f"{saving.path} is kept. The same command with --resume goes on from it."
    with process_group(share, args.timeout), _stopping() as stop:
        # The bar ends before anything else is said, or the two would share a line.
        with _bar(share) as report:
            progress = reduce(
                dataset,
                encoder,
                plan,
                loading=Loading(args.workers),
                saving=saving,
                resume=args.resume,
                share=share,
                report=report,
                stop=stop,
            )
        if not finished(progress, dataset, plan, share):
            print(f"stopped; {kept}", file=sys.stderr)
            return INTERRUPTED
        try:
            wait_for_all(share, "the end", stop, args.timeout)
            progress = put_together(progress, share)
            if share.rank == 0:
                _list_skipped(progress, dataset)
                save_statistics(finish(progress, dataset, encoder, plan), args.out)
                print(_made(args.out, progress.collected.images, len(progress.collected.class_ids)))
            # Nobody's checkpoint goes before the file is there.
            wait_for_all(share, "the saved file", stop, args.timeout)
        except StoppedError:
            print(f"stopped; {kept}", file=sys.stderr)
            return INTERRUPTED
        saving.path.unlink(missing_ok=True)
    return None


def _require_same_processes(out: Path, world: int) -> None:
    """A checkpoint is of one process's share: another number of processes would start over, and say nothing."""
    from .checkpoint import SUFFIX, checkpoint_path

    of_others = [
        path.name
        for path in sorted(out.parent.glob(f"{glob.escape(out.name)}*{SUFFIX}"))
        if path not in [checkpoint_path(out, rank, world) for rank in range(world)]
    ]
    if of_others:
        raise SCPError(
            f"{of_others[0]} was made by another number of processes than the {world} of this run. Use as many as its "
            "name says, or remove it and start again."
        )


def _check_output(args: argparse.Namespace) -> None:
    missing = [flag for flag, value in (("--vae", args.vae), ("--out", args.out)) if value is None]
    if missing:
        args.usage_error(f"{' and '.join(missing)} must be given; only --dry-run does without.")
    _check_ending(args)


def _check_ending(args: argparse.Namespace) -> None:
    if args.out.suffix != ".safetensors":
        args.usage_error(f"--out {args.out} does not end in .safetensors; ComfyUI would not list it. Add the ending.")


def _device(asked: str) -> str:
    import torch

    # One process per device under torchrun: "auto" would be the first one for all.
    local = os.environ.get("LOCAL_RANK")
    if asked in ("auto", "cuda") and local is not None and torch.cuda.is_available():
        return f"cuda:{local}"
    return asked


@contextmanager
def _stopping() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C or a request to end came; the first ends the run after a batch, a second Ctrl-C at once."""
    asked: list[int] = []

    def handle(number: int, _: Any) -> None:
        if number == signal.SIGINT and asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _bar(share: Share) -> Iterator[Callable[[Step], None] | None]:
    """A progress bar with rate, time left, classes and skipped pairs; the first process shows its own share's."""
    try:
        from tqdm import tqdm
    except ImportError:
        tqdm = None
    if tqdm is None or share.rank:
        yield None
        return
    with tqdm(unit="photo", dynamic_ncols=True) as bar:

        def report(step: Step) -> None:
            if bar.total is None:
                # What an earlier run did, and what starting took, say nothing of how fast this one is.
                bar.total, bar.initial, bar.n, bar.last_print_n = step.total, step.done, step.done, step.done
            bar.set_postfix(classes=step.classes, skipped=step.skipped, refresh=False)
            bar.update(step.done - bar.n)

        yield report


def _made(out: Path, images: int | str, classes: int) -> str:
    return f"{out}: {images} images, {classes} classes"


def _list_skipped(progress: Progress, dataset: Dataset) -> None:
    problems = [*(why for _, why in progress.skipped), *dataset.problems]
    if problems:
        print(f"left out: {len(problems)}", file=sys.stderr)
    for problem in problems:
        print(f"  {problem}", file=sys.stderr)


def _show_plan(dataset: Dataset, plan: Plan) -> None:
    import numpy as np

    indices = plan.indices(len(dataset.pairs))
    print(f"{len(indices)} of {len(dataset.pairs)} pairs, at {plan.size[0]}x{plan.size[1]}")
    for problem in dataset.problems[:_LISTED]:
        print(f"  not used: {problem}")
    pixels, images, read = Counter(), Counter(), 0
    for index in indices:
        try:
            ids, counts = np.unique(dataset.read_label(dataset.pairs[index].label), return_counts=True)
        except SCPError as error:
            print(f"  cannot be read: {error}")
            continue
        shares = counts / counts.sum()
        pixels.update(dict(zip(ids.tolist(), shares.tolist(), strict=True)))
        images.update(ids.tolist())
        read += 1
    names = dataset.table.names if dataset.table else {}
    print(f"\n{'id':>5}  {'name':28} {'images':>8} {'of the area':>12}")
    for class_id, share in sorted(pixels.items(), key=lambda item: -item[1]):
        name = names.get(class_id, "")
        print(f"{class_id:>5}  {name:28} {images[class_id]:>8} {share / read:>12.2%}")


def _listed(problems: Sequence[str]) -> str:
    more = f" (and {len(problems) - _LISTED} more)" if len(problems) > _LISTED else ""
    return " ".join(problems[:_LISTED]) + more


def _merge_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="statistics files, no photo in two of them")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="the .safetensors file to write")


def _merge(args: argparse.Namespace) -> None:
    from .merge import merge_statistics
    from .statistics import load_statistics, save_statistics

    _check_ending(args)
    if len(args.files) < 2:
        args.usage_error("merging needs at least two files")
    merged = merge_statistics([load_statistics(path) for path in args.files])
    save_statistics(merged, args.out)
    print(_made(args.out, merged.metadata["images"], len(merged.class_ids)))


VERBS: tuple[Verb, ...] = (
    Verb("reduce", "Photos and label maps -> a statistics file.", _reduce_arguments, _reduce),
    Verb("merge", "Statistics made apart -> one file.", _merge_arguments, _merge),
)
