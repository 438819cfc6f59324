"""Statistics made apart and merged, against statistics of everything at once."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reducing import SIZE, StubEncoder, check, make_pairs, open_pairs, run, two_pass

from scp_prior import SCPError, Statistics, load_statistics, save_statistics
from scp_prior.merge import merge_statistics
from scp_prior.moments import Accumulator
from scp_prior.reduce import Plan

METADATA = {
    "dataset": "toy",
    "palette": "",
    "label_rule": "nearest",
    "latent_channels": "3",
    "latent_downscale": "8",
    "vae": "vae.safetensors sha256:0123456789ab",
    "image_size": "24x32",
    "class_names": '{"1": "one"}',
    "source": "all 3 pairs",
}


def of(latents, labels, **changed: str) -> Statistics:
    made = Accumulator(latents.shape[1], latents.shape[2:])
    made.add(latents, labels)
    return made.statistics(**{**METADATA, "latent_channels": str(latents.shape[1]), **changed})


def pictures(seed=0, batch=3, ids=(1, 2, 255), size=(3, 4), channels=3, offset=0.0):
    g = torch.Generator().manual_seed(seed)
    latents = torch.randn(batch, channels, *size, generator=g) * 3 + offset
    return latents, torch.tensor(ids)[torch.randint(0, len(ids), (batch, *size), generator=g)]


def toy(seed=0, ids=(1, 2, 255), size=(3, 4), **changed: str) -> Statistics:
    return of(*pictures(seed, ids=ids, size=size), **changed)


def without(statistics: Statistics, *parts: str, drop: tuple[str, ...] = ()) -> Statistics:
    tensors = {k: t for k, t in statistics.tensors().items() if k.split(".")[0] not in parts}
    return Statistics.from_tensors(tensors, {k: v for k, v in statistics.metadata.items() if k not in drop})


def agree(one: Statistics, other: Statistics, tolerance: float) -> None:
    a, b = one.tensors(), other.tensors()
    assert a.keys() == b.keys()
    for key in a:
        assert a[key].shape == b[key].shape, key
        if key.endswith(("count", "ids")):
            assert torch.equal(a[key], b[key]), key
        elif a[key].numel():
            assert float((a[key].double() - b[key].double()).abs().max()) <= tolerance, key
    assert one.metadata["images"] == other.metadata["images"]


@st.composite
def shards(draw):
    """Latents, labels, and where they are cut: classes may be in one shard only."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=2, max_size=4))
    size = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    channels = draw(st.integers(1, 4))
    parts = []
    for number, batch in enumerate(sizes):
        ids = draw(st.lists(st.sampled_from((0, 3, 7, 255, 300)), min_size=1, max_size=3, unique=True))
        parts.append(pictures(draw(st.integers(0, 10**6)) + number, batch, ids, size, channels, draw(st.floats(-4, 4))))
    return parts


