"""What a file is that has another kind's ending."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save

from scp_prior import SCPError, load_statistics
from scp_prior.lookalikes import lookalike


def numpy_file() -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros(3))
    return file.getvalue()


def zip_file() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a", "b")
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (numpy_file(), r"a NumPy file.*\.npy.*SCP Convert Statistics"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "only a pointer"),
        (zip_file(), "torch checkpoint"),
        (b"\x80\x04\x95.", "a pickle"),
        (b"\n <!DOCTYPE html><html><body>Sign in</body></html>", "web page"),
        (b"<HTML>", "web page"),
        ("die Statistik liegt drüben\n".encode(), "a text file"),
        (("ü" * 256 + "x").encode(), "a text file"),
        (b"x" + "ü".encode() * 400, "a text file"),  # the 512 bytes looked at end within a letter
        (b"", "is empty"),
    ],
)
def test_the_message_says_what_the_file_is(tmp_path, content, words):
    path = tmp_path / "other.safetensors"
    path.write_bytes(content)
    with pytest.raises(SCPError, match=words) as raised:
        load_statistics(path)
    assert str(raised.value).startswith("other.safetensors cannot be read as a safetensors file: ")


@pytest.mark.parametrize("cut", [4, 9, 60, -1])
def test_a_cut_safetensors_file_is_not_taken_for_something_else(tmp_path, cut):
    path = tmp_path / "cut.safetensors"
    path.write_bytes(save({"a": torch.zeros(64)})[:cut])
    assert lookalike(path) is None
    with pytest.raises(SCPError, match="cut short"):
        load_statistics(path)


def test_a_file_that_is_gone_tells_nothing(tmp_path):
    assert lookalike(tmp_path / "none") is None
