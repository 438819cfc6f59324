"""Ours against a restatement of the authors' algorithm, both in one run, on a cityscapes-size set of statistics.

    python benchmarks/prior.py

Prints the ratios that matter and the milliseconds of this machine, then what the pack costs inside the host. Rounds of
ours and theirs alternate, and medians are compared, so that a busy machine slows both.
"""

from __future__ import annotations

import argparse
import json
import statistics as stats
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import authors  # noqa: E402
import in_host  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

from scp_prior import Collector, convert_release, load_statistics, prior_maps, sample_prior, save_statistics  # noqa: E402
from scp_prior.schedule import ddpm_sigmas  # noqa: E402

CLASSES = [*range(19), 255]
LATENT = (64, 128)


def street(seed: int = 0) -> np.ndarray:
    """A 512x1024 label map with the shape of a street: bands and boxes of a dozen classes."""
    rng = np.random.default_rng(seed)
    label = np.full((512, 1024), 2, np.uint8)
    label[:180] = 10
    label[330:] = 0
    for k in (1, 5, 7, 8, 9, 11, 13, 18, 255):
        for _ in range(6):
            y, x = rng.integers(120, 460), rng.integers(0, 960)
            label[y : y + rng.integers(16, 90), x : x + rng.integers(16, 140)] = k
    return label


def versus(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Median milliseconds of each, measured in turn."""
    times: tuple[list[float], list[float]] = ([], [])
    for call in (ours, theirs):
        call()
    for _ in range(rounds):
        for call, into in zip((ours, theirs), times, strict=True):
            start = time.perf_counter()
            call()
            into.append(1e3 * (time.perf_counter() - start))
    return stats.median(times[0]), stats.median(times[1])


def peak_of(child: str, *arguments: str) -> float:
    """Peak resident memory, in MB over its start, of one half of this file run in a process of its own."""
    command = [sys.executable, __file__, "--child", child, *arguments]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def run_child(child: str, arguments: list[str]) -> None:
    """Load statistics and draw the first prior; print how far the peak rose."""
    torch.set_num_threads(1)
    label = street()
    labels = torch.from_numpy(label).long()[None]
    torch.randn(4).std()
    before = resident("VmRSS")
    # Forget the peak of importing torch, which is far above what is resident now.
    Path("/proc/self/clear_refs").write_text("5")
    if child == "ours":
        sample_prior(prior_maps(load_statistics(arguments[0]), labels, "joint"), 1)
    else:
        prior = authors.load(dict(zip(("categorical", "spatial", "spatial_class"), map(Path, arguments), strict=True)))
        authors.sample(prior, label, 0.04)
    print(json.dumps((resident("VmHWM") - before) / 1024))


def resident(field: str) -> int:
    """kB of a field of Linux's own account of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def write_learned(path: Path) -> None:
    """A file as `reduce` makes them: the same classes and size, with a target and scene effects."""
    g = torch.Generator().manual_seed(0)
    collector = Collector(4, LATENT)
    for seed in range(40):
        label = torch.from_numpy(street(seed)[4::8, 4::8].astype(np.int64))[None]
        collector.add(torch.randn(1, 4, *LATENT, generator=g) + torch.randn(1, 4, 1, 1, generator=g), label)
    save_statistics(collector.statistics(dataset="cityscapes"), path)


def added(what: str, learned: Callable[[], object], plain: Callable[[], object], rounds: int) -> None:
    """One line of the second table: what scene effects and the learned target cost."""
    with_them, without = versus(learned, plain, rounds)
    print(f"{what:34s} {without:9.2f} ms  {with_them:9.2f} ms  {with_them - without:+7.2f} ms   at most +1 ms")


def row(what: str, ours: float, theirs: float, goal: str, unit: str = "ms") -> None:
    """One line of the table."""
    print(f"{what:34s} {theirs:9.2f} {unit:3s} {ours:9.2f} {unit:3s} {theirs / ours:7.1f}x   {goal}")


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    label = street()
    labels = torch.from_numpy(label).long()[None]
    alpha_bar = float(1 / (1 + ddpm_sigmas()[799] ** 2))
    print(f"{len(np.unique(label))} classes in a {label.shape[1]}x{label.shape[0]} label map; 1 thread\n")
    print(f"{'':34s} {'authors':>13s} {'ours':>13s} {'ratio':>8s}   goal")
    with tempfile.TemporaryDirectory() as folder:
        paths = authors.write_release(Path(folder), LATENT, CLASSES)
        ours = Path(folder) / "ours.safetensors"
        save_statistics(
            convert_release(paths["categorical"], paths["spatial"], paths["spatial_class"], dataset="cityscapes"), ours
        )

        def first() -> None:
            sample_prior(prior_maps(load_statistics(ours), labels, "joint"), 1)

        row(
            "load + first prior", *versus(first, lambda: authors.sample(authors.load(paths), label, alpha_bar), 9), "7x"
        )

        opened, prior = load_statistics(ours), authors.load(paths)
        for method in ("joint", "joint-spatial"):
            times = versus(
                lambda m=method: prior_maps(opened, labels, m), lambda: authors.joint_maps(prior, label), 200
            )
            row(f"mean and std maps ({method})", *times, "2.5x")

        def start() -> torch.Tensor:
            z = sample_prior(prior_maps(opened, labels, "joint"), 1)
            return z + 5.1 * torch.randn_like(z)

        row("prior sample, batch 1, noised", *versus(start, lambda: authors.sample(prior, label, alpha_bar), 200), "2x")
        if not Path("/proc/self/clear_refs").exists():
            print("peak memory: measured on Linux only")
            return
        files = [str(paths[part]) for part in ("categorical", "spatial", "spatial_class")]
        row("peak memory over start", peak_of("ours", str(ours)), peak_of("theirs", *files), "ours <= 25 MB", "MB")
        sizes = ours.stat().st_size / 1e6, sum(path.stat().st_size for path in paths.values()) / 1e6
        row("files", *sizes, "", "MB")

        print(f"\n{'':34s} {'released file':>13s} {'our reduction':>13s} {'added':>9s}   goal")
        learned = Path(folder) / "learned.safetensors"
        write_learned(learned)
        files, known = (learned, ours), (load_statistics(learned), opened)

        def first_of(path: Path) -> torch.Tensor:
            return sample_prior(prior_maps(load_statistics(path), labels, "joint"), 1)

        added("load + first prior", *(lambda path=path: first_of(path) for path in files), 25)
        added("mean and std maps (joint)", *(lambda s=s: prior_maps(s, labels) for s in known), 200)
        maps = [prior_maps(s, labels) for s in known]
        added("prior sample, batch 1", *(lambda m=m: sample_prior(m, 1) for m in maps), 200)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("files", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        run_child(options.child, options.files)
    else:
        main()
        print()
        in_host.main()
