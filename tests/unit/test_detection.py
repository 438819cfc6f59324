"""Which palette was it? On drawn maps and some real ones; tests/slow has all of them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from shared_data import require
from torch import Tensor

from benchmarks.palette_cases import SAME_COLOURS, cases
from scp_prior import classes, labels
from scp_prior.detection import detect_palette, palette_fits
from scp_prior.errors import SCPError

COLOUR_PALETTES = [name for name in classes.palettes() if not classes.palette(name).grey]
SMALL = settings(max_examples=60, deadline=None, derandomize=True)


def blocks(ids: Sequence[int], size: int = 16) -> Tensor:
    """One square of each id, in rows of four; the last id fills up what is left."""
    rows = -(-len(ids) // 4)
    grid = torch.tensor([*ids, *[ids[-1]] * (4 * rows - len(ids))]).view(1, rows, 4)
    return grid.repeat_interleave(size, 1).repeat_interleave(size, 2)


def painted(name: str, ids: Sequence[int]) -> Tensor:
    return labels.hint_from_labels(blocks(ids), classes.palette(name))


def as_uint8(picture: Tensor) -> Tensor:
    return picture.mul(255).round().to(torch.uint8)


def compressed(picture: Tensor, quality: int) -> Tensor:
    stream = io.BytesIO()
    Image.fromarray(as_uint8(picture[0]).numpy()).save(stream, "JPEG", quality=quality)
    with Image.open(stream) as again:
        return torch.from_numpy(np.array(again))[None]


def user_table(folder: Path, text: str, name: str = "mine.csv") -> classes.Palette:
    path = folder / name
    path.write_text(f"id,name,rgb\n{text}")
    return classes.load_table(path, name)[1]


STREETS = {
    "cityscapes": [0, 1, 2, 8, 10, 13, 255, 11],
    "cityscapes-ids": [7, 8, 11, 21, 23, 26, 4, 24],
    "ade20k": [1, 2, 3, 4, 5, 7, 10, 21],
    "coco-stuff": [0, 95, 105, 123, 139, 148, 168, 255],
}


@pytest.mark.parametrize("treated", ["float", "half", "jpeg", "batch", "alpha", "portrait"])
@pytest.mark.parametrize("name", COLOUR_PALETTES)
def test_what_a_palette_painted_is_known_by_it(name: str, treated: str):
    picture = painted(name, STREETS[classes.palette(name).table.name])
    treatments = {
        "float": lambda x: x,
        "half": lambda x: x.half(),
        "jpeg": lambda x: compressed(x, 70),
        "batch": lambda x: x.expand(3, -1, -1, -1),
        "alpha": lambda x: torch.cat([x, torch.full_like(x[..., :1], float("nan"))], dim=-1),
        "portrait": lambda x: x.repeat_interleave(9, 1).repeat_interleave(3, 2)[:, :, : 3 * 64],
    }
    found = detect_palette(treatments[treated](picture))
    assert found.palette.name == SAME_COLOURS.get(name, name)
    assert found.fit > 0.9


@pytest.mark.parametrize(("name", "first"), SAME_COLOURS.items())
def test_palettes_of_the_same_colours_are_named_together(name: str, first: str):
    found = detect_palette(painted(name, classes.palette(name).unambiguous_ids()[5:25]))
    assert (found.palette.name, found.same_colours) == (first, (name,))
    assert f"looks like {first} (or {name}: the same colours)" in found.words
    # Whoever comes first among the candidates stands for both.
    other = detect_palette(painted(name, [13, 14]), [classes.palette(name), classes.palette(first)])
    assert (other.palette.name, other.same_colours, other.runner_up) == (name, (first,), None)


def test_a_map_of_two_classes_is_told_where_its_colours_tell():
    """Sky and grass of ADE20K are nobody else's colours."""
    found = detect_palette(painted("ade20k", [3, 10]))
    assert found.palette.name == "ade20k"
    assert found.sure
    assert found.words.endswith("confidence high")


@pytest.mark.parametrize("colour", [0.0, 1.0, None])
def test_black_and_white_may_be_anything_and_that_is_said(colour: float | None):
    picture = torch.zeros(1, 32, 32, 3) if colour is None else torch.full((1, 32, 32, 3), colour)
    if colour is None:
        picture[:, :16] = 1
    found = detect_palette(picture)
    assert found.fit == 1
    assert not found.sure
    assert "confidence LOW: " in found.words
    assert "fits about as well" in found.doubt


def test_colours_two_palettes_share_are_judged_by_their_classes_and_doubted():
    """Road, building, sky, car: Cityscapes and COCO panoptic paint them alike."""
    found = detect_palette(painted("cityscapes", [0, 2, 10, 13]))
    assert found.palette.name == "cityscapes"
    assert dict(palette_fits(painted("cityscapes", [0, 2, 10, 13])))["coco-stuff-panoptic"] == 1
    inside = detect_palette(painted("coco-stuff-panoptic", [0, 127, 148, 150]))  # person, house, road, roof
    assert inside.palette.name == "coco-stuff-panoptic"


