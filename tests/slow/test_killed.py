"""Killed at any moment and resumed, a reduction gives the file it would have given."""

from __future__ import annotations

import os
import random
import re
import signal
from pathlib import Path

import pytest
from reducing import arguments

BATCH = ("--batch-size", 2, "--limit", 27, "--seed", 5, "--save-every", 2)


@pytest.fixture(scope="module")
def words(root):
    return lambda out, *more: arguments(root, out, *BATCH, "--workers", 0, *more)


@pytest.fixture
def whole(start, words, tmp_path) -> bytes:
    """The file of a run that nothing disturbs."""
    path = tmp_path / "whole.safetensors"
    code, seen = start(words(path)).rest()
    assert code == 0
    assert len(seen) == 27
    return path.read_bytes()


def leftovers(out: Path) -> list[str]:
    return sorted(path.name for path in out.parent.iterdir() if not path.name.endswith(".log"))


def test_killed_at_random_moments(start, words, whole, out):
    """Between batches, while one is encoded or added, and while a checkpoint is written: whenever it happens to be."""
    rng, kills, runs, done = random.Random(20240501), 0, 0, None
    while kills < 30 or done is None:
        if done is not None:
            # It got to the end before there were enough kills: once more from the beginning.
            assert out.read_bytes() == whole
            out.unlink()
        child, done = start(words(out, "--resume")), None
        runs += 1
        left = rng.randint(1, 5) if kills < 30 else 10**6
        while left and done is None:
            what, value = child.hears()
            left -= what == "encode"
            if what == "end":
                assert value == 0
                done = value
        if done is None:
            # Not always at the start of a batch: anywhere within the few milliseconds of one.
            child.pipe.poll(rng.choice((0, 0.001, 0.003, 0.006)))
            child.process.kill()
            code = child.code()
            assert code in (-signal.SIGKILL, 0)
            kills += code == -signal.SIGKILL
            done = code if code == 0 else None
    assert runs > kills >= 30
    assert out.read_bytes() == whole
    # A kill may leave a temporary file behind: of the checkpoint's, the next run removes it; safetensors has its own,
    # and a kill while the file itself is written leaves that.
    strange = [name for name in leftovers(out) if not re.fullmatch(r"\.tmp\w+|\.own\.safetensors\.\w+\.part", name)]
    assert strange == [out.name]


def test_every_kill_loses_a_batch_at_most(start, words, whole, out):
    """Killed before each batch in turn; with a checkpoint after every batch, none before it is encoded again."""
    for batch in range(14):
        child = start(words(out, "--resume"), patient=True)
        assert child.hears() == ("encode", 0)
        child.pipe.send("go on")
        # The next batch begins after the checkpoint of this one was written.
        heard = child.hears()
        assert heard[0] == ("encode" if batch < 13 else "seen")
        if batch < 13:
            child.process.kill()
            assert child.code() == -signal.SIGKILL
    assert child.code() == 0
    assert out.read_bytes() == whole


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_end(start, words, whole, out, number):
    child = start(words(out), patient=True)
    for _ in range(3):
        assert child.hears()[0] == "encode"
        child.pipe.send("go on")
    assert child.hears()[0] == "encode"
    os.kill(child.process.pid, number)
    child.pipe.send("go on")
    code, seen = child.rest()
    assert code == 130
    assert len(seen) == 8
    assert leftovers(out) == [f"{out.name}.checkpoint"]
    assert "--resume" in Path(f"{out}.0.log").read_text(encoding="utf-8").splitlines()[-1]
    code, more = start(words(out, "--resume")).rest()
    assert code == 0
    assert len(more) == 19
    assert not set(seen) & set(more)
    assert out.read_bytes() == whole
    assert leftovers(out) == [out.name]
