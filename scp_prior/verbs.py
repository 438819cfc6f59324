"""What every word of the command line has in common."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import NamedTuple


class Verb(NamedTuple):
    """One word of the command line; `run` returns an exit code, None being 0."""

    name: str
    summary: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int | None]


def size(text: str) -> tuple[int, int]:
    """HxW in pixels, e.g. 512x1024, as an argparse type."""
    match = re.fullmatch(r"(\d{1,5})[xX](\d{1,5})", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"expected HxW in pixels, e.g. 512x1024; came {text!r}")
    return int(match[1]), int(match[2])


def positive(text: str) -> int:
    """A whole number from 1, as an argparse type."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1; came {text!r}")
    return int(text)


def workers(text: str) -> int:
    """A number of worker processes, as an argparse type: 0 to 61, which is as many as Windows can wait for."""
    if not text.isdigit() or int(text) > 61:
        raise argparse.ArgumentTypeError(f"expected a number of processes from 0 to 61; came {text!r}")
    return int(text)
