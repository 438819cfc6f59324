from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from scp_prior import SCPError, files
from scp_prior.files import atomic_write, remove_leftovers, write_safetensors

ROOT = Path(__file__).resolve().parents[2]


def test_a_failure_leaves_what_was_there_and_no_litter(tmp_path):
    target = tmp_path / "a.bin"
    target.write_bytes(b"before")
    with pytest.raises(RuntimeError), atomic_write(target) as temporary:  # noqa: PT012
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert target.read_bytes() == b"before"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_success_replaces(tmp_path):
    target = tmp_path / "a.bin"
    target.write_bytes(b"before")
    with atomic_write(target) as temporary:
        assert target.read_bytes() == b"before"
        temporary.write_bytes(b"after")
    assert target.read_bytes() == b"after"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


@pytest.mark.skipif(sys.platform == "win32", reason="file modes")
def test_the_file_is_as_public_as_any_other(tmp_path):
    mask = os.umask(0o022)
    try:
        with atomic_write(tmp_path / "a.bin") as temporary:
            temporary.write_bytes(b"x")
    finally:
        os.umask(mask)
    assert (tmp_path / "a.bin").stat().st_mode & 0o777 == 0o644


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(SCPError, match="nowhere"), atomic_write(tmp_path / "nowhere" / "a.bin"):
        pass


def test_a_full_disk_is_an_error_of_ours(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    (tmp_path / "a.bin").write_bytes(b"before")
    with pytest.raises(SCPError, match="No space"), atomic_write(tmp_path / "a.bin"), open("/dev/full", "wb", 0) as f:
        f.write(b"x")
    assert (tmp_path / "a.bin").read_bytes() == b"before"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_in_use_is_told_as_that(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Access is denied")

    monkeypatch.setattr(files.os, "replace", refuse)
    held = r"Access is denied\. If a program has it open, such as ComfyUI, close"
    with pytest.raises(SCPError, match=held), atomic_write(tmp_path / "a.bin"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_another_run_is_writing_is_no_leftover(tmp_path):
    target = tmp_path / "a.bin"
    call = f"remove_leftovers(Path({str(target)!r}))"
    clear = f"from pathlib import Path; from scp_prior.files import remove_leftovers; {call}"
    with atomic_write(target) as temporary:
        temporary.write_bytes(b"whole")
        subprocess.run([sys.executable, "-c", clear], cwd=ROOT, check=True)
    assert target.read_bytes() == b"whole"
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_leftovers_that_cannot_be_removed_are_left(tmp_path):
    (tmp_path / ".a.bin.1.part").mkdir()  # on Windows it would be a file that another process writes
    (tmp_path / ".a.bin.2.part").write_bytes(b"half")
    (tmp_path / ".ab.bin.2.part").write_bytes(b"of another")
    remove_leftovers(tmp_path / "a.bin")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a.bin.1.part", ".ab.bin.2.part"]


def test_equal_content_is_equal_bytes(tmp_path):
    """safetensors itself writes metadata in another order each time."""
    tensors = {"b": torch.arange(5), "a": torch.ones(2, 3)}
    metadata = {f"key {i}": f'välue "{i}" \n' for i in range(20)}
    written = []
    for i in range(5):
        write_safetensors(tmp_path / f"{i}.safetensors", tensors, metadata)
        written.append((tmp_path / f"{i}.safetensors").read_bytes())
    assert len(set(written)) == 1
    with safe_open(tmp_path / "0.safetensors", framework="pt") as file:
        assert file.metadata() == metadata
        assert torch.equal(file.get_tensor("a"), tensors["a"])
        assert torch.equal(file.get_tensor("b"), tensors["b"])
