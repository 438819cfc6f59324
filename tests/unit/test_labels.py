"""Reading segmentation pictures, painting hints, and label maps on the latent grid."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from scp_prior import classes, labels
from scp_prior.errors import SCPError

COLOUR_PALETTES = [name for name in classes.palettes() if not classes.palette(name).grey]
SMALL = settings(max_examples=60, deadline=None, derandomize=True)


def as_uint8(picture: Tensor) -> Tensor:
    return picture.mul(255).round().to(torch.uint8)


def opened(path: Path) -> Tensor:
    with Image.open(path) as picture:
        return torch.from_numpy(np.array(picture.convert("RGB")))[None]


def id_map(path: Path) -> Tensor:
    with Image.open(path) as picture:
        return torch.from_numpy(np.array(picture).astype(np.int64))[None]


def matched_share(picture: Tensor, palette: str, tolerance: float = labels.DEFAULT_TOLERANCE) -> float:
    return 1 - labels.labels_from_image(picture, classes.palette(palette), tolerance).unmatched.double().mean().item()


def user_palette(colours: np.ndarray, ids: np.ndarray) -> classes.Palette:
    paint = {int(i): tuple(int(v) for v in c) for i, c in zip(ids, colours, strict=True)}
    table = classes.ClassTable("mine", {i: str(i) for i in sorted(paint)}, "mine")
    return classes.Palette("mine", table, colours, ids, paint)


# --- colours to labels and back -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.uint8])
@pytest.mark.parametrize("name", classes.palettes())
def test_every_unambiguous_class_comes_back(name: str, dtype: torch.dtype):
    palette = classes.palette(name)
    ids = torch.tensor(palette.unambiguous_ids()).view(1, 1, -1)
    hint = labels.hint_from_labels(ids, palette)
    picture = as_uint8(hint) if dtype == torch.uint8 else hint.to(dtype)
    for tolerance in (0.0, labels.DEFAULT_TOLERANCE):
        read = labels.labels_from_image(picture, palette, tolerance)
        assert torch.equal(read.labels, ids)
        assert not read.unmatched.any()


@pytest.mark.parametrize("name", COLOUR_PALETTES)
def test_ambiguous_colours_follow_the_stated_rule(name: str):
    palette = classes.palette(name)
    for entry in palette.ambiguous:
        picture = torch.tensor(entry.colour, dtype=torch.uint8).view(1, 1, 1, 3)
        assert labels.labels_from_image(picture, palette).labels.item() == entry.read_as


def test_road_is_read_where_the_colour_is_skyscraper_s_too():
    palette = classes.palette("ade20k")
    hint = labels.hint_from_labels(torch.tensor([[[7, 49]]]), palette)
    assert labels.labels_from_image(hint, palette).labels.tolist() == [[[7, 7]]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_all_256_values_survive_half_precision(dtype: torch.dtype):
    grey = torch.arange(256, dtype=torch.uint8).view(1, 1, -1, 1).expand(1, 1, 256, 3)
    palette = classes.palette("coco-stuff-grey")
    exact = labels.labels_from_image(grey, palette)
    assert torch.equal(labels.labels_from_image((grey / 255).to(dtype), palette).labels, exact.labels)
    assert exact.unmatched.sum() == 256 - 183


def brute_force(pixels: np.ndarray, colours: np.ndarray, ids: np.ndarray, tolerance: float) -> list[int | None]:
    found: list[int | None] = []
    for pixel in pixels.reshape(-1, 3).tolist():
        best, best_distance = None, tolerance
        for colour, class_id in zip(colours.tolist(), ids.tolist(), strict=True):
            distance = sum((a - b) ** 2 for a, b in zip(pixel, colour, strict=True)) ** 0.5
            if distance < best_distance or (best is None and distance == best_distance):
                best, best_distance = class_id, distance
        found.append(best)
    return found


def expect_brute_force(pixels: np.ndarray, palette: classes.Palette, tolerance: float) -> None:
    read = labels.labels_from_image(torch.from_numpy(pixels)[None], palette, tolerance)
    expected = brute_force(pixels, palette.colours, palette.ids, tolerance)
    assert read.labels.flatten().tolist() == [255 if found is None else found for found in expected]
    assert read.unmatched.flatten().tolist() == [found is None for found in expected]


@SMALL
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 40),
    spread=st.integers(1, 256),
    tolerance=st.one_of(st.integers(0, 60), st.floats(0, 442)),
)
def test_nearest_is_what_a_slow_loop_finds(seed: int, rows: int, spread: int, tolerance: float):
    draw = np.random.default_rng(seed)
    colours = np.unique(draw.integers(0, spread, (rows, 3)).astype(np.uint8), axis=0)
    # The contract of `Palette`: ascending ids, so that the first of equally near rows is the smaller id.
    ids = np.sort(draw.choice(65536, len(colours), replace=False)).astype(np.int64)
    draw.shuffle(colours)
    pixels = draw.integers(0, spread, (6, 9, 3)).astype(np.uint8)
    expect_brute_force(pixels, user_palette(colours, ids), float(tolerance))


@pytest.mark.parametrize("name", COLOUR_PALETTES)
def test_nearest_on_noisy_colours_of_real_palettes(name: str):
    palette = classes.palette(name)
    draw = np.random.default_rng(7)
    clean = palette.colours[draw.integers(0, len(palette.colours), (12, 15))].astype(int)
    noisy = np.clip(clean + draw.integers(-25, 26, clean.shape), 0, 255).astype(np.uint8)
    expect_brute_force(noisy, palette, labels.DEFAULT_TOLERANCE)


def test_big_pictures_and_small_ones_agree():
    """Above 2^15 pixels the colours present are found in another way."""
    palette = classes.palette("coco-stuff")
    big = torch.from_numpy(np.random.default_rng(3).integers(0, 256, (1, 300, 200, 3)).astype(np.uint8))
    whole = labels.labels_from_image(big, palette)
    for top in range(0, 300, 100):
        part = labels.labels_from_image(big[:, top : top + 100], palette)
        assert torch.equal(part.labels, whole.labels[:, top : top + 100])
        assert torch.equal(part.unmatched, whole.unmatched[:, top : top + 100])


@pytest.mark.parametrize("pixel", [(105, 100, 100), (95, 100, 100), (100, 95, 100), (100, 100, 105), (103, 104, 100)])
def test_tolerance_includes_its_bound(pixel: tuple[int, int, int]):
    palette = user_palette(np.array([[100, 100, 100]], np.uint8), np.array([3]))
    picture = torch.tensor(pixel, dtype=torch.uint8).view(1, 1, 1, 3)
    assert labels.labels_from_image(picture, palette, 5.0) == (torch.tensor([[[3]]]), torch.tensor([[[False]]]))
    assert labels.labels_from_image(picture, palette, 4.999) == (torch.tensor([[[255]]]), torch.tensor([[[True]]]))


def test_a_palette_of_thousands_of_ids():
    ids = np.arange(65536)
    colours = np.stack([ids >> 8, ids & 255, ids * 7 % 256], axis=1).astype(np.uint8)
    palette = user_palette(colours, ids)
    wanted = torch.from_numpy(np.random.default_rng(0).permutation(65536).reshape(1, 256, 256))
    hint = labels.hint_from_labels(wanted, palette)
    assert torch.equal(labels.labels_from_image(hint, palette).labels, wanted)


def test_batches_alpha_strides_and_overshoot():
    palette = classes.palette("cityscapes")
    ids = torch.tensor(palette.unambiguous_ids())[torch.randint(0, 20, (3, 8, 9), generator=torch.manual_seed(0))]
    hint = labels.hint_from_labels(ids, palette)
    alpha = torch.full((3, 8, 9, 1), float("nan"))
    assert torch.equal(labels.labels_from_image(torch.cat([hint, alpha], dim=-1), palette).labels, ids)
    assert torch.equal(labels.labels_from_image(hint.transpose(1, 2), palette).labels, ids.transpose(1, 2))
    one_by_one = [labels.labels_from_image(one[None], palette).labels for one in hint]
    assert torch.equal(torch.cat(one_by_one), ids)
    # Lanczos and bicubic resizing overshoot.
    assert torch.equal(labels.labels_from_image(torch.where(hint == 1, 1.1, hint), palette).labels, ids)
    assert torch.equal(labels.labels_from_image(hint.requires_grad_(), palette).labels, ids)


def test_grey_pictures():
    palette = classes.palette("cityscapes-grey")
    picture = torch.tensor([[0, 0, 0], [18, 18, 18], [19, 19, 19], [255, 255, 255], [5, 5, 6]], dtype=torch.uint8)
    read = labels.labels_from_image(picture.view(1, 1, 5, 3), palette, tolerance=200)
    assert read.labels.tolist() == [[[0, 18, 255, 255, 255]]]
    assert read.unmatched.tolist() == [[[False, False, True, False, True]]]


def test_unmatched_pixels_are_unlabelled_and_never_class_0():
    palette = classes.palette("ade20k-controlnet")
    read = labels.labels_from_image(torch.tensor([1.0, 0.0, 1.0]).expand(2, 4, 5, 3), palette)
    assert read.unmatched.all()
    assert (read.labels == classes.UNLABELLED).all()


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (torch.zeros(4, 4, 3), r"shape \(batch, height, width, 3\).*got \(4, 4, 3\)"),
        (torch.zeros(1, 4, 4, 1), r"got \(1, 4, 4, 1\)"),
        (torch.zeros(1, 0, 4, 3), r"got \(1, 0, 4, 3\)"),
        (torch.zeros(1, 4, 4, 3, dtype=torch.int64), r"uint8, got torch\.int64"),
        (torch.full((1, 4, 4, 3), float("nan")), "NaN"),
        (torch.full((1, 4, 4, 3), float("inf"), dtype=torch.float16), "NaN or infinite"),
        (torch.full((1, 4, 4, 3), 200.0), r"0\.\.1, got 200\.\.200\. Divide by 255"),
    ],
)
def test_pictures_that_are_none(picture: Tensor, message: str):
    with pytest.raises(SCPError, match=message):
        labels.labels_from_image(picture, classes.palette("ade20k"))


@pytest.mark.parametrize("tolerance", [-1.0, 443.0, float("nan")])
def test_tolerances_that_are_none(tolerance: float):
    with pytest.raises(SCPError, match=r"tolerance from 0 \(exact colours\) to 442"):
        labels.labels_from_image(torch.zeros(1, 4, 4, 3), classes.palette("ade20k"), tolerance)


def test_hints_paint_unknown_ids_as_unlabelled():
    palette = classes.palette("coco-stuff-controlnet")
    roof = list(palette.paint[150])
    hint = as_uint8(labels.hint_from_labels(torch.tensor([[[0, -1, 200, 255, 256, 70_000]]]), palette))
    assert hint[0, 0].tolist() == [[128, 0, 0], roof, roof, roof, roof, roof]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_hints_from_any_integers(dtype: torch.dtype):
    palette = classes.palette("cityscapes")
    hint = labels.hint_from_labels(torch.tensor([[[0, 13]]], dtype=dtype), palette)
    assert hint.dtype == torch.float32
    assert as_uint8(hint).tolist() == [[[[128, 64, 128], [0, 0, 142]]]]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (torch.zeros(4, 4, dtype=torch.int64), r"\(batch, height, width\), got \(4, 4\)"),
        (torch.zeros(0, 4, 4, dtype=torch.int64), r"got \(0, 4, 4\)"),
        (torch.zeros(1, 4, 4), r"whole numbers \(int64\), got torch\.float32"),
        (torch.zeros(1, 4, 4, dtype=torch.bool), r"got torch\.bool"),
    ],
)
def test_label_maps_that_are_none(wrong: Tensor, message: str):
    table = classes.table("cityscapes-ids")
    for use in (
        lambda: labels.hint_from_labels(wrong, classes.palette("ade20k")),
        lambda: labels.to_latent_grid(wrong, (2, 2)),
        lambda: labels.class_shares(wrong),
        lambda: labels.convert_labels(wrong, table, "cityscapes"),
    ):
        with pytest.raises(SCPError, match=message):
            use()


# --- latent grid ----------------------------------------------------------------------------------------------------

extents = st.integers(1, 37)


@SMALL
@given(seed=st.integers(0, 2**32 - 1), height=extents, width=extents, h=extents, w=extents)
def test_nearest_is_torch_s_nearest(seed: int, height: int, width: int, h: int, w: int):
    ids = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (2, height, width)))
    expected = F.interpolate(ids[:, None].float(), size=(h, w), mode="nearest")[:, 0].long()
    assert torch.equal(labels.to_latent_grid(ids, (h, w)), expected)


@pytest.mark.parametrize(
    ("size", "grid"), [((512, 1024), (64, 128)), ((1080, 1917), (67, 120)), ((480, 363), (61, 97))]
)
def test_nearest_takes_the_pixel_at_the_floor(size: tuple[int, int], grid: tuple[int, int]):
    ids = torch.from_numpy(np.random.default_rng(1).integers(0, 65536, (1, *size)))
    rows = [i * size[0] // grid[0] for i in range(grid[0])]
    columns = [j * size[1] // grid[1] for j in range(grid[1])]
    assert torch.equal(labels.to_latent_grid(ids, grid), ids[:, rows][:, :, columns])


def slow_majority(ids: list[list[int]], h: int, w: int) -> list[list[int]]:
    height, width = len(ids), len(ids[0])

    def pixels(cell: int, cells: int, extent: int) -> list[int]:
        if cells > extent:
            return [cell * extent // cells]
        return [pixel for pixel in range(extent) if pixel * cells // extent == cell]

    grid = []
    for i in range(h):
        line = []
        for j in range(w):
            votes = Counter(ids[y][x] for y in pixels(i, h, height) for x in pixels(j, w, width))
            line.append(min(votes, key=lambda class_id: (-votes[class_id], class_id)))
        grid.append(line)
    return grid


@SMALL
@given(
    seed=st.integers(0, 2**32 - 1),
    height=extents,
    width=extents,
    h=st.integers(1, 12),
    w=st.integers(1, 12),
    classes_present=st.integers(1, 5),
)
def test_majority_is_what_a_slow_loop_finds(seed, height, width, h, w, classes_present):
    draw = np.random.default_rng(seed)
    ids = draw.choice(65536, classes_present, replace=False)[draw.integers(0, classes_present, (2, height, width))]
    grid = labels.to_latent_grid(torch.from_numpy(ids), (h, w), "majority")
    assert grid.tolist() == [slow_majority(one.tolist(), h, w) for one in ids]


def test_majority_keeps_what_nearest_misses():
    ids = torch.tensor([[[9, 4], [4, 4]]])
    assert labels.to_latent_grid(ids, (1, 1)).item() == 9
    assert labels.to_latent_grid(ids, (1, 1), "majority").item() == 4
    assert labels.to_latent_grid(torch.tensor([[[9, 4], [9, 4]]]), (1, 1), "majority").item() == 4


@pytest.mark.parametrize("rule", labels.GRID_RULES)
def test_a_grid_of_the_same_size_is_the_map_itself(rule: str):
    ids = torch.randint(0, 20, (2, 5, 7), generator=torch.manual_seed(0))
    assert torch.equal(labels.to_latent_grid(ids, (5, 7), rule), ids)


def test_grids_that_cannot_be():
    ids = torch.zeros(1, 4, 4, dtype=torch.int64)
    with pytest.raises(SCPError, match=r"No grid rule 'bilinear'\. Choose one of: nearest, majority"):
        labels.to_latent_grid(ids, (2, 2), "bilinear")
    with pytest.raises(SCPError, match=r"size \(0, 2\): height and width must be at least 1"):
        labels.to_latent_grid(ids, (0, 2))
    with pytest.raises(SCPError, match=r"ids from -1 to -1; class ids lie within 0\.\.65535"):
        labels.to_latent_grid(ids - 1, (2, 2), "majority")


# --- ids ------------------------------------------------------------------------------------------------------------


def test_cityscapes_ids_become_train_ids_and_back():
    own, train = classes.table("cityscapes-ids"), classes.table("cityscapes")
    ids = torch.arange(34).view(1, 1, -1)
    converted = labels.convert_labels(ids, own, "cityscapes")
    expected = [255] * 7 + [0, 1, 255, 255, 2, 3, 4, 255, 255, 255, 5, 255, *range(6, 16), 255, 255, 16, 17, 18]
    assert converted.flatten().tolist() == expected
    back = labels.convert_labels(converted, train, "cityscapes-ids")
    assert torch.equal(back, torch.where(converted == 255, 255, ids))
    assert torch.equal(labels.convert_labels(ids, own, "cityscapes-ids"), ids)
    odd = torch.tensor([[[-5, 99, 255, 7]]])
    assert labels.convert_labels(odd, own, "cityscapes").flatten().tolist() == [255, 255, 255, 0]


def test_ids_of_another_data_set_are_refused():
    with pytest.raises(SCPError, match=r"'ade20k' cannot be turned into 'cityscapes'.*Possible: ade20k\."):
        labels.convert_labels(torch.zeros(1, 2, 2, dtype=torch.int64), classes.table("ade20k"), "cityscapes")


def test_shares_are_sorted_and_sum_to_one():
    ids = torch.tensor([[[3, 3], [9, 1]], [[3, 3], [1, 9]]])
    assert list(labels.class_shares(ids).items()) == [(3, 0.5), (1, 0.25), (9, 0.25)]
