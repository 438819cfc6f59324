from __future__ import annotations

import pytest
import torch
from builders import make_statistics
from hypothesis import given, settings
from hypothesis import strategies as st

from scp_prior import METHODS, SCPError, load_statistics, prior_maps, sample_prior, save_statistics
from scp_prior.methods import CELL, CLASS, SPATIAL
from scp_prior.prior import repeat_maps
from scp_prior.table import SPREAD_FLOOR

UNKNOWN = 77


def one_cell(tensors, method, k, i, j, options):
    """One cell of a prior, spelled out in python floats: mean and std of each channel."""
    ids = tensors["class_ids"].tolist()
    row = ids.index(k) if k in ids else None
    klass = row if row is not None else (ids.index(255) if 255 in ids else None)
    out = []
    for c in range(tensors["class.mean"].shape[1]):
        place = float(tensors["spatial.mean"][c, i, j]), float(tensors["spatial.std"][c, i, j])
        broad = (
            place if klass is None else (float(tensors["class.mean"][klass, c]), float(tensors["class.std"][klass, c]))
        )
        n = 0 if row is None else int(tensors["joint.count"][row, i, j])
        cell = (
            None if n == 0 else (float(tensors["joint.mean"][row, c, i, j]), float(tensors["joint.std"][row, c, i, j]))
        )
        if method == "normal":
            m, s = 0.0, 0.0
        elif method == "spatial":
            m, s = place
        elif method == "class":
            m, s = broad
        elif method == "mixture":
            w = options["weight"]
            m = w * place[0] + (1 - w) * broad[0]
            s = (w * (place[1] ** 2 + (place[0] - m) ** 2) + (1 - w) * (broad[1] ** 2 + (broad[0] - m) ** 2)) ** 0.5
        elif method == "joint-spatial":
            m, s = cell or place
        elif method == "joint-class" or cell is None:
            m, s = cell or broad
        else:
            a, b = options["shrinkage"], 8 * options["shrinkage"]
            m = (n * cell[0] + a * broad[0]) / (n + a)
            s = ((n * (cell[1] ** 2 + (cell[0] - m) ** 2) + b * broad[1] ** 2) / (n + b)) ** 0.5
        out.append((m, s if method == "normal" else max(s, SPREAD_FLOOR)))
    return out


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("ids", [(0, 1, 3, 255), (0, 1, 3)])
def test_every_method_against_a_slow_loop(method, ids):
    statistics = make_statistics(ids)
    labels = torch.tensor([*ids, UNKNOWN, 255])[
        torch.randint(0, len(ids) + 2, (2, 4, 6), generator=torch.Generator().manual_seed(1))
    ]
    options = {"weight": 0.3, "shrinkage": 5.0}
    maps = prior_maps(statistics, labels, method, **options)
    tensors = statistics.tensors()
    for b in range(2):
        for i in range(4):
            for j in range(6):
                expected = one_cell(tensors, method, int(labels[b, i, j]), i, j, options)
                for c, (mean, std) in enumerate(expected):
                    assert float(maps.mean[b, c, i, j]) == pytest.approx(mean, rel=1e-5, abs=1e-5)
                    assert float(maps.std[b, c, i, j]) == pytest.approx(std, rel=1e-5, abs=1e-6)


