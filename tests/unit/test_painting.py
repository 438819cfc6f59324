"""Painting label maps by hand, against loops over pixels and round trips."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from shared_data import require
from torch.nn import functional as F

from scp_prior import classes
from scp_prior.errors import SCPError
from scp_prior.labels import to_latent_grid
from scp_prior.naming import id_named, ids_named, ids_of_lines, names_of
from scp_prior.painting import class_mask, compose, empty_map, fitted_mask, hard_mask, paint
from scp_prior.painting_report import compose_report, mask_report, paint_report

TABLE = classes.table("cityscapes")
exact = settings(derandomize=True, deadline=None, max_examples=60)


def masks_of(seed: int, n: int, height: int, width: int, dtype=torch.float32) -> torch.Tensor:
    return torch.rand(n, height, width, generator=torch.Generator().manual_seed(seed)).to(dtype)


def slowly(masks: torch.Tensor, ids, background: int) -> np.ndarray:
    """One map of (N, H, W) masks, pixel by pixel."""
    out = np.full(masks.shape[1:], background, dtype=np.int64)
    for y in range(masks.shape[1]):
        for x in range(masks.shape[2]):
            for number, class_id in enumerate(ids):
                if class_id is not None and float(masks[number, y, x]) >= 0.5:
                    out[y, x] = class_id
    return out


class TestNames:
    def test_every_name_on_offer_means_one_id(self):
        for name in classes.tables():
            table = classes.table(name)
            offered = names_of(table)
            assert len({id_named(table, one) for one in offered}) == len(offered)
            assert {id_named(table, one) for one in offered} == {*table.ids, 255}

    @pytest.mark.parametrize("typed", ["traffic light", "Traffic-Light", " TRAFFIC_LIGHT "])
    def test_case_dashes_and_blanks_do_not_matter(self, typed):
        assert id_named(TABLE, typed) == 6

    def test_unlabelled_is_255_also_where_the_table_has_no_such_row(self):
        ids = classes.table("cityscapes-ids")
        assert 255 not in ids.names
        assert id_named(ids, "Unlabelled ") == 255
        assert names_of(ids)[-1] == "unlabelled"

    def test_a_name_that_is_none_brings_close_ones(self):
        with pytest.raises(SCPError, match="No class 'skyy'.*'sky'"):
            id_named(TABLE, "skyy")

    def test_lines(self):
        assert ids_of_lines(TABLE, "sky\n\n  Road \r\n-\ncar") == [10, 0, None, 13]
        assert ids_of_lines(TABLE, " \n") == []
        with pytest.raises(SCPError, match="Line 3 of the classes: No class 'rode'.*'road'"):
            ids_of_lines(TABLE, "sky\n\nrode")


class TestMasks:
    def test_half_and_more_is_yes(self):
        values = torch.tensor([[[0.0, 0.498, 0.5, 0.502, 1.0]]])
        for dtype in (torch.float16, torch.float32, torch.float64, torch.bfloat16):
            assert hard_mask(values.to(dtype)).tolist() == [[[False, False, True, True, True]]]
        assert hard_mask(values > 0.4).tolist() == [[[False, True, True, True, True]]]

    @pytest.mark.parametrize("shape", [(4, 6), (1, 4, 6), (1, 1, 4, 6)])
    def test_shapes_other_nodes_make(self, shape):
        assert hard_mask(torch.ones(shape)).shape == (1, 4, 6)

    @pytest.mark.parametrize("shape", [(6,), (0, 4, 6), (2, 3, 4, 6)])
    def test_shapes_that_are_no_masks(self, shape):
        with pytest.raises(SCPError, match="Expected a mask of shape"):
            hard_mask(torch.ones(shape))

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), 255.0, -7.0])
    def test_values_that_are_no_mask(self, value):
        with pytest.raises(SCPError, match=r"values in 0\.\.1"):
            hard_mask(torch.tensor([[[0.0, value]]]))

    def test_what_a_blur_leaves_is_taken(self):
        assert hard_mask(torch.tensor([[-0.1, 1.2]])).tolist() == [[[False, True]]]

    @exact
    @given(st.tuples(*[st.integers(1, 40)] * 4))
    def test_another_size_is_by_nearest_pixel_as_torch_does_it(self, sizes):
        h, w, height, width = sizes
        mask = masks_of(h * w, 2, h, w) > 0.5
        by_torch = F.interpolate(mask[:, None].float(), size=(height, width), mode="nearest")[:, 0] > 0.5
        assert torch.equal(fitted_mask(mask, (height, width)), by_torch)

    @exact
    @given(st.integers(0, 10**6), st.integers(1, 30), st.integers(1, 30))
    def test_masks_of_all_classes_make_the_map_again(self, seed, height, width):
        labels = torch.randint(0, 5, (2, height, width), generator=torch.Generator().manual_seed(seed))
        masks = torch.stack([class_mask(labels, [class_id]) for class_id in range(5)], dim=1)
        assert torch.equal(masks.sum(1), torch.ones(2, height, width))
        assert torch.equal(compose(masks.flatten(0, 1), range(5)), labels)


class TestPaint:
    def test_without_a_mask_everything(self):
        assert torch.equal(paint(empty_map(3, 5), None, 7), torch.full((1, 3, 5), 7))

    def test_the_map_given_stays_as_it_is(self):
        labels = empty_map(3, 5)
        paint(labels, torch.ones(1, 3, 5), 7)
        assert (labels == 255).all()

    @pytest.mark.parametrize(("maps", "masks"), [(1, 1), (3, 1), (1, 3), (3, 3)])
    def test_batches(self, maps, masks):
        labels = torch.arange(maps).view(-1, 1, 1).expand(maps, 4, 6)
        mask = masks_of(1, masks, 4, 6)
        painted = paint(labels, mask, 9)
        assert painted.shape == (max(maps, masks), 4, 6)
        for item, one in enumerate(painted):
            assert torch.equal(one, torch.where(mask[item % masks] >= 0.5, 9, item % maps))

    def test_batches_that_do_not_fit(self):
        with pytest.raises(SCPError, match="3 masks and 2 label maps"):
            paint(empty_map(4, 6).expand(2, -1, -1), torch.ones(3, 4, 6), 1)

    @pytest.mark.parametrize("size", [(0, 8), (8, 0), (16385, 8), (-8, 8)])
    def test_sizes_that_cannot_be(self, size):
        with pytest.raises(SCPError, match="Set width and height"):
            empty_map(*size)

    @exact
    @given(st.integers(0, 10**6), st.tuples(*[st.integers(1, 48)] * 4), st.integers(1, 3))
    def test_any_size_of_map_and_mask(self, seed, sizes, batch):
        height, width, h, w = sizes
        mask = masks_of(seed, batch, h, w)
        painted = paint(empty_map(height, width), mask, 13)
        rows, columns = (
            to_latent_grid(torch.arange(n)[None, None], (1, m))[0, 0] for n, m in ((h, height), (w, width))
        )
        expected = torch.where(mask[:, rows[:, None], columns] >= 0.5, 13, 255)
        assert torch.equal(painted, expected)


class TestCompose:
    @exact
    @given(st.integers(0, 10**6), st.lists(st.sampled_from([None, 0, 2, 10, 13]), min_size=1, max_size=6))
    def test_as_a_slow_loop_does_it(self, seed, ids):
        masks = masks_of(seed, len(ids), 5, 7)
        assert torch.equal(compose(masks, ids, 8), torch.from_numpy(slowly(masks, ids, 8))[None])

    @exact
    @given(st.integers(0, 10**6), st.lists(st.sampled_from([0, 2, 10, 13]), min_size=1, max_size=6))
    def test_one_by_one_or_all_at_once_is_the_same(self, seed, ids):
        masks, chained = masks_of(seed, len(ids), 6, 9), empty_map(6, 9)
        for mask, class_id in zip(masks, ids, strict=True):
            chained = paint(chained, mask[None], class_id)
        assert torch.equal(compose(masks, ids), chained)

    @pytest.mark.parametrize(
        ("folder", "name"),
        [
            ("data/ade20k_mini/annotations/validation", "ade20k"),
            ("data/coco_stuff_mini/annotations/val2017", "coco-stuff"),
        ],
    )
    def test_real_maps_come_back_from_masks_and_names(self, folder, name):
        table = classes.table(name)
        for path in sorted(require(folder).glob("*.png")):
            with Image.open(path) as picture:
                labels = torch.from_numpy(np.array(picture).astype(np.int64))[None]
            names = [table.name_of(class_id) for class_id in labels.unique().tolist()]
            masks = torch.cat([class_mask(labels, ids_named(table, one)) for one in names])
            assert torch.equal(compose(masks, ids_of_lines(table, "\n".join(names)), 999), labels)

    def test_twice_as_many_masks_are_two_maps(self):
        masks, ids = masks_of(3, 6, 4, 5), [0, None, 13]
        both = compose(masks, ids)
        assert torch.equal(both, torch.cat([compose(masks[:3], ids), compose(masks[3:], ids)]))

    @pytest.mark.parametrize(
        ("masks", "ids", "words"),
        [
            (5, [1, 2], "There are 5 masks and 2 classes"),
            (1, [1, 2], "There is 1 mask and 2 classes"),
            (2, [], "There are 2 masks and 0 classes"),
            (5, [1, 2, 3, 4], "one class for each mask"),
        ],
    )
    def test_numbers_that_do_not_fit(self, masks, ids, words):
        with pytest.raises(SCPError, match=words):
            compose(torch.ones(masks, 4, 4), ids)


class TestReports:
    def test_of_a_stroke(self):
        mask = torch.zeros(1, 4, 8)
        mask[:, :2] = 1
        painted = paint(empty_map(4, 8), mask, 10)
        assert paint_report(painted, TABLE, 10, mask) == (
            "sky: 50.0% painted\n1 class, 50.0% unlabelled",
            False,
        )

    def test_of_a_mask_of_another_size(self):
        larger, wider = (paint_report(empty_map(8, 16), TABLE, 10, torch.ones(1, *size)) for size in ((4, 8), (4, 4)))
        assert "mask resized from 8x4" in larger[0]
        assert not larger[1]
        assert "mask stretched from 4x4 to 16x8" in wider[0]
        assert wider[1]

    def test_of_an_empty_mask(self):
        text, doubtful = paint_report(empty_map(4, 4), TABLE, 10, torch.zeros(1, 64, 64))
        assert "the mask is empty: no sky" in text
        assert doubtful

    def test_of_a_mark_too_small_for_the_map(self):
        mask = torch.zeros(1, 8, 8)
        mask[:, 1, 1] = 1
        text, doubtful = paint_report(paint(empty_map(4, 4), mask, 10), TABLE, 10, mask)
        assert text.startswith("all of the mask was lost in resizing: no sky\nmask resized from 8x8")
        assert doubtful

    def test_of_masks_that_leave_nothing_to_be_seen(self):
        masks = torch.zeros(3, 4, 4)
        masks[0, :2] = masks[1] = 1
        ids = [10, 0, 13]
        text, doubtful = compose_report(compose(masks, ids), TABLE, ids, masks)
        assert text == "1 class\nmask 3 (car) is empty\nsky lies wholly under later masks"
        assert doubtful
        both = compose_report(compose(masks[:2], [0]), TABLE, [0], masks[:2])
        assert both == ("2 maps, 1 class, 25.0% unlabelled", False)

    def test_of_a_class_that_is_not_there(self):
        labels = torch.tensor([[[0, 0, 0, 10]]])
        assert mask_report(labels, TABLE, [10]) == ("sky: 25.0% of the picture", False)
        assert mask_report(labels, TABLE, [13]) == ("no car in this map; there is: road, sky", True)
        many = torch.arange(19).view(1, 1, -1)
        assert mask_report(many, TABLE, [255])[0].endswith(" and 7 more")

    def test_of_a_name_that_several_ids_have(self):
        labels = torch.tensor([[[3, 7, 7, 1]]])
        own = classes.ClassTable("own", {1: "wall", 3: "car", 7: "car"}, "own")
        ids = ids_named(own, "CAR")
        assert class_mask(labels, ids).tolist() == [[[1, 1, 1, 0]]]
        assert mask_report(labels, own, ids) == ("car: 75.0% of the picture", False)
