"""`python -m scp_prior`, or `python path/to/scp_prior` where Python is isolated (as portable ComfyUI's): see cli.py."""

from __future__ import annotations

import os
import sys


def _run() -> int:
    if __package__:
        from .cli import main

        return main()
    _make_importable(os.path.dirname(os.path.abspath(__file__)))
    from scp_prior.cli import main

    return main(prog=f"python {sys.argv[0]}")


def _make_importable(folder: str) -> None:
    """Put the package's parent on the path in place of the package, whose statistics.py would hide Python's own."""
    own = os.path.realpath(folder)
    sys.path[:] = [os.path.dirname(folder), *(entry for entry in sys.path if os.path.realpath(entry) != own)]


if __name__ == "__main__":
    sys.exit(_run())
