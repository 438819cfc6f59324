"""Which tensors of a training checkpoint go into which file that ComfyUI's loaders read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

CONTROLNET = ("control_model.",)
CHECKPOINT = ("model.diffusion_model.", "first_stage_model.", "cond_stage_model.")
# Running averages of the weights, as long as the weights; the trained weights themselves are what is used.
AVERAGES = "model_ema."
# Part of a VAE's training, not of the VAE.
_UNUSED = "first_stage_model.loss."
# What a ControlNet alone calls its parts: latent diffusion's names, and those of diffusers.
_ALONE = ({"zero_convs.0.0.weight", "input_hint_block.0.weight"}, {"controlnet_cond_embedding.conv_in.weight"})


class Halves(NamedTuple):
    """Names of the tensors that belong to the ControlNet, to the checkpoint, to averaged weights, to nothing."""

    controlnet: tuple[str, ...]
    checkpoint: tuple[str, ...]
    averages: tuple[str, ...]
    others: tuple[str, ...]


def find_halves(names: Iterable[str]) -> Halves:
    """Sort the names of a state dict; names stay as they are, since both loaders know them.

    A ControlNet that stands alone, without `control_model.` before its names, is one half whole.
    """
    # A safetensors file keeps its metadata under this name; no model has a tensor that is called so.
    names = tuple(name for name in names if name != "__metadata__")
    if any(part <= set(names) for part in _ALONE):
        return Halves(names, (), (), ())
    found: dict[str, list[str]] = {field: [] for field in Halves._fields}
    for name in names:
        found[_place(name)].append(name)
    return Halves(**{field: tuple(own) for field, own in found.items()})


def missing_parts(checkpoint: Iterable[str]) -> list[str]:
    """What CheckpointLoaderSimple would miss, in words."""
    names = tuple(checkpoint)
    words = dict(zip(CHECKPOINT, ("U-Net", "VAE", "text encoder"), strict=True))
    return [word for start, word in words.items() if not any(name.startswith(start) for name in names)]


def _place(name: str) -> str:
    if name.startswith(CONTROLNET):
        return "controlnet"
    if name.startswith(CHECKPOINT) and not name.startswith(_UNUSED):
        return "checkpoint"
    return "averages" if name.startswith(AVERAGES) else "others"
