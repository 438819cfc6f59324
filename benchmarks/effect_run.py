"""The half of the effect benchmark that runs in the host: draws every map of every run and keeps what is measured.

Started by `effect.py`. Each run leaves one .npz file in the work folder; those that are there already are kept, so that
an interrupted benchmark goes on where it was.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "demo"
# Behind the host's own folder, whose `nodes` comes first.
sys.path += [str(DEMO), str(ROOT), str(ROOT / "benchmarks")]

import comfy.utils  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from demo_data import FreshScenes  # noqa: E402
from demo_graph import Graph  # noqa: E402
from effect_measures import Measured, confusion  # noqa: E402
from effect_plan import CFG, EVERYWHERE, ITSELF, NOISE, STARTS, Run, plan  # noqa: E402
from progress import Progress  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from scene_canvas import CLASSES  # noqa: E402
from scenes import COLOURS  # noqa: E402
from segmenter import NAME, load, segment  # noqa: E402
from tiny_vae import SCALE, narrow  # noqa: E402
from torch import Tensor, nn  # noqa: E402

MAP_SEED, REAL_SEED = 4, 5
"""Seeds of the scenes whose maps are drawn, and of those the distances are taken to; nothing was trained on either."""
BATCH = 8
_PROJECTED = 64
_SMALL = (16, 32)
_BLOCKS = (4, 8)


class _SameHint(nn.Module):
    """A ControlNet's hint block that is run once for a hint and not once a step: the host hands it the same tensor."""

    def __init__(self, block: nn.Module):
        super().__init__()
        self._block = block
        self._hint: Tensor | None = None
        self._features: Tensor | None = None

    def forward(self, hint: Tensor, *rest: Tensor) -> Tensor:
        if hint is not self._hint:
            self._hint, self._features = hint, self._block(hint, *rest)
        return self._features.clone()


class Judge:
    """Measures pictures."""

    def __init__(self, weights: Path):
        self._segmenter = load(weights / NAME)

    def measure(self, pictures: Tensor, latents: Tensor, truth: Tensor) -> Measured:
        """Pictures (N, 3, H, W) in 0..1 of latents (N, 4, h, w), against the maps (N, H, W) they were drawn from."""
        told, features = segment(self._segmenter, pictures)
        flat = latents.flatten(1) * SCALE
        # Too many numbers for a covariance from a few hundred pictures; the same few mixtures of them each time.
        mixtures = torch.randn(flat.shape[1], _PROJECTED, generator=torch.Generator().manual_seed(0))
        return Measured(
            *confusion(told, truth, CLASSES),
            features.numpy(),
            (flat @ mixtures / flat.shape[1] ** 0.5).numpy(),
            F.adaptive_avg_pool2d(pictures, _BLOCKS).flatten(1).numpy(),
            (F.adaptive_avg_pool2d(pictures, _SMALL) * 255).round().byte().numpy(),
        )


class Painter:
    """Draws label maps from any start, by the host's own nodes."""

    def __init__(self, weights: Path):
        self.graph = Graph(weights)
        controlnet = self.graph.controlnet.control_model
        controlnet.input_hint_block = _SameHint(controlnet.input_hint_block)
        self.vae = narrow(load_file(weights / "scp-demo-vae.safetensors"))

    def decode(self, latents: Tensor) -> Tensor:
        """LATENT units to pictures; by the narrow network the VAE's file was made of, which computes the same."""
        return self.vae.decoder((latents * SCALE).contiguous(memory_format=torch.channels_last)).clamp(0, 1)

    def encode(self, pictures: Tensor) -> Tensor:
        """Pictures to LATENT units."""
        return self.vae.encoder(pictures.contiguous(memory_format=torch.channels_last)).contiguous() / SCALE

    def draw(self, run: Run, seed: int, truth: Tensor, pictures: Tensor) -> Tensor:
        """Latents of one batch of maps; `pictures` are the scenes they are of, for the oracle alone."""
        image = torch.from_numpy(COLOURS)[truth.long()].float() / 255
        labels = self.graph.labels(image)
        start = STARTS[run.start]
        if start.method == NOISE:
            latent = self.graph.empty(labels)
        elif start.method == ITSELF:
            latent = {"samples": self.encode(pictures)}
        elif start.method == EVERYWHERE:
            latent = {"samples": self._everywhere(seed, len(truth))}
        else:
            latent = self.graph.prior(labels, seed, start.method, start.scene_variation)
        done = self.graph.sample(
            latent, self.graph.guided(labels), seed=seed, steps=run.steps, cfg=CFG, timestep=run.timestep
        )
        return done["samples"]

    def _everywhere(self, seed: int, count: int) -> Tensor:
        statistics = self.graph.statistics
        number, mean, std = statistics.categorical()
        share = (number / number.sum()).unsqueeze(1)
        overall = (share * mean).sum(0)
        spread = (share * (std**2 + (mean - overall) ** 2)).sum(0).sqrt()
        height, width = statistics.latent_size
        noise = torch.randn(
            count, len(mean[0]), height, width, generator=torch.Generator().manual_seed(seed + 1_000_003)
        )
        return overall.view(1, -1, 1, 1) + spread.view(1, -1, 1, 1) * noise