@given(shards(), st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_merged_equals_all_at_once_in_any_order_and_grouping(parts, rng):
    whole = of(torch.cat([z for z, _ in parts]), torch.cat([k for _, k in parts]))
    made = [of(z, k) for z, k in parts]
    agree(merge_statistics(made), whole, 1e-5)
    rng.shuffle(made)
    agree(merge_statistics(made), whole, 1e-5)
    if len(made) > 2:
        one_by_one = made[0]
        for part in made[1:]:
            one_by_one = merge_statistics([one_by_one, part])
        agree(one_by_one, whole, 1e-5)


def test_files_of_the_reducer_merge_to_the_file_of_one_run(tmp_path):
    root = make_pairs(tmp_path / "all", 15)
    dataset, paths = open_pairs(root), []
    for number, cut in enumerate((slice(0, 4), slice(4, 11), slice(11, 15))):
        part = make_pairs(tmp_path / str(number), 0)
        for pair in dataset.pairs[cut]:
            (part / "images" / pair.photo.name).symlink_to(pair.photo)
            (part / "labels" / pair.label.name).symlink_to(pair.label)
        paths.append(tmp_path / f"{number}.safetensors")
        # The same weights under another file's name are the same VAE.
        encoder = StubEncoder(name=f"copy{number}.safetensors sha256:0123456789ab")
        save_statistics(run(open_pairs(part), Plan(SIZE, 2), encoder), paths[-1])
    merged = merge_statistics([load_statistics(path) for path in paths])
    names = [pair.name for pair in dataset.pairs]
    check(merged, two_pass(root, names), 5e-6)
    whole = run(dataset, Plan(SIZE, 4))
    for key in ("dataset", "palette", "label_rule", "image_size", "latent_channels", "latent_downscale", "images"):
        assert merged.metadata[key] == whole.metadata[key], key
    assert merged.metadata["vae"].endswith("sha256:0123456789ab")
    assert merged.metadata["source"].count("pairs") == 3
    assert all(path.name in merged.metadata["source"] for path in paths)


def test_covariance_is_merged():
    (za, ka), (zb, kb) = pictures(1, 5), pictures(2, 4, offset=2.0)
    merged = merge_statistics([of(za, ka), of(zb, kb)]).tensors()["class.covariance"]
    z, k = torch.cat([za, zb]).double().numpy(), torch.cat([ka, kb]).numpy()
    for row, class_id in enumerate((1, 2, 255)):
        values = np.stack([z[i, :, y, x] for i, y, x in np.argwhere(k == class_id)])
        assert np.abs(np.cov(values.T, bias=True) - merged[row].numpy()).max() < 1e-5


def test_without_covariance_the_spread_is_kept():
    plain = [without(toy(n), "nothing") for n in (1, 2)]
    bare = [
        Statistics.from_tensors({k: t for k, t in s.tensors().items() if k != "class.covariance"}, s.metadata)
        for s in plain
    ]
    merged, full = merge_statistics(bare), merge_statistics(plain)
    assert torch.allclose(merged.categorical().std, full.categorical().std, atol=1e-5)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("dataset", "ade20k"),
        ("palette", "ade20k"),
        ("label_rule", "majority"),
        ("vae", "vae.safetensors sha256:ba9876543210"),
        ("image_size", "512x512"),
        ("latent_downscale", "16"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(tmp_path, key, value):
    paths = {}
    for name, made in {"a": toy(1), "b": toy(2), "c": toy(3, **{key: value})}.items():
        paths[name] = tmp_path / f"{name}.safetensors"
        save_statistics(made, paths[name])
    loaded = {name: load_statistics(path) for name, path in paths.items()}
    for order in itertools.permutations("abc"):
        with pytest.raises(SCPError, match=f"do not belong together: {key} is") as refused:
            merge_statistics([loaded[name] for name in order])
        words = str(refused.value)
        assert "c.safetensors" in words
        assert value.rsplit("sha256:", 1)[-1] in words
        assert METADATA[key].rsplit("sha256:", 1)[-1] in words
        assert words.count(" is '") == 1, "only what differs"


def test_other_grids_are_refused():
    with pytest.raises(SCPError, match=r"latent grid is '\(3, 4\)' .* '\(4, 3\)'"):
        merge_statistics([toy(1), toy(2, size=(4, 3))])


def test_other_channels_are_refused():
    with pytest.raises(SCPError, match="latent_channels is '3' .* '4'"):
        merge_statistics([toy(1), of(*pictures(2, channels=4))])


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_other_classes_are_refused_whichever_two_disagree(order):
    names = ({"1": "one"}, {"2": "two"}, {"2": "zwei"})
    made = [toy(n, class_names=json.dumps(named)) for n, named in enumerate(names)]
    with pytest.raises(SCPError, match=r"class 2 is '(two|zwei)' .* '(two|zwei)'"):
        merge_statistics([made[n] for n in order])


def test_the_same_class_under_two_ids_is_refused():
    one, other = (toy(n, class_names=json.dumps(named)) for n, named in enumerate(({"1": "car"}, {"2": "car"})))
    with pytest.raises(SCPError, match="class 'car' is 1 .* 2 "):
        merge_statistics([one, other])


def test_class_names_are_united():
    one, other = (toy(n, class_names=json.dumps(named)) for n, named in enumerate(({"2": "b"}, {"1": "a", "2": "b"})))
    assert merge_statistics([one, other]).class_names == {1: "a", 2: "b"}


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (without(toy(2), "joint", "spatial"), "no joint|latent grid"),
        (without(toy(2), "joint"), "no joint"),
        (without(toy(2), "class"), "no class"),
        (without(toy(2), drop=("images",)), "how many images"),
    ],
)
def test_files_without_what_merging_needs_are_refused(broken, words):
    for parts in ([toy(1), broken], [broken, toy(1)], [broken, broken]):
        with pytest.raises(SCPError, match=words):
            merge_statistics(parts)


@pytest.mark.parametrize("parts", [[], [toy()]])
def test_one_file_is_nothing_to_merge(parts):
    with pytest.raises(SCPError, match="at least two"):
        merge_statistics(parts)


def test_the_parts_stay_as_they_are():
    one, other = toy(1), toy(2)
    before = {key: tensor.clone() for key, tensor in one.tensors().items()}
    merge_statistics([one, other])
    assert all(torch.equal(before[key], tensor) for key, tensor in one.tensors().items())


def test_the_time_can_be_given(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert merge_statistics([toy(1), toy(2)]).metadata["created"] == "2023-11-14T22:13:20+00:00"
