"""The half of `python -m scp_prior convert` for model checkpoints: a .ckpt into the files ComfyUI's loaders read."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_ENDINGS = (".ckpt", ".pt", ".pth", ".bin", ".safetensors", ".sft")


def weights_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what only checkpoints need."""
    weights = parser.add_argument_group("for a model checkpoint (.ckpt)")
    weights.add_argument(
        "--out-dir", type=Path, metavar="DIR", help="where NAME_controlnet and NAME_checkpoint.safetensors go"
    )
    weights.add_argument(
        "--dtype", choices=("float16", "float32"), default="float16", help="of both files (default: float16)"
    )


def asks_for_weights(args: argparse.Namespace) -> bool:
    """Whether the words are about a checkpoint rather than about statistics."""
    return args.out_dir is not None or any(Path(path).suffix.lower() in _ENDINGS for path in args.paths)


def convert_checkpoints(args: argparse.Namespace) -> None:
    """Convert each checkpoint that was named."""
    if args.out_dir is None:
        args.usage_error("a checkpoint becomes two files: give --out-dir, the folder to write them into")
    if args.out is not None or args.dataset is not None:
        args.usage_error("--out and --dataset are for the released .npy files; a checkpoint needs --out-dir only")
    from .weights import convert_weights

    for path in args.paths:
        # The bar ends before anything else is said, or the two would share a line.
        with _bar() as progress:
            done = convert_weights(Path(path), args.out_dir, args.out_dir, dtype=args.dtype, progress=progress)
        print(done.message)


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar over bytes, with rate and time left."""
    try:
        from tqdm import tqdm
    except ImportError:
        yield None
        return
    # Nothing to do is nothing to show.
    bar: tqdm | None = None

    def progress(done: int, total: int) -> None:
        nonlocal bar
        if bar is None:
            bar = tqdm(total=total, unit="B", unit_scale=True, dynamic_ncols=True)
        bar.update(done - bar.n)

    try:
        yield progress
    finally:
        if bar is not None:
            bar.close()
