"""What `joint` has learned, of files put together."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scp_prior import Collector, Statistics, load_statistics, prior_maps, sample_prior, save_statistics
from scp_prior.merge import merge_statistics
from scp_prior.pseudo_counts import Shrinkage

SIZE = (6, 8)
METADATA = {"dataset": "toy", "label_rule": "nearest", "vae": "v sha256:0123456789ab", "image_size": "48x64"}


def learned(seed: int, pictures: int, ids=(1, 2, 5), effect: float = 1.0) -> Statistics:
    g = torch.Generator().manual_seed(seed)
    made = Collector(3, SIZE)
    shared = effect * torch.randn(pictures, 3, 1, 1, generator=g)
    labels = torch.tensor(ids)[torch.randint(0, len(ids), (pictures, *SIZE), generator=g)]
    made.add(torch.randn(pictures, 3, *SIZE, generator=g) + shared + labels[:, None], labels)
    return made.statistics(**METADATA)


def test_a_file_merged_with_its_copy_has_learned_the_same():
    one = learned(1, 12)
    merged = merge_statistics([one, one])
    a, b = one.tensors(), merged.tensors()
    for key in ("target.mean", "target.std", "scene.share", "scene.correlation", "scene.within"):
        torch.testing.assert_close(a[key], b[key], rtol=1e-5, atol=1e-6)
    assert torch.equal(b["scene.count"], 2 * a["scene.count"])
    assert merged.shrinkage.mean == pytest.approx(one.shrinkage.mean)
    assert merged.shrinkage.variance == pytest.approx(one.shrinkage.variance)
    assert merged.shrinkage.inflation == pytest.approx(one.shrinkage.inflation)


def test_the_target_is_the_mixture_of_the_parts_by_their_counts():
    one, two = learned(1, 12, ids=(1, 2)), learned(2, 20, ids=(2, 5), effect=0.0)
    merged = merge_statistics([one, two]).tensors()
    n = [s.categorical().count[s.row_of(2)].double() for s in (one, two)]
    means, stds = zip(
        *((m.double()[0], s.double()[0]) for m, s in (s.target([s.row_of(2)]) for s in (one, two))), strict=True
    )
    mean = (n[0] * means[0] + n[1] * means[1]) / sum(n)
    square = sum(w * (s**2 + (m - mean) ** 2) for w, m, s in zip(n, means, stds, strict=True)) / sum(n)
    torch.testing.assert_close(merged["target.mean"][1].double(), mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(merged["target.std"][1].double(), square.sqrt(), rtol=1e-5, atol=1e-5)
    # A class only one part knows is that part's.
    torch.testing.assert_close(merged["target.mean"][2], two.target([1]).mean[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(merged["scene.share"][0], one.scene().share[0], rtol=1e-5, atol=1e-6)


@given(seed=st.integers(0, 10**6), counts=st.lists(st.integers(1, 9), min_size=2, max_size=3))
@settings(max_examples=10, deadline=None)
def test_what_is_merged_can_always_be_drawn_from(tmp_path_factory, seed, counts):
    """Whatever the parts: shares below 1, correlations with a unit diagonal and positive definite, finite samples."""
    sets = ((1, 2), (2, 5, 255), (1,))
    parts = [learned(seed + i, n, ids=sets[i]) for i, n in enumerate(counts)]
    merged = merge_statistics(parts)
    assert merged.has_target
    assert merged.has_scene == all(part.has_scene for part in parts)
    path = tmp_path_factory.mktemp("merged") / "m.safetensors"
    save_statistics(merged, path)
    merged = load_statistics(path)
    if merged.has_scene:
        share, correlation, within, _ = merged.scene()
        k, c = share.shape
        assert bool((share >= 0).all())
        assert bool((share < 1).all())
        matrix = correlation.reshape(k * c, k * c).double()
        torch.testing.assert_close(matrix.diagonal(), torch.ones(k * c).double(), rtol=0, atol=1e-5)
        assert float(torch.linalg.eigvalsh(matrix)[0]) > 0
        assert float(torch.linalg.eigvalsh(within.double()).min()) > 0
    labels = torch.tensor([1, 2, 5, 255])[torch.arange(48) % 4].view(1, *SIZE)
    maps = prior_maps(merged, labels)
    assert bool((maps.std > 0).all())
    assert bool(sample_prior(maps, 1).isfinite().all())


def test_with_a_part_that_has_learned_nothing_nothing_is_claimed():
    one = learned(1, 12)
    bare = {key: t for key, t in one.tensors().items() if not key.startswith(("target.", "scene."))}
    plain = Statistics.from_tensors(bare, {k: v for k, v in one.metadata.items() if k != "shrinkage"})
    merged = merge_statistics([one, plain])
    assert not merged.has_target
    assert not merged.has_scene
    assert merged.shrinkage is None


def test_a_part_that_never_believes_a_cell_has_no_veto():
    one = learned(1, 12)
    never = Statistics.from_tensors(
        one.tensors(), {**one.metadata, "shrinkage": Shrinkage(1e9, 1e9, 1.5, {}).to_json()}
    )
    sure = Statistics.from_tensors(one.tensors(), {**one.metadata, "shrinkage": Shrinkage(16, 64, 1.1, {}).to_json()})
    merged = merge_statistics([never, sure]).shrinkage
    assert merged.mean == pytest.approx(32, rel=1e-4)
    assert merged.variance == pytest.approx(128, rel=1e-4)
    assert merged.inflation == pytest.approx(1.3)