def test_the_first_133_colours_of_oneformer_are_ade20k_s_or_coco_s():
    """Wall, building, sky are person, bicycle, car; what is stuff in COCO is rare in ADE20K."""
    rooms, fields = painted("ade20k-oneformer", [1, 2, 3, 5, 7]), painted("coco-stuff-oneformer", [123, 156, 168, 148])
    assert [detect_palette(picture).palette.name for picture in (rooms, fields)] == [
        "ade20k-oneformer",
        "coco-stuff-oneformer",
    ]
    for picture in (rooms, fields):
        fits = dict(palette_fits(picture))
        assert fits["ade20k-oneformer"] == fits["coco-stuff-oneformer"] == 1


def test_id_pictures_that_were_blurred_are_doubted():
    ids = blocks([0, 1, 2, 8, 10, 13, 11, 255], size=37)
    exact = labels.hint_from_labels(ids, classes.palette("cityscapes-grey"))
    assert "blurred" not in detect_palette(exact).doubt
    for blurred in (compressed(exact, 70), torch.nn.functional.avg_pool2d(exact.movedim(-1, 1), 3, 1).movedim(1, -1)):
        found = detect_palette(blurred)
        assert found.palette.grey
        assert not found.sure
        assert "ids were blurred" in found.doubt


def test_255_is_in_no_id_picture_of_ade20k():
    fits = dict(palette_fits(painted("cityscapes-grey", [0, 0, 255, 255])))
    assert fits["cityscapes-grey"] == fits["coco-stuff-grey"] == 1
    assert fits["ade20k-grey"] == pytest.approx(0.5, abs=0.01)


def test_noise_is_no_map():
    noise = torch.rand(1, 64, 64, 3, generator=torch.manual_seed(0))
    with pytest.raises(
        SCPError, match=r"No palette fits this picture; the nearest is '.*' \(\d+%\)\. Expected .* flat"
    ):
        detect_palette(noise)


def test_a_map_of_single_pixels_is_found_and_doubted():
    """Every pixel another class: right, but a photo looks like that as well."""
    ids = torch.from_numpy(np.random.default_rng(0).choice(classes.palette("ade20k").ids, (1, 64, 64)))
    found = detect_palette(labels.hint_from_labels(ids, classes.palette("ade20k")))
    assert found.palette.name == "ade20k"
    assert found.doubt == "it is as restless as a photo"


def test_half_of_a_map_is_not_enough_to_be_sure():
    picture = painted("ade20k", [3, 10, 5, 7, 2, 1, 8, 21])
    picture[:, :12] = torch.tensor([0.35, 0.95, 0.45])
    found = detect_palette(picture, [classes.palette("ade20k")])
    assert 0.5 < found.fit < 0.75
    assert found.doubt == f"only {found.fit:.0%} of it fits"


def test_a_user_s_own_palette_takes_part(tmp_path: Path):
    own = user_table(tmp_path, "1,ferns,#123456\n2,moss,#654321\n3,bark,#c0ffee\n")
    picture = labels.hint_from_labels(blocks([1, 2, 3]), own)
    built_in = [classes.palette(name) for name in classes.palettes()]
    with pytest.raises(SCPError, match="No palette fits"):
        detect_palette(picture)
    found = detect_palette(picture, [*built_in, own])
    assert found.palette is own
    assert found.sure


def test_a_user_s_copy_of_a_palette_is_named_after_it(tmp_path: Path):
    ade = classes.palette("ade20k")
    text = "".join(f"{n},class {n},#{r:02x}{g:02x}{b:02x}\n" for n, (r, g, b) in ade.paint.items() if n < 255)
    found = detect_palette(painted("ade20k", [3, 10]), [ade, classes.palette("coco-stuff"), user_table(tmp_path, text)])
    assert (found.palette.name, found.same_colours) == ("ade20k", ("mine.csv",))


def test_a_part_of_a_palette_in_a_user_s_file_hides_nothing(tmp_path: Path):
    """Both fit; it is said."""
    own = user_table(tmp_path, "1,sky,#06e6e6\n2,grass,#04fa07\n3,tree,#04c803\n")
    found = detect_palette(painted("ade20k", [3, 10]), [classes.palette("ade20k"), own])
    assert not found.sure
    assert {found.palette.name, found.runner_up[0]} == {"ade20k", "mine.csv"}


@SMALL
@given(height=st.integers(1, 40), width=st.integers(1, 40), count=st.integers(1, 3), seed=st.integers(0, 99))
def test_pictures_of_any_size(height: int, width: int, count: int, seed: int):
    ids = torch.from_numpy(np.random.default_rng(seed).choice([3, 10, 5], (count, height, width)))
    found = detect_palette(labels.hint_from_labels(ids, classes.palette("ade20k")))
    assert found.fit == 1
    assert found.palette.name == "ade20k"


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (torch.zeros(4, 4, 3), r"got \(4, 4, 3\)"),
        (torch.full((1, 4, 4, 3), float("nan")), "NaN"),
        (torch.full((1, 4, 4, 3), 200.0), "Divide by 255"),
    ],
)
def test_pictures_that_are_none(picture: Tensor, message: str):
    for ask in (detect_palette, palette_fits):
        with pytest.raises(SCPError, match=message):
            ask(picture)


