"""A small autoencoder of Stable Diffusion's own architecture, with random weights: `small_vae.py FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch


def write_small_vae(folder: Path) -> Path:
    """Write it as a diffusers folder."""
    from diffusers import AutoencoderKL

    blocks = 4
    torch.manual_seed(0)
    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        block_out_channels=(16, 16, 32, 32),
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=4,
    ).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    write_small_vae(Path(sys.argv[1]))
