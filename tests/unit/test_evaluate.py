"""Evaluations against slow loops over single values, and of priors that are right by construction."""

from __future__ import annotations

import dataclasses
import gc
import json
import math
import sys
import weakref

import numpy as np
import pytest
import torch
from builders import make_statistics

from benchmarks.quality_data import draw
from scp_prior import SCPError, prior_maps, sample_prior
from scp_prior.collector import Collector
from scp_prior.evaluate import SIGMAS, Asked, evaluate
from scp_prior.evaluation import NoiseLevel, as_text
from scp_prior.evaluation_figure import check_figure, save_figure
from scp_prior.evaluation_sums import Real, Row, Variant
from scp_prior.held_out import HeldOut
from scp_prior.methods import CELL, CLASS, SPATIAL

GRID = (8, 12)
PAPER = ("spatial", "class", "mixture", "joint-spatial", "joint-class")


def held_out(count: int = 5, size=(4, 6), channels: int = 4, ids=(0, 1, 3, 255), seed: int = 1) -> HeldOut:
    g = torch.Generator().manual_seed(seed)
    latents = 4 * torch.randn(count, channels, *size, generator=g)
    return HeldOut(latents, torch.tensor(ids)[torch.randint(0, len(ids), (count, *size), generator=g)])


def in_batches(pictures: HeldOut, size: int):
    for start in range(0, len(pictures.latents), size):
        yield HeldOut(pictures.latents[start : start + size], pictures.labels[start : start + size])


def flat_numbers(value) -> list[float]:
    """Every number of a result, in order."""
    if dataclasses.is_dataclass(value):
        value = dataclasses.asdict(value)
    if isinstance(value, dict):
        return [n for key in sorted(value, key=str) for n in flat_numbers(value[key])]
    if isinstance(value, list | tuple):
        return [n for part in value for n in flat_numbers(part)]
    return [float(value)] if isinstance(value, int | float) else []


@pytest.fixture(scope="module")
def scene_statistics():
    """Learned from pictures that share effects."""
    learn = draw("scene", 40, seed=1, size=GRID, classes=5)
    collector = Collector(4, GRID)
    collector.add(*learn)
    return collector.statistics(dataset="toy")


# --- numbers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", PAPER)
def test_everything_counted_value_by_value(method):
    statistics, pictures, scale = make_statistics(), held_out(), 0.5
    asked = Asked((method,), (0.0, 0.7), latent_scale=scale)
    found = evaluate(statistics, in_batches(pictures, 2), asked).methods
    assert [m.method for m in found] == [method]

    maps = prior_maps(statistics, pictures.labels, method)
    sums: dict[int, list[float]] = {}
    for i, y, x in np.ndindex(5, 4, 6):
        row = sums.setdefault(int(pictures.labels[i, y, x]), [0.0] * 6)
        origin = int(maps.origin[i, y, x])
        row[4] += origin != {"class": CLASS, "mixture": CLASS, "spatial": SPATIAL}.get(method, CELL)
        row[5] += 1
        for c in range(4):
            z, m, s = (scale * float(part[i, c, y, x]) for part in (pictures.latents, maps.mean, maps.std))
            for level, sigma in enumerate((0.0, 0.7)):
                v = s * s + sigma * sigma
                row[level] += 0.5 * math.log(2 * math.pi * v) + ((z - m) ** 2 + sigma * sigma) / (2 * v)
            row[2] += abs(z - m) <= s
            row[3] += abs(z - m) <= 2 * s

    def shares(row):
        return [*(value / (4 * row[5]) for value in row[:4]), row[4] / row[5]]

    whole = [sum(column) for column in zip(*sums.values(), strict=True)]
    of_method = found[0]
    assert [*of_method.nll, *of_method.within, of_method.fallback] == pytest.approx(shares(whole), rel=1e-9)
    assert [c.class_id for c in of_method.classes] == sorted(sums)
    for c in of_method.classes:
        assert [*c.nll, *c.within, c.fallback] == pytest.approx(shares(sums[c.class_id]), rel=1e-9)
        assert c.cells == sums[c.class_id][5]
    assert sum(of_method.origin.values()) == pytest.approx(1)


