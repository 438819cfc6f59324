"""The prior as a picture: its mean in the host's own preview colours or by a VAE, its coverage, its spread."""

from __future__ import annotations

import time
import weakref
from typing import NamedTuple

import torch
from torch import Tensor

from ..scp_prior.class_strength import weakened
from ..scp_prior.errors import SCPError
from ..scp_prior.preview import enlarged, latent_to_rgb
from ..scp_prior.prior import PriorMaps
from ..scp_prior.prior_views import coverage_view, spread_view
from .choices import check_choice
from .vae import require_image_vae

VIEWS = ("mean", "coverage", "spread")


class Preview(NamedTuple):
    """picture: (B, H, W, 3), 0..1. shown: the same, large enough for a node. said: what it cost, or ""."""

    picture: Tensor
    shown: Tensor
    said: str = ""


def preview_of(
    maps: PriorMaps, strengths: Tensor | float, downscale: int, view: str, of_class: str, model=None, vae=None
) -> Preview:
    """One of VIEWS of the prior.

    Args:
        strengths: what the prior is multiplied by, one number or (B, 1, h, w).
        of_class: what to call what stands in for cells that were never seen.

    Raises:
        SCPError: there is no such view, or the VAE is none for latents of this kind.
    """
    if (told := check_choice("view", view, VIEWS)) is not True:
        raise SCPError(told)
    if view == "coverage":
        page = coverage_view(maps, of_class)
        return Preview(page, page)
    if view == "spread":
        page = spread_view(weakened(maps.std, strengths))
        return Preview(page, page)
    mean = weakened(maps.mean, strengths)
    if vae is not None:
        return _decoded(mean, vae)
    picture = preview(mean, downscale, model)
    return Preview(picture, enlarged(picture))


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


class _Kept(NamedTuple):
    """The last mean decoded, and what came out: another seed has the same mean, and decoding may take seconds."""

    network: weakref.ref
    mean: Tensor
    picture: Tensor


_kept: _Kept | None = None


def _decoded(mean: Tensor, vae) -> Preview:
    global _kept
    require_image_vae(vae, mean.shape[1])
    network, said = vae.first_stage_model, ""
    if _kept is None or _kept.network() is not network or not _same(_kept.mean, mean):
        start = time.perf_counter()
        picture = vae.decode(mean)[..., :3].float().cpu()
        said = f"preview decoded by the VAE in {time.perf_counter() - start:.1f} s"
        _kept = _Kept(weakref.ref(network), mean.clone(), picture)
    return Preview(_kept.picture, enlarged(_kept.picture), said)


def _same(one: Tensor, other: Tensor) -> bool:
    return one.device == other.device and torch.equal(one, other)
