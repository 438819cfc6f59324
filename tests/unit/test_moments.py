from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from scp_prior import SCPError, load_statistics, save_statistics
from scp_prior.moments import Accumulator

IDS = (0, 1, 7, 19, 150, 254, 255, 256, 65535)
TOLERANCE = 5e-7


def two_pass(latents, labels, variance=None):
    """Count, mean, std and covariance of every class and cell in float64, one set of values after the other."""
    z = latents.double().numpy()
    spread = np.zeros_like(z) if variance is None else variance.double().numpy()
    k = labels.numpy()
    b, c, h, w = z.shape
    joint, per_class = {}, {}
    for class_id in np.unique(k):
        for y in range(h):
            for x in range(w):
                joint[class_id, y, x] = moments(
                    [z[i, :, y, x] for i in range(b) if k[i, y, x] == class_id],
                    [spread[i, :, y, x] for i in range(b) if k[i, y, x] == class_id],
                    c,
                )
        at = np.argwhere(k == class_id)
        per_class[class_id] = moments([z[i, :, y, x] for i, y, x in at], [spread[i, :, y, x] for i, y, x in at], c)
    spatial = {
        (y, x): moments([z[i, :, y, x] for i in range(b)], [spread[i, :, y, x] for i in range(b)], c)
        for y in range(h)
        for x in range(w)
    }
    return joint, per_class, spatial


def moments(values, spreads, channels):
    if not values:
        return 0, np.zeros(channels), np.zeros(channels), np.zeros((channels, channels))
    mean = sum(values) / len(values)
    covariance = sum(np.outer(v - mean, v - mean) + np.diag(s) for v, s in zip(values, spreads, strict=True))
    covariance = covariance / len(values)
    return len(values), mean, np.sqrt(np.diag(covariance)), covariance


def near(found, wanted, tolerance=TOLERANCE):
    assert np.abs(found.double().numpy() - wanted).max() <= tolerance


def check_against_two_pass(statistics, latents, labels, variance=None):
    joint, per_class, spatial = two_pass(latents, labels, variance)
    t = statistics.tensors()
    assert statistics.class_ids.tolist() == sorted(per_class)
    for row, class_id in enumerate(statistics.class_ids.tolist()):
        count, mean, std, covariance = per_class[class_id]
        assert int(t["class.count"][row]) == count
        near(t["class.mean"][row], mean)
        near(t["class.std"][row], std)
        near(t["class.covariance"][row], covariance, 2e-6)
        assert np.linalg.eigvalsh(t["class.covariance"][row].double().numpy()).min() > -1e-6
        for y, x in spatial:
            count, mean, std, _ = joint[class_id, y, x]
            assert int(t["joint.count"][row, y, x]) == count
            near(t["joint.mean"][row, :, y, x], mean)
            near(t["joint.std"][row, :, y, x], std)
    for (y, x), (_, mean, std, _) in spatial.items():
        near(t["spatial.mean"][:, y, x], mean)
        near(t["spatial.std"][:, y, x], std)


@st.composite
def pictures(draw, most=6):
    """Latents of about unit scale, labels, and a variance or None."""
    b, c = draw(st.integers(1, most)), draw(st.integers(1, 5))
    h, w = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    ids = draw(st.lists(st.sampled_from(IDS), min_size=1, max_size=5, unique=True))
    g = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    latents = torch.randn(b, c, h, w, generator=g)
    if draw(st.booleans()):
        latents = latents.round()  # values that repeat: cells without spread
    labels = torch.tensor(ids)[torch.randint(0, len(ids), (b, h, w), generator=g)]
    variance = torch.rand(b, c, h, w, generator=g) if draw(st.booleans()) else None
    return latents, labels, variance


def of(latents, labels, variance=None, parts=1):
    made = Accumulator(latents.shape[1], latents.shape[2:])
    for part in torch.arange(len(latents)).chunk(parts):
        made.add(latents[part], labels[part], None if variance is None else variance[part])
    return made


