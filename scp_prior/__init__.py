"""SCP-Diff noise priors: data-set statistics and a label map in, a starting latent out (arXiv 2403.09638).

Knows nothing of ComfyUI: tensors in, tensors out. Latents are in ComfyUI's LATENT units (raw VAE output).
"""

from .errors import SCPError
from .prior import METHODS, PriorMaps, prior_maps, sample_prior
from .release import convert_release
from .statistics import Statistics, load_statistics, save_statistics

__all__ = [
    "METHODS",
    "PriorMaps",
    "SCPError",
    "Statistics",
    "convert_release",
    "load_statistics",
    "prior_maps",
    "sample_prior",
    "save_statistics",
]
