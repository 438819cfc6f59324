"""Prompts per class: which cells each speaks for."""

from __future__ import annotations

import pytest
import torch

from scp_prior import classes
from scp_prior.errors import SCPError
from scp_prior.regions import region_prompts

CITY = classes.table("cityscapes")
GRID = torch.tensor([[[10, 10, 13], [0, 0, 255]], [[10, 0, 0], [0, 0, 0]]])


def test_each_class_has_the_cells_of_its_id():
    regions, absent = region_prompts("sky: clouds\ncar: a red car\nroad: wet", GRID, CITY)
    assert absent == []
    assert [(r.words, r.names) for r in regions] == [
        ("clouds", ("sky",)),
        ("a red car", ("car",)),
        ("wet", ("road",)),
    ]
    for region, class_id in zip(regions, (10, 13, 0), strict=True):
        for item in range(2):
            for i in range(2):
                for j in range(3):
                    assert float(region.mask[item, i, j]) == (1.0 if int(GRID[item, i, j]) == class_id else 0.0)
        assert region.share == pytest.approx(GRID.flatten().tolist().count(class_id) / 12)


def test_classes_with_the_same_words_are_one_region():
    regions, _ = region_prompts("sky: fog\ncar: rust\nroad: fog", GRID, CITY)
    assert [(r.words, r.names) for r in regions] == [("fog", ("sky", "road")), ("rust", ("car",))]
    assert torch.equal(regions[0].mask, ((GRID == 10) | (GRID == 0)).float())


def test_a_class_that_is_not_there_is_named():
    regions, absent = region_prompts("bus: yellow\nsky: blue\ntrain: old", GRID, CITY)
    assert [r.words for r in regions] == ["blue"]
    assert absent == ["bus", "train"]


def test_unlabelled_is_a_class_too():
    regions, _ = region_prompts("unlabelled: a hedge", GRID, CITY)
    assert float(regions[0].mask.sum()) == 1


def test_errors_name_the_widget():
    with pytest.raises(SCPError, match="prompts, line 1.*'sky: storm clouds'"):
        region_prompts("clouds", GRID, CITY)
