"""Where the harness keeps its things; shared by every script in this folder. Standard library only."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACK_FOLDER = "scp-diff"
VENV = ROOT / ".venv"
HOST = ROOT / ".host"
BASE = HOST / "base"
STUBS = HOST / "stubs"
DEMO_OUTPUT = ROOT / "demo-output"


class HarnessError(Exception):
    """The harness cannot go on; the message says what was expected and what to change."""


def venv_python(venv: Path = VENV) -> Path:
    """Return the interpreter inside a virtual environment."""
    return venv / "Scripts" / "python.exe" if os.name == "nt" else venv / "bin" / "python"


def host_python() -> Path:
    """Return the interpreter that runs the host: ours, unless COMFYUI_PYTHON names the user's own."""
    named = os.environ.get("COMFYUI_PYTHON")
    return Path(named).expanduser() if named else venv_python()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a name to write a file to; it is put at `path` whole at the end, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
