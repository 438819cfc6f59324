"""The collector against a plain accumulator, and whatever way the pictures came in."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from scp_prior import SCPError, prior_maps
from scp_prior.collector import Collector
from scp_prior.moments import Accumulator

C, SIZE = 3, (6, 8)


def pictures(n: int = 14, seed: int = 0, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    light = torch.randn(n, C, 1, 1, generator=g)
    latents = (torch.randn(n, C, *SIZE, generator=g) + light).to(dtype)
    labels = torch.tensor([0, 3, 255])[torch.randint(0, 3, (n, *SIZE), generator=g)]
    labels[:, :3] = 0  # cells enough for scene effects
    return latents, labels, torch.rand(n, C, *SIZE, generator=g)


def of(latents, labels, variance, parts: int = 1, kind=Collector):
    made = kind(C, SIZE)
    for part in torch.arange(len(latents)).chunk(parts):
        made.add(latents[part], labels[part], None if variance is None else variance[part])
    return made


def same_state(a: Collector, b: Collector, tolerance: float = 0.0) -> None:
    left, right = a.state(), b.state()
    assert left.keys() == right.keys()
    for key in left:
        torch.testing.assert_close(left[key], right[key], rtol=tolerance, atol=tolerance, msg=key)


def same_statistics(a, b, tolerance: float = 0.0) -> None:
    left, right = a.tensors(), b.tensors()
    assert left.keys() == right.keys()
    for key in left:
        torch.testing.assert_close(left[key], right[key], rtol=tolerance, atol=tolerance, msg=key)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("with_variance", [True, False])
def test_moments_are_an_accumulators(dtype, with_variance):
    latents, labels, variance = pictures(dtype=dtype)
    variance = variance if with_variance else None
    whole, plain = (of(latents, labels, variance, kind=kind) for kind in (Collector, Accumulator))
    left, right = whole.moments().state(), plain.state()
    for key in right:
        torch.testing.assert_close(left[key], right[key], rtol=1e-13, atol=1e-13, msg=key)
    assert (whole.images, whole.class_ids) == (plain.images, plain.class_ids) == (14, [0, 3, 255])
    made = whole.statistics(dataset="toy").tensors()
    for key, tensor in plain.statistics().tensors().items():
        torch.testing.assert_close(made[key], tensor, rtol=1e-6, atol=1e-6, msg=key)
    assert {"target.mean", "target.std", "scene.share", "scene.count"} <= made.keys()


def test_batches_change_nothing():
    whole = of(*pictures())
    for parts in (2, 5, 14):
        split = of(*pictures(), parts=parts)
        same_state(whole, split)
        same_statistics(whole.statistics(), split.statistics())


@given(st.permutations(range(14)), st.integers(1, 4))
@settings(max_examples=6, deadline=None)
def test_order_and_merging_change_nothing_but_rounding(order, parts):
    latents, labels, variance = pictures()
    whole, merged = of(latents, labels, variance), Collector(C, SIZE)
    for part in range(parts):
        mine = list(order[part::parts])
        merged.merge(of(latents[mine], labels[mine], variance[mine]))
    same_state(whole, merged, 1e-12)
    same_statistics(whole.statistics(), merged.statistics(), 2e-5)


def test_going_on_from_a_file_is_not_having_stopped(tmp_path):
    latents, labels, variance = pictures()
    whole = of(latents, labels, variance)
    for stop in (0, 1, 6):
        first = Collector(C, SIZE)
        first.add(latents[:stop], labels[:stop], variance[:stop])
        save_file(first.state(), tmp_path / "state.safetensors")
        again = Collector.from_state(load_file(tmp_path / "state.safetensors"))
        again.add(latents[stop:], labels[stop:], variance[stop:])
        same_state(whole, again)
        same_statistics(whole.statistics(), again.statistics())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda z, y, v: (torch.where(torch.arange(3).view(3, 1, 1, 1) == 2, torch.nan, z), y, v), "Item 2.*NaN"),
        (lambda z, y, v: (z, y, -v), "negative variance"),
        (lambda z, y, v: (z, y, v[:2]), "variance of shape"),
        (lambda z, y, v: (z, y - 1, v), "ids from -1"),
        (lambda z, y, v: (z, torch.where(y == 3, 70000, 99), v), "70000"),
        (lambda z, y, v: (z[:, :2], y, v), "latents of shape"),
        (lambda z, y, v: (z, y[:, :2], v), "label maps of shape"),
        (lambda z, y, v: (z, y.float(), v), "whole numbers"),
    ],
)
def test_an_error_in_a_batch_adds_nothing(change, message):
    latents, labels, variance = pictures()
    made = of(latents, labels, variance)
    before = {key: tensor.clone() for key, tensor in made.state().items()}
    with pytest.raises(SCPError, match=message):
        made.add(*change(latents[:3].clone(), labels[:3].clone(), variance[:3].clone()))
    after = made.state()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_other_latents_do_not_merge_and_nothing_is_no_statistics():
    made = of(*pictures(3))
    before = made.state()
    with pytest.raises(SCPError, match="same size"):
        made.merge(Collector(C, (2, 2)))
    assert all(torch.equal(before[key], made.state()[key]) for key in before)
    with pytest.raises(SCPError, match="No image"):
        Collector(C, SIZE).statistics()


def test_a_state_of_unequal_folds_is_refused():
    state = of(*pictures()).state() | {f"2.{key}": tensor for key, tensor in Accumulator(2, (3, 3)).state().items()}
    with pytest.raises(SCPError, match="folds are of different sizes"):
        Collector.from_state(state)
    state = of(*pictures()).state()
    del state["4.sums"]
    with pytest.raises(SCPError, match="no sums"):
        Collector.from_state(state)


@given(
    n=st.integers(1, 9),
    size=st.sampled_from([(1, 1), (2, 3), (1, 9), (6, 8), (18, 5)]),
    classes=st.sampled_from([1, 3, 30]),
    kind=st.sampled_from(["random", "one value", "constant pictures", "one picture again and again", "one odd cell"]),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
)
@settings(max_examples=35, deadline=None)
def test_no_data_make_a_prior_without_a_spread(n, size, classes, kind, scale):
    g = torch.Generator().manual_seed(n)
    z = scale * torch.randn(n, C, *size, generator=g)
    z = {
        "random": z,
        "one value": torch.full_like(z, 3 * scale),
        "constant pictures": z[:, :, :1, :1].expand_as(z),
        "one picture again and again": z[:1].expand_as(z),
        "one odd cell": torch.where(torch.arange(size[1]) == 0, z, scale),
    }[kind]
    labels = torch.randint(0, classes, (n, *size), generator=g)
    made = Collector(C, size)
    made.add(z, labels)
    statistics = made.statistics()
    shown = torch.randint(0, classes + 2, (2, *size), generator=g)
    for options in ({}, {"shrinkage": 0.0}, {"shrinkage": 8.0}):
        maps = prior_maps(statistics, shown, **options)
        assert maps.mean.isfinite().all()
        assert maps.std.isfinite().all()
        assert (maps.std > 0).all()
        if maps.scene is not None:
            assert maps.scene.factor.isfinite().all()
            assert maps.scene.within.isfinite().all()
