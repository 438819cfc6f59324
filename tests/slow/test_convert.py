"""A conversion that is killed, that meets a full disk, or that is given a bomb."""

from __future__ import annotations

import contextlib
import errno
import random
import signal
import struct
import subprocess
from pathlib import Path

import pytest
import torch
from converting import convert_in_child, open_in_child
from reducing import PATIENCE
from safetensors.torch import load_file
from small_checkpoint import lightning, small_state, write_archive

from scp_prior.errors import SCPError
from scp_prior.weights import convert_weights

# What the host lists in a models folder.
LISTED = (".ckpt", ".pt", ".pt2", ".bin", ".pth", ".safetensors", ".pkl", ".sft")
KILLS = 8


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A checkpoint of many small tensors and some of several blocks, 70 MB."""
    state = small_state()
    g = torch.Generator().manual_seed(1)
    for i in range(40):
        state[f"control_model.input_blocks.{i}.weight"] = torch.randn(64, 257, generator=g)
        state[f"model.diffusion_model.input_blocks.{i}.0.weight"] = torch.randn(100, 100, generator=g)
    state["cond_stage_model.model.token_embedding.weight"] = torch.randn(5000, 1024, generator=g)
    state["control_model.middle_block.weight"] = torch.randn(2500, 1024, generator=g)
    path = tmp_path_factory.mktemp("source") / "set.ckpt"
    torch.save(lightning(state), path)
    return path


@pytest.fixture(scope="module")
def whole(source, tmp_path_factory) -> dict[str, bytes]:
    """The files of a run that nothing disturbs."""
    out = tmp_path_factory.mktemp("whole")
    convert_weights(source, out, out)
    return {path.name: path.read_bytes() for path in out.iterdir()}


def test_killed_at_random_moments(server, source, whole, tmp_path):
    """Whatever a loader can see is whole, and one more run finishes and clears up."""
    rng, kills, seen_half = random.Random(20240502), 0, False
    while kills < KILLS:
        if {path.name for path in tmp_path.iterdir()} >= whole.keys():
            # Where both are there, there is nothing to do.
            rng.choice([path for path in tmp_path.iterdir() if path.name in whole]).unlink()
        ours, theirs = server.Pipe()
        child = server.Process(target=convert_in_child, args=(source, tmp_path, theirs))
        child.start()
        theirs.close()
        try:
            for _ in range(rng.randint(1, 110)):
                assert ours.poll(PATIENCE), "the process hangs"
                ours.recv()
            # Anywhere within the few milliseconds of a block, of a sync, or of a rename.
            ours.poll(rng.choice((0, 0.0005, 0.002)))
        except EOFError:
            pass
        finally:
            child.kill()
            child.join(PATIENCE)
            ours.close()
        kills += child.exitcode == -signal.SIGKILL
        listed = [path for path in tmp_path.iterdir() if path.suffix in LISTED]
        seen_half |= len(listed) < len(list(tmp_path.iterdir()))
        for path in listed:
            assert path.read_bytes() == whole[path.name]
    assert seen_half
    convert_weights(source, tmp_path, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == whole


@pytest.fixture
def small_disk(tmp_path):
    """disk(size) -> a disk of its own."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(size: str) -> Path:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], check=False)
        if mounted.returncode:
            pytest.skip("a small disk can only be mounted by root")
        return place

    yield mount
    subprocess.run(["umount", "-l", str(place)], capture_output=True, check=False)


def test_too_small_a_disk(small_disk, source):
    disk = small_disk("15m")
    with pytest.raises(SCPError, match=r"needs 17\.\d MB in .*disk, where 15\.7 MB are free"):
        convert_weights(source, disk, disk)
    assert list(disk.iterdir()) == []


def test_a_disk_that_fills_up_meanwhile(small_disk, source, whole):
    disk = small_disk("60m")
    (disk / "precious.safetensors").write_bytes(b"precious")

    def fill(done: int, total: int) -> None:
        if done > total // 2:
            with contextlib.suppress(OSError), (disk / "ballast").open("ab", buffering=0) as file:
                while True:
                    file.write(bytes(4096))

    with pytest.raises(SCPError, match="Cannot write .*: No space left on device") as caught:
        convert_weights(source, disk, disk, progress=fill)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC
    assert [path.name for path in disk.iterdir() if path.name.startswith(".")] == []
    listed = {path.name for path in disk.iterdir()} - {"ballast", "precious.safetensors"}
    assert all((disk / name).read_bytes() == whole[name] for name in listed)
    (disk / "ballast").unlink()
    convert_weights(source, disk, disk)
    assert load_file(disk / "set_checkpoint.safetensors").keys()
    assert (disk / "precious.safetensors").read_bytes() == b"precious"


def test_bombs_in_little_memory(server, tmp_path):
    """With 256 MB to spare: whatever a file announces, nothing of that size is asked for."""
    programs = {
        "text": b"\x80\x02X\xff\xff\xff\x7f.",
        "bytes": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b".",
        "memo": b"\x80\x02Nr\xff\xff\xff\xff.",
        "laughs": b"\x80\x02]q\x00" + b"".join(b"](h%ch%ce\x94" % (i, i) for i in range(200)) + b".",
        "tuples": b"\x80\x02)" + b"\x85" * 900_000 + b".",
        "dictionaries": b"\x80\x02](" + b"}" * 90_000 + b"e" + b".",
        "stack": b"\x80\x02" + b"N" * 10_000_000 + b".",
        "pickle": bytes(40 << 20),
    }
    paths = []
    for name, program in programs.items():
        paths.append(tmp_path / f"{name}.pt")
        write_archive(paths[-1], program)
    content = paths[0].read_bytes()
    for name, end in {
        "directory": content[:-10] + b"\xff\xff\xff\x7f" + content[-6:],
        "records": content[:-12] + b"\xff\xff" + content[-10:],
    }.items():
        paths.append(tmp_path / f"{name}.pt")
        paths[-1].write_bytes(end)
    ours, theirs = server.Pipe()
    child = server.Process(target=open_in_child, args=(paths, 256 << 20, theirs))
    child.start()
    theirs.close()
    try:
        assert ours.poll(PATIENCE)
        said = ours.recv()
    finally:
        child.kill()
        child.join()
    assert len(said) == len(paths)
    assert all(f"{path.name}" in line and "!" not in line for path, line in zip(paths, said, strict=True)), said
