from __future__ import annotations

import os
import sys

import pytest
import torch
from safetensors import safe_open

from scp_prior import SCPError
from scp_prior.files import atomic_write, write_safetensors


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
