"""`python -m scp_prior download`: the authors' released files into ComfyUI's folders, ready to use."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from .verbs import Verb

if TYPE_CHECKING:
    from .download import Wish
    from .target import Target

_ABOUT = """
The files come from huggingface.co/c7w/SCP-Diff (Apache-2.0) through huggingface_hub, so HF_ENDPOINT, HF_HUB_OFFLINE,
HF_TOKEN and the proxy variables work as they do there. They are verified, converted, and put into
models/scp_statistics, models/controlnet and models/checkpoints. Run again after any interruption: what is there is not
fetched or made again. Without a connection, it says which files to get by hand, and where to put them.
"""
# Bytes that take more than a moment.
_WORTH_A_BAR = 10**8


def _arguments(parser: argparse.ArgumentParser) -> None:
    from .released import datasets
    from .target import DTYPES, ORIGINALS

    parser.epilog = _ABOUT
    parser.add_argument("dataset", choices=datasets())
    parser.add_argument(
        "--statistics-only", action="store_true", help="leave out the 13.7 GB checkpoint: only the statistics, a few MB"
    )
    parser.add_argument(
        "--comfyui", metavar="DIR", help="the folder of ComfyUI (default: the one this pack is installed in)"
    )
    parser.add_argument(
        "--dtype", choices=DTYPES, default=DTYPES[0], help=f"of the two model files (default: {DTYPES[0]})"
    )
    kept = parser.add_mutually_exclusive_group()
    kept.add_argument(
        "--keep-original",
        dest="keep_original",
        action="store_true",
        default=None,
        help=f"keep the files as downloaded, 13.7 GB, in models/{ORIGINALS} (default: they are removed once converted)",
    )
    kept.add_argument(
        "--remove-original",
        dest="keep_original",
        action="store_false",
        help=f"remove them, even those you put into models/{ORIGINALS} yourself (default: only what was downloaded)",
    )


def _download(args: argparse.Namespace) -> None:
    from .download import Wish, download
    from .errors import SCPError
    from .gather import Watch
    from .host_folders import find_comfyui
    from .hub import UnreachableError
    from .target import Target

    target = Target(args.dataset, find_comfyui(args.comfyui) / "models")
    wish = Wish(args.statistics_only, args.dtype, args.keep_original)
    try:
        download(target, wish, Watch(_say, _progress))
    except UnreachableError as error:
        _by_hand(target, wish)
        raise SCPError(str(error)) from error
    except KeyboardInterrupt:
        print("What came so far is kept; the same command goes on from it.", file=sys.stderr)
        raise


def _by_hand(target: Target, wish: Wish) -> None:
    from .download import missing
    from .released import licence

    files = [file for file in missing(target, wish) if not target.original(file.kind).there]
    print(f"By hand, with a browser on any machine ({licence()}):")
    for file in files:
        name = file.paths[0].rpartition("/")[2] if len(file.paths) == 1 else f"*{file.ending}"
        print(f"  {name}{f', {file.listed}' if file.listed else ''}: {file.what}")
        print(f"    from {file.page}\n    into {target.originals}")
    make = "" if target.originals.is_dir() else "Make that folder where it is not there yet. "
    print(f"{make}Then run the same command again: it converts them, and needs no connection for that.")


def _say(line: str) -> None:
    print(line, flush=True)


def _progress(step: str) -> Callable[[int, int], None] | None:
    """A bar of bytes, where tqdm is installed."""
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    bar = None

    def report(done: int, total: int) -> None:
        nonlocal bar
        if total < _WORTH_A_BAR:
            return
        if bar is None:
            bar = tqdm(desc=step, total=total, unit="B", unit_scale=True, dynamic_ncols=True, disable=None)
        bar.update(done - bar.n)
        if done >= total:
            bar.close()

    return report


VERBS: tuple[Verb, ...] = (
    Verb("download", "The authors' released files -> ComfyUI's folders, ready to use.", _arguments, _download),
)
