"""Train the demo's U-Net and ControlNet together, from scratch, on latents of generated scenes.

Noise prediction on Stable Diffusion's schedule. The loss is weighted by min(SNR, 5) / SNR (Hang et al. 2023,
min-SNR-5), timesteps are stratified within a batch, and the control is dropped from a tenth of the samples, so that the
U-Net alone draws a street of its own and classifier-free guidance has something to guide away from.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from checkpoints import Training, generator, load_average
from demo_data import FreshScenes, Scenes
from host_classes import CONTEXT, alphas_cumprod, build, control, trainable
from loop import Pace, run
from scenes import COLOURS
from shards import SHARDS, Part
from torch import Tensor, nn

STEPS, PICTURES, COPIES = 3200, 4, 4
PACE = Pace(rate=1e-3, warm_up=100, decay=0.998, flat_share=0.3)
DROPPED = 0.1
SNR_LIMIT = 5.0
QUANTITIES = ("error", "weighted")
CHECKPOINT = "unet.safetensors"


def hints(labels: Tensor) -> Tensor:
    """Label maps (B, H, W) of train ids in Cityscapes' colours, (B, 3, H, W) in 0..1, as a ControlNet is given them."""
    colours = torch.from_numpy(COLOURS).float() / 255
    return colours[labels].permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def stratified(count: int, draw: torch.Generator) -> Tensor:
    """Timesteps 0..999, one from each of `count` equal strata, in random order, (count,) int64."""
    places = (torch.arange(count) + torch.rand(count, generator=draw)) / count
    return (places * 1000).long().clamp(0, 999)[torch.randperm(count, generator=draw)]


class Batch:
    """Noisy latents with what they are to be denoised by.

    clean, noise, noisy: (B, 4, h, w). timesteps: (B,). hint: (pictures, 3, H, W). kept: (B, 1, 1, 1), 0 where the
    control is dropped.
    """

    def __init__(self, latents: Tensor, hint: Tensor, copies: int, alphas: Tensor, draw: torch.Generator):
        self.hint, self.copies = hint, copies
        self.clean = latents.repeat(copies, 1, 1, 1)
        count = len(self.clean)
        self.timesteps = stratified(count, draw)
        self.noise = torch.randn(self.clean.shape, generator=draw)
        alpha = alphas[self.timesteps].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * self.clean + (1 - alpha).sqrt() * self.noise
        self.noisy = noisy.contiguous(memory_format=torch.channels_last)
        self.kept = (torch.rand(count, generator=draw) >= DROPPED).float().view(-1, 1, 1, 1)


def predict(networks: nn.ModuleDict, batch: Batch) -> Tensor:
    """The noise the networks see in a batch, (B, 4, h, w) float32."""
    context = torch.zeros(len(batch.noisy), 1, CONTEXT)
    times = batch.timesteps.float()
    controlnet = networks["controlnet"]
    with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
        features = controlnet.input_hint_block(batch.hint, None, None).repeat(batch.copies, 1, 1, 1)
        added = control(controlnet, batch.noisy, features, times, context)
        added = {where: [one * batch.kept.to(one.dtype) for one in parts] for where, parts in added.items()}
        return networks["unet"](batch.noisy, times, context, control=added).float()


def _loss(networks: nn.ModuleDict, batch: Batch, alphas: Tensor) -> tuple[Tensor, tuple[float, float]]:
    error = (predict(networks, batch) - batch.noise).square().mean((1, 2, 3))
    snr = alphas[batch.timesteps] / (1 - alphas[batch.timesteps])
    loss = (error * snr.clamp(max=SNR_LIMIT) / snr).mean()
    return loss, (error.mean().item(), loss.item())


def train(
    work: Path,
    scenes: Scenes | FreshScenes,
    latents: Tensor,
    *,
    seed: int = 0,
    steps: int = STEPS,
    pictures: int = PICTURES,
    copies: int = COPIES,
    save_every: int = 500,
    until: int | None = None,
) -> Tensor:
    """Train, or go on training, and return the losses of each step (steps, len(QUANTITIES)).

    Args:
        latents: (scenes, 4, h, w) float32 in the network's units, of the same scenes in the same order.
        steps: of the whole training; they decide how the rate falls. until: stop after this one already.
    """
    torch.manual_seed(seed)
    networks = build().to(memory_format=torch.channels_last)
    average = build().to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(networks.parameters(), lr=PACE.rate, betas=(0.9, 0.99), weight_decay=1e-3)
    plan = {"what": "unet", "seed": seed, "steps": steps, "batch": [pictures, copies], "shards": SHARDS}
    plan["scenes"] = scenes.count
    training = Training(networks, average, optimiser, plan, len(QUANTITIES))
    alphas = alphas_cumprod()

    def draw_parts(draw: torch.Generator) -> list[Part]:
        chosen = torch.randperm(scenes.count, generator=draw)[:pictures]
        hint = hints(scenes.labels(chosen.tolist()))
        cut = zip(latents[chosen].chunk(SHARDS), hint.chunk(SHARDS), strict=True)
        return [partial(_loss, networks, Batch(*part, copies, alphas, draw), alphas) for part in cut]

    def shown(losses: Tensor) -> str:
        return f"error {float(losses[-100:, 0].mean()):.4f}"

    path = work / CHECKPOINT
    with trainable():
        return run(training, path, PACE, draw_parts, until=until, save_every=save_every, shown=shown)


def load(work: Path) -> nn.ModuleDict:
    """Return the trained networks (the average of their weights)."""
    networks = build().to(memory_format=torch.channels_last).eval().requires_grad_(False)
    networks.load_state_dict(load_average(work / CHECKPOINT)[0])
    return networks


@torch.inference_mode()
def error(networks: nn.ModuleDict, scenes: Scenes, latents: Tensor, chosen: Iterable[int], seed: int = 0) -> float:
    """Mean squared error of the predicted noise on given scenes: stratified timesteps, control never dropped."""
    alphas, errors = alphas_cumprod(), []
    for part in np.array_split(np.fromiter(chosen, int), 8):
        batch = Batch(latents[part], hints(scenes.labels(part.tolist())), 4, alphas, generator(seed, int(part[0])))
        batch.kept.fill_(1)
        errors.append((predict(networks, batch) - batch.noise).square().mean())
    return float(torch.stack(errors).mean())
