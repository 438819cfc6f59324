"""Running moments against two passes, the distance against closed forms, the prior's pooled law against draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from known_truth import cell_major, dense_covariance, random_maps

from scp_prior import SCPError, sample_prior
from scp_prior.frechet import Gaussian, RunningMoments, frechet_distance
from scp_prior.pooling import GRIDS, Pooling, cell_covariances, usable_grids


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gaussian_of(values: torch.Tensor) -> Gaussian:
    return Gaussian(values.mean(0), torch.cov(values.T))


# --- moments --------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(0, 5), min_size=1, max_size=6), offset=st.sampled_from([0.0, 1e6]))
def test_moments_do_not_depend_on_the_batches(sizes, offset):
    values = draws(sum(sizes), 3) + offset
    running, merged = RunningMoments(3), RunningMoments(3)
    for batch in values.split(sizes):
        running.add(batch)
        part = RunningMoments(3)
        part.add(batch)
        merged.merge(part)
    if len(values) < 2:
        with pytest.raises(SCPError, match="two pictures or more"):
            running.gaussian()
        return
    for found in (running.gaussian(), merged.gaussian()):
        np.testing.assert_allclose(found.mean, values.mean(0), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(found.covariance, np.cov(values.T), rtol=1e-7, atol=1e-9)


def test_streams_side_by_side():
    values = draws(7, 5, 2)
    running = RunningMoments(5, 2)
    running.add(values[:3])
    running.add(values[3:])
    found = running.gaussian()
    for cell in range(5):
        torch.testing.assert_close(found.covariance[cell], torch.cov(values[:, cell].T))


def test_a_mixture_of_gaussians_is_as_infinitely_many_draws():
    mean, root = draws(4, 3), draws(4, 3, 3, seed=1)
    covariance = root @ root.mT
    running = RunningMoments(3)
    running.add(mean[:1], covariance[0])
    running.add(mean[1:], covariance[1:].sum(0))
    wanted = covariance.mean(0) + torch.cov(mean.T)
    torch.testing.assert_close(running.gaussian().covariance, wanted)


def test_vectors_of_another_shape_are_refused():
    with pytest.raises(SCPError, match=r"shape \(3,\)"):
        RunningMoments(3).add(draws(2, 4))


# --- distance -------------------------------------------------------------------------------------------------------


def test_one_dimension_by_hand():
    a, b = (Gaussian(torch.tensor([m]).double(), torch.tensor([[v]]).double()) for m, v in ((1.0, 4.0), (-2.0, 9.0)))
    assert float(frechet_distance(a, b)) == pytest.approx(9 + (2 - 3) ** 2, rel=1e-12)


def test_of_diagonal_covariances():
    a, b = draws(6).exp(), draws(6, seed=1).exp()
    zero = torch.zeros(6, dtype=torch.float64)
    found = frechet_distance(Gaussian(zero, a.diag()), Gaussian(zero, b.diag()))
    assert float(found) == pytest.approx(float(((a.sqrt() - b.sqrt()) ** 2).sum()), rel=1e-10)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 6), rank_a=st.integers(0, 6), rank_b=st.integers(0, 6), seed=st.integers(0, 1000))
def test_against_the_roots_of_the_product(n, rank_a, rank_b, seed):
    """tr (AB)^1/2 by the eigenvalues of AB, which are real and not negative; singular covariances included."""
    a, b = draws(n, rank_a, seed=seed), draws(n, rank_b, seed=seed + 1)
    a, b, mean = a @ a.T, b @ b.T, draws(2, n, seed=seed + 2)
    roots = np.sqrt(np.maximum(np.linalg.eigvals((a @ b).numpy()).real, 0)).sum()
    wanted = float(((mean[0] - mean[1]) ** 2).sum() + a.trace() + b.trace()) - 2 * roots
    found = float(frechet_distance(Gaussian(mean[0], a), Gaussian(mean[1], b)))
    # A root of rounding errors is about 1e-8 of the size: the oracle's, not ours.
    assert found == pytest.approx(wanted, abs=2e-6 * (1 + float(a.trace() + b.trace())))


def test_no_distance_from_itself_and_the_same_both_ways():
    a, b = gaussian_of(draws(40, 5)), gaussian_of(draws(3, 5, seed=1))
    assert float(frechet_distance(a, a)) == pytest.approx(0, abs=1e-12)
    # Three vectors of five numbers: singular.
    assert float(frechet_distance(b, b)) == pytest.approx(0, abs=1e-7)
    assert float(frechet_distance(a, b)) == pytest.approx(float(frechet_distance(b, a)), rel=1e-10)


def test_many_at_once():
    a, b = draws(20, 4, 3), draws(20, 4, 3, seed=1)
    running = [RunningMoments(4, 3), RunningMoments(4, 3)]
    for moments, values in zip(running, (a, b), strict=True):
        moments.add(values)
    found = frechet_distance(running[0].gaussian(), running[1].gaussian())
    for cell in range(4):
        assert float(found[cell]) == pytest.approx(
            float(frechet_distance(gaussian_of(a[:, cell]), gaussian_of(b[:, cell]))), rel=1e-9
        )


# --- pooling --------------------------------------------------------------------------------------------------------


def test_areas_are_plain_means():
    pool = Pooling((2, 3), (5, 7))
    values = draws(2, 4, 5, 7)
    found = pool.means(values).view(2, 2, 3, 4)
    rows, columns = np.arange(5) * 2 // 5, np.arange(7) * 3 // 7
    for r in range(2):
        for c in range(3):
            here = values[:, :, rows == r][:, :, :, columns == c]
            torch.testing.assert_close(found[:, r, c], here.mean((2, 3)))
    assert int(pool.cells.sum()) == 35


@pytest.mark.parametrize("scene", [True, False])
def test_the_pooled_law_is_the_dense_covariance_pooled(scene):
    maps = random_maps((4, 5), 2, batch=3, scene=scene)
    pool = Pooling((2, 2), (4, 5))
    basis = torch.eye(40, dtype=torch.float64).view(40, 20, 2).mT.reshape(40, 2, 4, 5)
    matrix = pool.means(basis).T
    wanted = 0
    for item in range(3):
        dense = dense_covariance(maps, item) if scene else cell_major(maps.std[item] ** 2).diag()
        wanted = wanted + matrix @ dense @ matrix.T
    torch.testing.assert_close(pool.covariance(maps), wanted, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("scene", [True, False])
def test_the_law_of_a_cell_is_a_block_of_the_dense_covariance(scene):
    maps = random_maps((2, 3), 3, batch=2, scene=scene)
    found = cell_covariances(maps)
    for item in range(2):
        dense = dense_covariance(maps, item) if scene else cell_major(maps.std[item] ** 2).diag()
        for cell in range(6):
            block = dense[3 * cell : 3 * cell + 3, 3 * cell : 3 * cell + 3]
            torch.testing.assert_close(found[item, cell], block, rtol=1e-5, atol=1e-7)


def test_the_pooled_law_is_that_of_the_samples():
    maps = random_maps((4, 6), 2, seed=4)
    pool = Pooling((2, 2), (4, 6))
    many = maps._replace(
        mean=maps.mean.expand(20_000, -1, -1, -1),
        std=maps.std.expand(20_000, -1, -1, -1),
        scene=maps.scene._replace(slot=maps.scene.slot.expand(20_000, -1, -1)),
    )
    drawn = gaussian_of(pool.means(sample_prior(many, 1)))
    law = Gaussian(pool.means(maps.mean)[0], pool.covariance(maps))
    torch.testing.assert_close(drawn.covariance, law.covariance, rtol=0, atol=0.05 * float(law.covariance.max()))
    assert float(frechet_distance(drawn, law)) < 0.002 * float(law.covariance.trace())
    # And not that of independent cells: the test can tell.
    alone = Gaussian(law.mean, pool.covariance(maps._replace(scene=None)))
    assert float(frechet_distance(drawn, alone)) > 0.05 * float(law.covariance.trace())


def test_noise_of_an_area_is_the_noise_of_its_cells():
    pool = Pooling((1, 2), (2, 5))
    assert pool.noise(3.0, 2).tolist() == pytest.approx([9 / 6, 9 / 6, 9 / 4, 9 / 4])


def test_areas_need_twice_the_pictures():
    assert usable_grids(4, (8, 8), 25) == ([(1, 1), (1, 2)], [(2, 2), (2, 3), (4, 6)])
    assert usable_grids(4, (8, 8), 193)[1] == []
    assert usable_grids(4, (1, 1), 1000) == ([(1, 1)], [grid for grid in GRIDS if grid != (1, 1)])