def test_batches_do_not_matter(scene_statistics):
    pictures = HeldOut(*draw("scene", 11, seed=2, size=GRID, classes=5))
    one, many = (
        evaluate(scene_statistics, in_batches(pictures, size), Asked(latent_scale=1.0, timesteps=(799,)))
        for size in (11, 3)
    )
    assert flat_numbers(one) == pytest.approx(flat_numbers(many), rel=1e-6, abs=1e-9)
    assert len(flat_numbers(one)) > 100


def test_a_scale_is_a_change_of_units():
    statistics, pictures = make_statistics(), held_out(20)
    one = evaluate(statistics, [pictures], Asked(("class",), (0.0, 1.0), latent_scale=1.0)).methods[0]
    two = evaluate(statistics, [pictures], Asked(("class",), (0.0, 2.0), latent_scale=2.0)).methods[0]
    assert two.nll == pytest.approx([nll + math.log(2) for nll in one.nll])
    assert two.within == one.within
    assert two.frechet_cell == pytest.approx([4 * distance for distance in one.frechet_cell])
    assert two.frechet_pooled["1x1"] == pytest.approx([4 * distance for distance in one.frechet_pooled["1x1"]])


def test_timesteps_are_stable_diffusions():
    found = evaluate(make_statistics(), [held_out()], Asked(("class",), (), (0, 799, 999)))
    assert found.noise == (
        NoiseLevel(pytest.approx(0.0292, abs=1e-4), 0),
        NoiseLevel(pytest.approx(5.0878, abs=1e-4), 799),
        NoiseLevel(pytest.approx(14.61, abs=0.01), 999),
    )
    assert found.latent_scale == 0.18215
    assert len(found.methods[0].nll) == 3


def test_samples_of_a_prior_are_what_it_says(scene_statistics):
    """Calibrated, near in every distance, and of a likelihood that independent cells do not have."""
    labels = draw("scene", 300, seed=3, size=GRID, classes=5).labels
    samples = sample_prior(prior_maps(scene_statistics, labels), 5)
    asked = Asked(("joint", "spatial"), (0.0, 1.0), latent_scale=1.0)
    found = evaluate(scene_statistics, in_batches(HeldOut(samples, labels), 50), asked)
    alone, scene, spatial = found.methods
    assert [(m.method, m.scene_variation) for m in found.methods] == [("joint", 0.0), ("joint", 1.0), ("spatial", None)]
    assert scene.within == pytest.approx((0.6827, 0.9545), abs=0.01)
    assert scene.nll == alone.nll == pytest.approx(alone.picture_nll)
    assert scene.picture_nll[0] < alone.picture_nll[0] - 0.1
    assert scene.frechet_cell[0] == pytest.approx(alone.frechet_cell[0], rel=0.2)
    for grid in ("1x1", "2x2", "2x3"):
        assert scene.frechet_pooled[grid][0] < 0.25 * alone.frechet_pooled[grid][0] < spatial.frechet_pooled[grid][0]
    assert found.left_out == ()


def test_a_picture_alone_has_no_error_and_no_distances():
    found = evaluate(make_statistics(), [held_out(1)], Asked(("class",)))
    method = found.methods[0]
    assert method.picture_nll_error is None
    assert method.frechet_cell is None
    assert method.frechet_pooled == {}
    assert found.left_out == ("1x1", "1x2", "2x2", "2x3", "4x6")


def test_the_standard_error_is_that_of_the_pictures():
    pictures = held_out(7)
    statistics = make_statistics()
    each = [
        evaluate(statistics, [batch], Asked(("class",), (0.0,))).methods[0].nll[0] for batch in in_batches(pictures, 1)
    ]
    method = evaluate(statistics, [pictures], Asked(("class",), (0.0,))).methods[0]
    assert method.picture_nll[0] == pytest.approx(np.mean(each))
    assert method.picture_nll_error[0] == pytest.approx(np.std(each, ddof=1) / math.sqrt(7))


