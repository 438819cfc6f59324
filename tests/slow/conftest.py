from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import one_thread  # noqa: F401
import pytest
from reducing import PATIENCE, in_child, make_pairs


class Child(NamedTuple):
    """A process running the command line, and what it says of its batches."""

    process: BaseProcess
    pipe: Connection

    def hears(self) -> tuple[str, Any]:
        """What it says next; ("end", exit code) once it says no more."""
        assert self.pipe.poll(PATIENCE), "the process hangs"
        try:
            return self.pipe.recv()
        except (EOFError, ConnectionResetError):
            return "end", self.code()

    def code(self) -> int:
        self.process.join(PATIENCE)
        assert self.process.exitcode is not None, "the process hangs"
        return self.process.exitcode

    def rest(self) -> tuple[int, list[int]]:
        """Exit code, and the number of every photo it encoded."""
        seen: list[int] = []
        while (heard := self.hears())[0] != "end":
            if heard[0] == "seen":
                seen = heard[1]
        return heard[1], seen


@pytest.fixture(scope="session")
def server():
    """Forks processes that have everything imported: twenty starts then take no longer than one."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["reducing", "scp_prior.cli", "scp_prior.distributed", "scp_prior.vae", "tqdm"])
    return context


@pytest.fixture
def start(server):
    """start(argv, patient=False, limit=None, **environment) -> Child; whatever is left at the end is killed."""
    children: list[Child] = []

    def start(argv: list[str], *, patient: bool = False, limit: int | None = None, **environment: str) -> Child:
        ours, theirs = server.Pipe()
        environment = {"SOURCE_DATE_EPOCH": "1700000000", "PATIENT": "1" if patient else "0", **environment}
        process = server.Process(target=in_child, args=(argv, theirs, environment, limit))
        process.start()
        theirs.close()
        children.append(Child(process, ours))
        return children[-1]

    yield start
    for child in children:
        child.process.kill()
        child.process.join(PATIENCE)
        child.pipe.close()


@pytest.fixture(scope="session")
def root(tmp_path_factory) -> Path:
    return make_pairs(tmp_path_factory.mktemp("pairs"), 30)


@pytest.fixture
def out(tmp_path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "own.safetensors"
