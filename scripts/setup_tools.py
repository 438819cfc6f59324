"""Get the tools that install and publish packs, for the tests: `python scripts/setup_tools.py`.

The real comfy-cli and ComfyUI-Manager, in an environment of their own on top of the one of the tests: that one is
what ComfyUI's Python is to the Manager, and theirs must not change it. Standard library only; a second call is instant.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from layout import HOST, ROOT, HarnessError, venv_python
from setup_env import create, fingerprint, pip_install, setup_env, unmet

TOOLS = HOST / "tools"
REQUIREMENTS = (ROOT / "scripts" / "tool-requirements.txt",)


def setup_tools(tools: Path = TOOLS) -> Path:
    """Make sure the tools are there; return their interpreter.

    Raises HarnessError, with pip's output, when they cannot be installed.
    """
    below = setup_env()
    python, stamp, wanted = venv_python(tools), tools / "scp-requirements.sha256", fingerprint(REQUIREMENTS)
    if python.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    started = time.monotonic()
    print(f"Getting comfy-cli and ComfyUI-Manager into {tools} ...", flush=True)
    tools.parent.mkdir(exist_ok=True)
    if not python.exists():
        create(tools)
    (_packages(python) / "below.pth").write_text(f"{_packages(below)}\n", encoding="utf-8")
    ok, output = pip_install(python, *(word for path in REQUIREMENTS for word in ("-r", str(path))))
    left = unmet(python, REQUIREMENTS)
    if not ok or left:
        raise HarnessError(f"pip could not install the tools: {'; '.join(left)}\n{output}")
    temporary = stamp.with_suffix(".tmp")
    temporary.write_text(wanted, encoding="utf-8")
    os.replace(temporary, stamp)
    print(f"The tools are ready ({time.monotonic() - started:.0f} s).", flush=True)
    return python


def _packages(python: Path) -> Path:
    """Where an interpreter keeps its packages."""
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return Path(subprocess.run([str(python), "-c", code], check=True, capture_output=True, text=True).stdout.strip())


if __name__ == "__main__":
    try:
        setup_tools()
    except HarnessError as error:
        sys.exit(str(error))
