"""The effect benchmark from end to end, on a few maps: every start is drawn in the host, measured and reported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.effect_plan import STARTS, plan

ROOT = Path(__file__).resolve().parents[2]
MAPS = 4
ARGUMENTS = ["--maps", str(MAPS), "--real", "12", "--seeds", "2", "--fewer-seeds", "1", "--processes", "2"]


def run(work: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / "effect.py"), *ARGUMENTS, "--work", str(work), *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> tuple[Path, str]:
    """The folder of a whole run, and what it printed."""
    work = tmp_path_factory.mktemp("effect")
    return work, run(work, "--figure", str(work / "figure.png")).stdout


def test_every_start_has_a_row_and_every_setting_a_table(first):
    work, text = first
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|")]
    assert set(STARTS) <= set(rows)
    assert text.count("\n## ") == 2 + 4
    (folder,) = [path for path in work.iterdir() if path.is_dir()]
    found = json.loads((folder / "found.json").read_text(encoding="utf-8"))
    assert list(found) == list(STARTS)
    # Trained pictures of unseen maps: a judge that never saw them finds most of each map.
    assert all(row["accuracy"]["value"] > 0.85 for row in found.values())
    assert (work / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_drawn_is_kept_and_the_same_again(first):
    work, text = first
    (folder,) = [path for path in work.iterdir() if path.is_dir()]
    runs = {folder / f"{run.name}.npz" for run in plan(2, 1)}
    assert runs == set(folder.glob("*-s*.npz"))
    removed = sorted(runs)[0]
    before = {path: path.stat().st_mtime_ns for path in runs}
    removed.unlink()
    again = run(work).stdout
    assert again.splitlines()[:-1] == text.splitlines()[:-1]  # all but how long it took
    assert {path for path in runs if path.stat().st_mtime_ns != before[path]} == {removed}
