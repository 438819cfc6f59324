"""Scene effects drawn: marginals of cells, covariance of pictures, and files that are not what they should be."""

from __future__ import annotations

import pytest
import torch
from builders import make_statistics
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from scp_prior import SCPError, Statistics, load_statistics, prior_maps, sample_prior, save_statistics
from scp_prior.methods import METHODS
from scp_prior.noise import item_generator, scene_generator
from scp_prior.prior import PriorMaps, repeat_maps

UNKNOWN = 77
IDS = (0, 1, 3, 255)


def labels_of(batch: int = 1, ids=(0, 1, 3), seed: int = 0, size=(4, 6)) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.tensor(ids)[torch.randint(0, len(ids), (batch, *size), generator=g)]


def without_scene(statistics: Statistics) -> Statistics:
    kept = {key: t for key, t in statistics.tensors().items() if not key.startswith("scene.")}
    return Statistics.from_tensors(kept, statistics.metadata)


def changed(**parts) -> Statistics:
    """A learned file with some parts replaced; from_tensors checks no more of them than that they are finite."""
    made = make_statistics(learned=True)
    tensors = made.tensors()
    replaced = {f"scene.{key}": change(tensors[f"scene.{key}"].clone()) for key, change in parts.items()}
    return Statistics.from_tensors(tensors | replaced, made.metadata)


def covariance_of(statistics: Statistics, labels: torch.Tensor, variation: float = 1.0) -> torch.Tensor:
    """Covariance of all values of one picture, in units of each cell's std, spelled out from the file; float64."""
    share, correlation, within, _ = (part.double() for part in statistics.scene())
    c = share.shape[1]
    rows = [statistics.row_of(k) for k in labels.flatten().tolist()]
    rows = [statistics.row_of(255) if row is None else row for row in rows]
    whole = torch.zeros(c, len(rows), c, len(rows), dtype=torch.float64)
    for p, a in enumerate(rows):
        for q, b in enumerate(rows):
            if a is not None and b is not None:
                root = (share[a].sqrt().unsqueeze(1) * share[b].sqrt()) * variation**2
                whole[:, p, :, q] = correlation[a, :, b] * root
            if p == q:
                own = torch.eye(c, dtype=torch.float64)
                if a is not None:
                    rest = (1 - variation**2 * share[a]).sqrt()
                    own = torch.outer(rest, rest) * torch.lerp(own, within[a], variation)
                whole[:, p, :, q] += own
    return whole.reshape(c * len(rows), -1)


def matrix_of(maps: PriorMaps) -> torch.Tensor:
    """The covariance the maps stand for, in the same order."""
    scene = maps.scene
    slot = scene.slot[0].flatten()
    c = scene.within.shape[-1]
    effects = torch.cat([scene.factor.view(-1, c, scene.factor.shape[1]), torch.zeros(1, c, scene.factor.shape[1])])
    moved = effects[slot].double().permute(1, 0, 2).reshape(-1, scene.factor.shape[1])
    whole = (moved @ moved.T).view(c, len(slot), c, len(slot))
    for p, s in enumerate(slot.tolist()):
        whole[:, p, :, p] += scene.within[s].double() @ scene.within[s].double().T
    return whole.reshape(moved.shape[0], -1)


@given(st.integers(0, 500), st.sampled_from([0.25, 0.7, 1.0]), st.booleans(), st.sampled_from([1, 2, 4]))
@settings(max_examples=25, deadline=None)
def test_maps_stand_for_the_files_covariance_and_marginals_are_one(seed, variation, unlabelled, channels):
    ids = IDS if unlabelled else IDS[:3]
    statistics = make_statistics(ids, channels=channels, seed=seed, learned=True)
    labels = labels_of(1, (*ids, UNKNOWN), seed, (3, 3))
    maps = prior_maps(statistics, labels, latent_size=(3, 3), scene_variation=variation)
    found = matrix_of(maps)
    torch.testing.assert_close(found, covariance_of(statistics, labels[0], variation), rtol=0, atol=2e-5)
    assert (found.diagonal() - 1).abs().max() < 1e-5
    assert torch.linalg.eigvalsh(found).min() > 0


def test_draws_have_that_covariance_and_the_maps_mean_and_std():
    """20 000 pictures; every moment within 5 standard errors."""
    n, size = 20_000, (2, 3)
    statistics = make_statistics(size=size, learned=True)
    labels = torch.tensor([[[0, 1, 3], [255, UNKNOWN, 0]]])
    maps = prior_maps(statistics, labels)
    drawn = sample_prior(repeat_maps(maps, n), 5)
    z = ((drawn - maps.mean) / maps.std).flatten(1).double()
    assert z.mean(0).abs().max() < 5 / n**0.5
    assert (z.var(0) - 1).abs().max() < 5 * (2 / n) ** 0.5
    wanted = covariance_of(statistics, labels[0])
    error = (1 + wanted**2).sqrt() / n**0.5
    assert ((z.T @ z / n - wanted).abs() < 5 * error).all()
    assert (wanted - torch.eye(len(wanted))).abs().max() > 0.3  # there is something to see
    assert ((z[1:].T @ z[:-1] / n).abs() < 5 / n**0.5).all()  # a new scene for each picture


