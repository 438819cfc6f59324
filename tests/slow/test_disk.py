"""A full disk, files that may grow no further, and folders that cannot be written: nothing that was there is lost."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

import pytest
from reducing import arguments

from scp_prior import load_statistics

CHECKPOINT = "own.safetensors.checkpoint"


@pytest.fixture
def words(root):
    return lambda out, *more: arguments(root, out, "--batch-size", 2, "--save-every", 2, "--workers", 0, *more)


@pytest.fixture
def whole(start, words, tmp_path) -> bytes:
    path = tmp_path / "whole.safetensors"
    assert start(words(path)).rest()[0] == 0
    return path.read_bytes()


@pytest.fixture
def small_disk(tmp_path):
    """A disk of its own, with room for a checkpoint and the next one, but little more."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small disk can only be mounted by root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def one_error(out: Path, code: int) -> str:
    assert code == 1
    words = Path(f"{out}.0.log").read_text(encoding="utf-8").replace("\r", "\n")
    assert "Traceback" not in words
    errors = [line for line in words.splitlines() if line.startswith("error: ")]
    assert errors == words.splitlines()[-1:]
    return errors[0]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".log"))


def fill(place: Path, leave: int) -> Path:
    """Fill the disk but for `leave` KB."""
    ballast = place / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    with ballast.open("rb+") as file:
        file.truncate(ballast.stat().st_size // 4096 * 4096 - leave * 1024)
    return ballast


def test_a_full_disk_during_the_run(start, words, whole, small_disk):
    out = small_disk / "own.safetensors"
    out.write_bytes(b"precious")
    child = start(words(out), patient=True)
    for _ in range(4):
        assert child.hears()[0] == "encode"
        child.pipe.send("go on")
    assert child.hears()[0] == "encode"
    before = (small_disk / CHECKPOINT).read_bytes()
    ballast = fill(small_disk, 8)
    child.pipe.send("go on")
    code, _ = child.rest()
    assert "No space left" in one_error(out, code)
    assert names(small_disk) == ["ballast", "own.safetensors", CHECKPOINT]
    assert out.read_bytes() == b"precious"
    assert (small_disk / CHECKPOINT).read_bytes() == before
    ballast.unlink()
    code, more = start(words(out, "--resume")).rest()
    assert code == 0
    assert len(more) == 30 - 8
    assert out.read_bytes() == whole


def test_a_full_disk_when_the_file_is_written(start, words, whole, small_disk):
    out = small_disk / "own.safetensors"
    child = start(words(out, "--save-every", 1000), patient=True)
    for _ in range(15):
        assert child.hears()[0] == "encode"
        if _ == 14:
            ballast = fill(small_disk, 8)
        child.pipe.send("go on")
    code, _ = child.rest()
    assert "No space left" in one_error(out, code)
    assert names(small_disk) == ["ballast", CHECKPOINT]
    ballast.unlink()
    assert start(words(out, "--save-every", 1000, "--resume")).rest()[0] == 0
    assert out.read_bytes() == whole


@pytest.mark.parametrize("limit", [4000, 12_000])
def test_files_that_may_grow_no_further(start, words, whole, out, limit):
    out.write_bytes(b"precious")
    code, _ = start(words(out), limit=limit).rest()
    assert "File too large" in one_error(out, code)
    assert out.read_bytes() == b"precious"
    assert set(names(out.parent)) <= {out.name, CHECKPOINT}
    assert start(words(out, "--resume")).rest()[0] == 0
    assert out.read_bytes() == whole


def test_merging_onto_a_full_disk(start, words, whole, small_disk, tmp_path):
    part, out = tmp_path / "whole.safetensors", small_disk / "own.safetensors"
    out.write_bytes(b"precious")
    fill(small_disk, 8)
    log = tmp_path / "merge"
    code, _ = start(["merge", str(part), str(part), "--out", str(out)], LOG=str(log)).rest()
    assert "No space left" in one_error(log, code)
    assert out.read_bytes() == b"precious"
    assert names(small_disk) == ["ballast", out.name]


def test_a_folder_that_cannot_be_written(start, words, out):
    """Read-only for root as well, whom permissions do not hold."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(out.parent)], capture_output=True)
    out.write_bytes(b"precious")
    read_only = subprocess.run(["mount", "-o", "remount,ro", str(out.parent)], capture_output=True)
    if read_only.returncode:
        pytest.skip("a disk can only be mounted by root")
    try:
        log = out.parent.parent / "log"
        code, seen = start(words(out), LOG=str(log)).rest()
        assert "Read-only" in one_error(log, code)
        assert seen == []
        assert out.read_bytes() == b"precious"
    finally:
        subprocess.run(["umount", "-l", str(out.parent)], check=True)


def test_the_whole_file_loads(whole, tmp_path):
    assert load_statistics(tmp_path / "whole.safetensors").metadata["images"] == "30"
