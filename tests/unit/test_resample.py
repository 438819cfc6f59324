"""Resampling against a slow loop that writes the interpolation out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scp_prior.resample import resample_cells, resample_moments


def random_cells(seed: int, n: int, c: int, size, empty: float = 0.4):
    g = torch.Generator().manual_seed(seed)
    count = torch.randint(1, 50, (n, *size), generator=g)
    count[torch.rand(count.shape, generator=g) < empty] = 0
    seen = (count > 0)[:, None]
    mean = torch.where(seen, torch.randn(n, c, *size, generator=g) * 5 + 20, 0)
    std = torch.where(seen, torch.rand(n, c, *size, generator=g) * 3, 0)
    return count.float(), mean, std


def bilinear_weights(new: int, old: int) -> torch.Tensor:
    """(new, old) weights of bilinear enlargement with half-pixel centres."""
    weights = torch.zeros(new, old, dtype=torch.float64)
    for i in range(new):
        x = max((i + 0.5) * old / new - 0.5, 0)
        left = min(int(x), old - 1)
        right = min(left + 1, old - 1)
        weights[i, left] += 1 - (x - left)
        weights[i, right] += x - left
    return weights


@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 5), st.integers(0, 7), st.integers(0, 7))
@settings(max_examples=40, deadline=None)
def test_enlarging_pools_the_cells_by_weight_and_count(seed, h, w, dh, dw):
    count, mean, std = random_cells(seed, 1, 2, (h, w))
    new_count, new_mean, new_std = resample_cells(count, mean, std, (h + dh, w + dw))
    rows, columns = bilinear_weights(h + dh, h), bilinear_weights(w + dw, w)
    for i in range(h + dh):
        for j in range(w + dw):
            share = rows[i][:, None] * columns[j][None] * count[0]  # (h, w)
            total = float(share.sum())
            assert float(new_count[0, i, j]) == pytest.approx(total, rel=1e-5, abs=1e-6)
            for c in range(2):
                if total == 0:
                    assert new_mean[0, c, i, j] == 0
                    continue
                pooled = float((share * mean[0, c]).sum()) / total
                variance = float((share * (std[0, c].double() ** 2 + (mean[0, c] - pooled) ** 2)).sum()) / total
                assert float(new_mean[0, c, i, j]) == pytest.approx(pooled, rel=1e-5, abs=1e-5)
                assert float(new_std[0, c, i, j]) == pytest.approx(variance**0.5, rel=1e-4, abs=1e-4)


@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 9), st.integers(1, 12), st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_a_cell_that_saw_nothing_never_pulls_toward_zero(seed, h, w, new_h, new_w):
    """All seen means lie far from zero; so must every interpolated one."""
    count, mean, std = random_cells(seed, 3, 2, (h, w), empty=0.7)
    new_count, new_mean, new_std = resample_cells(count, mean, std, (new_h, new_w))
    for k in range(3):
        seen_old, seen_new = count[k] > 0, new_count[k] > 0
        if not seen_old.any():
            assert not seen_new.any()
            continue
        for c in range(2):
            values = new_mean[k, c][seen_new]
            assert (values >= mean[k, c][seen_old].min() - 1e-3).all()
            assert (values <= mean[k, c][seen_old].max() + 1e-3).all()
    assert torch.isfinite(new_std).all()
    assert (new_std >= 0).all()


def test_shrinking_by_a_whole_factor_keeps_constant_cells():
    count, mean, std = torch.full((1, 8, 8), 5.0), torch.full((1, 1, 8, 8), 3.0), torch.full((1, 1, 8, 8), 2.0)
    new_count, new_mean, new_std = resample_cells(count, mean, std, (4, 4))
    torch.testing.assert_close(new_count, torch.full((1, 4, 4), 5.0))
    torch.testing.assert_close(new_mean, torch.full((1, 1, 4, 4), 3.0))
    torch.testing.assert_close(new_std, torch.full((1, 1, 4, 4), 2.0))


def test_the_same_size_changes_nothing():
    count, mean, std = random_cells(3, 2, 4, (5, 6))
    again = resample_cells(count, mean, std, (5, 6))
    for a, b in zip(again, (count, mean, std), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_spatial_moments_are_cells_of_equal_weight():
    _, mean, std = random_cells(5, 1, 3, (4, 4), empty=0)
    expected = resample_cells(torch.ones(1, 4, 4), mean, std, (7, 3))
    got = resample_moments(mean[0], std[0], (7, 3))
    assert torch.equal(got[0], expected[1][0])
    assert torch.equal(got[1], expected[2][0])