def sums_agree(a, b):
    left, right = a.state(), b.state()
    for key in ("class_ids", "images", "count"):
        assert torch.equal(left[key], right[key]), key
    for key in ("sums", "products"):
        # Relative to what was added up: a sum of cancelling terms has no relative error of its own.
        scale = left["sums"][..., left["sums"].shape[-1] // 2 :].abs().sum().clamp_min(1)
        assert (left[key] - right[key]).abs().max() <= 1e-12 * scale if left[key].numel() else True, key


@given(pictures())
@settings(max_examples=150, deadline=None)
def test_equals_two_pass_statistics(given_pictures):
    latents, labels, variance = given_pictures
    made = of(latents, labels, variance).statistics(dataset="toy")
    check_against_two_pass(made, latents, labels, variance)
    assert made.metadata["images"] == str(len(latents))
    assert made.metadata["dataset"] == "toy"


def test_equals_two_pass_statistics_at_the_size_of_latents():
    g = torch.Generator().manual_seed(5)
    latents = torch.randn(60, 4, 12, 16, generator=g) + torch.tensor([0.0, 1.0, -2.0, 0.1]).view(1, 4, 1, 1)
    labels = torch.randint(0, 4, (60, 12, 16), generator=g)
    labels[labels == 3] = 255
    labels[:, 0, 0] = 0
    labels[7, 0, 0] = 42  # a class of one pixel in all
    made = of(latents, labels, parts=7).statistics()
    check_against_two_pass(made, latents, labels)
    row = made.row_of(42)
    assert torch.equal(made.joint([row]).mean[0, :, 0, 0], latents[7, :, 0, 0])
    assert made.joint([row]).std.abs().max() == 0
    assert made.categorical().std[row].abs().max() == 0
    assert made.tensors()["class.covariance"][row].abs().max() < 1e-12


@given(pictures(most=8), st.integers(1, 8), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_batches_and_merges_in_any_order_and_grouping_agree(given_pictures, parts, rng: random.Random):
    latents, labels, variance = given_pictures
    whole = of(latents, labels, variance)
    sums_agree(whole, of(latents, labels, variance, parts=parts))
    shards = [of(*(t if t is None else t[i : i + 1] for t in (latents, labels, variance))) for i in range(len(latents))]
    rng.shuffle(shards)
    while len(shards) > 1:
        first, second = (shards.pop(rng.randrange(len(shards))) for _ in range(2))
        first.merge(second)
        shards.insert(rng.randrange(len(shards) + 1), first)
    sums_agree(whole, shards[0])


def test_batches_of_the_same_order_agree_to_the_last_bit():
    g = torch.Generator().manual_seed(1)
    latents, labels = torch.randn(9, 4, 5, 7, generator=g), torch.randint(0, 6, (9, 5, 7), generator=g)
    one, three = (of(latents, labels, parts=n).state() for n in (1, 3))
    assert all(torch.equal(one[key], three[key]) for key in one)


def test_merging_leaves_the_other_as_it_was_and_takes_an_empty_one():
    g = torch.Generator().manual_seed(2)
    a = of(torch.randn(2, 3, 4, 4, generator=g), torch.tensor([0, 255])[torch.randint(0, 2, (2, 4, 4), generator=g)])
    b = of(torch.randn(1, 3, 4, 4, generator=g), torch.full((1, 4, 4), 9))
    before = b.state()
    a.merge(b)
    assert a.class_ids == [0, 9, 255]
    assert a.images == 3
    assert all(torch.equal(before[key], b.state()[key]) for key in before)
    before = a.state()
    a.merge(Accumulator(3, (4, 4)))
    assert all(torch.equal(before[key], a.state()[key]) for key in before)


def test_hundreds_of_classes_may_appear_one_by_one():
    made = Accumulator(2, (1, 3))
    for n, class_id in enumerate(range(300, 0, -1)):
        made.add(torch.full((1, 2, 1, 3), float(class_id)), torch.full((1, 1, 3), class_id))
        assert made.images == n + 1
    assert made.class_ids == list(range(1, 301))
    statistics = made.statistics()
    assert torch.equal(statistics.categorical().mean[:, 1], torch.arange(1.0, 301.0))
    assert torch.equal(statistics.categorical().count, torch.full((300,), 3))
    assert statistics.categorical().std.abs().max() == 0


def test_growing_copies_each_sum_about_once(monkeypatch):
    sizes = []
    reserve = Accumulator._reserve
    monkeypatch.setattr(Accumulator, "_reserve", lambda self, n: (sizes.append(n), reserve(self, n)))
    made = Accumulator(1, (1, 1))
    for class_id in range(1000):
        made.add(torch.zeros(1, 1, 1, 1), torch.full((1, 1, 1), class_id))
    assert sum(sizes) <= 4 * 1000


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_float_type_is_summed_in_float64(dtype):
    g = torch.Generator().manual_seed(3)
    latents = (torch.randn(5, 4, 3, 3, generator=g, dtype=torch.float64) + 100).to(dtype)
    labels = torch.randint(0, 2, (5, 3, 3), generator=g).to(torch.int16)
    made = of(latents, labels).statistics()
    _, per_class, _ = two_pass(latents, labels)
    for row, class_id in enumerate(made.class_ids.tolist()):
        # Offset 100 and spread 1: float32 sums would be 1e-3 off.
        near(made.categorical().std[row], per_class[class_id][2], 1e-6)


def test_latents_are_neither_kept_nor_changed():
    latents, labels = torch.randn(2, 4, 3, 5), torch.randint(0, 3, (2, 3, 5))
    copies = latents.clone(), labels.clone()
    made = of(latents, labels)
    before = made.statistics().tensors()
    assert torch.equal(latents, copies[0])
    assert torch.equal(labels, copies[1])
    latents.zero_()
    labels.zero_()
    assert all(torch.equal(before[key], value) for key, value in made.statistics().tensors().items())


def test_what_is_given_out_is_a_copy():
    made = of(torch.randn(1, 4, 2, 2), torch.zeros(1, 2, 2, dtype=torch.int64))
    state, tensors = made.state(), made.statistics().tensors()
    before = {key: value.clone() for key, value in {**state, **tensors}.items()}
    made.add(torch.randn(1, 4, 2, 2), torch.zeros(1, 2, 2, dtype=torch.int64))
    assert all(torch.equal(before[key], value) for key, value in {**state, **tensors}.items())


def test_non_contiguous_tensors_are_read_right():
    g = torch.Generator().manual_seed(4)
    latents = torch.randn(3, 5, 6, 4, generator=g).permute(0, 3, 2, 1)
    labels = torch.randint(0, 3, (5, 6, 3), generator=g).permute(2, 1, 0)
    check_against_two_pass(of(latents, labels).statistics(), latents, labels)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", ["latents", "variance"])
def test_a_latent_that_is_not_finite_is_refused_before_anything_is_added(value, where):
    good = torch.rand(3, 4, 2, 2), torch.randint(0, 2, (3, 2, 2)), torch.rand(3, 4, 2, 2)
    made = of(*good)
    before = made.state()
    bad = {"latents": good[0].clone(), "variance": good[2].clone()}
    bad[where][1, 3, 1, 0] = value
    with pytest.raises(SCPError, match=f"Item 1 .*{where}"):
        made.add(bad["latents"], torch.full((3, 2, 2), 99), bad["variance"])
    assert all(torch.equal(before[key], value) for key, value in made.state().items())


ZERO = torch.zeros(2, 4, 3, 5), torch.zeros(2, 3, 5, dtype=torch.int64)


@pytest.mark.parametrize(
    ("latents", "labels", "variance", "message"),
    [
        (ZERO[0][0], ZERO[1], None, r"latents of shape \(B, 4, 3, 5\), got \(4, 3, 5\)"),
        (ZERO[0][:, :3], ZERO[1], None, r"latents of shape .*got \(2, 3, 3, 5\)"),
        (ZERO[0].int(), ZERO[1], None, "latents of floats"),
        (ZERO[0], ZERO[1][:1], None, r"label maps of shape \(2, 3, 5\).*got \(1, 3, 5\)"),
        (ZERO[0], ZERO[1].transpose(1, 2), None, "label maps of shape"),
        (ZERO[0], ZERO[1].float(), None, "whole numbers"),
        (ZERO[0], ZERO[1].bool(), None, "whole numbers"),
        (ZERO[0], ZERO[1] - 1, None, "Label map 0 .*-1 to -1"),
        (ZERO[0], ZERO[1] + 65536, None, "0..65535"),
        (ZERO[0], ZERO[1], ZERO[0][:1], r"variance of shape \(2, 4, 3, 5\)"),
        (ZERO[0], ZERO[1], ZERO[0] - 1, "negative variance"),
    ],
)
def test_wrong_arguments_are_refused_with_a_message(latents, labels, variance, message):
    made = Accumulator(4, (3, 5))
    with pytest.raises(SCPError, match=message):
        made.add(latents, labels, variance)
    assert (made.images, made.class_ids) == (0, [])


def test_an_empty_batch_changes_nothing():
    made = Accumulator(4, (3, 5))
    made.add(ZERO[0][:0], ZERO[1][:0])
    assert (made.images, made.class_ids) == (0, [])


def test_nothing_added_gives_no_statistics():
    with pytest.raises(SCPError, match="No image"):
        Accumulator(4, (2, 2)).statistics()


@pytest.mark.parametrize(("channels", "size"), [(0, (2, 2)), (4, (0, 2)), (4, (2,))])
def test_sizes_that_are_none_are_refused(channels, size):
    with pytest.raises(SCPError):
        Accumulator(channels, size)


@pytest.mark.parametrize(("channels", "size"), [(3, (2, 2)), (4, (2, 3))])
def test_only_accumulators_of_one_size_merge(channels, size):
    with pytest.raises(SCPError, match="Cannot merge"):
        Accumulator(4, (2, 2)).merge(Accumulator(channels, size))


@given(pictures())
@settings(max_examples=30, deadline=None)
def test_a_restored_accumulator_goes_on_to_the_same_bits(given_pictures):
    latents, labels, variance = given_pictures
    later = labels.flip(0)
    straight = of(latents, labels, variance)
    resumed = Accumulator.from_state(straight.state())
    for made in (straight, resumed):
        made.add(latents.flip(0), later, variance)
        made.add(latents, torch.full_like(labels, 33))
    left, right = straight.statistics().tensors(), resumed.statistics().tensors()
    assert all(torch.equal(left[key], right[key]) for key in left)
    left, right = straight.state(), resumed.state()
    assert all(torch.equal(left[key], right[key]) for key in left)


@pytest.mark.parametrize("images", [0, 3])
def test_state_survives_a_safetensors_file(tmp_path, images):
    made = Accumulator(4, (3, 2))
    made.add(torch.randn(images, 4, 3, 2), torch.randint(0, 256, (images, 3, 2)))
    save_file(made.state(), tmp_path / "state.safetensors")
    restored = Accumulator.from_state(load_file(tmp_path / "state.safetensors"))
    assert (restored.images, restored.class_ids) == (images, made.class_ids)
    assert all(torch.equal(value, restored.state()[key]) for key, value in made.state().items())


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("sums", None, "no sums"),
        ("sums", lambda t: t[:, :2], "sums has shape"),
        ("sums", lambda t: t.float(), "dtypes"),
        ("sums", lambda t: t * float("nan"), "not a finite"),
        ("products", lambda t: t[:, 1:], "products has shape"),
        ("count", lambda t: t[0], "count has shape"),
        ("count", lambda t: t - 5, "negative"),
        ("class_ids", lambda t: t.flip(0), "ascending"),
        ("class_ids", lambda t: t[1:], "class_ids has shape"),
        ("images", lambda t: t[:0], "images has shape"),
    ],
)
def test_a_damaged_state_is_refused(key, change, message):
    state = of(torch.randn(1, 4, 3, 2), torch.arange(6).view(1, 3, 2)).state()
    if change is None:
        del state[key]
    else:
        state[key] = change(state[key])
    with pytest.raises(SCPError, match=message):
        Accumulator.from_state(state)


