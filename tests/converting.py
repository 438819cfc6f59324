"""What a process does that a test may kill while it converts a checkpoint."""

from __future__ import annotations

import resource
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from scp_prior.errors import SCPError
from scp_prior.torch_file import open_torch_file
from scp_prior.weights import convert_weights


def convert_in_child(source: Path, out: Path, pipe: Connection) -> None:
    """Convert, and say how far it is."""
    done = convert_weights(source, out, out, progress=lambda done, total: pipe.send(("done", done, total)))
    pipe.send(("end", done.message, 0))


def open_in_child(paths: Sequence[Path], room: int, pipe: Connection) -> None:
    """Open each file with no more than `room` bytes of new address space to have; what each said."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + room
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    said = []
    for path in paths:
        try:
            open_torch_file(path)
            said.append("opened")
        except SCPError as error:
            said.append(str(error))
        except BaseException as error:
            said.append(f"{type(error).__name__}!")
    pipe.send(said)
