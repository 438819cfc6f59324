"""A strength per class."""

from __future__ import annotations

import pytest
import torch

from scp_prior import classes
from scp_prior.class_strength import absent_classes, cell_strengths, class_strengths, weakened
from scp_prior.errors import SCPError

CITY = classes.table("cityscapes")
GRID = torch.tensor([[[10, 10, 13], [0, 0, 255]], [[10, 0, 0], [0, 0, 0]]])


def test_lines_are_numbers_by_class():
    assert class_strengths("car: 0.5\nsky: 0\nroad: 2", CITY) == {13: 0.5, 10: 0.0, 0: 2.0}
    assert class_strengths("", CITY) == {}


@pytest.mark.parametrize("value", ["half", "-0.1", "2.01", "nan", "inf", "0,5", "1e400", "0.5 0.6"])
def test_what_is_no_strength(value):
    with pytest.raises(SCPError, match=r"class_strength, line 2: '.*' is not a number from 0 \(no prior\) to 2"):
        class_strengths(f"sky: 1\ncar: {value}", CITY)


def test_each_cell_has_the_strength_of_its_class_times_that_of_all():
    of_class = {13: 0.5, 10: 0.0}
    strengths = cell_strengths(GRID, of_class, 0.8)
    assert strengths.shape == (2, 1, 2, 3)
    for item in range(2):
        for i in range(2):
            for j in range(3):
                expected = 0.8 * of_class.get(int(GRID[item, i, j]), 1.0)
                assert float(strengths[item, 0, i, j]) == pytest.approx(expected)


def test_cells_of_strength_zero_are_empty_and_others_scaled():
    latent = torch.randn(2, 4, 2, 3, generator=torch.Generator().manual_seed(0))
    strengths = cell_strengths(GRID, {10: 0.0, 13: 0.5}, 1.0)
    weak = weakened(latent, strengths)
    sky = (GRID == 10).unsqueeze(1).expand(-1, 4, -1, -1)
    assert not weak[sky].any()
    assert not weak[sky].signbit().any()
    assert torch.equal(weak[:, :, 0, 2][:1], latent[:1, :, 0, 2] * 0.5)
    assert torch.equal(weak[:, :, 1], latent[:, :, 1])
    assert torch.equal(weakened(latent, 0.7), latent * 0.7)
    assert not weakened(latent, 0.0).signbit().any()


def test_one_strength_for_every_class_is_that_strength_to_the_last_bit():
    latent = torch.randn(2, 4, 2, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(weakened(latent, cell_strengths(GRID, {}, 0.7)), weakened(latent, 0.7))


def test_classes_that_are_not_there_are_named():
    assert (
        absent_classes({10: 0.5, 14: 0.1, 15: 2}, GRID, CITY) == "class_strength: in no cell of the picture: truck, bus"
    )
    assert absent_classes({10: 0.5}, GRID, CITY) == ""
