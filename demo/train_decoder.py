"""Polish the demo's decoder: the encoder stays as it is, so latents, U-Net and statistics stay valid.

Half the work of training both. Besides the errors of `train_vae` the decoder is asked for as much edge as the picture
has around each place, wherever exactly it lies: what cannot be known from the latent then comes out crisp rather than
as a blur of all it could be.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from checkpoints import Training, load_average
from demo_data import FreshScenes, Scenes
from loop import Pace, decibel, run
from shards import SHARDS, Part
from tiny_vae import WIDTHS, TinyVAE, decoder
from torch import Tensor, nn
from train_vae import LATENT_NOISE, load

STEPS, BATCH = 3000, 8
PACE = Pace(rate=1e-3, warm_up=50, decay=0.995)
CELLS = (8, 16)  # of a piece of a scene
QUANTITIES = ("absolute", "squared", "edges")
CHECKPOINT = "decoder.safetensors"
_MARGIN = (
    8  # pixels; nearer to a border that is not the picture's own, a piece lacks what the decoder sees of a picture
)


def _edge_energy(pictures: Tensor) -> tuple[Tensor, ...]:
    """How much edge there is around each place, across and down."""
    return tuple(F.avg_pool2d(pictures.diff(dim=axis).abs(), 6, 3) for axis in (2, 3))


def _loss(network: nn.Module, latents: Tensor, pictures: Tensor, counted: Tensor) -> tuple[Tensor, tuple[float, ...]]:
    with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
        decoded = network(latents).float()
    decoded = torch.where(counted, decoded, pictures)
    difference = decoded - pictures
    absolute, squared = difference.abs().mean(), difference.square().mean()
    edges = difference.diff(dim=3).abs().mean() + difference.diff(dim=2).abs().mean()
    both = zip(_edge_energy(decoded), _edge_energy(pictures), strict=True)
    energy = sum((ours - theirs).abs().mean() for ours, theirs in both)
    loss = absolute + 2 * squared + 0.35 * edges + 0.5 * F.avg_pool2d(difference, 4).abs().mean() + 0.5 * energy
    return loss, (absolute.item(), squared.item(), energy.item())


def _pieces(latents: Tensor, pictures: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """A piece of each latent, and of its picture, and which pixels of that count, (B, 1, H, W) bool."""
    (height, width), cell = CELLS, pictures.shape[2] // latents.shape[2]
    room = torch.tensor([latents.shape[2] - height + 1, latents.shape[3] - width + 1])
    cut: list[Tensor] = []
    seen: list[Tensor] = []
    counted = torch.ones(len(latents), 1, height * cell, width * cell, dtype=torch.bool)
    for count, latent, picture in zip(counted, latents, pictures, strict=True):
        y, x = (torch.rand(2, generator=draw) * room).long().tolist()
        cut.append(latent[:, y : y + height, x : x + width])
        seen.append(picture[:, y * cell : (y + height) * cell, x * cell : (x + width) * cell])
        count[:, : _MARGIN if y else 0] = False
        count[:, :, : _MARGIN if x else 0] = False
        if y + height < latent.shape[1]:
            count[:, -_MARGIN:] = False
        if x + width < latent.shape[2]:
            count[:, :, -_MARGIN:] = False
    return torch.stack(cut), torch.stack(seen).contiguous(memory_format=torch.channels_last), counted


def train(
    work: Path,
    scenes: Scenes | FreshScenes,
    latents: Tensor,
    *,
    seed: int = 0,
    steps: int = STEPS,
    batch: int = BATCH,
    save_every: int = 300,
    until: int | None = None,
) -> Tensor:
    """Train, or go on training, and return the losses of each step (steps, len(QUANTITIES)).

    It begins with the decoder of the autoencoder in `work`.

    Args:
        latents: (scenes, 4, h, w) float32 in the network's units, of the same scenes in the same order.
        steps: of the whole training; they decide how the rate falls. until: stop after this one already.
    """
    network = load(work).decoder.requires_grad_(True)
    average = decoder(WIDTHS).to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), lr=PACE.rate, betas=(0.9, 0.98), weight_decay=1e-3)
    plan = {"what": "decoder", "seed": seed, "steps": steps, "batch": batch, "shards": SHARDS, "scenes": scenes.count}
    training = Training(network, average, optimiser, plan, len(QUANTITIES))

    def draw_parts(draw: torch.Generator) -> list[Part]:
        chosen = torch.randint(scenes.count, (batch,), generator=draw)
        cut, seen, counted = _pieces(latents[chosen], scenes.pictures(chosen.tolist()), draw)
        cut = cut + LATENT_NOISE * torch.randn(cut.shape, generator=draw)
        cut = cut.contiguous(memory_format=torch.channels_last)
        parts = zip(cut.chunk(SHARDS), seen.chunk(SHARDS), counted.chunk(SHARDS), strict=True)
        return [partial(_loss, network, *part) for part in parts]

    path = work / CHECKPOINT
    return run(training, path, PACE, draw_parts, until=until, save_every=save_every, shown=lambda t: decibel(t[:, 1]))


def load_polished(work: Path) -> TinyVAE:
    """Return the autoencoder with its polished decoder."""
    network = load(work)
    network.decoder.load_state_dict(load_average(work / CHECKPOINT)[0])
    return network
