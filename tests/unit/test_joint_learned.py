"""The joint prior of files that say what its cells are drawn toward, against python floats; and where it goes."""

from __future__ import annotations

import json

import pytest
import torch
from builders import METADATA, SHRINKAGE, make_statistics
from hypothesis import given, settings
from hypothesis import strategies as st

from scp_prior import SCPError, Statistics, load_statistics, prior_maps, save_statistics
from scp_prior.collector import Collector
from scp_prior.methods import METHODS
from scp_prior.table import SPREAD_FLOOR

UNKNOWN = 77


def between(i: int, cells: int, corners: int) -> tuple[int, int, float]:
    """The corners around a cell's centre along one side, and the share of the second."""
    at = min(max((i + 0.5) * corners / cells - 0.5, 0.0), corners - 1.0)
    first = int(at)
    return first, min(first + 1, corners - 1), at - first


def bilinear(field: list[list[float]], i: int, j: int, h: int, w: int) -> float:
    (top, down, y), (left, right, x) = between(i, h, len(field)), between(j, w, len(field[0]))
    upper = (1 - x) * field[top][left] + x * field[top][right]
    lower = (1 - x) * field[down][left] + x * field[down][right]
    return (1 - y) * upper + y * lower


def one_cell(t, k: int, c: int, i: int, j: int, size, a: float, b: float, inflation: float, held_out: bool):
    """Mean and std of one cell and channel; `t` has joint and spatial parts already on the grid of `size`."""
    ids = t["class_ids"].tolist()
    if k not in ids:
        if 255 in ids:
            t_mean, t_var = float(t["class.mean"][ids.index(255), c]), float(t["class.std"][ids.index(255), c]) ** 2
        else:
            t_mean, t_var = float(t["spatial.mean"][c, i, j]), float(t["spatial.std"][c, i, j]) ** 2
        n = 0.0
    else:
        row = ids.index(k)
        n = float(t["joint.count"][row, i, j])
        if "target.mean" in t:
            t_mean = bilinear(t["target.mean"][row, c].tolist(), i, j, *size)
            t_var = bilinear((t["target.std"][row, c].double() ** 2).tolist(), i, j, *size)
        else:
            t_mean, t_var = float(t["class.mean"][row, c]), float(t["class.std"][row, c]) ** 2
    if n == 0:
        return t_mean, max((t_var * inflation) ** 0.5, SPREAD_FLOOR)
    mean, std = float(t["joint.mean"][row, c, i, j]), float(t["joint.std"][row, c, i, j])
    m = (n * mean + a * t_mean) / (n + a)
    squares = std**2 + (mean - m) ** 2
    if held_out:
        squares *= ((n + a) / max(n + a - 1, 0.5)) ** 2
    variance = (n * squares + b * t_var) / (n + b) if n + b else squares
    return m, max((variance * inflation) ** 0.5, SPREAD_FLOOR)


@given(
    seed=st.integers(0, 1000),
    size=st.sampled_from([(4, 6), (5, 7), (8, 6), (3, 3), (2, 9), (9, 12), (1, 1)]),
    shrinkage=st.sampled_from([None, 0.0, 0.5, 8.0]),
    unlabelled=st.booleans(),
    learned=st.booleans(),
    numbers=st.sampled_from([(3.0, 20.0, 1.15), (0.125, 1.0, 1.0), (1e9, 1e9, 2.0), (0.0, 0.0, 1.3)]),
)
@settings(max_examples=60, deadline=None)
def test_against_a_slow_loop(seed, size, shrinkage, unlabelled, learned, numbers):
    """Stored grid, other proportions (3:4 portrait among them), grids coarser than the corners."""
    ids = (0, 3, 255) if unlabelled else (0, 3)
    named = dict(zip(("mean", "variance", "inflation"), numbers, strict=True))
    metadata = {"shrinkage": json.dumps(SHRINKAGE | named)} if learned else {}
    statistics = make_statistics(ids, channels=2, seed=seed, learned=learned, **metadata)
    g = torch.Generator().manual_seed(seed)
    labels = torch.tensor([*ids, UNKNOWN])[torch.randint(0, len(ids) + 1, (1, *size), generator=g)]
    maps = prior_maps(statistics, labels, latent_size=size, shrinkage=shrinkage)
    if shrinkage is not None:
        options = (shrinkage, 8 * shrinkage, 1.0, False)
    else:
        options = (*numbers, True) if learned else (8.0, 64.0, 1.0, False)
    tensors = statistics.resample(size).tensors()
    for i in range(size[0]):
        for j in range(size[1]):
            for c in range(2):
                mean, std = one_cell(tensors, int(labels[0, i, j]), c, i, j, size, *options)
                assert float(maps.mean[0, c, i, j]) == pytest.approx(mean, rel=2e-5, abs=2e-5)
                assert float(maps.std[0, c, i, j]) == pytest.approx(std, rel=1e-4, abs=1e-5)


