"""What is kept of single pictures: exact, bounded, and the same in whatever order they came."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from scp_prior import SCPError
from scp_prior import pictures as module
from scp_prior.pictures import FOLDS, Pictures, digest

C, CELLS = 3, 12


def picture(seed: int, constant: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    latent = np.zeros((C, CELLS), np.float32) if constant else rng.normal(size=(C, CELLS)).astype(np.float32)
    return latent, rng.choice([0, 7, 255, 65535], CELLS)


def of(seeds, **options) -> Pictures:
    made = Pictures(C)
    for seed in seeds:
        made.add(*picture(seed, **options))
    return made


def same(a: Pictures, b: Pictures, tolerance: float = 1e-12) -> None:
    left, right = a.state(), b.state()
    assert left.keys() == right.keys()
    for key in left:
        assert left[key].dtype == right[key].dtype
        if key == "between":  # a sum over all pictures, the only part order may round
            torch.testing.assert_close(left[key], right[key], rtol=tolerance, atol=tolerance)
        else:
            assert torch.equal(left[key], right[key]), key


def test_a_picture_is_noted_exactly():
    made = of(range(30))
    for kept in made.kept():
        latent, labels = next(p for p in map(picture, range(30)) if digest(p[0]) == kept.key)
        assert np.array_equal(kept.labels, labels)
        assert (kept.run_ids[1:] != kept.run_ids[:-1]).all()
        assert kept.ids.tolist() == sorted(set(labels.tolist()))
        for row, class_id in enumerate(kept.ids):
            values = latent[:, labels == class_id].astype(np.float64)
            assert kept.counts[row] == values.shape[1]
            assert kept.means[row] == pytest.approx(values.mean(1), rel=1e-6, abs=1e-7)


def test_tallies_count_all():
    made, shown, between = of(range(40)), {}, {}
    for latent, labels in map(picture, range(40)):
        for class_id in set(labels.tolist()):
            shown.setdefault(class_id, [0] * FOLDS)[digest(latent) % FOLDS] += 1
            mean = latent[:, labels == class_id].astype(np.float64).mean(1)
            between[class_id] = between.get(class_id, 0) + (labels == class_id).sum() * np.outer(mean, mean)
    assert made.tallies.keys() == shown.keys()
    for class_id, tally in made.tallies.items():
        assert tally.shown.tolist() == shown[class_id]
        assert tally.between == pytest.approx(between[class_id], rel=1e-10)


@given(st.integers(0, 60), st.integers(1, 5), st.randoms(use_true_random=False), st.booleans())
@settings(max_examples=60, deadline=None)
def test_no_order_batch_or_merge_shows(n, parts, rng: random.Random, constant):
    """Of constant photos all digests are one: then what else a picture is decides."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MOST", 7)
        seeds = list(range(n))
        whole = of(seeds, constant=constant)
        rng.shuffle(seeds)
        same(whole, of(seeds, constant=constant))
        merged = Pictures(C)
        for part in range(parts):
            merged.merge(of(seeds[part::parts], constant=constant))
        same(whole, merged)
        assert len(whole.kept()) == min(n, 7)


def test_those_with_the_smallest_digests_are_kept_and_never_many_more(monkeypatch):
    monkeypatch.setattr(module, "MOST", 10)
    made, most = Pictures(C), 0
    for seed in range(200):
        made.add(*picture(seed))
        most = max(most, len(made._kept))
    keys = sorted(digest(picture(seed)[0]) for seed in range(200))
    assert [p.key for p in made.kept()] == keys[:10]
    assert most <= 20
    assert sum(int(tally.shown.sum()) for tally in made.tallies.values()) > 200
    merged = Pictures(C)
    for start in range(0, 200, 5):
        merged.merge(of(range(start, start + 5)))
        assert len(merged._kept) <= 20
    same(made, merged)


def test_merging_leaves_the_other_as_it_was():
    a, b = of(range(5)), of(range(5, 12))
    before = b.state()
    a.merge(b)
    a.add(*picture(20))
    assert all(torch.equal(before[key], b.state()[key]) for key in before)


@pytest.mark.parametrize("n", [0, 1, 2, 9])
def test_the_state_survives_a_file(tmp_path, n):
    made = of(range(n))
    save_file(made.state(), tmp_path / "state.safetensors")
    again = Pictures.from_state(load_file(tmp_path / "state.safetensors"), C, CELLS)
    same(made, again, 0)
    made.add(*picture(50))
    again.add(*picture(50))
    same(made, again, 0)


def changed(key: str, change) -> dict[str, torch.Tensor]:
    state = of(range(6)).state()
    return state | {key: change(state[key].clone())}


def put(value, at=0):
    def change(tensor):
        tensor.view(-1)[at] = value
        return tensor

    return change


@pytest.mark.parametrize(
    ("key", "change"),
    [
        *((key, lambda t: t[:-1]) for key in ("key", "classes", "ids", "counts", "means", "runs", "run_ids")),
        *((key, lambda t: t[:-1]) for key in ("run_lengths", "shown", "between")),
        *((key, lambda t: t.float()) for key in ("key", "classes", "ids", "runs", "run_lengths", "shown")),
        *((key, put(-1)) for key in ("key", "classes", "ids", "counts", "runs", "run_ids", "run_lengths")),
        *((key, put(9)) for key in ("classes", "ids", "counts", "runs", "run_ids", "run_lengths")),
        ("means", put(float("nan"))),
        ("means", lambda t: t.double()),
        ("means", lambda t: t[:, :2]),
        ("between", put(float("inf"))),
        ("between", lambda t: t[:, :2]),
        ("run_lengths", put(2**31 - 1)),
    ],
)
def test_a_damaged_state_is_refused(key, change):
    with pytest.raises(SCPError, match="checkpoint's pictures do not fit together.*Start again"):
        Pictures.from_state(changed(key, change), C, CELLS)


@pytest.mark.parametrize("key", sorted(Pictures(C).state()))
def test_a_missing_part_is_refused(key):
    state = of(range(3)).state()
    del state[key]
    with pytest.raises(SCPError, match=key):
        Pictures.from_state(state, C, CELLS)


def test_another_grid_is_refused():
    with pytest.raises(SCPError, match="label map of 12 cells"):
        Pictures.from_state(of(range(3)).state(), C, CELLS + 1)