# --- fits -----------------------------------------------------------------------------------------------------------


def slow_fit(picture: Tensor, name: str) -> float:
    """By its definition, over all pixels of a picture that is small and flat."""
    palette = classes.palette(name)
    total = 0.0
    pixels = as_uint8(picture).view(-1, 3).tolist()
    for pixel in pixels:
        nearest = min(sum((a - b) ** 2 for a, b in zip(pixel, c, strict=True)) for c in palette.colours.tolist())
        total += (1 - nearest / 24**2) ** 2 if nearest < 24**2 else 0.0
    return total / len(pixels)


@pytest.mark.parametrize("name", COLOUR_PALETTES)
def test_fits_are_what_they_are_said_to_be(name: str):
    """Small, so that edges count as well: 8x8 pixels are too few to leave any out."""
    draw = np.random.default_rng(1)
    palette = classes.palette(name)
    clean = palette.colours[draw.integers(0, len(palette.colours), (1, 8, 8))].astype(int)
    picture = torch.from_numpy(np.clip(clean + draw.integers(-9, 10, clean.shape), 0, 255).astype(np.uint8)) / 255
    assert dict(palette_fits(picture))[name] == pytest.approx(slow_fit(picture, name), abs=1e-9)


def test_every_candidate_has_a_fit_and_the_best_is_first():
    fits = palette_fits(painted("ade20k", [3, 10, 5]))
    assert sorted(name for name, _ in fits) == sorted(classes.palettes())
    assert fits[0] == ("ade20k", 1)
    assert all(0 <= fit <= 1 for _, fit in fits)
    assert palette_fits(painted("ade20k", [3, 10, 5]), [classes.palette("coco-stuff")]) == [
        ("coco-stuff", dict(fits)["coco-stuff"])
    ]


def test_edges_do_not_count():
    """A blurred border holds colours between two classes; the fit is that of the areas."""
    picture = painted("ade20k", [3, 10, 5, 7])
    soft = torch.nn.functional.avg_pool2d(picture.movedim(-1, 1), (1, 5), 1).movedim(1, -1)
    assert labels.labels_from_image(soft, classes.palette("ade20k")).unmatched.any()
    assert dict(palette_fits(soft))["ade20k"] == 1


def test_fits_reward_closeness():
    clean = painted("cityscapes", [0, 2, 8, 10, 13, 11])
    fits = [dict(palette_fits((clean + shift / 255).clamp(0, 1)))["cityscapes"] for shift in (0, 4, 8, 12)]
    assert fits[0] == 1
    assert fits == sorted(fits, reverse=True)
    assert len(set(fits)) == 4


def test_fits_of_a_sample_are_those_of_the_whole():
    small = painted("ade20k", [3, 10, 5, 7, 2, 1, 8, 21])
    large = small.repeat_interleave(12, 1).repeat_interleave(12, 2)
    fits, others = dict(palette_fits(large)), dict(palette_fits(small))
    assert all(fits[name] == pytest.approx(others[name], abs=0.05) for name in classes.palettes())


# --- real maps ------------------------------------------------------------------------------------------------------


def test_some_real_maps_in_every_palette_and_version():
    """The quick part of tests/slow/test_palettes.py: one CamVid map in fifty, and every ninth picture of the rest."""
    data = require("data")
    wrong = []
    for number, case in enumerate(cases(data, every=50)):
        if number % 9 == 0 and not case.blurred_ids:
            found = detect_palette(case.picture)
            if found.palette.name != SAME_COLOURS.get(case.palette, case.palette):
                wrong.append((case.source, case.palette, case.version))
                assert not found.sure, wrong[-1]
    assert len(wrong) <= 1, wrong


@pytest.mark.parametrize(
    ("name", "painted_in"),
    [
        ("ADE_val_00000001_uniformer_ade20k_1.png", "ade20k"),
        ("ADE_val_00000001_uniformer_ade20k_2.png", "ade20k"),
        ("ADE_val_00000001_oneformer_ade20k_1.png", "ade20k"),
        ("ADE_val_00000001_oneformer_coco_1.png", "coco-stuff-panoptic"),
    ],
)
def test_real_preprocessor_pictures(name: str, painted_in: str):
    with Image.open(require(f"data/ade20k_mini/preprocessor_screens/{name}")) as opened:
        picture = torch.from_numpy(np.array(opened.convert("RGB")))[None]
    found = detect_palette(picture)
    assert found.palette.name == painted_in
    assert found.sure
    read = labels.labels_from_image(picture, found.palette)
    assert 1 - read.unmatched.double().mean() >= 0.95
    top = [found.palette.table.name_of(class_id) for class_id in list(labels.class_shares(read.labels))[:3]]
    assert any("sky" in class_name for class_name in top)
    assert any("grass" in class_name for class_name in top)