def test_a_target_without_numbers_takes_eight_photos():
    """Such a file is none of ours, but it may be."""
    made = make_statistics(learned=True)
    metadata = {key: value for key, value in made.metadata.items() if key != "shrinkage"}
    bare = Statistics.from_tensors(made.tensors(), metadata)
    labels = torch.full((1, 4, 6), 3)
    for found, wanted in zip(prior_maps(bare, labels)[:3], prior_maps(made, labels, shrinkage=8.0)[:3], strict=True):
        assert torch.equal(found, wanted)


def test_numbers_without_a_target_are_not_used():
    plain = make_statistics()
    odd = Statistics.from_tensors(plain.tensors(), {**METADATA, "shrinkage": json.dumps(SHRINKAGE)})
    labels = torch.full((1, 4, 6), 3)
    assert torch.equal(prior_maps(odd, labels).mean, prior_maps(plain, labels).mean)


@pytest.mark.parametrize("learned", [False, True])
def test_no_shrinkage_is_the_papers_prior_wherever_something_was_seen(learned):
    """Where nothing was, the paper has the class; a file that knows better says what the class looks like there."""
    statistics = make_statistics(learned=learned)
    labels = torch.tensor([0, 1, 3, 255, UNKNOWN])[
        torch.randint(0, 5, (2, 4, 6), generator=torch.Generator().manual_seed(3))
    ]
    ours, theirs = (prior_maps(statistics, labels, m, shrinkage=0.0) for m in ("joint", "joint-class"))
    assert torch.equal(ours.origin, theirs.origin)
    same = ours.origin == 0 if learned else torch.ones_like(ours.origin, dtype=torch.bool)
    same = same.unsqueeze(1).expand_as(ours.mean)
    assert torch.equal(ours.mean[same], theirs.mean[same])
    torch.testing.assert_close(ours.std[same], theirs.std[same], rtol=1e-6, atol=0)


@pytest.mark.parametrize("text", ["", "x", "{}", '{"mean": -1, "variance": 1, "inflation": 1}'])
def test_a_file_of_strange_numbers_is_refused_when_it_is_opened(tmp_path, text):
    with pytest.raises(SCPError, match="shrinkage metadata"):
        make_statistics(learned=True, shrinkage=text)
    made = make_statistics(learned=True)
    made.metadata["shrinkage"] = text
    save_statistics(made, tmp_path / "own.safetensors")
    with pytest.raises(SCPError, match=r"own\.safetensors.*shrinkage metadata"):
        load_statistics(tmp_path / "own.safetensors")


