"""Train the demo's judge: `train(work, ...)`; `train.py` calls it, and alone it reads the committed autoencoder.

    python demo/train_segmenter.py [--work DIR] [--weights DIR]

Half of what it learns from are pictures as generated and half the same through the autoencoder, so that it judges what
a picture shows and not how sharp it is. Both are made lighter or darker and get some noise.
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from checkpoints import Training, load_average, write_safetensors
from demo_data import FreshScenes, Scenes, make_scenes
from loop import Pace, run
from safetensors.torch import load_file
from scene_canvas import CLASSES
from scenes import HEIGHT, WIDTH
from segmenter import NAME, Segmenter, load, segment
from shards import SHARDS, Part
from tiny_vae import TinyVAE, narrow
from torch import Tensor

SCENES, SEED = 3000, 3
"""How many scenes, and their seed: no other part of the demo, its tests or benchmarks draws scenes of that seed."""
STEPS, BATCH = 1500, 8
PACE = Pace(rate=2e-3, warm_up=60, decay=0.99, flat_share=0.2)
QUANTITIES = ("entropy", "accuracy")
CHECKPOINT = "segmenter.safetensors"
_UNSEEN, _CHECKED = 1, 100  # the seed and number of the scenes it is tried on
_INDEX = np.zeros(256, np.int64)
_INDEX[list(CLASSES)] = np.arange(len(CLASSES))


def _loss(network: Segmenter, pictures: Tensor, wanted: Tensor) -> tuple[Tensor, tuple[float, float]]:
    with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
        score = network(pictures).float()
    loss = F.cross_entropy(score, wanted)
    return loss, (loss.item(), (score.argmax(1) == wanted).float().mean().item())


def _disturbed(pictures: Tensor, draw: torch.Generator) -> Tensor:
    """Lighter, darker, another tint, and grain on half of them."""
    count = len(pictures)
    gain = 1 + 0.1 * torch.randn(count, 3, 1, 1, generator=draw) + 0.1 * torch.randn(count, 1, 1, 1, generator=draw)
    grain = 0.03 * (torch.rand(count, 1, 1, 1, generator=draw) < 0.5) * torch.randn(pictures.shape, generator=draw)
    return (pictures * gain + grain).clamp(0, 1)


def train(
    work: Path,
    scenes: Scenes | FreshScenes,
    vae: TinyVAE,
    *,
    seed: int = 0,
    steps: int = STEPS,
    batch: int = BATCH,
    save_every: int = 250,
    until: int | None = None,
) -> Tensor:
    """Train, or go on training, and return the losses of each step (steps, len(QUANTITIES)).

    Args:
        vae: half of the pictures go through it first.
        steps: of the whole training; they decide how the rate falls. until: stop after this one already.
    """
    torch.manual_seed(seed)
    network, average = (Segmenter().to(memory_format=torch.channels_last) for _ in range(2))
    optimiser = torch.optim.AdamW(network.parameters(), lr=PACE.rate, betas=(0.9, 0.98), weight_decay=1e-3)
    plan = {"what": "segmenter", "seed": seed, "steps": steps, "batch": batch, "shards": SHARDS}
    training = Training(network, average, optimiser, plan | {"scenes": scenes.count}, len(QUANTITIES))

    def draw_parts(draw: torch.Generator) -> list[Part]:
        chosen = torch.randint(scenes.count, (batch,), generator=draw).tolist()
        pictures = scenes.pictures(chosen).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
            through = vae.decoder(vae.encoder(pictures[::2])).float().clamp(0, 1)
        pictures = torch.where(
            torch.arange(batch).view(-1, 1, 1, 1) % 2 == 0, through.repeat_interleave(2, 0), pictures
        )
        pictures = _disturbed(pictures, draw).contiguous(memory_format=torch.channels_last)
        wanted = torch.from_numpy(_INDEX)[scenes.labels(chosen)[:, ::2, ::2]]
        parts = zip(pictures.chunk(SHARDS), wanted.chunk(SHARDS), strict=True)
        return [partial(_loss, network, *part) for part in parts]

    def shown(losses: Tensor) -> str:
        return f"accuracy {float(losses[-50:, 1].mean()):.3f}"

    path = work / CHECKPOINT
    return run(training, path, PACE, draw_parts, until=until, save_every=save_every, shown=shown)


def accuracy(network: Segmenter, vae: TinyVAE | None, count: int = _CHECKED) -> float:
    """Share of pixels told rightly on scenes that nothing was trained on, seen through `vae` where there is one."""
    scenes, right = FreshScenes(count, _UNSEEN), []
    for first in range(0, count, 20):
        chosen = range(first, min(first + 20, count))
        pictures = scenes.pictures(chosen).contiguous(memory_format=torch.channels_last)
        if vae is not None:
            pictures = vae.decoder(vae.encoder(pictures)).clamp(0, 1)
        right.append((segment(network, pictures)[0] == scenes.labels(chosen)).float().mean((1, 2)))
    return float(torch.cat(right).mean())


def export(work: Path, weights: Path, vae: TinyVAE) -> dict[str, object]:
    """Write the segmenter as an fp16 safetensors file; return how its training went."""
    average, plan, losses = load_average(work / CHECKPOINT)
    half = {name: tensor.half().contiguous() for name, tensor in average.items()}
    about = {"recipe": json.dumps(plan), "data": f"{plan['scenes']} scenes of demo/scenes.py, seed {SEED}"}
    about |= {"format": "pt", "license": "Apache-2.0", "made_by": "demo/train_segmenter.py"}
    about |= {"size": f"{HEIGHT}x{WIDTH}", "classes": ",".join(map(str, CLASSES)), "torch": torch.__version__}
    write_safetensors(weights / NAME, half, about)
    network = load(weights / NAME)
    return {
        "steps": len(losses),
        "last_accuracy": round(float(losses[-75:, 1].mean()), 4),
        "accuracy_unseen": round(accuracy(network, None), 4),
        "accuracy_unseen_decoded": round(accuracy(network, vae), 4),
    }


def make(work: Path, weights: Path, vae: TinyVAE, *, seed: int, steps: int, scenes: int, processes: int) -> dict:
    """Everything of it: scenes, training, file; return how it went."""
    make_scenes(work / "segmenter-scenes", scenes, SEED, processes)
    train(work, Scenes(work / "segmenter-scenes"), vae, seed=seed, steps=steps)
    return export(work, weights, vae)


if __name__ == "__main__":
    from export import VAE, WEIGHTS, WORK, add_losses, write_sums

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    chosen = parser.parse_args()
    chosen.work.mkdir(parents=True, exist_ok=True)
    tiny = narrow(load_file(chosen.weights / VAE))
    done = make(chosen.work, chosen.weights, tiny, seed=0, steps=STEPS, scenes=SCENES, processes=2)
    add_losses(chosen.weights, {"segmenter": done})
    write_sums(chosen.weights)
    sys.stdout.write(json.dumps(done, indent=1) + "\n")
