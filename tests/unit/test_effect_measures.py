"""What the effect benchmark measures, against slow loops and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.effect_measures import (
    Measured,
    apart,
    confusion,
    distance,
    estimates,
    mean_iou,
    pixel_accuracy,
    quantities,
    variety,
)
from benchmarks.effect_plan import MAIN, STARTS, plan

CLASSES = (0, 3, 7)


def measured(seed: int, count: int = 12, shift: float = 0.0) -> Measured:
    """Made-up maps, of which a share that grows with `shift` is told wrongly, and made-up vectors."""
    rng = np.random.default_rng(seed)
    truth = torch.from_numpy(rng.choice(CLASSES, (count, 6, 8)))
    wrong = torch.from_numpy(rng.random(truth.shape) < 0.2 + shift)
    told = torch.where(wrong, torch.from_numpy(rng.choice(CLASSES, truth.shape)), truth)
    vectors = [rng.normal(shift, 1, (count, 5)) for _ in range(3)]
    return Measured(*confusion(told, truth, CLASSES), *vectors, rng.integers(0, 256, (count, 3, 4, 8), dtype=np.uint8))


def test_mean_iou_and_accuracy_are_those_of_a_slow_loop():
    rng = np.random.default_rng(0)
    truth, told = rng.choice(CLASSES, (2, 5, 6, 8))
    run = Measured(*confusion(torch.from_numpy(told), torch.from_numpy(truth), CLASSES), *[np.zeros((5, 2))] * 4)
    shares = []
    for label in CLASSES:
        both = either = 0
        for a, b in zip(truth.ravel(), told.ravel(), strict=True):
            both += a == b == label
            either += label in (a, b)
        shares.append(both / either)
    assert mean_iou(run) == pytest.approx(np.mean(shares))
    assert pixel_accuracy(run) == pytest.approx((truth == told).mean())


def test_a_class_that_is_nowhere_does_not_count():
    truth = torch.zeros(2, 4, 4, dtype=torch.int64)
    run = Measured(*confusion(truth, truth, (0, 9)), *[np.zeros((2, 2))] * 4)
    assert mean_iou(run) == 1


def test_weights_count_maps_as_often_as_if_they_were_repeated():
    run = measured(1)
    weight = np.random.default_rng(2).multinomial(12, np.full(12, 1 / 12))
    repeated = Measured(*(np.repeat(part, weight, 0) for part in run))
    for name, quantity in quantities(measured(3)).items():
        assert quantity(run, weight) == pytest.approx(quantity(repeated, None)), name


def test_the_frechet_distance_of_gaussians_that_differ_in_one_direction():
    rng = np.random.default_rng(4)
    base = rng.normal(size=(20_000, 3))
    moved = base * [1, 1, 2] + [3, 0, 0]
    # |difference of means|^2 + (2 - 1)^2 of the one spread that differs
    assert distance(moved, base) == pytest.approx(9 + 1, rel=0.03)
    assert distance(base, base) == pytest.approx(0, abs=1e-9)


def test_variety_is_one_for_the_real_ones_and_a_quarter_at_half_the_spread():
    real = np.random.default_rng(5).normal(size=(50, 4))
    assert variety(real, real) == pytest.approx(1)
    assert variety(real / 2 + 7, real) == pytest.approx(0.25)


def test_apart_is_the_distance_of_two_seeds():
    one, two = measured(6), measured(7)
    difference = (one.small.astype(float) - two.small) / 255
    assert apart([one, two]) == pytest.approx(np.sqrt((difference**2).mean()))
    assert apart([one, one]) == 0


def test_estimates_pair_their_draws():
    """What two groups share falls out of their difference; a group differs from itself by nothing, surely."""
    good, bad = [measured(8), measured(9)], [measured(8, shift=0.3), measured(9, shift=0.3)]
    found = estimates({"good": good, "same": good, "bad": bad}, pixel_accuracy, "good")
    assert found["same"][1] == (0, 0)
    value, difference = found["bad"]
    assert value.value == pytest.approx(np.mean([pixel_accuracy(run) for run in bad]))
    assert difference.value < -3 * difference.error < 0


def test_the_error_is_that_of_a_mean_over_maps():
    """With as many pixels on every map the accuracy is a mean of shares, whose error is known."""
    run = measured(10, count=400)
    shares = run.hits.sum(1) / (run.hits + run.misses).sum(1)
    error = estimates({"one": [run]}, pixel_accuracy, "one", draws=400)["one"][0].error
    assert error == pytest.approx(shares.std(ddof=1) / np.sqrt(len(shares)), rel=0.15)


def test_the_plan_varies_one_factor_at_a_time():
    runs = plan(3, 2)
    assert len(set(runs)) == len(runs)
    assert len({run.name for run in runs}) == len(runs)
    main = [run for run in runs if run.timestep in (None, 799) and run.steps == 20]
    assert {(run.start, run.seed) for run in main} == {(start, seed) for start in STARTS for seed in range(3)}
    for run in set(runs) - set(main):
        assert (run.timestep in (None, 799)) != (run.steps == 20)
        assert run.start in ("normal", *MAIN)
        assert run.seed < 2
    assert all((run.timestep is None) == (run.start == "normal") for run in runs)
