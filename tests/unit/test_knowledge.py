"""What the legend says of how well statistics know a class."""

from __future__ import annotations

import pytest
import torch
from builders import make_statistics

from scp_prior import SCPError, Statistics, prior_maps
from scp_prior.classes import any_ids, table
from scp_prior.knowledge import knowledge
from scp_prior.methods import CELL

CITY = table("cityscapes")


def with_counts(count: torch.Tensor, ids=(0, 10), **more) -> Statistics:
    """Statistics whose joint counts are these (K, h, w)."""
    base = make_statistics(ids, size=tuple(count.shape[1:]), palette="cityscapes", **more)
    return Statistics.from_tensors({**base.tensors(), "joint.count": count.to(torch.int32)}, base.metadata)


def test_photos_are_at_least_the_busiest_cells_and_cells_those_ever_seen():
    count = torch.zeros(2, 2, 4)
    count[0, :, :2] = torch.tensor([[3, 7], [0, 1]])
    count[1] = 1234
    found = knowledge(with_counts(count), torch.tensor([[[0, 10] * 16] * 16]), CITY)
    assert found.known == {0: "7+ photos, 38 % of 8 cells", 10: "1,234+ photos, 100 % of 8 cells"}


def test_the_share_that_falls_back_is_that_of_the_prior_itself():
    statistics = make_statistics((0, 10), size=(8, 16), palette="cityscapes", empty=0.4)
    labels = torch.zeros(1, 64, 128, dtype=torch.int64)
    labels[:, :32] = 10
    found = knowledge(statistics, labels, CITY)
    for class_id in (0, 10):
        rows = [statistics.row_of(class_id)]
        half = slice(0, 4) if class_id == 10 else slice(4, 8)
        unseen = float((statistics.joint(rows).count[0, half] == 0).float().mean())
        assert 0.05 < unseen < 0.95
        assert found.fallback[class_id] == f"unseen at {unseen:.0%}: the class stands in".replace("%", " %")


@pytest.mark.parametrize("size", [(64, 128), (96, 96), (40, 200)])
def test_at_sizes_the_statistics_are_resampled_to(size):
    statistics = make_statistics((0, 10), size=(8, 16), palette="cityscapes", empty=0.9)
    labels = torch.full((1, *size), 10)
    origin = prior_maps(statistics, labels, "joint").origin
    share = float((origin != CELL).float().mean())
    assert (10 in knowledge(statistics, labels, CITY).fallback) == (share > 0)


def test_nothing_is_marked_where_every_cell_was_seen():
    statistics = make_statistics((0, 10), size=(8, 16), palette="cityscapes", empty=0.0)
    labels = torch.tensor([0, 10]).repeat_interleave(64).expand(1, 64, 128)
    assert knowledge(statistics, labels, CITY).fallback == {}


@pytest.mark.parametrize(("ids", "instead"), [((0, 10), "the place"), ((0, 10, 255), "unlabelled")])
def test_a_class_the_file_does_not_hold(ids, instead):
    labels = torch.full((1, 32, 48), 13)
    found = knowledge(make_statistics(ids, palette="cityscapes"), labels, CITY)
    assert found.known == {13: ""}
    assert found.fallback == {13: f"not in this file: {instead} stands in"}


def test_a_class_too_small_for_any_cell():
    labels = torch.zeros(1, 32, 48, dtype=torch.int64)
    labels[0, 3, 5] = 10
    found = knowledge(make_statistics((0, 10), empty=0.0, palette="cityscapes"), labels, CITY)
    assert found.fallback == {10: "too small here for a cell of the latent"}


def test_ids_of_another_table_keep_their_own_numbers():
    statistics = make_statistics((0, 10), empty=0.0, palette="cityscapes")
    labels = torch.full((1, 32, 48), 7)  # road among the 34 ids
    labels[:, :16] = 9  # parking, which has no trainId
    found = knowledge(statistics, labels, table("cityscapes-ids"))
    assert found.known.keys() == {7, 9}
    assert "photos" in found.known[7]
    assert found.fallback == {9: "not in this file: the place stands in"}


def test_an_id_the_file_counts_as_another_is_known_as_that():
    statistics = make_statistics((0, 10), empty=0.0, label_rule="nearest; 255->10", palette="cityscapes")
    found = knowledge(statistics, torch.full((1, 32, 48), 255), CITY)
    assert found.known[255] == knowledge(statistics, torch.full((1, 32, 48), 10), CITY).known[10]
    assert found.fallback == {}


@pytest.mark.parametrize(
    ("parts", "known"),
    [(("class",), "cells"), (("spatial",), ""), (("class", "spatial"), "cells"), (("joint", "spatial"), "photos")],
)
def test_files_that_hold_only_some_parts(parts, known):
    statistics = make_statistics((0, 10), parts=parts, empty=0.0, palette="cityscapes")
    labels = torch.full((1, 32, 48), 10)
    found = knowledge(statistics, labels, CITY)
    assert known in found.known[10]
    assert bool(found.known[10]) == bool(known)
    assert found.fallback == {}


def test_classes_nobody_named_and_classes_of_another_data_set():
    statistics = make_statistics((0, 10), palette="cityscapes")
    labels = torch.full((1, 32, 48), 10)
    assert knowledge(statistics, labels, any_ids().table).known == knowledge(statistics, labels, CITY).known
    with pytest.raises(SCPError, match="read as ade20k"):
        knowledge(statistics, labels, table("ade20k"))


def test_any_size_of_map_even_one_no_latent_has():
    statistics = make_statistics((0, 10), palette="cityscapes")
    for size in ((1, 1), (7, 500), (100, 75)):
        assert knowledge(statistics, torch.full((2, *size), 10), CITY).known.keys() == {10}
