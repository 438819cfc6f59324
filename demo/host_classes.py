"""The host's own U-Net and ControlNet classes, narrow, and what training them needs that the host does not.

The shape is Stable Diffusion 2's (linear layers in the transformers, heads of 64 channels, noise prediction) at a fifth
of its width, with a transformer only at the lowest resolution. Loading it takes `host_nodes`; see there.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHANNELS = 64
CONTEXT = 32
SHAPE: dict[str, Any] = {
    "image_size": 32,
    "in_channels": 4,
    "model_channels": CHANNELS,
    "num_res_blocks": (1, 1, 1),
    "channel_mult": (1, 2, 2),
    "num_heads": -1,
    "num_head_channels": 64,
    "use_spatial_transformer": True,
    "transformer_depth": (0, 0, 1),
    "transformer_depth_middle": 1,
    "context_dim": CONTEXT,
    "use_linear_in_transformer": True,
    "legacy": False,
}
_OUTPUT_DEPTHS = (0, 0, 0, 0, 1, 1)  # the host takes them from the end


def find_host() -> Path:
    """Put the host on the path, ahead of everything, and return its folder; it is set up when it is missing."""
    scripts = Path(__file__).resolve().parent.parent / "scripts"
    if "comfy" in sys.modules:
        return Path(sys.modules["comfy"].__path__[0]).parent
    sys.path.append(str(scripts))
    from layout import STUBS
    from setup_host import setup_host

    comfyui = setup_host()
    sys.path[:0] = [str(comfyui), str(STUBS)]
    return comfyui


def _arguments() -> dict[str, Any]:
    # The host changes these lists while it builds, and refuses tuples.
    return {name: list(value) if isinstance(value, tuple) else value for name, value in SHAPE.items()}


def build() -> nn.ModuleDict:
    """Return {"unet", "controlnet"} of the host's own classes, with fresh weights from torch's generator."""
    find_host()
    import comfy.cli_args

    comfy.cli_args.args.cpu = True
    import comfy.ops
    from comfy.cldm.cldm import ControlNet
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    operations = comfy.ops.disable_weight_init
    unet = UNetModel(
        **_arguments(), out_channels=4, transformer_depth_output=list(_OUTPUT_DEPTHS), operations=operations
    )
    controlnet = ControlNet(**_arguments(), hint_channels=3, operations=operations)
    networks = nn.ModuleDict({"unet": unet, "controlnet": controlnet})
    _initialise(networks)
    for module in networks.modules():
        if isinstance(module, nn.GroupNorm):
            module.forward = partial(_group_norm, module)
    return networks


def _group_norm(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    # On a CPU torch's group norm is 5 to 30 times slower with channels last in memory than with channels first.
    y = F.group_norm(x.contiguous(), norm.num_groups, norm.weight, norm.bias, norm.eps)
    return y.contiguous(memory_format=torch.channels_last)


def _initialise(networks: nn.ModuleDict) -> None:
    """Give every layer its weights: the host's layers leave theirs as memory held them."""
    from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock

    for module in networks.modules():
        for kind in (nn.Conv2d, nn.Linear, nn.GroupNorm, nn.LayerNorm):
            if isinstance(module, kind):
                kind.reset_parameters(module)
    with torch.no_grad():
        for module in networks.modules():
            if isinstance(module, ResBlock):  # near the identity at first
                module.out_layers[-1].weight.mul_(0.1)
                module.out_layers[-1].bias.zero_()
        networks["unet"].out[2].weight.zero_()
        networks["unet"].out[2].bias.zero_()


@contextmanager
def trainable() -> Iterator[None]:
    """Within, the host adds control out of place: in place it would overwrite what the gradient needs."""
    import comfy.ldm.modules.diffusionmodules.openaimodel as host

    def add(h: Tensor, control: dict[str, list[Tensor]] | None, name: str) -> Tensor:
        return h + control[name].pop() if control and control.get(name) else h

    original, host.apply_control = host.apply_control, add
    try:
        yield
    finally:
        host.apply_control = original


def control(controlnet: nn.Module, x: Tensor, features: Tensor, timesteps: Tensor, context: Tensor) -> dict:
    """What ControlNet.forward computes from the features of its hint block, without adding in place.

    So the hint block, which works at the picture's resolution, runs once for several noisy copies of a latent.

    Args:
        x: (B, 4, h, w) noisy latents. features: (B, C, h, w). timesteps: (B,). context: (B, tokens, CONTEXT).

    Returns:
        {"middle": [...], "output": [...]}, as the host's U-Net takes it.
    """
    from comfy.ldm.modules.diffusionmodules.util import timestep_embedding

    embedding = controlnet.time_embed(timestep_embedding(timesteps, CHANNELS).to(x.dtype))
    h, outputs = x, []
    for k, (block, zero_conv) in enumerate(zip(controlnet.input_blocks, controlnet.zero_convs, strict=True)):
        h = block(h, embedding, context)
        if k == 0:
            h = h + features
        outputs.append(zero_conv(h, embedding, context))
    h = controlnet.middle_block(h, embedding, context)
    return {"middle": [controlnet.middle_block_out(h, embedding, context)], "output": outputs}


def alphas_cumprod() -> Tensor:
    """Stable Diffusion's schedule: alpha bar of timesteps 0 to 999, (1000,) float32."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64).square()
    return torch.cumprod(1 - betas, 0).float()