def test_classes_nobody_knows_and_classes_that_stand_in():
    statistics = make_statistics((0, 1, 3), label_rule="nearest; 255->3")
    found = evaluate(statistics, [held_out(ids=(0, 7, 255))], Asked(("class",)))
    assert list(found.unknown) == [7]
    assert 0.2 < found.unknown[7] < 0.5
    assert {c.class_id: c.fallback for c in found.methods[0].classes} == {0: 0.0, 7: 1.0, 255: 0.0}


def test_labels_of_the_picture_follow_the_rule_of_the_file():
    small = held_out(3)
    big = small.labels.repeat_interleave(8, 1).repeat_interleave(8, 2)
    # A nearest rule looks at the first pixel of each block, a majority at all of them.
    big[:, ::8, ::8] = 255
    statistics = make_statistics(label_rule="majority")
    wanted = evaluate(statistics, [small], Asked(("class",)))
    assert evaluate(statistics, [HeldOut(small.latents, big)], Asked(("class",))) == wanted
    nearest = evaluate(make_statistics(), [HeldOut(small.latents, big)], Asked(("class",)))
    assert [c.class_id for c in nearest.methods[0].classes] == [255]


def test_latents_of_another_size_are_judged_by_resampled_statistics():
    statistics, pictures = make_statistics(), held_out(3, (8, 12))
    found = evaluate(statistics, [pictures], Asked(("spatial",), (0.0,), latent_scale=1.0))
    maps = prior_maps(statistics, pictures.labels, "spatial", latent_size=(8, 12))
    law = torch.distributions.Normal(maps.mean.double(), maps.std.double())
    assert found.methods[0].nll[0] == pytest.approx(-float(law.log_prob(pictures.latents.double()).mean()))
    assert found.latent_size == (8, 12)


def test_only_what_the_file_can_serve():
    found = evaluate(make_statistics(parts=("class",)), [held_out()])
    assert [m.method for m in found.methods] == ["class"]
    both = evaluate(make_statistics(parts=("class", "spatial")), [held_out()])
    assert {m.method for m in both.methods} == {"class", "spatial", "mixture"}
    assert "normal" not in {m.method for m in evaluate(make_statistics(), [held_out()]).methods}


# --- memory ---------------------------------------------------------------------------------------------------------


def numbers_held(value, seen: set[int]) -> int:
    """How many numbers an object keeps in tensors and lists, wherever they are."""
    if id(value) in seen or isinstance(value, int | float | str):
        return 0
    seen.add(id(value))
    if isinstance(value, torch.Tensor):
        return value.numel()
    if isinstance(value, dict):
        return sum(numbers_held(part, seen) for part in value.values())
    if isinstance(value, list | tuple):
        return len(value) + sum(numbers_held(part, seen) for part in value)
    return numbers_held(vars(value), seen) if hasattr(value, "__dict__") else 0


def test_what_is_kept_does_not_grow_with_the_pictures(scene_statistics):
    pictures = HeldOut(*draw("scene", 60, seed=4, size=GRID, classes=5))
    real = Real.of(4, GRID)
    row = Row(Variant("joint", 1.0), real, [NoiseLevel(sigma) for sigma in SIGMAS])
    sizes = []
    for batch in in_batches(pictures, 20):
        values = batch.latents.double()
        real.add(values, batch.labels)
        row.add(values, batch.labels, prior_maps(scene_statistics, batch.labels))
        sizes.append(numbers_held([real, row], set()))
    assert sizes[0] == sizes[1] == sizes[2] > 1000


def test_batches_are_forgotten():
    alive: list[weakref.ref] = []

    def stream():
        for seed in range(6):
            gc.collect()
            # The one before may still have its name in the loop.
            assert sum(ref() is not None for ref in alive) <= 1
            batch = held_out(2, seed=seed)
            alive.append(weakref.ref(batch.latents))
            yield batch
            del batch

    assert evaluate(make_statistics(), stream(), Asked(("class",))).pictures == 12


