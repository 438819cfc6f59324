"""Train the demo's autoencoder: `train(work, ...)`; `train.py` calls it.

A deterministic autoencoder, as TAESD is, but trained from scratch on generated scenes: absolute and squared error,
errors of edges (gradients) and of 4x4 means. Noise on the latent makes the decoder forgiving of what a sampler gets
slightly wrong, and keeps near latents near in the picture. Each channel is held at mean 0 and deviation 1.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from checkpoints import Training, load_average
from demo_data import FreshScenes, Scenes
from loop import Pace, decibel, run
from progress import Progress
from shards import SHARDS, Part
from tiny_vae import TinyVAE
from torch import Tensor

STEPS, BATCH = 2400, 8
PACE = Pace(rate=2e-3, warm_up=60, decay=0.995)
CROP = (64, 128)
LATENT_NOISE = 0.1
QUANTITIES = ("absolute", "squared", "regulariser")
CHECKPOINT = "vae.safetensors"


def _regulariser(latent: Tensor) -> Tensor:
    mean, variance = latent.mean((0, 2, 3)), latent.var((0, 2, 3))
    far = F.relu(latent.abs() - 3).square().mean()  # where the decoder's clamp bends
    return mean.square().mean() + (variance - 1).square().mean() + 0.1 * far


def _edges(difference: Tensor) -> Tensor:
    return difference.diff(dim=3).abs().mean() + difference.diff(dim=2).abs().mean()


def _loss(network: TinyVAE, pictures: Tensor, noise: Tensor) -> tuple[Tensor, tuple[float, float, float]]:
    with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
        latent = network.encoder(pictures).float()
        decoded = network.decoder(latent + LATENT_NOISE * noise).float()
    difference, regulariser = decoded - pictures, _regulariser(latent)
    absolute, squared = difference.abs().mean(), difference.square().mean()
    blurred = F.avg_pool2d(difference, 4).abs().mean()
    loss = absolute + 2 * squared + 0.35 * _edges(difference) + 0.5 * blurred + 0.02 * regulariser
    return loss, (absolute.item(), squared.item(), regulariser.item())


def _crops(pictures: Tensor, draw: torch.Generator) -> Tensor:
    """A piece of each picture, some mirrored: a quarter of a scene teaches nearly as much."""
    height, width = CROP
    pieces = []
    for picture in pictures:
        room = torch.tensor([picture.shape[1] - height + 1, picture.shape[2] - width + 1, 2])
        y, x, mirrored = (torch.rand(3, generator=draw) * room).long().tolist()
        piece = picture[:, y : y + height, x : x + width]
        pieces.append(piece.flip(2) if mirrored else piece)
    return torch.stack(pieces).contiguous(memory_format=torch.channels_last)


def train(
    work: Path,
    scenes: Scenes | FreshScenes,
    *,
    seed: int = 0,
    steps: int = STEPS,
    batch: int = BATCH,
    save_every: int = 200,
    until: int | None = None,
) -> Tensor:
    """Train, or go on training, and return the losses of each step (steps, len(QUANTITIES)).

    The checkpoint is `work/vae.safetensors`; at the end it holds what `encode_scenes` and the export read.

    Args:
        steps: of the whole training; they decide how the rate falls. until: stop after this one already.
    """
    torch.manual_seed(seed)
    network, average = (TinyVAE().to(memory_format=torch.channels_last) for _ in range(2))
    optimiser = torch.optim.AdamW(network.parameters(), lr=PACE.rate, betas=(0.9, 0.98), weight_decay=1e-3)
    plan = {"what": "vae", "seed": seed, "steps": steps, "batch": batch, "shards": SHARDS, "scenes": scenes.count}
    training = Training(network, average, optimiser, plan, len(QUANTITIES))

    def draw_parts(draw: torch.Generator) -> list[Part]:
        chosen = torch.randint(scenes.count, (batch,), generator=draw).tolist()
        pictures = _crops(scenes.pictures(chosen), draw)
        noise = torch.randn((batch, 4, CROP[0] // 8, CROP[1] // 8), generator=draw)
        parts = zip(pictures.chunk(SHARDS), noise.chunk(SHARDS), strict=True)
        return [partial(_loss, network, *part) for part in parts]

    path = work / CHECKPOINT
    return run(training, path, PACE, draw_parts, until=until, save_every=save_every, shown=lambda t: decibel(t[:, 1]))


def load(work: Path) -> TinyVAE:
    """Return the trained autoencoder (the average of its weights)."""
    network = TinyVAE().to(memory_format=torch.channels_last).eval().requires_grad_(False)
    network.load_state_dict(load_average(work / CHECKPOINT)[0])
    return network


@torch.inference_mode()
def encode_scenes(network: TinyVAE, scenes: Scenes, batch: int = 25) -> Tensor:
    """Latents of all scenes in the network's units, (N, 4, H/8, W/8) float32."""
    latents, progress = [], Progress("latents", scenes.count, 0)
    for first in range(0, scenes.count, batch):
        indices = range(first, min(first + batch, scenes.count))
        pictures = scenes.pictures(indices).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            latents.append(network.encoder(pictures).float().contiguous())
        progress.show(first + len(indices))
    return torch.cat(latents)


@torch.inference_mode()
def psnr(network: TinyVAE, scenes: Scenes, count: int = 200, batch: int = 20) -> float:
    """Decibel between pictures and what comes back of them, over the first `count` scenes."""
    errors = []
    for first in range(0, min(count, scenes.count), batch):
        pictures = scenes.pictures(range(first, min(first + batch, count, scenes.count)))
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        decoded = network.decoder(network.encoder(pictures)).clamp(0, 1)
        errors.append((decoded - pictures).square().mean((1, 2, 3)))
    return float(-10 * np.log10(torch.cat(errors).mean().item()))
