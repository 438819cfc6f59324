from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import one_thread  # noqa: F401
import pytest

DEMO = Path(__file__).resolve().parents[2] / "demo"


@pytest.fixture(scope="module")
def demo_on_path() -> Iterator[None]:
    """The demo's own modules can be imported, as its scripts import each other."""
    sys.path.append(str(DEMO))
    yield
    sys.path.remove(str(DEMO))
