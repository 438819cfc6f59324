"""The legend: what is drawn, and what it says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scp_prior import classes
from scp_prior import legend as drawing
from scp_prior.errors import SCPError
from scp_prior.legend import legend

MAGENTA = torch.tensor([255, 0, 220]) / 255


def holds(picture: torch.Tensor, colour: tuple[int, int, int] | torch.Tensor) -> bool:
    wanted = torch.as_tensor(colour).float()
    wanted = wanted / 255 if wanted.max() > 1 else wanted
    return bool((picture - wanted).abs().amax(-1).lt(1e-4).any())


def rows_of(labels: torch.Tensor, palette: classes.Palette, unmatched=None, notes=None, marks=None):
    return drawing._rows(labels, palette, unmatched, notes or {}, marks or {})


def test_the_map_is_on_top_and_every_class_has_a_swatch_below():
    palette = classes.palette("cityscapes")
    labels = torch.tensor([[[0, 0, 10, 10], [0, 0, 13, 13]]])
    picture = legend(labels, palette)
    assert picture.dtype == torch.float32
    assert picture.shape[0] == 1
    assert picture.shape[2:] == (640, 3)
    assert picture.min() >= 0
    assert picture.max() <= 1
    top, below = picture[0, :320], picture[0, 320:]
    colours = [torch.tensor(palette.paint[class_id]) / 255 for class_id in (0, 10, 13)]
    assert torch.equal(top[[100, 100, 300], [100, 500, 500]], torch.stack(colours))
    assert all(holds(below, colour) for colour in colours)


def test_rows_say_name_id_and_share_most_frequent_first():
    labels = torch.tensor([[7] * 6 + [23] * 3 + [77]])
    rows = rows_of(labels, classes.palette("cityscapes-ids"), notes={23: "not in the statistics"})
    assert [row[:4] for row in rows] == [
        ("road", "7", "60.0 %", ""),
        ("sky", "23", "30.0 %", "not in the statistics"),
        ("unknown class 77", "77", "10.0 %", ""),
    ]
    assert rows[0].swatch == (128, 64, 128)
    assert rows[1].height > rows[0].height


def test_unmatched_pixels_come_first_and_are_hatched():
    palette = classes.palette("cityscapes")
    labels = torch.full((1, 64, 64), 255)
    labels[:, :32] = 10
    unmatched = torch.zeros(1, 64, 64, dtype=torch.bool)
    unmatched[:, 48:] = True
    rows = rows_of(labels[0], palette, unmatched[0])
    assert [(row.name, row.share) for row in rows] == [
        ("unmatched colours", "25.0 %"),
        ("sky", "50.0 %"),
        ("unlabelled", "25.0 %"),
    ]
    picture = legend(labels, palette, unmatched=unmatched)[0]
    assert holds(picture[370:470, 80:560], MAGENTA)
    assert not holds(picture[:350, 80:560], MAGENTA)
    assert not holds(legend(labels, palette)[0], MAGENTA)


def test_a_picture_of_nothing_but_unmatched_pixels():
    labels = torch.full((1, 8, 8), 255)
    rows = rows_of(labels[0], classes.palette("ade20k"), labels[0] == 255)
    assert [(row.name, row.share) for row in rows] == [("unmatched colours", "100.0 %")]
    assert legend(labels, classes.palette("ade20k"), unmatched=labels == 255).shape[0] == 1


def test_forty_rows_and_the_rest_as_a_count():
    palette = classes.palette("coco-stuff")
    for present, expected in ((40, 40), (41, 40), (180, 40)):
        labels = torch.arange(present).repeat_interleave(2)[None]
        rows = rows_of(labels, palette)
        assert len(rows) == expected
        if present > 40:
            assert rows[-1].name == f"and {present - 39} more"
            assert rows[-1].share == f"{100 * (present - 39) / present:.1f} %"
    assert len(rows_of(labels, palette, labels == 0)) == 40


def test_columns_hold_every_row_once_and_are_about_equally_high():
    rows = [drawing._Row(str(n), "", "", "note" if n % 3 else "") for n in range(23)]
    left, right = drawing._columns(rows)
    assert left + right == rows
    assert abs(sum(row.height for row in left) - sum(row.height for row in right)) <= 2 * rows[1].height
    assert drawing._columns(rows[:5]) == [rows[:5]]


def test_batches_fill_the_shorter_legends_up():
    palette = classes.palette("ade20k")
    labels = torch.stack([torch.zeros(20, 30, dtype=torch.int64), torch.arange(600).view(20, 30) % 30])
    both = legend(labels, palette)
    first, second = legend(labels[:1], palette)[0], legend(labels[1:], palette)[0]
    assert len(first) < len(second)
    assert torch.equal(both[1], second)
    assert torch.equal(both[0, : len(first)], first)
    assert len(both[0, len(first) :].flatten(0, 1).unique(dim=0)) == 1


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (64, 128), (2000, 1500)])
def test_any_size_of_map(size: tuple[int, int]):
    picture = legend(torch.ones(1, *size, dtype=torch.int64), classes.palette("ade20k"))
    assert picture.shape[2] == 640
    assert picture.shape[1] < 700


def test_grey_palettes_are_drawn_in_colours_one_can_tell_apart():
    labels = torch.tensor([[[0, 13]]])
    grey = legend(labels, classes.palette("cityscapes-grey"), title="x")
    assert torch.equal(grey, legend(labels, classes.palette("cityscapes"), title="x"))


def test_long_texts_are_cut_to_their_column():
    table = classes.ClassTable("mine", {1: "very " * 60 + "long", 2: "b"}, "mine")
    palette = classes.Palette(
        "mine", table, np.array([[9, 9, 9]], np.uint8), np.array([1]), {1: (250, 10, 10), 2: (10, 250, 10)}
    )
    labels = torch.tensor([[[1, 1, 1, 2]]])
    picture = legend(labels, palette, notes={1: "note " * 80}, marks={1: "mark " * 80}, title="title " * 80)
    margin = picture[0, 165:, -10:]
    assert len(margin.flatten(0, 1).unique(dim=0)) == 1


def test_the_title_is_drawn():
    labels = torch.zeros(1, 8, 8, dtype=torch.int64)
    palette = classes.palette("ade20k")
    assert not torch.equal(legend(labels, palette, title="one"), legend(labels, palette, title="two"))
    assert torch.equal(legend(labels, palette), legend(labels, palette, title="ade20k"))


def test_marks_stand_in_amber_below_the_notes():
    palette = classes.palette("cityscapes")
    labels = torch.tensor([[[0, 0, 10, 10]]])
    amber = (255, 190, 90)
    plain, noted, marked, both = (
        legend(labels, palette, **more)[0]
        for more in ({}, {"notes": {10: "note"}}, {"marks": {10: "mark"}}, {"notes": {10: "note"}, "marks": {10: "m"}})
    )
    assert [holds(picture, amber) for picture in (plain, noted, marked, both)] == [False, False, True, True]
    assert len(noted) == len(marked)
    assert len(both) - len(noted) == len(noted) - len(plain) > 0
    one, other = legend(labels.expand(2, -1, -1), palette, marks=[{}, {10: "mark"}])
    assert not holds(one, amber)
    assert torch.equal(other, marked)
    row = rows_of(labels[0], palette, notes={10: "note"}, marks={10: "mark"})[1]
    assert (row.name, row.note, row.mark) == ("sky", "note", "mark")


def test_maps_and_masks_that_are_none():
    palette = classes.palette("ade20k")
    with pytest.raises(SCPError, match=r"\(batch, height, width\), got \(8, 8\)"):
        legend(torch.zeros(8, 8, dtype=torch.int64), palette)
    with pytest.raises(SCPError, match=r"mask has the shape \(1, 4, 4\), the label map \(1, 8, 8\)"):
        legend(torch.zeros(1, 8, 8, dtype=torch.int64), palette, unmatched=torch.zeros(1, 4, 4, dtype=torch.bool))
