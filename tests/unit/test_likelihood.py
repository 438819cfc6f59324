"""Likelihoods against a multivariate normal written out in full, and their expectation against draws."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from known_truth import cell_major, dense_covariance, random_maps

from scp_prior import sample_prior
from scp_prior.likelihood import cell_nll, picture_nll

SIGMAS = (0.0, 0.3, 1.0, 5.13)


def expected(offset: torch.Tensor, covariance: torch.Tensor, sigma: float) -> float:
    """E over n of -log N(offset + sigma n; 0, covariance + sigma^2 I), per value, by dense linear algebra."""
    full = covariance + sigma**2 * torch.eye(len(covariance))
    nll = -torch.distributions.MultivariateNormal(torch.zeros(len(full), dtype=torch.float64), full).log_prob(offset)
    return float(nll + 0.5 * sigma**2 * torch.linalg.inv(full).trace()) / len(full)


def test_a_value_by_hand():
    z, m, s = (torch.full((1, 1, 1, 1), value) for value in (2.0, 0.5, 0.75))
    wanted = 0.5 * math.log(2 * math.pi * (0.5625 + 0.25)) + (2.25 + 0.25) / (2 * (0.5625 + 0.25))
    assert float(cell_nll(z, m, s, 0.5)) == pytest.approx(wanted, rel=1e-12)


def test_a_clean_value_is_a_normal_density():
    maps = random_maps(scene=False)
    z = torch.randn(maps.mean.shape, generator=torch.Generator().manual_seed(1))
    wanted = -torch.distributions.Normal(maps.mean.double(), maps.std.double()).log_prob(z.double())
    torch.testing.assert_close(cell_nll(z, maps.mean, maps.std, 0.0), wanted, rtol=1e-12, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 3),
    width=st.integers(1, 4),
    channels=st.integers(1, 4),
    effects=st.integers(1, 4),
    rank=st.integers(1, 20),
    sigma=st.sampled_from(SIGMAS),
    seed=st.integers(0, 1 << 16),
)
def test_whole_pictures_are_a_multivariate_normal(height, width, channels, effects, rank, sigma, seed):
    maps = random_maps((height, width), channels, effects, rank, batch=2, seed=seed)
    z = sample_prior(maps, seed)
    found = picture_nll(z, maps, [sigma])
    for item in range(2):
        wanted = expected(cell_major(z[item] - maps.mean[item]), dense_covariance(maps, item), sigma)
        assert float(found[item, 0]) == pytest.approx(wanted, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("sigma", [0.3, 2.0])
def test_the_expectation_is_that_of_draws(sigma):
    maps = random_maps((2, 3), 2)
    g = torch.Generator().manual_seed(2)
    z = torch.randn(maps.mean.shape, generator=g)
    full = dense_covariance(maps, 0) + sigma**2 * torch.eye(12)
    law = torch.distributions.MultivariateNormal(cell_major(maps.mean[0]), full)
    noise = sigma * torch.randn(200_000, 12, generator=g, dtype=torch.float64)
    drawn = -law.log_prob(cell_major(z[0]) + noise) / 12
    error = float(drawn.std()) / math.sqrt(len(drawn))
    assert float(picture_nll(z, maps, [sigma])) == pytest.approx(float(drawn.mean()), abs=4 * error)
    assert error < 1e-3


def test_independent_cells_are_the_mean_of_cells():
    maps = random_maps((3, 4), 3, batch=2, scene=False)
    z = torch.randn(maps.mean.shape, generator=torch.Generator().manual_seed(3))
    found = picture_nll(z, maps, SIGMAS)
    for column, sigma in enumerate(SIGMAS):
        torch.testing.assert_close(found[:, column], cell_nll(z, maps.mean, maps.std, sigma).mean((1, 2, 3)))


def test_effects_without_variance_are_independent_cells():
    maps = random_maps((3, 4), 3, batch=2)
    still = maps.scene._replace(factor=maps.scene.factor * 0, within=torch.eye(3).expand(4, 3, 3).contiguous())
    z = torch.randn(maps.mean.shape, generator=torch.Generator().manual_seed(4))
    alone = picture_nll(z, maps._replace(scene=None), SIGMAS)
    torch.testing.assert_close(picture_nll(z, maps._replace(scene=still), SIGMAS), alone, rtol=1e-6, atol=1e-6)


def test_more_numbers_than_the_present_effects_need_are_the_same_covariance():
    """A data set's factor has a column for each of its classes, a picture shows few of them."""
    wide = random_maps((3, 4), 2, effects=6, rank=12)
    slot = wide.scene.slot.clamp_max(1)
    wide = wide._replace(scene=wide.scene._replace(slot=slot))
    z = torch.randn(wide.mean.shape, generator=torch.Generator().manual_seed(5))
    wanted = expected(cell_major(z[0] - wide.mean[0]), dense_covariance(wide, 0), 0.3)
    assert float(picture_nll(z, wide, [0.3])) == pytest.approx(wanted, rel=1e-6)


def test_the_time_grows_with_the_cells_and_not_their_square():
    """A dense covariance of these cells would take 275 GB."""
    maps = random_maps((128, 128), 4, effects=5, rank=20)
    found = picture_nll(sample_prior(maps, 0), maps, [0.0, 1.0])
    # A sample's own likelihood is about the entropy; correlated values have less of it than independent ones.
    assert bool(found.isfinite().all())
    assert float(found[0, 0]) < float(cell_nll(maps.mean, maps.mean, maps.std, 0.0).mean()) + 0.5
