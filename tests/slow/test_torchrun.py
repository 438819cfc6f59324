"""Several processes, started as torchrun does and by torchrun: one file, each photo once, and a lost process."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from reducing import PATIENCE, SIZE, StubEncoder, arguments, make_pairs, open_pairs
from safetensors import safe_open
from small_vae import write_small_vae

from scp_prior import load_statistics
from scp_prior.checkpoint import checkpoint_path
from scp_prior.reduce import Plan, reduce

ROOT = Path(__file__).resolve().parents[2]
# So that a sum in the VAE is not split otherwise with one thread than with two.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "SOURCE_DATE_EPOCH": "1700000000"}


@pytest.fixture
def words(root):
    return lambda out, *more: arguments(root, out, "--batch-size", 2, "--save-every", 2, "--workers", 0, *more)


@pytest.fixture
def ranks(start):
    """ranks(argv, world) -> children, as torchrun would start them; on the loopback only."""

    def ranks(argv: list[str], world: int = 2, **options):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world)}
        place["GLOO_SOCKET_IFNAME"] = "lo"
        return [start(argv, RANK=str(rank), LOCAL_RANK=str(rank), **place, **options) for rank in range(world)]

    return ranks


def log(out: Path, rank: int) -> str:
    return Path(f"{out}.{rank}.log").read_text(encoding="utf-8")


def same_statistics(one: Path, other: Path, tolerance: float) -> None:
    a, b = load_statistics(one), load_statistics(other)
    assert a.metadata == b.metadata
    left, right = a.tensors(), b.tensors()
    assert left.keys() == right.keys()
    for key in left:
        assert left[key].dtype == right[key].dtype
        assert left[key].shape == right[key].shape, key
        assert float((left[key].double() - right[key].double()).abs().max()) <= tolerance, key


def names(out: Path) -> list[str]:
    return sorted(path.name for path in out.parent.iterdir() if not path.name.endswith(".log"))


@pytest.mark.parametrize("world", [2, 3])
def test_processes_together_make_the_file_of_one(start, ranks, words, out, tmp_path, world):
    alone = tmp_path / "alone.safetensors"
    assert start(words(alone)).rest()[0] == 0
    ended = [child.rest() for child in ranks(words(out), world)]
    assert [code for code, _ in ended] == [0] * world
    assert sorted(number for _, seen in ended for number in seen) == list(range(30))
    assert all(len(seen) >= 30 // world - 2 for _, seen in ended)
    # Sums differ by 1e-12 at most; of what is left in float32, only a std near zero could show that.
    same_statistics(out, alone, 1e-6)
    assert names(out) == [out.name]
    assert [log(out, rank).count("images") for rank in range(world)] == [1] + [0] * (world - 1)


def test_sums_agree_to_1e_12(ranks, words, root, out):
    """Looked at before they become the float32 of a file."""
    whole = reduce(open_pairs(root), StubEncoder(), Plan(SIZE, 2)).collected.state()
    children = ranks(words(out), SUMS=str(out.parent / "sums"))
    assert [child.rest()[0] for child in children] == [0, 0]
    for rank in range(2):
        with safe_open(f"{out.parent / 'sums'}.{rank}", framework="pt") as file:
            summed = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        assert summed.keys() == whole.keys()
        for key in whole:
            assert summed[key].dtype == whole[key].dtype
            assert summed[key].shape == whole[key].shape, key
            worst = (summed[key].double() - whole[key].double()).abs() / whole[key].double().abs().clamp_min(1)
            assert not worst.numel() or float(worst.max()) <= 1e-12, key


def test_classes_and_skipped_pairs_of_every_process_are_in(ranks, start, out, tmp_path):
    """Class 200 is only in the photos of the first, 201 only in those of the second; so is a photo that is none."""
    root = make_pairs(tmp_path / "apart", 8)
    for number in range(8):
        Image.fromarray(np.full(SIZE, 200 + number // 2 % 2, np.uint8)).save(root / "labels" / f"{number:04}.png")
    (root / "images" / "0002.png").write_bytes(b"")
    flags = ("--batch-size", 2, "--workers", 0, "--on-error", "skip")
    children = ranks(arguments(root, out, *flags))
    assert [child.rest() for child in children] == [(0, [0, 1, 4, 5]), (0, [3, 6, 7])]
    made = load_statistics(out)
    assert made.class_ids.tolist() == [200, 201]
    assert made.tensors()["joint.count"].amax((1, 2)).tolist() == [4, 3]
    assert made.metadata["source"] == "all 8 pairs; 1 skipped"
    assert "left out: 1\n" in log(out, 0)
    assert "0002.png" in log(out, 0)
    alone = tmp_path / "alone.safetensors"
    assert start(arguments(root, alone, *flags)).rest()[0] == 0
    same_statistics(out, alone, 1e-6)


def test_nothing_readable_anywhere(ranks, out, tmp_path):
    root = make_pairs(tmp_path / "none", 4)
    for path in (root / "images").iterdir():
        path.write_bytes(b"")
    children = ranks(arguments(root, out, "--batch-size", 1, "--workers", 0, "--on-error", "skip", "--timeout", 30))
    assert [child.rest()[0] for child in children] == [1, 1]
    assert "error: Not one of the 4 pairs" in log(out, 0)
    assert not out.exists()
    assert all("Traceback" not in log(out, rank) for rank in range(2))


@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_process_is_reported_and_checkpoints_can_be_used(start, ranks, words, out, tmp_path, lost):
    alone = tmp_path / "alone.safetensors"
    assert start(words(alone)).rest()[0] == 0
    children = ranks(words(out, "--timeout", 10), patient=True)
    gone, left = children[lost], children[1 - lost]
    for child, batches in ((gone, 3), (left, 8 if lost else 7)):
        for _ in range(batches):
            assert child.hears()[0] == "encode"
            child.pipe.send("go on")
    assert gone.hears()[0] == "encode"
    gone.process.kill()
    assert gone.code() == -signal.SIGKILL
    code, seen = left.rest()
    assert code == 1
    words_of = log(out, 1 - lost)
    last = words_of.splitlines()[-1]
    assert last.startswith("error: Not every process came to the end within 10 s")
    assert "--resume" in last
    assert "Traceback" not in words_of
    assert not out.exists()
    assert all(checkpoint_path(out, rank, 2).exists() for rank in range(2))
    ended = [child.rest() for child in ranks(words(out, "--resume"))]
    assert [code for code, _ in ended] == [0, 0]
    # The one that was done does nothing again; of the lost one's photos, the batch that was under way.
    assert len(ended[1 - lost][1]) == 0
    again = ended[lost][1]
    assert len(again) == 30 - len(seen) - 6
    assert not set(again) & set(seen)
    same_statistics(out, alone, 1e-6)
    assert names(out) == [out.name]


@pytest.mark.parametrize("silent", [0, 1])
def test_a_process_that_falls_silent_is_reported_in_time(ranks, words, out, silent):
    """As one on a machine whose cable was pulled: nothing says that it is gone."""
    children = ranks(words(out, "--timeout", 3), patient=True)
    assert children[silent].hears()[0] == "encode"
    os.kill(children[silent].process.pid, signal.SIGSTOP)
    left = children[1 - silent]
    for _ in range(8 if silent else 7):
        assert left.hears()[0] == "encode"
        left.pipe.send("go on")
    began = time.monotonic()
    assert left.rest()[0] == 1
    assert 2 < time.monotonic() - began < 30
    last = log(out, 1 - silent).splitlines()[-1]
    assert last.startswith("error: Not every process came to the end within 3 s")
    if silent:
        assert re.search(r"\b1\b", last.split("(")[-1]), "which one"
    assert "Traceback" not in log(out, 1 - silent)
    assert checkpoint_path(out, 1 - silent, 2).exists()


def test_a_process_that_never_comes(start, words, out):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    child = start(
        words(out, "--timeout", 3), RANK="0", WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port, LOCAL_RANK="0"
    )
    code, seen = child.rest()
    assert code == 1
    assert seen == []
    assert "Traceback" not in log(out, 0)
    assert "error: The 2 processes did not find each other within 3 s" in log(out, 0).splitlines()[-1]


def test_interrupted_while_it_waits_for_the_other(ranks, words, out):
    first, second = ranks(words(out), patient=True)
    for _ in range(8):
        assert first.hears()[0] == "encode"
        first.pipe.send("go on")
    assert second.hears()[0] == "encode"
    # It waits for the second once its last checkpoint is there.
    os.kill(first.process.pid, signal.SIGTERM)
    code, seen = first.rest()
    assert code == 130
    assert len(seen) == 16
    assert "--resume" in log(out, 0).splitlines()[-1]
    assert "Traceback" not in log(out, 0)
    assert checkpoint_path(out, 0, 2).exists()
    assert not out.exists()


def test_a_full_disk_at_the_end_ends_every_process(ranks, words, out):
    """The folder vanishes before the first process writes the file."""
    children = ranks(words(out, "--timeout", 10), patient=True)
    for child, batches in zip(children, (8, 7), strict=True):
        for turn in range(batches):
            assert child.hears()[0] == "encode"
            if child is children[1] and turn == batches - 1:
                out.mkdir()
            child.pipe.send("go on")
    assert [child.rest()[0] for child in children] == [1, 1]
    assert "error: Cannot write" in log(out, 0).splitlines()[-1]
    assert "came to the saved file" in log(out, 1).splitlines()[-1]
    assert all(checkpoint_path(out, rank, 2).exists() for rank in range(2))


# --- torchrun itself, and a VAE of the real architecture ------------------------------------------------------------


@pytest.fixture(scope="module")
def vae(tmp_path_factory) -> Path:
    return write_small_vae(tmp_path_factory.mktemp("vae") / "small")


@pytest.fixture
def command(root, vae):
    def command(out: Path, *more: object) -> list[str]:
        made = arguments(root, out, "--batch-size", 2, "--workers", 0, "--save-every", 2, *more)
        made[made.index("--vae") + 1] = str(vae)
        return ["-m", "scp_prior", *made]

    return command


def torchrun(command: list[str], **options) -> subprocess.Popen[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1"]
    return subprocess.Popen(
        [sys.executable, *launcher, "--master-port", str(port), *command],
        cwd=ROOT,
        env={**os.environ, **ONE_THREAD, "GLOO_SOCKET_IFNAME": "lo", **options},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_torchrun_makes_the_file_of_one_process(command, out, tmp_path):
    alone = tmp_path / "alone.safetensors"
    single = subprocess.run(
        [sys.executable, *command(alone)], cwd=ROOT, env={**os.environ, **ONE_THREAD}, capture_output=True, text=True
    )
    assert single.returncode == 0, single.stderr
    both = torchrun(command(out))
    words, _ = both.communicate(timeout=PATIENCE)
    assert both.returncode == 0, words
    same_statistics(out, alone, 1e-6)
    assert names(out) == [out.name]


def test_torchrun_with_a_killed_process(start, words, out, tmp_path):
    alone = tmp_path / "alone.safetensors"
    assert start(words(alone)).rest()[0] == 0
    stub = [str(Path(__file__).with_name("stub_main.py"))]
    both = torchrun([*stub, *words(out, "--timeout", 20)], LOST_RANK="1", LOST_AT="4")
    said, _ = both.communicate(timeout=PATIENCE)
    assert both.returncode != 0
    assert re.search(r"Signal 9 \(SIGKILL\)|exitcode *: -9", said)
    assert "--resume" in log(out, 0).splitlines()[-1]
    assert "Traceback" not in log(out, 0)
    assert not out.exists()
    assert all(checkpoint_path(out, rank, 2).exists() for rank in range(2))
    again = torchrun([*stub, *words(out, "--resume")])
    said, _ = again.communicate(timeout=PATIENCE)
    assert again.returncode == 0, said
    same_statistics(out, alone, 1e-6)
    assert names(out) == [out.name]
