"""For tests of the reducer: small pictures, an encoder that takes no time, and statistics made the slow way."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from scp_prior.datasets import Dataset, open_dataset
from scp_prior.loader import Loading
from scp_prior.reduce import Plan, Saving, finish, reduce
from scp_prior.statistics import Statistics, save_statistics

SIZE = (32, 48)
GRID = (4, 6)
PATIENCE = 120
"""Seconds to wait for another process: nothing takes this long unless it hangs."""
MATRIX = ((1.5, -0.5, 0.25), (-2.0, 0.5, 1.0), (0.125, 3.0, -1.0), (0.75, -0.25, -2.5))


class StubEncoder:
    """A fixed linear map of each cell's mean colour, with a variance, like a VAE's in everything but time.

    One product and one sum at a time, so that no batch size changes a bit. `seen` has the number of each photo encoded,
    in order; `before` is called with how many batches came before.
    """

    channels = 4
    device = torch.device("cpu")

    def __init__(self, downscale: int = 8, name: str = "stub.safetensors sha256:0123456789ab"):
        self.downscale, self.name, self.dtype = downscale, name, torch.float32
        self.seen: list[int] = []
        self.before: Callable[[int], None] = lambda batches: None
        self.batches = 0

    def encode(self, photos: Tensor) -> tuple[Tensor, Tensor]:
        self.before(self.batches)
        self.batches += 1
        self.seen += numbers_of(photos)
        red, green, blue = torch.nn.functional.avg_pool2d(photos, self.downscale).unbind(1)
        mean = torch.stack([r * red + g * green + b * blue for r, g, b in MATRIX], dim=1)
        variance = torch.stack([0.01 * (c + 1) + 0.2 * green * green for c in range(4)], dim=1)
        return mean, variance


def numbers_of(photos: Tensor) -> list[int]:
    """The number `make_pairs` wrote into the first pixel of each photo."""
    high, low = ((photos[:, c, 0, 0] + 1) * 127.5 for c in (0, 1))
    return (high.round() * 256 + low.round()).int().tolist()


def make_pairs(root: Path, count: int = 20, size: tuple[int, int] = SIZE, ids: Sequence[int] = (9, 4, 255, 0)) -> Path:
    """Photos and id maps; classes come in an order that is not theirs, and some in few pictures."""
    (root / "images").mkdir(parents=True)
    (root / "labels").mkdir()
    for number in range(count):
        make_pair(root, number, size, ids)
    return root


def make_pair(root: Path, number: int, size: tuple[int, int] = SIZE, ids: Sequence[int] = (9, 4, 255, 0)) -> None:
    rng = np.random.default_rng(number)
    # Colours of cells, and noise: pooled noise alone would be the same grey everywhere.
    coarse = rng.integers(0, 200, (size[0] // 8, size[1] // 8, 3)).repeat(8, 0).repeat(8, 1)
    photo = (coarse + rng.integers(0, 56, (*size, 3))).astype(np.uint8)
    photo[0, 0] = number // 256, number % 256, 0
    chosen = ids[: 2 + number % max(len(ids) - 1, 1)]
    label = rng.choice(np.array([*chosen, 100 + number % 7], np.uint8), (size[0] // 4, size[1] // 4))
    Image.fromarray(photo).save(root / "images" / f"{number:04}.png")
    Image.fromarray(label.repeat(4, 0).repeat(4, 1)).save(root / "labels" / f"{number:04}.png")


def open_pairs(root: Path, **options) -> Dataset:
    return open_dataset("folder", images=root / "images", labels=root / "labels", **options)


def run(dataset: Dataset, plan: Plan, encoder=None, **options) -> Statistics:
    """A whole reduction in memory."""
    encoder = encoder or StubEncoder()
    return finish(reduce(dataset, encoder, plan, **options), dataset, encoder, plan)


def save_run(path: Path, dataset: Dataset, plan: Plan, encoder=None, **options) -> bytes:
    """A whole reduction into a file; its bytes."""
    save_statistics(run(dataset, plan, encoder, **options), path)
    return path.read_bytes()


def two_pass(root: Path, names: Sequence[str], grid: tuple[int, int] = GRID) -> dict[str, np.ndarray | list[int]]:
    """Everything a file holds, in float64: values are collected, then averaged, then their deviations.

    Reads the pictures itself; they must have the size of the plan.
    """
    latents, variances, labels = [], [], []
    for name in names:
        photo = np.asarray(Image.open(root / "images" / f"{name}.png"))
        label = np.asarray(Image.open(root / "labels" / f"{name}.png"))
        photos = torch.from_numpy(photo.copy()).permute(2, 0, 1)[None] / 127.5 - 1
        mean, variance = StubEncoder(photo.shape[0] // grid[0]).encode(photos)
        latents.append(mean[0].double().numpy())
        variances.append(variance[0].double().numpy())
        rows, columns = (np.arange(n) * full // n for n, full in zip(grid, label.shape, strict=True))
        labels.append(label[np.ix_(rows, columns)])
    z, v, k = np.stack(latents), np.stack(variances), np.stack(labels)
    ids = sorted(set(k.ravel().tolist()))
    made: dict[str, list] = {key: [] for key in ("jc", "jm", "js", "cc", "cm", "cs", "cov")}
    for class_id in ids:
        here = k == class_id
        cells = [_moments(z[here[:, y, x], :, y, x], v[here[:, y, x], :, y, x]) for y, x in np.ndindex(grid)]
        at = np.argwhere(here)
        whole = _moments(*(np.stack([part[i, :, y, x] for i, y, x in at]) for part in (z, v)))
        made["jc"].append(here.sum(0))
        made["jm"].append(np.stack([mean for mean, _ in cells], 1).reshape(4, *grid))
        made["js"].append(np.stack([np.sqrt(np.diag(c)) for _, c in cells], 1).reshape(4, *grid))
        made["cc"].append(here.sum())
        made["cm"].append(whole[0])
        made["cs"].append(np.sqrt(np.diag(whole[1])))
        made["cov"].append(whole[1])
    spatial = [_moments(z[:, :, y, x], v[:, :, y, x]) for y, x in np.ndindex(grid)]
    return {
        "class_ids": np.array(ids),
        **{
            key: np.stack(made[short])
            for key, short in {
                "joint.count": "jc",
                "joint.mean": "jm",
                "joint.std": "js",
                "class.count": "cc",
                "class.mean": "cm",
                "class.std": "cs",
                "class.covariance": "cov",
            }.items()
        },
        "spatial.mean": np.stack([mean for mean, _ in spatial], 1).reshape(4, *grid),
        "spatial.std": np.stack([np.sqrt(np.diag(c)) for _, c in spatial], 1).reshape(4, *grid),
    }


def _moments(values: np.ndarray, spreads: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if not len(values):
        return np.zeros(4), np.zeros((4, 4))
    mean = values.sum(0) / len(values)
    deviations = values - mean
    return mean, (deviations.T @ deviations + np.diag(spreads.sum(0))) / len(values)


def check(statistics: Statistics, wanted: dict[str, np.ndarray], tolerance: float = 5e-7) -> None:
    """Counts exact, moments within the tolerance, for every class and cell."""
    found = {key: t for key, t in statistics.tensors().items() if not key.startswith(("target.", "scene."))}
    assert found.keys() == wanted.keys()
    for key, values in wanted.items():
        assert tuple(found[key].shape) == values.shape, key
        if key.endswith(("count", "ids")):
            assert np.array_equal(found[key].numpy(), values), key
        else:
            # Covariance is of squares, up to some 10 here.
            most = tolerance * (4 if key.endswith("covariance") else 1)
            assert np.abs(found[key].double().numpy() - values).max() <= most, key


def arguments(root: Path, out: Path, *more: object) -> list[str]:
    """Words of the command line for these pairs; the VAE's name is for the stub that replaces it."""
    words = ["reduce", "--dataset", "folder", "--images", root / "images", "--labels", root / "labels"]
    words += ["--size", f"{SIZE[0]}x{SIZE[1]}", "--vae", "stub", "--out", out, *more]
    return [str(word) for word in words]


