"""SCP-Diff noise priors: data-set statistics and a label map in, a starting latent out (arXiv 2403.09638).

Knows nothing of ComfyUI: tensors in, tensors out. Latents are in ComfyUI's LATENT units (raw VAE output).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from .errors import SCPError
from .prior import METHODS, PriorMaps, prior_maps, sample_prior
from .statistics import Statistics, load_statistics, save_statistics

if TYPE_CHECKING:
    from .collector import Collector
    from .moments import Accumulator
    from .release import convert_release

__all__ = [
    "METHODS",
    "Accumulator",
    "Collector",
    "PriorMaps",
    "SCPError",
    "Statistics",
    "convert_release",
    "load_statistics",
    "prior_maps",
    "sample_prior",
    "save_statistics",
]

# No node needs these, and every start of ComfyUI would pay for importing them.
_LATE = {"Accumulator": "moments", "Collector": "collector", "convert_release": "release"}


def __getattr__(name: str) -> object:
    if name in _LATE:
        return getattr(importlib.import_module(f".{_LATE[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
