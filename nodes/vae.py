"""The graph's VAE as the library's encoder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ..scp_prior.errors import SCPError
from ..scp_prior.vae import digest_of


def require_image_vae(vae, channels: int | None = None) -> None:
    """Whether it is there, for pictures, and for latents of so many channels.

    Raises:
        SCPError: it is not.
    """
    if vae is None or vae.first_stage_model is None:
        raise SCPError("There is no VAE on this wire: the checkpoint holds none. Load one with Load VAE.")
    if not isinstance(vae.downscale_ratio, int):
        raise SCPError("This VAE is one of a video model; statistics are of pictures. Load an image VAE.")
    if channels is not None and vae.latent_channels != channels:
        raise SCPError(
            f"This VAE is for latents of {vae.latent_channels} channels; the latent has {channels}. Load the VAE the "
            "statistics were made with."
        )


def require_numbers(*encoded: Tensor) -> None:
    """Whether what a VAE made of pictures without NaN is free of it.

    Raises:
        SCPError: it is not.
    """
    if not all(bool(part.isfinite().all()) for part in encoded):
        raise SCPError(
            "The VAE gave values that are no numbers: it overflows in half precision. Start ComfyUI with --fp32-vae."
        )


class HostEncoder:
    """Encodes with ComfyUI's own VAE, in LATENT units.

    ComfyUI gives the posterior's mean; its variance is read off on the way, where the VAE has one (a TAESD has none).

    Attributes:
        channels, downscale, name: as `scp_prior.vae.Encoder` has them; the same weights have the same digest in `name`.
    """

    def __init__(self, vae):
        require_image_vae(vae)
        self._vae = vae
        self.channels = vae.latent_channels
        self.downscale = vae.downscale_ratio
        self.dtype, self.device = vae.vae_dtype, vae.device
        self.name = f"ComfyUI VAE sha256:{digest_of(vae.first_stage_model.state_dict())[:12]}"

    def encode(self, photos: Tensor) -> tuple[Tensor, Tensor]:
        """Photos (B, 3, H, W) in -1..1 -> mean and variance (B, C, h, w) float32 on the CPU."""
        with self._posteriors() as posteriors:
            mean = self._vae.encode((photos.movedim(1, -1) + 1) / 2).float().cpu()
        if posteriors and any(part.shape[2:] != mean.shape[2:] for part in posteriors):
            raise SCPError("The VAE ran out of memory and went over to tiles. Choose a smaller size or batch_size.")
        variance = torch.cat(posteriors).chunk(2, dim=1)[1].clamp(-30, 20).exp() if posteriors else mean * 0
        require_numbers(mean, variance)
        return mean, variance

    @contextmanager
    def _posteriors(self) -> Iterator[list[Tensor]]:
        seen: list[Tensor] = []
        posterior = getattr(self._vae.first_stage_model, "regularization", None)
        if type(posterior).__name__ != "DiagonalGaussianRegularizer":
            yield seen
            return
        hook = posterior.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].float().cpu()))
        try:
            yield seen
        finally:
            hook.remove()
