"""Processes that decode photos: killed, interrupted with the one they work for, and left behind by it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest
from reducing import PATIENCE, arguments


@pytest.fixture
def words(root, out):
    return lambda *more: arguments(root, out, "--batch-size", 1, "--save-every", 1, "--workers", 2, *more)


def workers_of(pid: int) -> list[psutil.Process]:
    found = [p for p in psutil.Process(pid).children() if "spawn_main" in " ".join(p.cmdline())]
    assert len(found) == 2
    return found


def begun(start, words):
    """A run that has encoded three photos and waits before the fourth."""
    child = start(words(), patient=True)
    for _ in range(3):
        assert child.hears()[0] == "encode"
        child.pipe.send("go on")
    assert child.hears()[0] == "encode"
    return child


def log(out: Path) -> str:
    return Path(f"{out}.0.log").read_text(encoding="utf-8")


def resumed(start, words, out, before: list[int]) -> None:
    child = start(words("--resume", "--workers", "0"))
    code, seen = child.rest()
    assert code == 0
    assert sorted(before + seen) == list(range(30))
    assert not Path(f"{out}.checkpoint").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_reaches_workers_too(start, words, out, number):
    child = begun(start, words)
    workers = workers_of(child.process.pid)
    os.killpg(child.process.pid, number)
    child.pipe.send("go on")
    # Where SIGTERM took the workers, what was decoded before may still be encoded, or not.
    child.pipe.send("go on")
    code, seen = child.rest()
    assert code == 130
    assert seen == list(range(len(seen)))
    assert "Traceback" not in log(out)
    assert "--resume" in log(out).splitlines()[-1]
    assert psutil.wait_procs(workers, PATIENCE)[1] == []
    resumed(start, words, out, seen)


def test_workers_do_not_outlive_a_killed_run(start, words):
    child = begun(start, words)
    workers = workers_of(child.process.pid)
    child.process.kill()
    assert child.code() == -signal.SIGKILL
    assert psutil.wait_procs(workers, PATIENCE)[1] == []


def test_a_killed_worker_is_an_error_and_nothing_is_lost(start, words, out):
    child = begun(start, words)
    for worker in workers_of(child.process.pid):
        worker.kill()
    for _ in range(30):
        child.pipe.send("go on")
    code, seen = child.rest()
    assert code == 1
    assert 3 < len(seen) < 30
    assert "Traceback" not in log(out)
    assert "memory" in log(out).splitlines()[-1]
    resumed(start, words, out, seen)