def _save(path: Path, measured: Measured, seconds: float) -> None:
    temporary = path.with_suffix(f".{os.getpid()}.part")
    with temporary.open("wb") as file:
        np.savez(file, seconds=seconds, **measured._asdict())
    os.replace(temporary, path)


def _joined(parts: list[Measured]) -> Measured:
    return Measured(*(np.concatenate(fields) for fields in zip(*parts, strict=True)))


def _scenes(judge: Judge, painter: Painter, seed: int, count: int, *, decoded: bool) -> Measured:
    """Scenes as they were generated, or as the autoencoder gives them back."""
    scenes, parts = FreshScenes(count, seed), []
    for first in range(0, count, BATCH):
        chosen = range(first, min(first + BATCH, count))
        pictures, truth = scenes.pictures(chosen), scenes.labels(chosen)
        latents = painter.encode(pictures)
        parts.append(judge.measure(painter.decode(latents) if decoded else pictures, latents, truth))
    return _joined(parts)


def main(work: str, weights: str, maps: str, real: str, seeds: str, fewer_seeds: str, share: str) -> None:
    """Do those of this share's runs that are not there yet.

    Args:
        share: "1/2" for the first of two processes. Each uses one thread: two threads wait for each other at every
            layer, which on a busy machine costs many times what they save.
    """
    torch.set_num_threads(1)
    comfy.utils.PROGRESS_BAR_ENABLED = False  # a bar for each of some thousand batches
    folder, count = Path(work), int(maps)
    own, shares = (int(number) for number in share.split("/"))
    painter, judge = Painter(Path(weights)), Judge(Path(weights))
    references = {"real": (REAL_SEED, int(real), False), "scenes": (MAP_SEED, count, False)}
    references["decoded"] = (MAP_SEED, count, True)
    for name, (seed, number, decoded) in references.items():
        if own == shares and not (folder / f"{name}.npz").exists():
            _save(folder / f"{name}.npz", _scenes(judge, painter, seed, number, decoded=decoded), 0.0)
    scenes, runs = FreshScenes(count, MAP_SEED), plan(int(seeds), int(fewer_seeds))[own - 1 :: shares]
    progress = Progress(f"runs {share}", len(runs), 0, every=60)
    for done, run in enumerate(runs, 1):
        path = folder / f"{run.name}.npz"
        if path.exists():
            continue
        started, parts = time.perf_counter(), []
        for batch, first in enumerate(range(0, count, BATCH)):
            chosen = range(first, min(first + BATCH, count))
            truth, pictures = scenes.labels(chosen), scenes.pictures(chosen)
            latents = painter.draw(run, run.seed * 100_000 + batch, truth, pictures)
            parts.append(judge.measure(painter.decode(latents), latents, truth))
        _save(path, _joined(parts), time.perf_counter() - started)
        progress.show(done, lambda name=run.name: f"last: {name}")
    sys.stdout.write(json.dumps({"runs": len(runs)}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
