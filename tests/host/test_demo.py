"""`make demo`, as it is called: the demo's trained model draws the map it is given, in the real host."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from layout import ROOT
from PIL import Image

PICTURES = ("legend", "hint", "prior_preview", "normal", "result", "sheet")


def demo(output: Path, *arguments: str) -> str:
    """What the command prints."""
    command = [sys.executable, str(ROOT / "scripts" / "demo.py"), "--output", str(output), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def agreement(said: str) -> float:
    return float(re.search(r"agrees with the label map on ([\d.]+)%", said).group(1))


def opened(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), dtype=np.float32)


def test_the_demo_draws_its_map(tmp_path):
    said = demo(tmp_path)
    assert all((tmp_path / f"{name}.png").is_file() for name in PICTURES)
    assert agreement(said) > 90
    assert opened(tmp_path / "result.png").shape == (128, 256, 3)
    assert np.abs(opened(tmp_path / "result.png") - opened(tmp_path / "normal.png")).mean() > 2


@pytest.mark.parametrize("palette", [None, "cityscapes"])
def test_a_map_of_the_users_own_of_any_size(tmp_path, palette):
    with Image.open(ROOT / "demo" / "maps" / "street-2.png") as image:
        image.resize((640, 360), Image.Resampling.NEAREST).save(tmp_path / "mine.png")
    said = demo(tmp_path / "out", "--seg", str(tmp_path / "mine.png"), *(["--palette", palette] if palette else []))
    assert agreement(said) > 88
    with Image.open(tmp_path / "mine.png") as mine:
        wanted = np.asarray(mine.resize((256, 128), Image.Resampling.NEAREST).convert("RGB"), np.float32)
    assert np.array_equal(opened(tmp_path / "out" / "hint.png"), wanted)


def test_a_map_of_another_data_set_says_that_stand_ins_cannot_draw(tmp_path):
    said = demo(tmp_path, "--palette", "ade20k")
    assert "never trained" in said
    assert opened(tmp_path / "result.png").std() > 5