# --- what it refuses ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (Asked(("normal",)), "no spread"),
        (Asked(("jiont",)), "Did you mean 'joint'"),
        (Asked(sigmas=(-1.0,)), "not negative"),
        (Asked(sigmas=(math.nan,)), "finite"),
        (Asked(timesteps=(1000,)), "0..999"),
        (Asked(latent_scale=0.0), "positive"),
    ],
)
def test_what_cannot_be_measured(asked, message):
    with pytest.raises(SCPError, match=message):
        evaluate(make_statistics(), [held_out()], asked)


def test_a_model_of_many_channels_says_its_scale():
    statistics, pictures = make_statistics(channels=16), held_out(channels=16)
    with pytest.raises(SCPError, match=r"--latent-scale.*Flux 0.3611"):
        evaluate(statistics, [pictures])
    assert evaluate(statistics, [pictures], Asked(latent_scale=0.3611)).latent_scale == 0.3611


def test_pictures_that_cannot_be_judged():
    statistics, pictures = make_statistics(), held_out()
    with pytest.raises(SCPError, match="no picture"):
        evaluate(statistics, [])
    with pytest.raises(SCPError, match=r"2 channels.*another VAE"):
        evaluate(statistics, [held_out(channels=2)])
    with pytest.raises(SCPError, match="12x8 cells came after one of 6x4"):
        evaluate(statistics, [pictures, held_out(size=(8, 12))])
    pictures.latents[1, 0, 0, 0] = math.nan
    with pytest.raises(SCPError, match="NaN"):
        evaluate(statistics, [pictures])


# --- how it is told -------------------------------------------------------------------------------------------------


def test_json_is_plain_and_whole(tmp_path, scene_statistics):
    pictures = HeldOut(*draw("scene", 20, seed=2, size=GRID, classes=5))
    found = evaluate(scene_statistics, [pictures], Asked(latent_scale=1.0), dataset="toy", notes=["made up"])
    found.save(tmp_path / "found.json")
    read = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert read == json.loads(json.dumps(dataclasses.asdict(found), allow_nan=False))
    assert read["pictures"] == 20
    assert [level["sigma"] for level in read["noise"]] == list(SIGMAS)
    with pytest.raises(SCPError, match="Cannot write"):
        found.save(tmp_path / "nowhere" / "found.json")
    assert [path.name for path in tmp_path.iterdir()] == ["found.json"]


def test_the_table_has_every_method_and_number(scene_statistics):
    pictures = HeldOut(*draw("scene", 20, seed=2, size=GRID, classes=5))
    found = evaluate(scene_statistics, [pictures], Asked(latent_scale=1.0), dataset="toy val", notes=["made up"])
    text = as_text(found, classes=True)
    assert "20 pictures of toy val" in text
    assert "note: made up" in text
    assert "too few pictures for distances at 2x2, 2x3, 4x6" in text
    for method in found.methods:
        assert method.label in text
        assert f"{method.nll[2]:.4f}" in text
        assert f"{method.picture_nll[2]:.4f}±{method.picture_nll_error[2]:.4f}" in text
    assert text.count("classes, ") == len(found.methods) - 1
    one = as_text(evaluate(scene_statistics, [HeldOut(*(part[:1] for part in pictures[:2]))], Asked(latent_scale=1.0)))
    assert "±" not in one


def test_a_figure_needs_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SCPError, match="pip install matplotlib"):
        check_figure(tmp_path / "a.png")
    with pytest.raises(SCPError, match=r"\.png, \.pdf, \.svg"):
        check_figure(tmp_path / "a.bmp")


def test_a_figure_is_drawn(tmp_path, scene_statistics):
    pytest.importorskip("matplotlib")
    pictures = HeldOut(*draw("scene", 20, seed=2, size=GRID, classes=5))
    found = evaluate(scene_statistics, [pictures], Asked(latent_scale=1.0))
    save_figure(found, tmp_path / "found.png")
    assert (tmp_path / "found.png").read_bytes().startswith(b"\x89PNG")
    # Nothing to compare pooled: one picture.
    one = evaluate(make_statistics(), [held_out(1)])
    save_figure(one, tmp_path / "one.svg")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["found.png", "one.svg"]
