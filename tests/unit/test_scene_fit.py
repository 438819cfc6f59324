"""Scene effects learned: always a covariance, and the truth where there is one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scp_prior.collector import Collector
from scp_prior.pictures import Pictures
from scp_prior.scene_fit import (
    FEWEST_CELLS,
    MOST_SHARE,
    _effects,
    _surprise,
    _Trust,
    fit_scene,
    positive_definite,
    residuals_of,
)


@st.composite
def residuals(draw):
    """(N, K, C) values and (N, K) cells: classes seen always, once or never; any spread; some pictures alike."""
    n, k, c = draw(st.integers(1, 9)), draw(st.integers(1, 12)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    value = rng.normal(size=(n, k, c)) * draw(st.sampled_from([0.0, 1e-8, 0.1, 1.0, 100.0, 1e8]))
    if draw(st.booleans()):
        value[:] = value[:1]
    if draw(st.booleans()):
        value[..., 1:] = value[..., :1]  # channels that are one
    if draw(st.booleans()):
        value[:, 1:] = value[:, :1]  # classes that are one
    count = rng.integers(FEWEST_CELLS, 4000, (n, k)).astype(np.float64)
    count[rng.random((n, k)) < draw(st.sampled_from([0.0, 0.5, 0.9, 1.0]))] = 0
    return value * (count > 0)[..., None], count


@given(
    residuals(),
    st.builds(
        _Trust,
        between=st.sampled_from([1.0, 8.0, 1e9]),
        channels=st.sampled_from([1.0, 64.0]),
        share=st.sampled_from([2.0, 32.0]),
        kept=st.sampled_from([0.0, 0.5, 1.0]),
    ),
)
@settings(max_examples=150, deadline=None)
def test_effects_are_a_covariance_whatever_the_residuals(given_residuals, trust):
    value, count = given_residuals
    share, correlation = _effects(value, count, trust)
    k, c = share.shape
    assert np.isfinite(share).all()
    assert (share >= 0).all()
    assert (share <= MOST_SHARE + 1e-12).all()
    assert not share[count.sum(0) == 0].any()
    flat = correlation.reshape(k * c, k * c)
    assert np.array_equal(flat, flat.T)
    assert np.diag(flat) == pytest.approx(np.ones(k * c), abs=1e-12)
    assert np.linalg.eigvalsh(flat).min() > 1e-6
    # And as the file has them.
    assert np.linalg.eigvalsh(flat.astype(np.float32).astype(np.float64)).min() > 0
    assert np.isfinite(_surprise(value, count, share, correlation))


@given(st.integers(1, 12), st.integers(0, 1000), st.sampled_from([1e-6, 1e-3, 0.02]))
@settings(max_examples=60, deadline=None)
def test_anything_symmetric_becomes_positive_definite(n, seed, least):
    wild = np.clip(np.random.default_rng(seed).normal(size=(n, n)), -1, 1)
    made = positive_definite(wild.copy(), least)
    assert np.diag(made) == pytest.approx(np.ones(n), abs=1e-12)
    # Unit diagonals again: the rows grew at most n fold.
    assert np.linalg.eigvalsh(made).min() >= least / (1 + n) - 1e-12
    good = np.eye(n) * 0.5 + 0.5
    assert positive_definite(good.copy(), 1e-3) == pytest.approx(good)


def test_shares_spelled_out():
    """What n pictures say of one class, each of them part of the mean it is compared with."""
    value, count = np.array([0.9, -0.4, 0.5, -0.3]).reshape(4, 1, 1), np.array([10.0, 20, 40, 0]).reshape(4, 1)
    value[3] = 0
    share, _ = _effects(value, count, _Trust(share=0.0, kept=0.5))
    variance = (0.9**2 + 0.4**2 + 0.5**2) / 3 * 3 / 2
    noise = (1 / 10 + 1 / 20 + 1 / 40) / 3
    assert share.item() == pytest.approx(0.5 * (variance - noise) / (1 - noise))


def test_the_surprise_is_the_gaussians():
    """Against a dense covariance over all present effects, one picture after the other."""
    rng = np.random.default_rng(0)
    k, c, n = 3, 2, 5
    value, count = rng.normal(size=(n, k, c)), rng.integers(8, 50, (n, k)).astype(float)
    count[0, 1] = count[3, 0] = count[4] = 0
    share, correlation = _effects(value * (count > 0)[..., None], count, _Trust())
    total = 0.0
    for i in range(n):
        names = [(a, b) for a in range(k) if count[i, a] for b in range(c)]
        if not names:
            continue
        dense = np.array(
            [
                [
                    correlation[a, b, p, q] * np.sqrt(share[a, b] * share[p, q])
                    + ((1 - share[a, b]) / count[i, a] if (a, b) == (p, q) else 0)
                    for p, q in names
                ]
                for a, b in names
            ]
        )
        z = np.array([value[i, a, b] for a, b in names])
        total += 0.5 * (z @ np.linalg.inv(dense) @ z + np.linalg.slogdet(dense)[1])
    assert _surprise(value, count, share, correlation) == pytest.approx(total, rel=1e-9)


def test_residuals_against_a_slow_loop():
    rng = np.random.default_rng(1)
    ids, c, cells, n = [0, 9, 255], 2, 40, 6
    mean, std = rng.normal(size=(3, cells, c)), rng.uniform(0.5, 2, (3, cells, c))
    notes, raw = Pictures(c), {}
    for _ in range(n):
        latent = rng.normal(size=(c, cells)).astype(np.float32)
        labels = rng.choice(ids, cells, p=[0.6, 0.3, 0.1])
        notes.add(latent, labels)
        raw[latent.tobytes()] = latent, labels
    found = residuals_of(notes.kept(), ids, mean, std)
    by_means = {p.means.tobytes(): i for i, p in enumerate(notes.kept())}
    field, shown = np.zeros((3, c, c)), np.zeros(3)
    for latent, labels in raw.values():
        means = np.stack([latent[:, labels == k].astype(np.float64).mean(1) for k in sorted(set(labels))])
        i = min(by_means.values(), key=lambda i: np.abs(notes.kept()[i].labels.astype(int) - labels).max())
        for row, k in enumerate(ids):
            here = np.flatnonzero(labels == k)
            if not len(here):
                assert found.count[i, row] == 0
                continue
            shown[row] += 1
            expected, spread = mean[row, here].mean(0), std[row, here].mean(0)
            field[row] += sum(np.outer(mean[row, p] - expected, mean[row, p] - expected) for p in here)
            if len(here) < FEWEST_CELLS:
                assert found.count[i, row] == 0
                assert not found.value[i, row].any()
                continue
            assert found.count[i, row] == len(here)
            wanted = (means[sorted(set(labels)).index(k)] - expected) / spread
            assert found.value[i, row] == pytest.approx(wanted, rel=1e-5, abs=1e-5)
    assert found.field == pytest.approx(field)
    assert found.shown.tolist() == shown.tolist()


def scenes(n: int, seed: int = 0, shared: float = 0.6, between: float = 0.8, size=(12, 16)):
    """Two classes, two channels; of each cell's unit variance `shared` is the picture's, correlated `between`."""
    g = torch.Generator().manual_seed(seed)
    truth = torch.full((4, 4), between * shared)
    truth.fill_diagonal_(shared)
    u = (torch.linalg.cholesky(truth + 1e-6 * torch.eye(4)) @ torch.randn(4, n, generator=g)).T.view(n, 2, 2)
    labels = (torch.arange(size[0]) < size[0] // 2).long().view(1, -1, 1).expand(n, *size).clone()
    labels[:, :, 0] = torch.randint(0, 2, (n, size[0]), generator=g)
    moved = u.gather(1, labels.flatten(1).unsqueeze(2).expand(-1, -1, 2)).permute(0, 2, 1).view(n, 2, *size)
    z = moved + (1 - shared) ** 0.5 * torch.randn(n, 2, *size, generator=g) + 3 * labels.unsqueeze(1)
    made = Collector(2, size)
    made.add(z, labels)
    return made.statistics()


def test_shared_light_is_learned():
    share, correlation, within, count = scenes(200).scene()
    assert count.tolist() == [200, 200]
    assert share.numpy() == pytest.approx(np.full((2, 2), 0.6), abs=0.1)
    off = correlation.reshape(4, 4)[~torch.eye(4, dtype=torch.bool)]
    assert off.numpy() == pytest.approx(np.full(12, 0.8), abs=0.12)
    assert within.numpy() == pytest.approx(np.stack([np.eye(2)] * 2), abs=0.08)


def test_where_nothing_is_shared_nothing_is_learned():
    for seed in range(3):
        assert float(scenes(60, seed, shared=0.0, between=0.0).scene().share.max()) < 0.03


def test_channels_that_go_together_within_a_picture():
    """What remains of a cell has the channel correlation it was made with, scene effects and positions aside."""
    g = torch.Generator().manual_seed(3)
    n, size = 60, (12, 16)
    noise = torch.randn(n, 2, *size, generator=g)
    z = torch.stack([noise[:, 0], 0.7 * noise[:, 0] + 0.51**0.5 * noise[:, 1]], dim=1)
    z = z + torch.randn(n, 2, 1, 1, generator=g) * torch.tensor([1.0, -1.0]).view(2, 1, 1)
    z = z + torch.linspace(-3, 3, 16)  # means of cells, no matter of channels within a picture
    made = Collector(2, size)
    made.add(z, torch.zeros(n, *size, dtype=torch.int64))
    assert float(made.statistics().scene().within[0, 0, 1]) == pytest.approx(0.7, abs=0.1)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_too_few_pictures_have_no_scene(n):
    assert not scenes(n).has_scene


def test_no_class_of_cells_enough_has_no_scene():
    made = Collector(2, (2, 3))
    made.add(torch.randn(12, 2, 2, 3, generator=torch.Generator().manual_seed(0)), torch.zeros(12, 2, 3).long())
    assert not made.statistics().has_scene
    notes = Pictures(1)
    assert (
        fit_scene(notes.kept(), {}, [], np.zeros((0, 4, 1)), np.zeros((0, 4, 1)), np.zeros((0, 1, 1)), np.zeros(0))
        is None
    )
