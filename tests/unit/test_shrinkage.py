"""Targets and pseudo-counts: the formulas against slow loops, the choices against data of known truth."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scp_prior import SCPError
from scp_prior.coarse import CoarseGrid
from scp_prior.pseudo_counts import Shrinkage, held_out_correction
from scp_prior.shrinkage import NEVER, ClassSums, _Evidence, _Fit, fit_target, mean_target, variance_target

SCALES = {"place": 0.12, "wide": 0.25, "middle": 0.12, "near": 0.06, "corner": 0.0}
MEAN_STEPS = {"class": 2.0, "place": 16.0, "wide": 8.0, "middle": 30.0, "near": 32.0, "corner": 5.0, "cell": 16.0}
VARIANCE_STEPS = {"class": 4.0, "wide": 8.0, "middle": 64.0, "near": 12.0, "corner": 6.0, "cell": 12.0}


# --- the formulas ---------------------------------------------------------------------------------------------------


def gaussian(n: int, scale: float) -> list[list[float]]:
    """Weights of the smoothing along one side, reflected at both borders; one-hot for no smoothing."""
    if not scale:
        return [[float(i == j) for j in range(n)] for i in range(n)]
    rows = []
    for i in range(n):
        row = [sum(math.exp(-0.5 * ((i - m) / (scale)) ** 2) for m in (j, -1 - j, 2 * n - 1 - j)) for j in range(n)]
        rows.append([x / sum(row) for x in row])
    return rows


def smoothed_step(grid, residual, count, scale, a):
    """(gh, gw) python lists: smoothed residual / (smoothed count + a)."""
    gh, gw = grid.size
    down, across = gaussian(gh, scale * gh), gaussian(gw, scale * gh)
    out = [[0.0] * gw for _ in range(gh)]
    for y in range(gh):
        for x in range(gw):
            r = n = 0.0
            for v in range(gh):
                for u in range(gw):
                    r += down[y][v] * across[x][u] * residual[v][u]
                    n += down[y][v] * across[x][u] * count[v][u]
            out[y][x] = r / (n + a) if n + a > 0 else 0.0
    return out


def slow_target(grid, evidence, steps, variance=False):
    """The target of one channel, spelled out in python floats: (K, gh, gw) lists."""
    count, sums, pictures = (part.tolist() for part in (evidence.count[:, 0], evidence.sums[:, 0], evidence.pictures))
    (gh, gw), ks = grid.size, range(len(count))
    at = [(y, x) for y in range(gh) for x in range(gw)]
    whole = sum(sums[k][y][x] for k in ks for y, x in at) / sum(count[k][y][x] for k in ks for y, x in at)
    target = []
    for k in ks:
        n = sum(count[k][y][x] for y, x in at)
        of_class = sum(sums[k][y][x] for y, x in at) / n if n else 0.0
        shown = pictures[k][0][0][0]
        weight = shown / (shown + steps["class"]) if shown + steps["class"] else 0.0
        if variance:
            start = whole * math.exp(weight * math.log(max(of_class, 1e-10) / whole))
        else:
            start = whole + weight * (of_class - whole)
        target.append([[start] * gw for _ in range(gh)])

    def residual(k):
        return [[sums[k][y][x] - count[k][y][x] * target[k][y][x] for x in range(gw)] for y in range(gh)]

    if not variance and steps["place"] < NEVER:
        left = [residual(k) for k in ks]
        total, seen = ([[sum(p[k][y][x] for k in ks) for x in range(gw)] for y in range(gh)] for p in (left, count))
        move = smoothed_step(grid, total, seen, SCALES["place"], steps["place"])
        target = [[[t[y][x] + move[y][x] for x in range(gw)] for y in range(gh)] for t in target]
    for step in ("wide", "middle", "near", "corner"):
        if steps[step] >= NEVER:
            continue
        for k in ks:
            move = smoothed_step(grid, residual(k), count[k], SCALES[step], steps[step])
            target[k] = [[target[k][y][x] + move[y][x] for x in range(gw)] for y in range(gh)]
    if variance:
        target = [[[max(v, 1e-10) for v in row] for row in t] for t in target]
    return torch.tensor(target, dtype=torch.float64)


def random_evidence(seed: int, k: int, size, positive=False) -> _Evidence:
    g = torch.Generator().manual_seed(seed)
    count = torch.randint(0, 5, (k, 1, *size), generator=g).double() * torch.rand(k, 1, 1, 1, generator=g)
    count[0, 0, 0, 0] = 1
    if k > 2:
        count[-1] = 0  # a class these photos do not show
    sums = count * torch.randn(k, 1, *size, generator=g, dtype=torch.float64)
    return _Evidence(count, sums.abs() if positive else sums, (count.amax((1, 2, 3), keepdim=True) * 3).ceil())


OFF = st.sets(st.sampled_from(["place", "wide", "middle", "near", "corner"]))


@given(st.integers(0, 1000), st.integers(1, 4), st.tuples(st.integers(1, 5), st.integers(1, 5)), OFF, st.booleans())
@settings(max_examples=25, deadline=None)
def test_mean_target_against_a_slow_loop(seed, k, size, off, unweighted):
    evidence, grid = random_evidence(seed, k, size), CoarseGrid(size)
    steps = {**MEAN_STEPS, **dict.fromkeys(off, NEVER)}
    if unweighted:
        steps["class"] = 0.0
    torch.testing.assert_close(
        mean_target(grid, evidence, steps)[:, 0], slow_target(grid, evidence, steps), rtol=1e-9, atol=1e-9
    )


@given(st.integers(0, 1000), st.integers(1, 4), st.tuples(st.integers(1, 5), st.integers(1, 5)), OFF)
@settings(max_examples=25, deadline=None)
def test_variance_target_against_a_slow_loop(seed, k, size, off):
    evidence, grid = random_evidence(seed, k, size, positive=True), CoarseGrid(size)
    steps = {**VARIANCE_STEPS, **{step: NEVER for step in off if step != "place"}}
    found = variance_target(grid, evidence, steps)
    torch.testing.assert_close(found[:, 0], slow_target(grid, evidence, steps, variance=True), rtol=1e-8, atol=1e-9)
    assert (found > 0).all()


@given(
    st.lists(st.floats(-50, 50), min_size=2, max_size=9),
    st.floats(-50, 50),
    st.sampled_from([0.125, 1.0, 16.0, 512.0]),
)
@settings(max_examples=100, deadline=None)
def test_the_correction_is_leaving_the_photo_out(values, target, a):
    """Squared residual about the shrunk mean of all, times the correction = about the mean made without that photo."""
    n = len(values)
    mean = (sum(values) + a * target) / (n + a)
    correction = float(held_out_correction(torch.tensor(float(n), dtype=torch.float64), a))
    for i, value in enumerate(values):
        others = values[:i] + values[i + 1 :]
        without = (sum(others) + a * target) / (n - 1 + a)
        assert (value - mean) ** 2 * correction == pytest.approx((value - without) ** 2, rel=1e-6, abs=1e-6)


# --- the choices ----------------------------------------------------------------------------------------------------

H, W, FOLDS = 12, 16, 5


def sums_of(z: torch.Tensor, labels: torch.Tensor, fold: torch.Tensor, k: int) -> tuple[list[ClassSums], torch.Tensor]:
    """Class sums in folds, and photos of each fold that show each class, of N photos (N, C, h, w)."""
    classes, pictures = [], torch.zeros(FOLDS, k)
    for row in range(k):
        here = (labels == row).double().unsqueeze(1)
        parts = [[], [], []]
        for f in range(FOLDS):
            mine = fold == f
            pictures[f, row] = (labels[mine] == row).flatten(1).any(1).sum()
            for part, power in zip(parts, (0, 1, 2), strict=True):
                part.append((here[mine] * z[mine] ** power).sum(0)[: 1 if power == 0 else None])
        classes.append(ClassSums(*(torch.stack(part) for part in parts)))
    return classes, pictures


def photos(n: int, seed: int = 0, ramp: float = 0.0, k: int = 3, c: int = 2) -> tuple[torch.Tensor, ...]:
    """n photos of k classes with means 0, 2, 4, each falling by `ramp` from top to bottom, and noise of std 1."""
    g = torch.Generator().manual_seed(seed)
    # Blocks, so that every class comes everywhere.
    labels = torch.randint(0, k, (n, H // 4, W // 4), generator=g).repeat_interleave(4, 1).repeat_interleave(4, 2)
    truth = 2.0 * labels.unsqueeze(1) - ramp * torch.linspace(0, 1, H).view(1, 1, H, 1) * (1 + labels.unsqueeze(1))
    z = truth.double() + torch.randn(n, c, H, W, generator=g, dtype=torch.float64)
    return z, labels, torch.arange(n) % FOLDS


def fit(z, labels, fold, k: int = 3):
    classes, pictures = sums_of(z, labels, fold, k)
    return fit_target(classes.__getitem__, pictures, (H, W))


def test_where_position_says_nothing_the_target_is_the_class():
    """In most draws exactly, and never far: within a seventh of what single cells, seen 8 times each, are off by."""
    plain, draws = 0, 6
    for seed in range(draws):
        target = fit(*photos(25, seed))
        steps = target.shrinkage.steps["mean"]
        plain += all(steps[step] == NEVER for step in ("place", "wide", "middle", "near", "corner"))
        for k in range(3):
            assert float((target.mean[k] - 2.0 * k).square().mean().sqrt()) < 0.06
            assert (target.std[k] - 1).abs().max() < 0.2
        assert target.shrinkage.mean >= 64
    assert plain >= draws / 2


def test_where_position_says_everything_cells_are_believed():
    """Every cell with a mean of its own, far from its neighbours': nothing but its own photos says anything of it."""
    z, labels, fold = photos(40)
    own = 10 * torch.randn(3, 2, H, W, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    field = 2.0 * torch.arange(3).view(3, 1, 1, 1) + own
    z = z + (torch.nn.functional.one_hot(labels, 3).permute(0, 3, 1, 2).unsqueeze(2) * own).sum(1)
    target = fit(z, labels, fold)
    classes, _ = sums_of(z, labels, fold, 3)
    spread = CoarseGrid((H, W)).spread(target.mean.double())
    wrong = dict.fromkeys((0.0, target.shrinkage.mean), 0.0)
    for k, (count, sums, _) in enumerate(classes):
        n = count.sum(0)
        for a in wrong:
            mean = torch.where(n + a > 0, (sums.sum(0) + a * spread[k]) / (n + a).clamp_min(1e-9), spread[k])
            wrong[a] += float(((mean - field[k]) ** 2 * (n > 0)).mean())
    assert target.shrinkage.mean <= 8
    assert wrong[target.shrinkage.mean] <= 1.3 * wrong[0.0]


def test_a_smooth_trend_is_found_by_neighbours_and_the_cells_stay_shrunk():
    z, labels, fold = photos(25, ramp=6.0)
    target = fit(z, labels, fold)
    rows = torch.linspace(0, 1, H).view(1, H, 1)
    for k in range(3):
        truth = 2.0 * k - 6.0 * rows * (1 + k)
        assert (target.mean[k] - truth).abs().mean() < 0.35
    assert target.shrinkage.mean >= 4


def test_of_many_classes_those_most_often_seen_decide():
    """Forty classes, of which the last eight are in one photo only: the choice is that of the others alone."""
    g = torch.Generator().manual_seed(3)
    labels = torch.randint(0, 32, (25, H, W), generator=g)
    labels[0, 0, :8] = torch.arange(32, 40)
    z = torch.randn(25, 2, H, W, generator=g, dtype=torch.float64) + labels[:, None] / 8
    fold = torch.arange(25) % 5
    many = fit(z, labels, fold, 40)
    classes, pictures = sums_of(z, labels, fold, 40)
    alone = fit_target(classes.__getitem__, pictures[:, :32], (H, W))
    assert many.shrinkage == alone.shrinkage
    assert len(many.mean) == 40


def test_the_same_again():
    made = [fit(*photos(15, 3, ramp=2.0)) for _ in range(2)]
    assert torch.equal(made[0].mean, made[1].mean)
    assert torch.equal(made[0].std, made[1].std)
    assert made[0].shrinkage == made[1].shrinkage


@pytest.mark.parametrize("n", [1, 2, 3])
def test_too_few_photos_to_choose_take_the_start_values(n):
    from scp_prior.shrinkage import _MEAN_START, _VARIANCE_START

    target = fit(*photos(n))
    assert target.shrinkage.steps == {"mean": _MEAN_START, "variance": _VARIANCE_START}
    assert (target.shrinkage.mean, target.shrinkage.variance) == (_MEAN_START["cell"], _VARIANCE_START["cell"])
    assert target.shrinkage.inflation == 1
    assert target.mean.isfinite().all()
    assert (target.std > 0).all()


def test_all_photos_in_one_fold_take_the_start_values():
    z, labels, fold = photos(9)
    assert fit(z, labels, fold * 0).shrinkage.steps == fit(*photos(2)).shrinkage.steps


def test_what_others_say_of_a_fold_does_not_depend_on_it():
    """Honest cross-validation: photos of one fold changed at will, the target made without them stays."""
    z, labels, fold = photos(15, 4, ramp=3.0)
    other = z.clone()
    other[fold == 2] = 50 * torch.randn(z[fold == 2].shape, dtype=torch.float64, generator=torch.Generator())
    rest = []
    for latents in (z, other):
        classes, pictures = sums_of(latents, labels, fold, 3)
        made = _Fit(classes.__getitem__, pictures.double(), (H, W))
        rest.append(
            (
                mean_target(made._grid, made._rest, MEAN_STEPS),
                variance_target(made._grid, made._residuals(MEAN_STEPS)[1], VARIANCE_STEPS),
            )
        )
    for before, after in zip(*rest, strict=True):
        torch.testing.assert_close(before[2], after[2], rtol=1e-7, atol=1e-7)
        assert (before[1] - after[1]).abs().max() > 0.1  # but fold 1's is made with them


def test_the_losses_are_those_of_held_out_photos():
    """The mean's loss = the squared error of fold-held-out photos against the target others make, photo by photo."""
    z, labels, fold = photos(10, 6, ramp=2.0)
    classes, pictures = sums_of(z, labels, fold, 3)
    made = _Fit(classes.__getitem__, pictures.double(), (H, W))
    differences = []
    for steps in (MEAN_STEPS, {**MEAN_STEPS, "wide": NEVER, "place": NEVER, "near": 1.0}):
        fields = made._grid.spread(mean_target(made._grid, made._rest, steps))  # (F, K, C, h, w)
        slow = 0.0
        for i in range(len(z)):
            target = torch.stack([fields[fold[i], k] for k in range(3)])
            here = torch.nn.functional.one_hot(labels[i], 3).permute(2, 0, 1).unsqueeze(1)
            slow += float((here * made._weight * (target - z[i]) ** 2).sum())
        differences.append((float(made._mean_loss(steps).sum()), slow / (z.numel())))
    # Up to the photos' own squares, which no target changes; H <= 16, so corners are cells.
    (a, slow_a), (b, slow_b) = differences
    assert a - b == pytest.approx(slow_a - slow_b, rel=1e-6, abs=1e-9)


# --- metadata -------------------------------------------------------------------------------------------------------


def test_metadata_survive_the_round_trip():
    shrinkage = Shrinkage(0.125, NEVER, 1.05, {"mean": {"class": 2.0}, "variance": {"near": NEVER}})
    assert Shrinkage.from_json(shrinkage.to_json(), "x") == shrinkage


@pytest.mark.parametrize(
    "text",
    [
        *("", "{}", "[]", "null", "3", '"x"', "{", "[" * 100_000),
        *(
            json.dumps({"mean": 8, "variance": 64, "inflation": 1, "steps": {}} | change)
            for change in (
                {"mean": -1},
                {"mean": math.nan},
                {"variance": math.inf},
                {"variance": None},
                {"inflation": 0},
                {"inflation": -1},
                {"inflation": 1e300},
                {"inflation": 1e-300},
                {"mean": "x"},
                {"mean": [1]},
                {"mean": 10**400},
                {"steps": []},
                {"steps": {"mean": 3}},
                {"steps": {"mean": {"a": "b"}}},
            )
        ),
    ],
)
def test_metadata_that_are_none_are_refused(text):
    with pytest.raises(SCPError, match=r"own\.safetensors.*shrinkage.*Make the file again"):
        Shrinkage.from_json(text, "own.safetensors")
