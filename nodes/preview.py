"""The prior as a picture, in the colours of the host's own latent previews."""

from __future__ import annotations

from torch import Tensor

from ..scp_prior.preview import latent_to_rgb


def preview(latent: Tensor, downscale: int, model=None) -> Tensor:
    """(B, C, h, w) in LATENT units -> (B, h * downscale, w * downscale, 3), 0..1, one flat square per latent cell."""
    formats = model.get_model_object("latent_format") if model is not None else None
    factors = getattr(formats, "latent_rgb_factors", None)
    # A format that packs its latents (Flux 2) has fewer factors than channels; its colours are then of our choosing.
    if factors is None or len(factors) != latent.shape[1]:
        small = latent_to_rgb(latent)
    else:
        # process_in also shifts, for formats that have a mean of their own.
        bias = getattr(formats, "latent_rgb_factors_bias", None)
        small = latent_to_rgb(formats.process_in(latent), factors, bias, scale=1.0)
    return small.repeat_interleave(downscale, 1).repeat_interleave(downscale, 2)