def test_statistics_can_be_saved_and_opened(tmp_path):
    made = of(torch.randn(4, 4, 6, 8), torch.randint(0, 3, (4, 6, 8))).statistics(dataset="toy", latent_downscale="8")
    save_statistics(made, tmp_path / "s.safetensors")
    opened = load_statistics(tmp_path / "s.safetensors")
    assert opened.metadata["images"] == "4"
    assert (opened.channels, opened.latent_size) == (4, (6, 8))
    assert all(torch.equal(value, opened.tensors()[key]) for key, value in made.tensors().items())
    assert opened.tensors()["joint.count"].dtype == torch.int32


def test_the_covariance_of_channels_that_move_together_is_singular_not_negative():
    z = torch.randn(3, 1, 8, 8) * 1e-3 + 30
    made = of(z.expand(3, 4, 8, 8), torch.zeros(3, 8, 8, dtype=torch.int64)).statistics()
    covariance = made.tensors()["class.covariance"][0].double()
    assert torch.allclose(covariance, z.double().var(correction=0).expand(4, 4), rtol=1e-5, atol=0)
    assert torch.linalg.eigvalsh(covariance).min() > -1e-12


def test_rounding_leaves_no_negative_direction_in_a_covariance():
    g = torch.Generator().manual_seed(8)
    z = 1000 + 1e-6 * torch.randn(50, 1, 8, 8, generator=g, dtype=torch.float64)
    # Sums of squares of 1e6 round at 1e-10, far above the variance of 1e-12.
    made = of(z.expand(50, 4, 8, 8) * torch.tensor([1, 1.1, 0.9, 1]).view(1, 4, 1, 1), torch.zeros(50, 8, 8).long())
    values = torch.linalg.eigvalsh(made.statistics().tensors()["class.covariance"][0].double())
    assert values[-1] > 0
    assert values[0] >= -1e-6 * values[-1]


def test_statistics_do_not_depend_on_the_order_classes_were_met_in():
    g = torch.Generator().manual_seed(9)
    # Hardly any spread about a large value: all of the spatial std is rounding, and shows the order of additions.
    latents = 300 + 1e-7 * torch.rand(40, 1, 4, 4, generator=g, dtype=torch.float64)
    labels = torch.randperm(40, generator=g).view(40, 1, 1).expand(40, 4, 4)
    met = of(latents, labels, parts=40)
    restored = Accumulator.from_state(met.state())
    assert torch.equal(met.statistics().spatial().std, restored.statistics().spatial().std)
    assert met.statistics().spatial().std.max() > 0
