"""Timestep, sigma, denoise, start step: four names for where sampling begins."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .errors import SCPError

# ComfyUI's KSampler takes a denoise above this as 1.
_FULL_DENOISE = 0.9999
# Sigmas come out of float32 tables by way of float(); equal ones may differ in the last digit.
_RELATIVE = 1e-6


class Start(NamedTuple):
    """Where to start, in each of the host's ways of saying it.

    denoise, steps: for KSampler. start_at_step: for KSamplerAdvanced with the full number of steps. sigmas: (n + 1,)
    float32, from the first noise level used down to 0, for SamplerCustom.
    """

    denoise: float
    steps: int
    start_at_step: int
    sigmas: Tensor


def ddpm_sigmas(steps: int = 1000, first: float = 0.00085, last: float = 0.0120) -> Tensor:
    """Sigmas of Stable Diffusion's training schedule: (steps,) float64, ascending; entry t is timestep t.

    sigma_t = sqrt((1 - abar_t) / abar_t), betas linear in their square root (LDM's "linear" schedule).
    """
    betas = torch.linspace(first**0.5, last**0.5, steps, dtype=torch.float64) ** 2
    alphas = torch.cumprod(1 - betas, 0)
    return ((1 - alphas) / alphas).sqrt()


def sigma_of_timestep(sigmas: Tensor, timestep: int) -> float:
    """Noise level of a training timestep.

    Args:
        sigmas: a model's own sigma table, ascending, of any length: SD has one entry per timestep, flow models have
            other lengths, and the timestep is taken as a position in it.
        timestep: 0..999.

    Raises:
        SCPError: the timestep is outside 0..999.
    """
    if not 0 <= timestep <= 999:
        raise SCPError(f"timestep must lie within 0..999; it is {timestep}.")
    return float(sigmas[round(timestep / 999 * (len(sigmas) - 1))])


def timestep_of_sigma(sigmas: Tensor, sigma: float) -> int:
    """The training timestep whose noise level is nearest (in log sigma), 0..999; inverse of `sigma_of_timestep`."""
    # On the CPU: the table lies where the model does, and Apple's GPUs know no float64.
    table = sigmas.detach().cpu().double().clamp_min(1e-12).log()
    nearest = int((table - math.log(max(sigma, 1e-12))).abs().argmin())
    return round(nearest / (len(sigmas) - 1) * 999)


def first_step(sigma: float, full: Tensor) -> int:
    """Index of the last step of a schedule whose noise level is at least `sigma`; 0 where none is.

    One rule for every sigma, where the authors' has three: at or below the schedule's top it is theirs
    (`ddim_timesteps >= diffusion_steps`); above it, where theirs fails, sampling starts at the top.

    Args:
        full: the whole schedule, descending to 0.
    """
    at_least = full[:-1] >= sigma * (1 - _RELATIVE)
    return max(int(at_least.sum()) - 1, 0)


def start_at(sigma: float, steps: int, schedule: Callable[[int], Tensor]) -> Start:
    """Start at the last step of the schedule whose noise level is at least `sigma`, see `first_step`.

    Args:
        sigma: the noise level asked for.
        steps: number of steps of a full run, >= 1.
        schedule: the host's scheduler, n steps -> sigmas descending to 0. It may return more or fewer than n + 1
            (ddim_uniform does), so nothing here assumes a length.

    Returns:
        Start, for which KSampler(steps, denoise) runs exactly the sigmas of KSamplerAdvanced(start_at_step).

    Raises:
        SCPError: steps < 1, or the schedule cannot be cut there by any denoise.
    """
    if steps < 1:
        raise SCPError(f"steps must be at least 1; it is {steps}.")
    full = schedule(steps)
    first = first_step(sigma, full)
    if first == 0:
        return Start(1.0, steps, 0, full)
    tail = full[first:]
    return Start(_denoise_for(tail, steps, schedule), len(tail) - 1, first, tail)


def _denoise_for(tail: Tensor, steps: int, schedule: Callable[[int], Tensor]) -> float:
    # KSampler(m, d) builds a schedule of int(m / d) steps and keeps its last m. That need not be the schedule's own
    # number of steps: several numbers can share one ddim_uniform grid, and the grid may be longer than its number.
    m = len(tail) - 1
    for total in range(max(steps, m), max(steps, m) + steps + 2):
        denoise = _denoise(m, total)
        if denoise is not None and torch.equal(schedule(total)[-(m + 1) :], tail):
            return denoise
    raise SCPError(
        f"No denoise makes KSampler run the last {m} of {steps} steps on this scheduler. Wire `sigmas` into "
        "SamplerCustom, or use KSamplerAdvanced with start_at_step."
    )


def _denoise(m: int, total: int) -> float | None:
    """A denoise d <= 0.9999 with int(m / d) == total, near m / total; None where there is none."""
    low, high = m / (total + 1), min(m / total, _FULL_DENOISE)
    for d in (m / total, math.nextafter(m / total, 0), (low + high) / 2):
        if 0 < d <= _FULL_DENOISE and int(m / d) == total:
            return d
    return None