def in_child(argv: list[str], pipe, environment: dict[str, str], limit: int | None = None) -> None:
    """The command line with the stub for a VAE, as the target of a process; its words go to `<out>.<rank>.log`.

    Says "encode" over `pipe` before each batch; where the pipe is two-way, waits for an answer.
    """
    import resource
    import signal
    import sys

    import scp_prior.vae
    from scp_prior.cli import main

    os.environ.update(environment)
    # As a terminal does for what it starts, so that a signal can be sent to it and its workers alike.
    if pipe is not None:
        os.setpgrp()
    torch.set_num_threads(1)
    encoder = StubEncoder()
    patient = environment.get("PATIENT") == "1"
    dies_at = int(environment.get("DIES_AT", "-1"))

    def tell(batches: int) -> None:
        if batches == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if pipe is not None:
            pipe.send(("encode", batches))
            if patient:
                pipe.recv()

    encoder.before = tell
    scp_prior.vae.load_encoder = lambda *_, **__: encoder
    if "SUMS" in environment:
        _save_sums(Path(environment["SUMS"]))
    log = Path(environment.get("LOG", argv[argv.index("--out") + 1]) + f".{environment.get('RANK', '0')}.log")
    with log.open("a", encoding="utf-8") as words, contextlib.redirect_stdout(words), contextlib.redirect_stderr(words):
        if pipe is not None:
            # Those of the processes it starts as well.
            os.dup2(words.fileno(), 1)
            os.dup2(words.fileno(), 2)
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        code = main(argv)
        if pipe is not None:
            pipe.send(("seen", encoder.seen))
    sys.exit(code)


def _save_sums(path: Path) -> None:
    """Have what all processes add up to written to `<path>.<rank>`, while it is float64."""
    from safetensors.torch import save_file

    import scp_prior.distributed

    put_together = scp_prior.distributed.put_together

    def saving(progress, share):
        together = put_together(progress, share)
        save_file(together.collected.state(), f"{path}.{share.rank}")
        return together

    scp_prior.distributed.put_together = saving


def measure_memory(root: Path, out: Path, threads: bool, pipe) -> None:
    """Send the resident size, in bytes, after the first 100 photos and then after every 500, as a process's target.

    Latents are as fine as the photos are small, 32 KB of mean and variance for each, so that keeping them would show.
    """
    import gc

    import psutil

    torch.set_num_threads(1)
    dataset, encoder, plan = open_pairs(root), StubEncoder(2), Plan((64, 64), 4)
    sizes: dict[int, int] = {}

    def report(step) -> None:
        # Numbers of photos are those of the tests' own links, of which the encoder need not remember 3000.
        encoder.seen.clear()
        if step.done == 100 or step.done % 500 == 0:
            gc.collect()
            sizes[step.done] = psutil.Process().memory_info().rss

    loading = Loading(2, threads=True) if threads else Loading(0)
    progress = reduce(dataset, encoder, plan, loading=loading, saving=Saving(out, 200), report=report)
    pipe.send((sizes, finish(progress, dataset, encoder, plan).metadata["images"]))
