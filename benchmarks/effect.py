"""Does starting from a prior change the pictures? The demo's model, unseen label maps, the host's own sampler.

    python benchmarks/effect.py                                   # 256 maps; about an hour on two idle cores
    python benchmarks/effect.py --maps 8 --seeds 1 --work DIR     # a look

Prints the tables of docs/effect.md. It may be interrupted: the same command goes on where it was. Needs the demo's
weights, which the repository has; draws in batches, by KSampler with ddim and ddim_uniform, inside the host.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = ROOT / "demo" / "weights"
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import numpy as np  # noqa: E402
from effect_measures import Measured  # noqa: E402
from effect_plan import plan  # noqa: E402
from effect_report import figure, tables  # noqa: E402

_SOURCES = ("effect_run.py", "effect_plan.py")


def _digest(*words: object) -> str:
    """Of all that decides what is drawn, so that runs of other weights or code are never taken for these."""
    paths = [ROOT / "benchmarks" / name for name in _SOURCES] + [
        WEIGHTS / "SHA256SUMS",
        ROOT / "demo" / "demo_graph.py",
    ]
    content = b"".join(path.read_bytes() for path in paths) + repr(words).encode()
    return hashlib.sha256(content).hexdigest()[:12]


def read(path: Path) -> Measured:
    """What one run left."""
    with np.load(path) as stored:
        return Measured(*(stored[name] for name in Measured._fields))


def seconds(path: Path) -> float:
    """What one run took."""
    with np.load(path) as stored:
        return float(stored["seconds"])


def main() -> int:
    """Draw what is missing, then measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maps", type=int, default=256, help="label maps to draw")
    parser.add_argument("--real", type=int, default=1000, help="other scenes that Frechet distances are taken to")
    parser.add_argument("--seeds", type=int, default=3, help="of the main comparison")
    parser.add_argument("--fewer-seeds", type=int, default=2, help="where one factor is varied")
    parser.add_argument("--processes", type=int, default=2, help="of one thread each")
    parser.add_argument("--work", type=Path, default=ROOT / ".host" / "effect")
    parser.add_argument("--out", type=Path, help="write the tables here as well")
    parser.add_argument("--figure", type=Path, help="draw the main comparison here (needs matplotlib)")
    options = parser.parse_args()
    from in_host import run as run_in_host

    size = (options.maps, options.real)
    folder = options.work / _digest(size)
    folder.mkdir(parents=True, exist_ok=True)
    for other in options.work.iterdir():
        if other != folder and other.is_dir():
            shutil.rmtree(other)
    given = [str(folder.resolve()), str(WEIGHTS), *map(str, (*size, options.seeds, options.fewer_seeds))]
    shares = [[*given, f"{own}/{options.processes}"] for own in range(1, options.processes + 1)]
    draw = functools.partial(run_in_host, ROOT / "benchmarks" / "effect_run.py", timeout=6 * 3600, progress=True)
    with ThreadPoolExecutor(options.processes) as pool:
        list(pool.map(draw, shares))
    runs = {run: read(folder / f"{run.name}.npz") for run in plan(options.seeds, options.fewer_seeds)}
    references = {name: read(folder / f"{name}.npz") for name in ("real", "scenes", "decoded")}
    text, found = tables(runs, references)
    minutes = sum(seconds(folder / f"{run.name}.npz") for run in runs) / 60
    text += f"\n{options.maps} maps, {len(runs)} runs, {minutes:.0f} minutes of drawing on one core.\n"
    sys.stdout.write(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    if options.figure:
        figure(found, options.figure)
    (folder / "found.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
