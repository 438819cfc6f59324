"""Find a browser for the tests of the page: `python scripts/setup_browser.py`.

Standard library only. Any Chromium will do, and the variable SCP_BROWSER names one of the user's own. On Debian and its
kin, as root, the distribution's own package is installed; a browser is never downloaded from anywhere else.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from layout import HarnessError

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")
# The fonts are for looking at screenshots of the Chinese and the Japanese page.
PACKAGES = ("chromium", "fonts-noto-cjk")


def named_browser() -> Path | None:
    """Return the browser that SCP_BROWSER names, or None where the variable is not set.

    Raises HarnessError when it names no file.
    """
    named = os.environ.get("SCP_BROWSER")
    if not named:
        return None
    path = Path(named).expanduser()
    if not path.is_file():
        raise HarnessError(f"SCP_BROWSER names {path}, which is no file. Name the program of a Chromium or Chrome.")
    return path


def find_browser() -> Path | None:
    """Return the browser to drive, or None where there is none."""
    found = (shutil.which(name) for name in NAMES)
    return named_browser() or next((Path(path) for path in found if path), None)


def _install() -> None:
    apt = shutil.which("apt-get")
    if apt is None or not hasattr(os, "geteuid") or os.geteuid() != 0:
        raise HarnessError(
            "The tests of the page need Chromium or Chrome. Install one (on Debian: apt install chromium), "
            "or name its program in SCP_BROWSER."
        )
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    # Another apt may be at work, and is waited for.
    options = ["-q", "-y", "-o", "DPkg::Lock::Timeout=300", "--no-install-recommends"]
    for command in (["update", "-q"], ["install", *options, *PACKAGES]):
        done = subprocess.run(
            [apt, *command], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if done.returncode:
            raise HarnessError(f"apt-get {command[0]} failed; is this machine offline?\n{done.stdout[-2000:]}")


def setup_browser() -> Path:
    """Make sure a browser is there; return its program.

    Raises HarnessError, saying what to install, where it cannot be had.
    """
    browser = find_browser()
    if browser is not None:
        return browser
    print(f"Getting {PACKAGES[0]} from the distribution ...", flush=True)
    _install()
    browser = find_browser()
    if browser is None:
        raise HarnessError(f"apt-get installed {PACKAGES[0]}, but there is no program named {', '.join(NAMES)}.")
    return browser


if __name__ == "__main__":
    try:
        print(setup_browser())
    except HarnessError as error:
        sys.exit(str(error))
