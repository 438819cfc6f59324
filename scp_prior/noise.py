"""The prior's own random numbers."""

from __future__ import annotations

import hashlib

import torch

_SALT = b"scp-diff prior noise"
_SCENE_SALT = b"scp-diff scene effects"
# torch's CPU generator uses 32 bits of its seed; an odd step visits them all, so no two items of a batch can meet.
_STEP = 0x9E3779B1
_MASK = 0xFFFFFFFF


def item_generator(seed: int, index: int) -> torch.Generator:
    """A CPU generator for item `index` of a batch.

    Independent of `torch.manual_seed(seed)`, from which ComfyUI draws its noise: with the same numbers in both, prior
    and noise would be one tensor, and the start would have the wrong variance.
    """
    return _generator(_SALT, seed, index)


def scene_generator(seed: int, index: int) -> torch.Generator:
    """As `item_generator`, for the scene effects of item `index`: independent of the item's noise."""
    return _generator(_SCENE_SALT, seed, index)


def _generator(salt: bytes, seed: int, index: int) -> torch.Generator:
    base = int.from_bytes(hashlib.blake2b(str(int(seed)).encode(), digest_size=4, key=salt).digest(), "little")
    return torch.Generator().manual_seed((base + index * _STEP) & _MASK)
