"""`download` killed at any moment, or out of disk: no loader sees half a file, and the next run finishes it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from pathlib import Path

import pytest
from downloading import ALL_MADE, CHECKPOINT, PIECE, Downloads, small_release
from hub_server import HubServer
from safetensors import safe_open

PATIENCE = 60
KILLS = 10


@pytest.fixture(scope="module")
def release() -> dict[str, bytes]:
    return small_release(adam=6_000_000)


@pytest.fixture
def hub(release):
    with HubServer(release).running() as hub:
        yield hub


@pytest.fixture
def downloads(tmp_path):
    downloads = Downloads(tmp_path)
    yield downloads
    downloads.end()


@pytest.fixture(scope="module")
def undisturbed(release, tmp_path_factory) -> dict[str, bytes]:
    """The model files as they come when nothing happens."""
    downloads = Downloads(tmp_path_factory.mktemp("undisturbed"))
    with HubServer(release).running() as hub:
        assert downloads.run(endpoint=hub.endpoint).code == 0
    return models(downloads)


def models(downloads: Downloads) -> dict[str, bytes]:
    """Statistics hold the time they were made at; the other two are the same bytes every time."""
    return {path: (downloads.models / path).read_bytes() for path in ALL_MADE[1:]}


def assert_no_half_files(downloads: Downloads) -> None:
    """Whatever has a name a loader lists is whole; a temporary file has not."""
    for path in downloads.made():
        if path in ALL_MADE:
            with safe_open(downloads.models / path, framework="pt") as file:
                assert file.keys()
        else:
            assert Path(path).name.startswith(".")
            assert Path(path).suffix not in {".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".sft"}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_ended_in_the_middle_and_run_again(hub, downloads, undisturbed, number):
    hub.hold = {CHECKPOINT: PIECE + 100_000}
    running = downloads.start(endpoint=hub.endpoint)
    assert hub.held.wait(PATIENCE)
    part = next(downloads.originals.glob("*.part"))
    deadline = 2_000
    while part.stat().st_size < PIECE and deadline:
        deadline -= 1
        running.process.join(0.005)
    os.kill(running.process.pid, number)
    ran = running.rest()
    assert ran.code == (130 if number == signal.SIGINT else -number)
    if number == signal.SIGINT:
        assert ran.err.splitlines()[-2:] == ["What came so far is kept; the same command goes on from it.", "stopped"]
    assert downloads.made() == [ALL_MADE[0]]
    assert part.stat().st_size == PIECE
    hub.hold.clear()
    hub.requests.clear()
    assert downloads.run(endpoint=hub.endpoint).code == 0
    assert hub.bodies(CHECKPOINT) == [PIECE]
    assert models(downloads) == undisturbed
    assert not downloads.originals.exists()


def test_killed_at_random_moments(hub, downloads, undisturbed):
    rng, kills, done = random.Random(20240502), 0, False
    while kills < KILLS or not done:
        if done:
            for path in ALL_MADE:
                (downloads.models / path).unlink()
        running = downloads.start(endpoint=hub.endpoint)
        if kills < KILLS:
            # From before the first request to after the last file: a run takes about a second.
            running.process.join(rng.uniform(0, 1.2))
            running.process.kill()
        code = running.rest().code
        assert code in (0, -signal.SIGKILL)
        kills += code == -signal.SIGKILL
        done = code == 0
        assert_no_half_files(downloads)
    assert models(downloads) == undisturbed
    leftover = [path for path in downloads.models.rglob("*") if path.is_file() and path.suffix != ".safetensors"]
    # A kill between taking a name and the note's removal leaves what is small.
    assert all(path.stat().st_size < 200_000 for path in leftover), leftover


@pytest.fixture
def small_disk(tmp_path):
    """A ComfyUI on a disk of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small disk can only be mounted by root")
    downloads = Downloads(tmp_path, place)
    yield downloads
    downloads.end()
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_disk_that_is_too_small_from_the_start(hub, small_disk):
    (small_disk.models / "ballast").write_bytes(bytes(20 << 20))
    ran = small_disk.run(endpoint=hub.endpoint)
    assert "Not enough space on the disk" in ran.error
    assert [request.path for request in hub.requests] == [""]


def test_a_disk_that_fills_up_on_the_way(release, undisturbed, hub, small_disk):
    """Somebody else takes the space after it was counted."""
    hub.hold = {CHECKPOINT: 0}
    running = small_disk.start("--keep-original", endpoint=hub.endpoint)
    assert hub.held.wait(PATIENCE)
    ballast = small_disk.models / "ballast"
    ballast.write_bytes(bytes(14 << 20))
    hub.go.set()
    error = running.rest().error
    assert "No space left" in error
    assert "What came is kept" in error
    assert small_disk.made() == [ALL_MADE[0]]
    part = next(small_disk.originals.glob("*.part"))
    came = part.stat().st_size
    assert 0 < came < len(release[CHECKPOINT])
    assert part.read_bytes() == release[CHECKPOINT][:came]
    ballast.unlink()
    hub.requests.clear()
    ran = small_disk.run(endpoint=hub.endpoint)
    assert ran.code == 0, ran.err
    assert hub.bodies(CHECKPOINT) == [came]
    assert models(small_disk) == undisturbed
