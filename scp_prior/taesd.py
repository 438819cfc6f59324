"""The encoder of TAESD, a tiny autoencoder whose latents approximate those of Stable Diffusion, SDXL, SD3 or Flux."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn


class Scale(NamedTuple):
    """What maps the encoder's output to LATENT units: latent = output / scale + shift."""

    scale: float
    shift: float


# A file of weights does not say what it was trained for: a name does, and 4 or 16 channels.
FAMILIES: dict[str, tuple[int, Scale]] = {
    "taesdxl": (4, Scale(0.13025, 0.0)),
    "taesd3": (16, Scale(1.5305, 0.0609)),
    "taef1": (16, Scale(0.3611, 0.1159)),
    "taesd": (4, Scale(0.18215, 0.0)),
}
DOWNSCALE = 8


class _Block(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        layers = [nn.Conv2d(width, width, 3, padding=1) for _ in range(3)]
        self.conv = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])

    def forward(self, x: Tensor) -> Tensor:
        return (self.conv(x) + x).relu()


def taesd_encoder(channels: int, width: int = 64) -> nn.Sequential:
    """The network of madebyollin's TAESD encoder, with its key names.

    Takes pictures (B, 3, H, W) in 0..1 and gives (B, channels, H/8, W/8) in the units of the diffusion model, which
    `Scale` maps to LATENT units.
    """
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1), _Block(width)]
    for _ in range(3):
        layers += [nn.Conv2d(width, width, 3, padding=1, stride=2, bias=False), *(_Block(width) for _ in range(3))]
    return nn.Sequential(*layers, nn.Conv2d(width, channels, 3, padding=1))
