"""A small segmenter for generated streets: which class is each pixel of a picture? The demo's judge, never its part.

It is trained on scenes that neither the demo's model nor any test draws from (`train_segmenter.py`).
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from scene_canvas import CLASSES
from tiny_vae import Block
from torch import Tensor, nn

NAME = "scp-demo-segmenter.safetensors"
WIDTHS = (24, 48, 64, 96)
"""Channels at a half, a quarter, an eighth and a sixteenth of the picture."""


def _down(inner: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inner, out, 3, 2, 1), nn.ReLU(), Block(out))


def _up(inner: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inner, out, 3, 1, 1), nn.ReLU(), Block(out))


class Segmenter(nn.Module):
    """Pictures (B, 3, H, W) in 0..1 to scores (B, len(CLASSES), H/2, W/2); H and W multiples of 16."""

    def __init__(self) -> None:
        super().__init__()
        a, b, c, d = WIDTHS
        self.down = nn.ModuleList([_down(3, a), _down(a, b), _down(b, c), nn.Sequential(_down(c, d), Block(d))])
        self.up = nn.ModuleList([_up(d + c, c), _up(c + b, b), _up(b + a, a)])
        self.score = nn.Conv2d(a, len(CLASSES), 1)

    def features(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Scores, and the means over the picture of its deepest features, (B, 96): what a Frechet distance is taken
        of, as one usually is of a classifier's."""
        x, skips = pictures * 2 - 1, []
        for block in self.down:
            x = block(x)
            skips.append(x)
        deepest = x.float().mean((2, 3))
        for block, skip in zip(self.up, reversed(skips[:-1]), strict=True):
            x = block(torch.cat([F.interpolate(x, scale_factor=2), skip], 1))
        return self.score(x), deepest

    def forward(self, pictures: Tensor) -> Tensor:
        return self.features(pictures)[0]


def load(path: Path) -> Segmenter:
    """Return the trained segmenter of a file."""
    network = Segmenter().to(memory_format=torch.channels_last).eval().requires_grad_(False)
    network.load_state_dict({name: tensor.float() for name, tensor in load_file(path).items()})
    return network


@torch.inference_mode()
def segment(network: Segmenter, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Judge pictures.

    Args:
        pictures: (B, 3, H, W) float32 in 0..1.

    Returns:
        Cityscapes train ids (B, H, W) uint8, and features (B, 96) float32.
    """
    score, features = network.features(pictures.contiguous(memory_format=torch.channels_last))
    score = F.interpolate(score, scale_factor=2, mode="bilinear", align_corners=False)
    return torch.tensor(CLASSES, dtype=torch.uint8)[score.argmax(1)], features
