"""Make the archive that the Comfy Registry gets: `python scripts/make_archive.py [FILE.zip]` (default: node.zip).

By comfy-cli's own code, as `comfy node publish` does it, but of the tree as it stands: files not committed yet count,
files git ignores do not.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from layout import ROOT, HarnessError
from setup_tools import setup_tools

ZIP = """
import sys
from comfy_cli.file_utils import zip_files
from comfy_cli.registry.config_parser import extract_node_configuration
zip_files(sys.argv[1], includes=extract_node_configuration("pyproject.toml").tool_comfy.includes)
"""


def make_archive(target: Path, root: Path = ROOT) -> list[str]:
    """Write the archive and return the names in it. Raises HarnessError where comfy-cli or git fails."""
    python = setup_tools()
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name) / "pack"
        copy_tree(copy, root)
        run(["git", "init", "-q"], copy)
        run(["git", "add", "--all", "--force"], copy)
        run([str(python), "-c", ZIP, os.path.abspath(target)], copy)
    with zipfile.ZipFile(target) as archive:
        return archive.namelist()


def copy_tree(copy: Path, root: Path = ROOT) -> None:
    """Copy what git does not ignore, committed or not."""
    with tempfile.TemporaryDirectory() as empty:
        # With an empty repository everything is untracked, so that this works on an unpacked archive as well.
        git = ["git", f"--git-dir={empty}/git", f"--work-tree={root}"]
        run([*git, "init", "-q"], root)
        listed = run([*git, "ls-files", "-z", "--others", "--exclude-standard"], root)
    for file in filter(None, listed.split("\0")):
        # A linked folder, such as an environment kept elsewhere, is listed as if it were a file.
        if (root / file).is_file():
            (copy / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / file, copy / file)


def run(command: list[str], folder: Path) -> str:
    """Run a command without the user's git settings; return its output, or raise HarnessError with it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment = {**kept, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "PYTHONUTF8": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, encoding="utf-8")
    if done.returncode:
        raise HarnessError(f"{' '.join(command[:3])} failed.\n{done.stdout}\n{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    archive = Path(sys.argv[1]) if sys.argv[1:] else Path("node.zip")
    try:
        names = make_archive(archive)
    except HarnessError as error:
        sys.exit(str(error))
    print("\n".join(sorted(names)))
    print(f"{archive}: {len(names)} files, {archive.stat().st_size / 1000:.0f} kB")
