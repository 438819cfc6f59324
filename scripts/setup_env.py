"""Make the virtual environment of the tests and the demonstration: `python scripts/setup_env.py`.

Standard library only, any Python from 3.10 on. A second call is instant: a stamp holds the hash of the requirements.
An environment that already satisfies them is taken as it is. Where pip finds its packages is pip's own configuration.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

from layout import ROOT, VENV, HarnessError, venv_python

REQUIREMENTS = (ROOT / "scripts" / "host-requirements.txt", ROOT / "scripts" / "dev-requirements.txt")

# Runs inside the environment, with the parser pip itself carries. A local version ("2.13.0+cpu") satisfies its pin.
CHECK = """
import sys
from importlib.metadata import PackageNotFoundError, version
from pip._vendor.packaging.requirements import Requirement
for path in sys.argv[1:]:
    for line in open(path, encoding="utf-8"):
        line = line.split("#")[0].strip()
        if not line:
            continue
        need = Requirement(line)
        if need.marker and not need.marker.evaluate():
            continue
        try:
            have = version(need.name)
        except PackageNotFoundError:
            print(f"{need.name} is missing")
            continue
        if not need.specifier.contains(have, prereleases=True):
            print(f"{need.name} is {have}, wanted {need.specifier}")
"""


def fingerprint(files: tuple[Path, ...] = REQUIREMENTS) -> str:
    """Return the SHA-256 of the requirement files, which is what the stamp records."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def unmet(python: Path, files: tuple[Path, ...] = REQUIREMENTS) -> list[str]:
    """List what an environment lacks, one sentence each; empty when every requirement is satisfied."""
    done = subprocess.run([str(python), "-c", CHECK, *map(str, files)], capture_output=True, text=True)
    if done.returncode:
        return [f"the environment does not run: {done.stderr.strip()[-500:]}"]
    return done.stdout.splitlines()


def _run(command: list[str]) -> tuple[bool, str]:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode == 0, done.stdout


def pip_install(python: Path, *arguments: str) -> tuple[bool, str]:
    """Run `pip install` in an environment; return whether it worked, and its output."""
    return _run([str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *arguments])


def _torch_pin() -> str:
    lines = REQUIREMENTS[0].read_text(encoding="utf-8").splitlines()
    return next(line for line in lines if line.startswith("torch=="))


def create(venv: Path) -> None:
    """Make an empty virtual environment of the running Python. Raises HarnessError where that fails."""
    ok, output = _run([sys.executable, "-m", "venv", str(venv)])
    if not ok:
        raise HarnessError(
            f"{sys.executable} cannot make an environment in {venv} (on Debian: apt install python3-venv).\n{output}"
        )


def _install(python: Path) -> None:
    pin = _torch_pin()
    ok, output = pip_install(python, pin)
    if not ok:
        print(f"{pin} is not to be had here; taking the torch that pip offers.", flush=True)
        ok, output = pip_install(python, "torch")
    if not ok:
        raise HarnessError(f"pip could not install torch.\n{output}")
    # torch is settled by now, and its pin must not undo the fallback.
    wanted = [line for path in REQUIREMENTS for line in path.read_text(encoding="utf-8").splitlines()]
    rest = [line for line in wanted if line and not line.startswith(("#", "torch=="))]
    chosen = [line.replace(" ", "") for line in rest]
    ok, output = pip_install(python, *chosen)
    if not ok:
        raise HarnessError(f"pip could not install the requirements.\n{output}")


def setup_env(venv: Path = VENV, *, quiet: bool = False) -> Path:
    """Make sure the environment exists and satisfies the requirement files; return its interpreter.

    Raises HarnessError, with pip's output, when packages cannot be installed.
    """
    if sys.version_info < (3, 10):  # noqa: UP036 - the file is run by whatever python the machine has
        raise HarnessError(f"Python 3.10 or newer is needed, this is {sys.version.split()[0]}.")
    python, stamp, wanted = venv_python(venv), venv / "scp-requirements.sha256", fingerprint()
    if python.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    started = time.monotonic()
    if not python.exists():
        if not quiet:
            print(f"Making the environment {venv} (about 1.5 GB) ...", flush=True)
        create(venv)
    if unmet(python):
        _install(python)
        left = [line for line in unmet(python) if not line.startswith("torch is ")]
        if left:
            raise HarnessError("after pip install the environment still lacks: " + "; ".join(left))
    temporary = stamp.with_suffix(".tmp")
    temporary.write_text(wanted, encoding="utf-8")
    os.replace(temporary, stamp)
    if not quiet:
        print(f"The environment is ready ({time.monotonic() - started:.0f} s).", flush=True)
    return python


if __name__ == "__main__":
    try:
        setup_env()
    except HarnessError as error:
        sys.exit(str(error))
