"""From one palette to another, and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from shared_data import require
from torch import Tensor

from scp_prior import classes
from scp_prior.conversion import conversion, converts
from scp_prior.errors import SCPError
from scp_prior.labels import hint_from_labels, labels_from_image
from scp_prior.recolour import detect_for, recolour

PAIRS = [
    (one, other)
    for one in classes.palettes()
    for other in classes.palettes()
    if classes.palette(one).table.dataset == classes.palette(other).table.dataset
]
SMALL = settings(max_examples=60, deadline=None, derandomize=True)


def shared_ids(one: classes.Palette, other: classes.Palette) -> list[int]:
    """Ids of the first that survive the way to the second and back."""
    there, back = conversion(one.table, other.table), conversion(other.table, one.table)
    unambiguous = set(other.unambiguous_ids())
    return [
        class_id
        for class_id in one.unambiguous_ids()
        if there.get(class_id) in unambiguous and back.get(there[class_id]) == class_id
    ]


def user_table(folder: Path, text: str, name: str = "mine.csv") -> classes.Palette:
    path = folder / name
    path.write_text(f"id,name,rgb\n{text}")
    return classes.load_table(path, name)[1]


def as_uint8(picture: Tensor) -> Tensor:
    return picture.mul(255).round().to(torch.uint8)


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_there_and_back_is_the_same_picture(one: str, other: str):
    first, second = classes.palette(one), classes.palette(other)
    ids = shared_ids(first, second)
    assert len(ids) >= 19
    picture = hint_from_labels(torch.tensor(ids).view(1, 1, -1), first)
    for tolerance in (0.0, 24.0):
        there = recolour(picture, first, second, tolerance)
        assert not there.unmatched.any()
        assert there.lost == {}
        back = recolour(there.image, second, first, tolerance)
        assert torch.equal(back.image, picture)
    mapping = conversion(first.table, second.table)
    assert labels_from_image(there.image, second).labels.flatten().tolist() == [mapping[class_id] for class_id in ids]


def real_maps() -> list[tuple[str, Path]]:
    data = require("data")
    return [
        *(("ade20k", path) for path in sorted(data.glob("ade20k_mini/annotations/*/*.png"))),
        *(("coco-stuff", path) for path in sorted(data.glob("coco_stuff_mini/annotations/*/*.png"))),
    ]


def test_real_maps_there_and_back():
    """Between palettes in which every class has a colour; COCO panoptic merges some."""
    ways = {
        "ade20k": ["ade20k", "ade20k-controlnet", "ade20k-oneformer", "ade20k-grey"],
        "coco-stuff": ["coco-stuff", "coco-stuff-grey"],
    }
    for family, path in real_maps():
        with Image.open(path) as opened:
            ids = torch.from_numpy(np.array(opened).astype(np.int64))[None]
        for one, other in zip(ways[family], ways[family][1:] + ways[family][:1], strict=True):
            first, second = classes.palette(one), classes.palette(other)
            picture = hint_from_labels(ids, first)
            there = recolour(picture, first, second, tolerance=0)
            assert not there.unmatched.any()
            read = labels_from_image(picture, first, 0).labels  # skyscraper is road by now
            assert torch.equal(there.image, hint_from_labels(read, second))
            if set(read.unique().tolist()) <= set(second.unambiguous_ids()):
                assert torch.equal(recolour(there.image, second, first, tolerance=0).image, picture)


def test_what_has_no_colour_there_is_said_and_masked():
    first, second = classes.palette("coco-stuff"), classes.palette("coco-stuff-panoptic")
    ids = torch.tensor([[[2, 103, 103, 255]]])  # car, cloth, which COCO panoptic left out, unlabelled
    made = recolour(hint_from_labels(ids, first), first, second)
    assert made.lost == {"cloth": 0.5}
    assert made.unmatched.tolist() == [[[False, True, True, False]]]
    assert made.unmatched_share == 0
    assert as_uint8(made.image)[0, 0].tolist() == [[0, 0, 142], [0, 0, 0], [0, 0, 0], [0, 0, 0]]


def test_classes_that_are_merged_there_come_back_as_one():
    first, second = classes.palette("coco-stuff"), classes.palette("coco-stuff-oneformer")
    bush, tree = first.table.id_of("bush"), first.table.id_of("tree")
    there = recolour(hint_from_labels(torch.tensor([[[bush, tree]]]), first), first, second)
    assert there.lost == {}
    assert torch.equal(there.image[0, 0, 0], there.image[0, 0, 1])
    back = labels_from_image(there.image, second).labels
    assert back.tolist() == [[[tree, tree]]]


def test_ignored_classes_of_cityscapes_are_lost_unless_both_have_them():
    ids, train = classes.palette("cityscapes-ids"), classes.palette("cityscapes")
    picture = hint_from_labels(torch.tensor([[[7, 9, 0, 1]]]), ids)  # road, parking, unlabeled, ego vehicle
    made = recolour(picture, ids, train)
    assert made.lost == {"parking": 0.25}
    assert as_uint8(made.image)[0, 0].tolist() == [[128, 64, 128], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert torch.equal(recolour(picture, ids, ids).image, picture)


def test_unmatched_pixels_are_painted_as_unlabelled():
    first, second = classes.palette("ade20k"), classes.palette("ade20k-oneformer")
    picture = torch.cat([hint_from_labels(torch.tensor([[[1, 2, 3]]]), first), torch.full((1, 1, 1, 3), 0.99)], dim=2)
    made = recolour(picture, first, second)
    assert made.unmatched.tolist() == [[[False, False, False, True]]]
    assert made.unmatched_share == 0.25
    # Not black: that is wall in these colours.
    assert as_uint8(made.image)[0, 0].tolist() == [[0, 0, 0], [51, 255, 105], [101, 0, 178], [255, 255, 255]]


def test_too_much_unmatched_is_refused():
    picture = hint_from_labels(torch.tensor([[[1, 2, 3]]]), classes.palette("ade20k"))
    with pytest.raises(SCPError, match=r"100% of the picture matches no colour of palette 'coco-stuff'.*auto finds it"):
        recolour(picture, classes.palette("coco-stuff"), classes.palette("coco-stuff-grey"), tolerance=0)


def test_data_sets_without_common_classes():
    picture = hint_from_labels(torch.tensor([[[1, 2, 3]]]), classes.palette("ade20k"))
    message = r"'ade20k' cannot be turned into 'cityscapes': the classes are different ones\. Possible: ade20k\."
    with pytest.raises(SCPError, match=message):
        recolour(picture, classes.palette("ade20k"), classes.palette("cityscapes"))


# --- tables of users ------------------------------------------------------------------------------------------------


def test_a_user_s_table_converts_by_name(tmp_path: Path):
    own = user_table(tmp_path, "7,Sky,#0000ff\n3,ROAD,#00ff00\n9,ferns,#ff0000\n255,void,#ffffff\n")
    cityscapes = classes.palette("cityscapes")
    picture = hint_from_labels(torch.tensor([[[7, 3, 9, 255]]]), own)
    made = recolour(picture, own, cityscapes)
    assert made.lost == {"ferns": 0.25}
    assert labels_from_image(made.image, cityscapes).labels.tolist() == [[[10, 0, 255, 255]]]
    back = recolour(made.image, cityscapes, own)
    assert as_uint8(back.image)[0, 0].tolist() == [[0, 0, 255], [0, 255, 0], [255, 255, 255], [255, 255, 255]]


def test_a_black_class_of_a_user_s_own_is_no_nothing(tmp_path: Path):
    own = user_table(tmp_path, "1,road,#000000\n2,ferns,#00ff00\n")
    ids = torch.tensor([[[1, 1, 2, 2]]])
    assert recolour(hint_from_labels(ids, own), own, classes.palette("cityscapes")).lost == {"ferns": 0.5}
    pit = user_table(tmp_path, "1,pit,#000000\n2,road,#00ff00\n", "pit.csv")
    assert recolour(hint_from_labels(ids, pit), pit, classes.palette("cityscapes")).lost == {"pit": 0.5}


def test_a_user_s_table_without_a_name_in_common(tmp_path: Path):
    own = user_table(tmp_path, "7,ferns,#0000ff\n255,void,#ffffff\n")
    for one, other in ((own, classes.palette("ade20k")), (classes.palette("ade20k"), own)):
        assert not converts(one.table, other.table)
        with pytest.raises(SCPError, match=r"no class of mine\.csv has the name of one of the other"):
            recolour(torch.zeros(1, 1, 1, 3), one, other)


def test_ids_of_no_name_are_those_of_any_table(tmp_path: Path):
    own = user_table(tmp_path, "1,ferns,#0000ff\n300,moss,#00ff00\n")
    picture = torch.tensor([[[1, 7]]]).unsqueeze(-1).expand(1, 1, 2, 3) / 255
    made = recolour(picture, classes.any_ids(), own)
    assert as_uint8(made.image)[0, 0].tolist() == [[0, 0, 255], [0, 0, 0]]
    assert made.lost == {"class 7": 0.5}
    to_grey = recolour(hint_from_labels(torch.tensor([[[1, 300]]]), own), own, classes.any_ids())
    assert as_uint8(to_grey.image)[0, 0].tolist() == [[1, 1, 1], [255, 255, 255]]
    assert to_grey.lost == {"moss": 0.5}  # no grey value is 300


# --- which palette was it, given what it shall become ---------------------------------------------------------------


def built_in() -> list[classes.Palette]:
    return [classes.palette(name) for name in classes.palettes()]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("cityscapes-grey", "cityscapes"),
        ("cityscapes-ids-grey", "cityscapes-ids"),
        ("cityscapes-ids", "cityscapes-ids"),
    ],
)
def test_of_the_same_colours_those_of_the_wanted_table_are_taken(wanted: str, found: str):
    ids = torch.tensor([7, 9, 11, 23]).view(1, 2, 2).repeat_interleave(20, 1).repeat_interleave(20, 2)
    picture = hint_from_labels(ids, classes.palette("cityscapes-ids"))
    assert detect_for(picture, classes.palette(wanted), built_in()).palette.name == found


def test_of_equally_likely_ones_one_that_can_be_turned_is_taken_and_doubted():
    black = torch.zeros(1, 20, 20, 3)
    for wanted in ("ade20k-controlnet", "coco-stuff", "cityscapes-ids-grey"):
        found = detect_for(black, classes.palette(wanted), built_in())
        assert found.palette.table.dataset == classes.palette(wanted).table.dataset
        assert not found.sure


def test_what_cannot_be_turned_is_named():
    ids = torch.tensor([[[3, 10]]]).repeat_interleave(20, 1).repeat_interleave(20, 2)
    picture = hint_from_labels(ids, classes.palette("ade20k"))
    message = r"looks like ade20k: fits 100%; next: .*others than those of 'cityscapes'.*Choose a to_palette of ade20k"
    with pytest.raises(SCPError, match=message):
        detect_for(picture, classes.palette("cityscapes"), built_in())
    with pytest.raises(SCPError, match=message):
        detect_for(picture, classes.palette("cityscapes"), [classes.palette("ade20k"), classes.palette("coco-stuff")])


# --- sizes, batches, dtypes -----------------------------------------------------------------------------------------


@SMALL
@given(
    height=st.integers(1, 50),
    width=st.integers(1, 50),
    count=st.integers(1, 3),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.uint8]),
    way=st.sampled_from(PAIRS),
    seed=st.integers(0, 99),
)
def test_any_picture_of_any_size(
    height: int, width: int, count: int, dtype: torch.dtype, way: tuple[str, str], seed: int
):
    first, second = (classes.palette(name) for name in way)
    ids = torch.from_numpy(np.random.default_rng(seed).choice(shared_ids(first, second), (count, height, width)))
    picture = hint_from_labels(ids, first)
    asked = as_uint8(picture) if dtype == torch.uint8 else picture.to(dtype)
    made = recolour(asked, first, second)
    assert made.image.shape == picture.shape
    assert made.image.dtype == torch.float32
    assert made.unmatched.shape == picture.shape[:3]
    assert torch.equal(recolour(made.image, second, first).image, picture)