@given(
    scale=st.sampled_from([0.0, 1e-30, 1e-6, 1.0, 1e6, 1e15]),
    spread=st.sampled_from([0.0, 1e-30, 1e-6, 1.0, 1e6, 1e15]),
    numbers=st.tuples(*(st.sampled_from([0.0, 0.125, 16.0, 1e9, 1e300]),) * 2, st.sampled_from([0.01, 1.0, 100.0])),
    shrinkage=st.sampled_from([None, 0.0, 1e-300, 8.0, 1e308]),
    size=st.sampled_from([(4, 6), (3, 8), (9, 5)]),
    variation=st.sampled_from([0.0, 1e-9, 0.5, 1.0]),
)
@settings(max_examples=150, deadline=None)
def test_no_file_makes_a_prior_without_a_spread(scale, spread, numbers, shrinkage, size, variation):
    """Moments of any size, cells and targets without spread, absurd numbers."""
    made = make_statistics((0, 1), channels=2, learned=True)
    tensors = {
        key: t * (spread if key.endswith(".std") else scale) / 30 if key.endswith((".mean", ".std")) else t
        for key, t in made.tensors().items()
    }
    named = dict(zip(("mean", "variance", "inflation"), numbers, strict=True))
    statistics = Statistics.from_tensors(tensors, {**METADATA, "shrinkage": json.dumps(SHRINKAGE | named)})
    labels = torch.tensor([0, 1, UNKNOWN])[torch.randint(0, 3, (1, *size), generator=torch.Generator().manual_seed(1))]
    for method in METHODS:
        maps = prior_maps(statistics, labels, method, latent_size=size, shrinkage=shrinkage, scene_variation=variation)
        assert maps.mean.isfinite().all()
        assert maps.std.isfinite().all()
        assert (maps.std > 0).all() or method == "normal"


@pytest.mark.parametrize("key", ["joint.mean", "joint.std", "class.std", "spatial.mean", "target.mean", "target.std"])
def test_what_would_overflow_when_squared_is_refused(key):
    made = make_statistics(learned=True)
    with pytest.raises(SCPError, match=f"{key} holds 1e.20, which no latent is"):
        Statistics.from_tensors(made.tensors() | {key: torch.full_like(made.tensors()[key], 1e20)}, made.metadata)


# --- convergence ----------------------------------------------------------------------------------------------------

SIZE, CLASSES = (8, 12), 3


def truth_of(family: str) -> torch.Tensor:
    """(K, C, h, w) means: the same everywhere, a slope, or every cell its own."""
    g = torch.Generator().manual_seed(11)
    flat = 3 * torch.randn(CLASSES, 2, 1, 1, generator=g).expand(-1, -1, *SIZE)
    slope = torch.linspace(-4, 4, SIZE[0]).view(1, 1, -1, 1) * torch.tensor([1.0, -1.0, 0.3]).view(-1, 1, 1, 1)
    return {"flat": flat, "slope": flat + slope, "cells": flat + 3 * torch.randn(flat.shape, generator=g)}[family]


def squared_errors(family: str, n: int, seed: int) -> tuple[float, float]:
    """Mean squared error of the cells' means, of `joint` and `joint-class`, where something was seen."""
    g = torch.Generator().manual_seed(seed)
    truth, made = truth_of(family), Collector(2, SIZE)
    labels = torch.randint(0, CLASSES, (n, *SIZE), generator=g)
    means = truth.permute(0, 2, 3, 1)[labels, torch.arange(SIZE[0]).view(-1, 1), torch.arange(SIZE[1])]
    made.add(means.permute(0, 3, 1, 2) + torch.randn(n, 2, *SIZE, generator=g), labels)
    statistics = made.statistics()
    every = torch.arange(CLASSES).view(-1, 1, 1).expand(-1, *SIZE)
    errors = []
    for method in ("joint", "joint-class"):
        maps = prior_maps(statistics, every, method)
        seen = (maps.origin == 0).unsqueeze(1)
        errors.append(float((((maps.mean - truth) ** 2) * seen).sum() / seen.expand_as(truth).sum()))
    return tuple(errors)


@pytest.mark.parametrize("family", ["flat", "slope", "cells"])
def test_the_mean_converges_as_fast_as_the_plain_joints(family):
    """The plain one's error is 1 / n of a cell. Ours is never much above it, and both fall alike."""
    sizes = (12, 60, 600)
    found = [squared_errors(family, n, seed=n) for n in sizes]
    for n, (ours, plain) in zip(sizes, found, strict=True):
        assert plain == pytest.approx(CLASSES / n, rel=0.6)
        assert ours <= (1.3 if n < 100 else 1.1) * plain, (n, ours, plain)
    assert found[-1][0] < 0.06 * found[0][0] or found[-1][0] < 0.1 * found[-1][1]


def test_where_nothing_depends_on_the_place_it_converges_faster():
    ours, plain = squared_errors("flat", 60, 1)
    assert ours < 0.2 * plain
