"""The coarse grid against torch's own interpolation and against what must hold of any average."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from scp_prior.coarse import CoarseGrid

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))


def field(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(SIZES)
@settings(max_examples=60, deadline=None)
def test_spread_is_bilinear_interpolation(size):
    grid = CoarseGrid(size)
    coarse = field(2, 3, *grid.size)
    wanted = F.interpolate(coarse, size=size, mode="bilinear", align_corners=False)
    torch.testing.assert_close(grid.spread(coarse), wanted, rtol=1e-12, atol=1e-12)


@given(SIZES)
@settings(max_examples=60, deadline=None)
def test_pool_is_the_adjoint_of_spread(size):
    """<spread(a), b> = <a, pool(b)> but for the number of cells to a corner, for any a and b."""
    grid = CoarseGrid(size)
    coarse, fine = field(*grid.size), field(*size, seed=1)
    cells = size[0] * size[1] / (grid.size[0] * grid.size[1])
    left, right = float((grid.spread(coarse) * fine).sum()), cells * float((coarse * grid.pool(fine)).sum())
    assert left == pytest.approx(right, rel=1e-10, abs=1e-10)


@given(SIZES)
@settings(max_examples=60, deadline=None)
def test_constants_stay_and_nothing_is_lost(size):
    grid = CoarseGrid(size)
    constant = torch.full(grid.size, 2.5, dtype=torch.float64)
    torch.testing.assert_close(grid.spread(constant), torch.full(size, 2.5, dtype=torch.float64))
    fine = field(*size)
    # An average over all corners is that over all cells.
    assert float(grid.pool(fine).mean()) == pytest.approx(float(fine.mean()), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("scale", [0.01, 0.06, 0.12, 0.25])
@pytest.mark.parametrize("size", [(1, 1), (4, 6), (16, 16), (64, 48), (11, 30)])
def test_smoothing_keeps_constants_and_the_total(size, scale):
    """A Gaussian reflected at the border; of what its three images leave out, a part in 10 000 remains."""
    grid = CoarseGrid(size)
    constant = torch.full(grid.size, -3.0, dtype=torch.float64)
    torch.testing.assert_close(grid.smooth(constant, scale), constant)
    values = field(2, *grid.size)
    total, scattered = grid.smooth(values, scale).sum((-2, -1)), values.abs().sum((-2, -1))
    assert ((total - values.sum((-2, -1))).abs() <= 2e-4 * scattered).all()


def test_smoothing_is_a_gaussian_average_of_corners():
    grid = CoarseGrid((64, 64))
    spike = torch.zeros(16, 16, dtype=torch.float64)
    spike[8, 8] = 1
    smoothed = grid.smooth(spike, 0.06)
    for dy, dx in [(0, 1), (2, 0), (1, 2)]:
        wanted = torch.tensor(-0.5 * (dy**2 + dx**2) / (0.06 * 16) ** 2).exp()
        assert float(smoothed[8 + dy, 8 + dx] / smoothed[8, 8]) == pytest.approx(float(wanted), rel=1e-6)


def test_no_smoothing_is_none():
    values = field(3, 4)
    assert CoarseGrid((3, 4)).smooth(values, 0.0) is values


@pytest.mark.parametrize(
    ("size", "corners"), [((64, 64), (16, 16)), ((64, 128), (16, 32)), ((64, 48), (16, 12)), ((5, 7), (5, 7))]
)
def test_at_most_sixteen_rows_of_the_latents_proportions(size, corners):
    assert CoarseGrid(size).size == corners
