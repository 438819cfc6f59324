from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scp_prior import SCPError
from scp_prior.schedule import ddpm_sigmas, sigma_of_timestep, start_at, timestep_of_sigma

SIGMAS = ddpm_sigmas().float()


def ddim_uniform(n: int) -> torch.Tensor:
    """The host's grid, restated: every (1000 // n)-th timestep from 1, so often more or fewer than n of them."""
    grid = SIGMAS[range(1, 1000, max(1000 // n, 1))].flip(0)
    return torch.cat([grid, torch.zeros(1)])


def even(n: int) -> torch.Tensor:
    index = torch.linspace(999, 0, n).round().long()
    return torch.cat([SIGMAS[index], torch.zeros(1)])


def drops_duplicates(n: int) -> torch.Tensor:
    """Fewer sigmas than steps, as the host's `beta` gives for many steps."""
    index = torch.linspace(31, 0, n).round().long().unique().flip(0) ** 2
    return torch.cat([SIGMAS[index], torch.zeros(1)])


def ksampler_sigmas(schedule, steps: int, denoise: float) -> torch.Tensor:
    """What ComfyUI's KSampler.set_steps does."""
    if denoise > 0.9999:
        return schedule(steps)
    return schedule(int(steps / denoise))[-(steps + 1) :]


@pytest.mark.parametrize("schedule", [ddim_uniform, even, drops_duplicates])
@pytest.mark.parametrize("steps", [*range(1, 101), 200, 333, 999, 1000])
def test_ksampler_runs_exactly_the_advanced_samplers_sigmas(schedule, steps):
    """For every start a timestep can ask for."""
    full = schedule(steps)
    for first in range(len(full) - 1):
        start = start_at(float(full[first]), steps, schedule)
        assert start.start_at_step == first
        assert torch.equal(start.sigmas, full[first:])
        assert torch.equal(ksampler_sigmas(schedule, start.steps, start.denoise), full[first:])
        assert 0 < start.denoise <= 1


@given(st.integers(0, 999), st.integers(1, 100))
@settings(max_examples=300, deadline=None)
def test_starts_at_the_last_step_with_at_least_the_noise_asked_for(timestep, steps):
    sigma = sigma_of_timestep(SIGMAS, timestep)
    start = start_at(sigma, steps, ddim_uniform)
    full = ddim_uniform(steps)
    enough = [i for i, s in enumerate(full[:-1].tolist()) if s >= sigma * (1 - 1e-6)]
    assert start.start_at_step == (max(enough) if enough else 0)


def test_the_papers_start():
    start = start_at(sigma_of_timestep(SIGMAS, 799), 20, ddim_uniform)
    assert (start.steps, start.start_at_step) == (17, 3)
    assert start.denoise == pytest.approx(0.85)
    assert float(start.sigmas[0]) == pytest.approx(5.13443, abs=1e-5)


@pytest.mark.parametrize(
    ("timestep", "grid"),
    [(752, 801), (801, 801), (802, 851), (851, 851), (852, 901), (902, 951), (952, 951), (999, 951)],
)
def test_the_authors_rule_and_ours_where_theirs_fails(timestep, grid):
    start = start_at(sigma_of_timestep(SIGMAS, timestep), 20, ddim_uniform)
    assert timestep_of_sigma(SIGMAS, float(start.sigmas[0])) == grid


@given(st.integers(0, 999))
def test_timestep_and_sigma_are_inverse(timestep):
    assert timestep_of_sigma(SIGMAS, sigma_of_timestep(SIGMAS, timestep)) == timestep


def test_tables_of_other_lengths_are_taken_by_position():
    flow = torch.arange(1, 10_001) / 10_000
    assert sigma_of_timestep(flow, 999) == 1
    assert sigma_of_timestep(flow, 0) == pytest.approx(1e-4)
    assert sigma_of_timestep(flow, 799) == pytest.approx(0.8, abs=1e-3)


def test_bad_numbers_are_refused():
    for timestep in (-1, 1000):
        with pytest.raises(SCPError, match=r"0\.\.999"):
            sigma_of_timestep(SIGMAS, timestep)
    with pytest.raises(SCPError, match="steps must be at least 1"):
        start_at(1.0, 0, ddim_uniform)


def test_a_schedule_no_denoise_can_cut_says_what_to_do_instead():
    """A scheduler that gives more steps than asked for, on a grid no other number of steps shares."""

    def too_many(n: int) -> torch.Tensor:
        return torch.cat([torch.linspace(n, 1, n + 3), torch.zeros(1)])

    with pytest.raises(SCPError, match="start_at_step"):
        start_at(float(too_many(4)[1]), 4, too_many)
