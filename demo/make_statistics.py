"""Make the demo's statistics file: generated scenes, the demo's autoencoder, our own `reduce`.

    python demo/make_statistics.py [--count 3000] [--out FILE]

The scenes are the first of those the model was trained on, written as pictures and colour maps to a temporary folder
and read from there like any user's own photos.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from export import VAE, WEIGHTS, write_sums
from PIL import Image
from scenes import COLOURS, HEIGHT, WIDTH, scene

ROOT = Path(__file__).resolve().parent.parent
STATISTICS = "scp-demo-statistics.safetensors"
COUNT = 3000


def write_pairs(folder: Path, first: int, count: int, seed: int) -> None:
    """Write scenes as `images/NNNNNN.png` and `labels/NNNNNN.png`, the labels in Cityscapes' colours."""
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for index in range(first, first + count):
        one = scene(index, seed)
        Image.fromarray(one.picture).save(folder / "images" / f"{index:06d}.png", compress_level=1)
        Image.fromarray(COLOURS[one.labels]).save(folder / "labels" / f"{index:06d}.png", compress_level=1)


def make_statistics(vae: Path, out: Path, *, count: int = COUNT, seed: int = 0) -> None:
    """Reduce `count` scenes of a seed through an autoencoder into the statistics file `out`, replacing what is there.

    Raises subprocess.CalledProcessError when `reduce` fails; it has said why.
    """
    processes = os.cpu_count() or 1
    with tempfile.TemporaryDirectory(prefix="scp-demo-") as name:
        folder, share = Path(name), -(-count // processes)
        with ProcessPoolExecutor(processes) as pool:
            jobs = [
                pool.submit(write_pairs, folder, first, min(share, count - first), seed)
                for first in range(0, count, share)
            ]
            for job in jobs:
                job.result()
        made = folder / STATISTICS
        command = [sys.executable, "-m", "scp_prior", "reduce", "--dataset", "folder", "--palette", "cityscapes"]
        command += ["--images", str(folder / "images"), "--labels", str(folder / "labels"), "--vae", str(vae)]
        command += ["--size", f"{HEIGHT}x{WIDTH}", "--batch-size", "8", "--device", "cpu", "--out", str(made)]
        subprocess.run(command, cwd=ROOT, check=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        os.replace(made, out) if made.stat().st_dev == out.parent.stat().st_dev else out.write_bytes(made.read_bytes())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=COUNT, help="scenes to reduce")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=WEIGHTS / STATISTICS)
    chosen = parser.parse_args()
    make_statistics(WEIGHTS / VAE, chosen.out, count=chosen.count, seed=chosen.seed)
    if chosen.out.parent == WEIGHTS:
        write_sums(WEIGHTS)
