"""A narrow autoencoder in the shape of TAESD, so that the host's VAELoader and our `reduce` read it.

TAESD (madebyollin, MIT) is 64 channels wide throughout. Here the layers near the picture are narrower, and `widen`
fills up with zeros: a ReLU of zero is zero, so the wide network computes exactly what the narrow one does.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor, nn

WIDTHS = (16, 32, 64, 64)
"""Channels at full, half, quarter and eighth resolution."""
WIDE = 64
LATENT_CHANNELS = 4
SCALE = 0.18215
"""What LATENT units are multiplied with to become the network's, as in SD 1 and 2."""
_ENCODER_BLOCKS = (0, 1, 2, 3)  # by stage, from the picture down
_DECODER_BLOCKS = (1, 2, 2, 3)
_PER_STAGE = 3


def _conv(inner: int, out: int, **options: object) -> nn.Conv2d:
    return nn.Conv2d(inner, out, 3, padding=1, **options)  # type: ignore[arg-type]


class Block(nn.Module):
    """Three convolutions around a skip connection, (B, N, H, W) to the same."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Sequential(_conv(width, width), nn.ReLU(), _conv(width, width), nn.ReLU(), _conv(width, width))
        for layer in (self.conv[0], self.conv[2], self.conv[4]):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        with torch.no_grad():
            self.conv[4].weight.mul_(0.2)  # near the identity at first

    def forward(self, x: Tensor) -> Tensor:
        return (self.conv(x) + x).relu()


class Clamp(nn.Module):
    """What TAESD's decoder begins with: soft limits at -3 and 3."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


def encoder(widths: tuple[int, ...] = WIDTHS) -> nn.Sequential:
    """Pictures (B, 3, H, W) in 0..1 to latents (B, 4, H/8, W/8). Layers are numbered as TAESD's; left out ones skip."""
    # At full resolution a block costs as much as all the rest; a ReLU stands for TAESD's, see `widen`.
    layers: OrderedDict[str, nn.Module] = OrderedDict({"0": _conv(3, widths[0]), "1": nn.ReLU()})
    number = 2
    for stage in range(1, 4):
        layers[str(number)] = _conv(widths[stage - 1], widths[stage], stride=2, bias=False)
        for k in range(_ENCODER_BLOCKS[stage]):
            layers[str(number + 1 + k)] = Block(widths[stage])
        number += 1 + _PER_STAGE
    layers[str(number)] = _conv(widths[3], LATENT_CHANNELS)
    return nn.Sequential(layers)


def decoder(widths: tuple[int, ...] = WIDTHS) -> nn.Sequential:
    """Latents (B, 4, h, w) to pictures (B, 3, 8h, 8w), about 0..1 and not clamped."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        {"0": Clamp(), "1": _conv(LATENT_CHANNELS, widths[3]), "2": nn.ReLU()}
    )
    number = 3
    for stage in (3, 2, 1):
        for k in range(_DECODER_BLOCKS[stage]):
            layers[str(number + k)] = Block(widths[stage])
        layers[str(number + _PER_STAGE)] = nn.Upsample(scale_factor=2)
        layers[str(number + _PER_STAGE + 1)] = _conv(widths[stage], widths[stage - 1], bias=False)
        number += _PER_STAGE + 2
    layers[str(number)], layers[str(number + 1)] = Block(widths[0]), _conv(widths[0], 3)
    return nn.Sequential(layers)


class TinyVAE(nn.Module):
    """Encoder and decoder; deterministic, latents of about unit deviation (kept so by the training's loss)."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS):
        super().__init__()
        self.encoder, self.decoder = encoder(widths), decoder(widths)


def widen(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a TinyVAE's weights as those of a TAESD 64 channels wide, with the host's names.

    Blocks this network leaves out become zeros, which hand on what they are given because it went through a ReLU.
    """
    full = _taesd_shapes()
    wide: dict[str, Tensor] = {}
    used = set()
    for part in ("encoder", "decoder"):
        for name, shape in full[part].items():
            tensor = torch.zeros(shape)
            narrow = weights.get(f"{part}.{name}")
            if narrow is not None:
                tensor[tuple(slice(0, side) for side in narrow.shape)] = narrow
                used.add(f"{part}.{name}")
            wide[f"taesd_{part}.{name}"] = tensor
    if left := sorted(set(weights) - used):
        raise ValueError(f"TAESD has no place for {left[0]}.")
    wide["vae_scale"], wide["vae_shift"] = torch.tensor(SCALE), torch.tensor(0.0)
    return wide


def narrow(wide: Mapping[str, Tensor]) -> TinyVAE:
    """Return the network `widen` made these weights of, float32 and channels last, ready to be used."""
    network = TinyVAE().to(memory_format=torch.channels_last).eval().requires_grad_(False)
    own = {}
    for name, tensor in network.state_dict().items():
        full = wide[f"taesd_{name}"]
        own[name] = full[tuple(slice(0, side) for side in tensor.shape)].float()
    network.load_state_dict(own)
    return network


def _taesd_shapes() -> dict[str, dict[str, tuple[int, ...]]]:
    """Names and shapes of all of TAESD's weights."""
    with torch.device("meta"):
        parts = {"encoder": encoder((WIDE,) * 4), "decoder": decoder((WIDE,) * 4)}
        block = {name: tuple(tensor.shape) for name, tensor in Block(WIDE).state_dict().items()}
    shapes = {}
    for part, network in parts.items():
        shapes[part] = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
        starts = (3, 7, 11) if part == "encoder" else (3, 8, 13)
        places = [start + k for start in starts for k in range(_PER_STAGE)] + [1] * (part == "encoder")
        for place in places:
            shapes[part].update({f"{place}.{name}": shape for name, shape in block.items()})
    return shapes
