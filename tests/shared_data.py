"""Where real photos, label maps and recorded reference outputs lie, for the tests that need them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_DEFAULT = Path(__file__).resolve().parents[2] / "shared"
ROOT = Path(os.environ.get("SCP_TEST_DATA", _DEFAULT))


def require(relative: str) -> Path:
    """Path of a file or folder of the test data; skips the test where it is not to be had."""
    path = ROOT / relative
    if not path.exists():
        pytest.skip(f"test data {relative} is not here (set SCP_TEST_DATA)")
    return path