@given(
    seed=st.integers(0, 1000),
    method=st.sampled_from([m for m in METHODS if m != "normal"]),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    empty=st.sampled_from([0.0, 0.5, 1.0]),
    shrinkage=st.sampled_from([None, 0.0, 0.01, 0.5, 8.0, 1e9, 1e308]),
    unlabelled=st.booleans(),
    learned=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_the_spread_is_always_positive_and_finite(seed, method, size, empty, shrinkage, unlabelled, learned):
    """For any file, label map, size and options; the file here has cells that saw nothing and cells that saw one."""
    ids = (2, 5, 255) if unlabelled else (2, 5)
    statistics = make_statistics(ids, seed=seed, empty=empty, learned=learned)
    labels = torch.tensor([2, 5, 255, UNKNOWN])[
        torch.randint(0, 4, (1, 12, 13), generator=torch.Generator().manual_seed(seed))
    ]
    maps = prior_maps(statistics, labels, method, latent_size=size, shrinkage=shrinkage)
    assert maps.mean.shape == maps.std.shape == (1, 4, *size)
    assert torch.isfinite(maps.mean).all()
    assert torch.isfinite(maps.std).all()
    assert (maps.std > 0).all()


def test_origin_says_what_stood_in():
    statistics = make_statistics((0, 255))
    labels = torch.tensor([0, UNKNOWN]).repeat(3)[None].expand(4, 6)[None]
    seen = statistics.tensors()["joint.count"][0] > 0
    origin = prior_maps(statistics, labels, "joint").origin[0]
    known = labels[0] == 0
    assert (origin[known & seen] == CELL).all()
    assert (origin[known & ~seen] == CLASS).all()
    assert (origin[~known] == CLASS).all()
    assert (prior_maps(statistics, labels, "joint-spatial").origin[0][~known] == SPATIAL).all()
    without = prior_maps(make_statistics((0, 1)), labels, "joint").origin[0]
    assert (without[~known] == SPATIAL).all()


def test_the_shrunk_cell_lies_between_the_cell_and_its_class():
    statistics = make_statistics(empty=0.2)
    labels = torch.full((1, 4, 6), 3)
    cell, joint, klass = (prior_maps(statistics, labels, m).mean for m in ("joint-class", "joint", "class"))
    low, high = torch.minimum(cell, klass) - 1e-5, torch.maximum(cell, klass) + 1e-5
    assert ((low <= joint) & (joint <= high)).all()
    assert not torch.allclose(joint, cell)


def test_a_fraction_of_a_photo_counts_as_that_fraction():
    """On a resampled grid a cell may have seen a hundredth of a photo; it must not weigh as a whole one."""
    from scp_prior.methods import Evidence, Options, joint

    for n in (0.001, 0.05, 0.5, 1.0, 30.0):
        cell, broad = torch.tensor([[100.0]]), torch.tensor([[0.0]])
        one, known = torch.ones(1, 1), torch.ones(1, 1, dtype=torch.bool)
        e = Evidence(torch.tensor([[n]]), cell, 2 * one, broad, 5 * one, known, broad, one, broad, 5 * one)
        got = joint(e, Options(mean_pseudo_count=8, variance_pseudo_count=64))
        mean = n * 100 / (n + 8)
        variance = (n * (4 + (100 - mean) ** 2) + 64 * 25) / (n + 64)
        assert float(got.mean) == pytest.approx(mean, rel=1e-4, abs=1e-4)  # of a cell at 100
        assert float(got.std) == pytest.approx(variance**0.5, rel=1e-4)


def test_statistics_let_go_of_their_tables():
    import gc
    import weakref

    statistics = make_statistics()
    prior_maps(statistics, torch.zeros(1, 4, 6, dtype=torch.int64))
    gone = weakref.ref(statistics)
    del statistics
    gc.collect()
    assert gone() is None


def test_labels_at_image_size_are_brought_to_the_grid_by_the_files_rule():
    labels = torch.zeros(1, 32, 48, dtype=torch.int64)
    labels[:, 1::2, 1::2] = 1
    labels[:, ::8, ::8] = 3  # what nearest picks
    nearest, majority = make_statistics(), make_statistics(label_rule="majority")
    grid = torch.full((1, 4, 6), 3)
    assert torch.equal(prior_maps(nearest, labels).mean, prior_maps(nearest, grid).mean)
    assert torch.equal(prior_maps(majority, labels).mean, prior_maps(majority, grid * 0).mean)


def test_the_files_own_convention_replaces_ids():
    statistics = make_statistics((0, 150), label_rule="nearest; 255->150")
    void, roof = torch.full((1, 4, 6), 255), torch.full((1, 4, 6), 150)
    for method in METHODS:
        assert torch.equal(prior_maps(statistics, void, method).mean, prior_maps(statistics, roof, method).mean)


@pytest.mark.parametrize("size", [None, (5, 7)])
def test_only_the_cells_in_the_picture_are_read_and_only_once(tmp_path, monkeypatch, size):
    save_statistics(make_statistics(), tmp_path / "s.safetensors")
    statistics = load_statistics(tmp_path / "s.safetensors")
    read: list[int] = []
    joint_at = type(statistics).joint_at
    monkeypatch.setattr(
        type(statistics), "joint_at", lambda self, rows, at: read.append(len(rows)) or joint_at(self, rows, at)
    )
    labels = torch.full((1, *(size or (4, 6))), 1)
    labels[0, 0, 0] = UNKNOWN
    first = prior_maps(statistics, labels, latent_size=size)
    assert read == [labels.numel() - 1]
    (tmp_path / "s.safetensors").unlink()
    again = prior_maps(statistics, labels, latent_size=size)
    assert read == [labels.numel() - 1]
    assert torch.equal(first.mean, again.mean)


@pytest.mark.parametrize("method", METHODS)
def test_filling_in_piecemeal_gives_what_filling_at_once_gives(method):
    whole, parts = make_statistics(), make_statistics()
    labels = torch.tensor([0, 1, 3, 255, UNKNOWN])[
        torch.randint(0, 5, (3, 4, 6), generator=torch.Generator().manual_seed(2))
    ]
    at_once = prior_maps(whole, labels, method)
    for i in (0, 1, 2):
        one = prior_maps(parts, labels[i : i + 1], method)
        for a, b in zip(one[:3], at_once[:3], strict=True):
            assert torch.equal(a[0], b[i])


def test_resampling_to_the_size_asked_for():
    statistics = make_statistics(empty=0.0)
    labels = torch.ones(1, 64, 96, dtype=torch.int64)
    maps = prior_maps(statistics, labels, "joint-class")
    expected = statistics.resample((8, 12)).joint([1])
    assert torch.equal(maps.mean, expected.mean)
    assert torch.equal(
        prior_maps(statistics, labels, "joint-class", latent_size=(5, 7)).mean,
        statistics.resample((5, 7)).joint([1]).mean,
    )


class TestSample:
    def maps(self, batch: int = 1, method: str = "joint"):
        g = torch.Generator().manual_seed(5)
        labels = torch.tensor([0, 1, 3])[torch.randint(0, 3, (1, 4, 6), generator=g)]
        return repeat_maps(prior_maps(make_statistics(empty=0.1), labels, method), batch)

    def test_moments_of_many_draws_are_the_maps(self):
        n = 20_000
        maps = self.maps()
        # Noise of many cells at once: every draw of item i is standard normal, so the map's moments must come out.
        z = (sample_prior(repeat_maps(maps, n // 10), 3) - maps.mean) / maps.std
        count = z.numel()
        assert abs(float(z.mean())) < 4 / count**0.5
        assert abs(float(z.std()) - 1) < 4 / (2 * count) ** 0.5

    def test_items_of_a_batch_are_independent_draws(self):
        maps = self.maps(6)
        z = ((sample_prior(maps, 11) - maps.mean) / maps.std).flatten(1)
        close = torch.corrcoef(z) - torch.eye(6)
        assert close.abs().max() < 4.5 / z.shape[1] ** 0.5

    def test_an_item_drawn_alone_is_the_same(self):
        maps = self.maps(5)
        batch = sample_prior(maps, 42)
        some = type(maps)(*(part[[3, 1]] for part in maps[:3]))
        assert torch.equal(sample_prior(some, 42, batch_index=[3, 1]), batch[[3, 1]])

    def test_the_seed_matters(self):
        maps = self.maps()
        assert torch.equal(sample_prior(maps, 1), sample_prior(maps, 1))
        assert not torch.equal(sample_prior(maps, 1), sample_prior(maps, 2))

    def test_normal_is_zero(self):
        assert not sample_prior(self.maps(method="normal"), 1).any()

    def test_batch_index_of_another_length(self):
        with pytest.raises(SCPError, match="3 items.*2 maps"):
            sample_prior(self.maps(2), 1, batch_index=[0, 1, 2])

    def test_maps_are_dealt_out_in_turn(self):
        labels = torch.tensor([0, 1])[:, None, None].expand(2, 4, 6)
        maps = prior_maps(make_statistics(), labels)
        four = repeat_maps(maps, 4)
        assert torch.equal(four.mean[:2], maps.mean)
        assert torch.equal(four.mean[2:], maps.mean)
        with pytest.raises(SCPError, match="multiple of 2; it is 5. Set batch_size to 4 or 6"):
            repeat_maps(maps, 5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s, x: prior_maps(s, x, "jiont"), "no prior method 'jiont'.*Did you mean 'joint'"),
        (lambda s, x: prior_maps(s, x, "mixture", weight=1.5), "between 0 and 1; it is 1.5"),
        (lambda s, x: prior_maps(s, x, "joint", shrinkage=-1), "0 or more; it is -1"),
        (lambda s, x: prior_maps(s, x, "joint", shrinkage=float("nan")), "finite.*it is nan"),
        (lambda s, x: prior_maps(s, x, "joint", shrinkage=float("inf")), "finite.*it is inf"),
        (lambda s, x: prior_maps(s, x, "joint", scene_variation=-0.1), "between 0 and 1; it is -0.1"),
        (lambda s, x: prior_maps(s, x, "joint", scene_variation=1.5), "between 0 and 1; it is 1.5"),
        (lambda s, x: prior_maps(s, x, "joint", scene_variation=float("nan")), "between 0 and 1; it is nan"),
        (lambda s, x: prior_maps(s, x.float()), "whole numbers"),
        (lambda s, x: prior_maps(s, x[0]), "shape"),
        (lambda s, x: prior_maps(s, x[:0]), "shape"),
        (lambda s, x: prior_maps(s, x - 1), "from -1 to"),
        (lambda s, x: prior_maps(s, x + 70000), "to 70000"),
        (lambda s, x: prior_maps(s, torch.zeros(1, 30, 48).long()), "multiples of 8"),
    ],
)
def test_bad_input_is_told_apart(call, message):
    with pytest.raises(SCPError, match=message):
        call(make_statistics(), torch.zeros(1, 4, 6, dtype=torch.int64))


@pytest.mark.parametrize(("parts", "able"), [(["class"], ["class", "normal"]), (["spatial"], ["spatial", "normal"])])
def test_methods_a_file_cannot_serve_are_refused_naming_those_it_can(parts, able):
    statistics = make_statistics(parts=parts)
    labels = torch.zeros(1, 4, 6, dtype=torch.int64)
    for method in METHODS:
        if method in able:
            prior_maps(statistics, labels, method, latent_size=(4, 6))
            continue
        with pytest.raises(SCPError, match=f"Choose one of: {', '.join(able)}"):
            prior_maps(statistics, labels, method, latent_size=(4, 6))


def test_a_file_without_spatial_statistics_serves_unknown_classes_from_all_classes():
    statistics = make_statistics((0, 1), parts=["joint", "class"])
    maps = prior_maps(statistics, torch.full((1, 4, 6), UNKNOWN), "joint")
    count, mean, std = statistics.categorical()
    weight = count.double() / count.sum()
    overall = (weight[:, None] * mean).sum(0)
    variance = (weight[:, None] * (std.double() ** 2 + (mean - overall) ** 2)).sum(0)
    torch.testing.assert_close(maps.mean[0, :, 2, 3].double(), overall, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(maps.std[0, :, 2, 3].double(), variance.sqrt(), rtol=1e-5, atol=1e-5)