def test_no_variation_is_the_file_without_scenes_to_the_last_bit():
    statistics, labels = make_statistics(learned=True), labels_of(3, (*IDS, UNKNOWN))
    plain = prior_maps(without_scene(statistics), labels)
    for method in METHODS:
        still = prior_maps(statistics, labels, method, scene_variation=0)
        other = prior_maps(without_scene(statistics), labels, method)
        assert still.scene is other.scene is None
        assert torch.equal(sample_prior(still, 3), sample_prior(other, 3))
    moving = prior_maps(statistics, labels)
    assert all(torch.equal(a, b) for a, b in zip(moving[:3], plain[:3], strict=True))
    assert not torch.equal(sample_prior(moving, 3), sample_prior(plain, 3))


@pytest.mark.parametrize("method", [m for m in METHODS if m != "joint"])
def test_the_papers_methods_know_nothing_of_scenes_and_targets(method):
    labels = labels_of(2, (*IDS, UNKNOWN))
    plain, learned = (prior_maps(make_statistics(learned=flag), labels, method) for flag in (False, True))
    assert learned.scene is None
    assert all(torch.equal(a, b) for a, b in zip(plain[:3], learned[:3], strict=True))


def test_an_item_drawn_alone_is_the_same_whatever_the_others_show():
    """Maps of one class each: alone, an item's maps know other classes than in the batch."""
    statistics = make_statistics(learned=True)
    labels = torch.cat([labels_of(1, ids) for ids in ((0,), (3, 1), (255, 0), (UNKNOWN, 1))])
    batch = sample_prior(prior_maps(statistics, labels), 42)
    for i in range(4):
        alone = sample_prior(prior_maps(statistics, labels[i : i + 1]), 42, batch_index=[i])
        assert torch.equal(alone[0], batch[i])
    turned = sample_prior(prior_maps(statistics, labels.flip(0)), 42, batch_index=[3, 2, 1, 0])
    assert torch.equal(turned.flip(0), batch)


def test_repeated_maps_are_the_maps_in_turn():
    statistics, labels = make_statistics(learned=True), labels_of(2)
    maps = prior_maps(statistics, labels)
    four = repeat_maps(maps, 4)
    assert torch.equal(four.scene.slot, maps.scene.slot[[0, 1, 0, 1]])
    drawn = sample_prior(four, 9)
    assert torch.equal(drawn[2:], sample_prior(maps, 9, batch_index=[2, 3]))
    assert not torch.equal(drawn[2:], drawn[:2])


@pytest.mark.parametrize("ids", [IDS, IDS[:3]])
def test_unknown_classes_move_with_unlabelled_or_not_at_all(ids):
    statistics = make_statistics(ids, learned=True)
    labels = torch.full((1, 4, 6), UNKNOWN)
    labels[0, 0] = 0
    scene = prior_maps(statistics, labels).scene
    factors = scene.factor.view(-1, 4, scene.factor.shape[1])
    assert len(factors) == (2 if 255 in ids else 1)
    if 255 in ids:
        same = prior_maps(statistics, torch.where(labels == UNKNOWN, 255, labels)).scene
        assert all(torch.equal(a, b) for a, b in zip(scene, same, strict=True))
    else:
        assert (scene.slot[0, 1:] == 1).all()
        assert torch.equal(scene.within[1], torch.eye(4))


def test_the_scenes_noise_is_none_of_the_others():
    n, seeds = 5000, 30
    for seed in range(seeds):
        drawn = torch.randn(n, generator=scene_generator(seed, 2))
        cells = torch.randn(n, generator=item_generator(seed, 2))
        host = torch.randn(n, generator=torch.manual_seed(seed))
        following = torch.randn(n, generator=scene_generator(seed, 3))
        for other in (cells, host, following):
            assert abs(float((drawn * other).mean())) < 5 / n**0.5
    assert torch.equal(drawn, torch.randn(n, generator=scene_generator(seed, 2)))


def test_on_another_grid_each_cell_moves_with_its_class():
    statistics, labels = make_statistics(learned=True), labels_of(1, size=(5, 7))
    maps = prior_maps(statistics, labels, latent_size=(5, 7))
    torch.testing.assert_close(matrix_of(maps), covariance_of(statistics, labels[0]), rtol=0, atol=2e-5)


# --- files that are not what they should be -------------------------------------------------------------------------


def draw_of(statistics: Statistics) -> torch.Tensor:
    maps = prior_maps(statistics, labels_of(2, (*IDS, UNKNOWN)))
    found = matrix_of(PriorMaps(*(part[:1] for part in maps[:3]), maps.scene._replace(slot=maps.scene.slot[:1])))
    assert (found.diagonal() - 1).abs().max() < 1e-4
    return sample_prior(maps, 1)


@pytest.mark.parametrize(
    "parts",
    [
        {"correlation": lambda t: torch.ones_like(t)},
        {"correlation": lambda t: torch.zeros_like(t)},
        {"correlation": lambda t: -t},
        {"correlation": lambda t: t * 0.5},
        {"correlation": lambda t: (torch.randn(t.shape, generator=torch.Generator().manual_seed(0))).clamp(-1, 1)},
        {"within": lambda t: torch.ones_like(t)},
        {"within": lambda t: torch.zeros_like(t)},
        {"within": lambda t: -torch.ones_like(t)},
        {"within": lambda t: t * 0.3},
        {"share": lambda t: torch.zeros_like(t)},
        {"share": lambda t: torch.full_like(t, 1 - 2**-24)},
        {"count": lambda t: torch.zeros_like(t)},
    ],
)
def test_what_is_no_correlation_is_mended(parts):
    assert draw_of(changed(**parts)).isfinite().all()


def test_mending_one_class_leaves_the_others_alone():
    def spoil(within):
        within[1] = 1
        return within

    statistics = changed(within=spoil)
    labels = torch.cat([labels_of(1, (0, 3)), labels_of(1, (1, 0))])
    both = sample_prior(prior_maps(statistics, labels), 1)
    assert torch.equal(both[:1], sample_prior(prior_maps(statistics, labels[:1]), 1))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"share": lambda t: torch.ones_like(t)}, "scene.share must be within 0 and 1"),
        ({"share": lambda t: t + 1}, "scene.share must be within 0 and 1"),
        ({"share": lambda t: -t}, "scene.share must be within 0 and 1"),
        ({"correlation": lambda t: 2 * t}, "correlation above 1"),
        ({"within": lambda t: 2 * t}, "correlation above 1"),
        ({"share": lambda t: t * torch.nan}, "scene.share.*finite"),
        ({"correlation": lambda t: t * torch.inf}, "scene.correlation.*finite"),
        ({"within": lambda t: t * torch.nan}, "scene.within.*finite"),
        ({"count": lambda t: t - 100}, "scene.count.*negative"),
        ({"share": lambda t: t[:, :2]}, r"scene.share has shape \(4, 2\); expected \(K=4, C=4\)"),
        ({"correlation": lambda t: t[:, :, :2]}, r"scene.correlation has shape"),
        ({"correlation": lambda t: t.reshape(16, 16)}, r"scene.correlation has shape"),
        ({"within": lambda t: t[0]}, r"scene.within has shape"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, parts, message):
    """In memory, and as a file that nobody checked."""
    made = make_statistics(learned=True)
    tensors = made.tensors()
    tensors |= {f"scene.{key}": change(tensors[f"scene.{key}"].clone()).contiguous() for key, change in parts.items()}
    save_file(tensors, tmp_path / "own.safetensors", made.metadata)
    for make in (lambda: changed(**parts), lambda: load_statistics(tmp_path / "own.safetensors")):
        with pytest.raises(SCPError, match=message):
            prior_maps(make(), labels_of())


@pytest.mark.parametrize("key", ["target.mean", "target.std", "scene.share", "scene.correlation", "scene.within"])
def test_a_part_without_its_partner_is_refused(tmp_path, key):
    save_statistics(make_statistics(learned=True), tmp_path / "own.safetensors")
    tensors = load_file(tmp_path / "own.safetensors")
    del tensors[key]
    save_file(tensors, tmp_path / "own.safetensors", make_statistics(learned=True).metadata)
    with pytest.raises(SCPError, match=f"own.safetensors has .* but not {key}"):
        load_statistics(tmp_path / "own.safetensors")


def test_learned_parts_survive_the_file(tmp_path):
    made = make_statistics(learned=True)
    save_statistics(made, tmp_path / "own.safetensors")
    read = load_statistics(tmp_path / "own.safetensors")
    labels = labels_of(2, (*IDS, UNKNOWN))
    assert read.shrinkage == made.shrinkage
    assert torch.equal(sample_prior(prior_maps(read, labels), 4), sample_prior(prior_maps(made, labels), 4))
    assert {"target", "scene"} <= set(read.describe()["parts"])
