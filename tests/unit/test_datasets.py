from __future__ import annotations

import io
import os
import pickle
import random
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile
from shared_data import require

from scp_prior import SCPError
from scp_prior.classes import palette, table
from scp_prior.datasets import SPLITS, load_pair, load_pixels, open_dataset
from scp_prior.labels import hint_from_labels
from scp_prior.photos import MAX_PIXELS, read_photo

CAMVID_TO_TRAIN_ID = {0: 10, 1: 2, 2: 5, 3: 0, 4: 1, 5: 8, 6: 7, 7: 4, 8: 13, 9: 11, 10: 18, 11: 255}


def save(path: Path, values, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = values if isinstance(values, Image.Image) else Image.fromarray(np.asarray(values))
    picture.save(path, **options)
    return path


def photo_pixels(height=6, width=8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def label_pixels(height=6, width=8, ids=(0, 1, 2), seed=0):
    return np.random.default_rng(seed).choice(np.array(ids, np.uint8), (height, width))


def fill(root: Path, names=("a", "b"), photo_end=".png", label_end=".png", ids=(0, 1, 2)) -> Path:
    for seed, name in enumerate(names):
        save(root / "images" / f"{name}{photo_end}", photo_pixels(seed=seed))
        save(root / "labels" / f"{name}{label_end}", label_pixels(ids=ids, seed=seed))
    return root


def folder(root: Path, **options):
    return open_dataset("folder", images=root / "images", labels=root / "labels", **options)


def names(dataset) -> list[str]:
    return [pair.name for pair in dataset.pairs]


# --- real data ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "place", "split", "count", "ids"),
    [
        ("ade20k", "ade20k_mini", "training", 5, range(151)),
        ("ade20k", "ade20k_mini", "validation", 7, range(151)),
        ("coco-stuff", "coco_stuff_mini", "train2017", 9, [*range(182), 255]),
        ("coco-stuff", "coco_stuff_mini", "val2017", 5, [*range(182), 255]),
    ],
)
def test_public_sets_are_read_as_they_lie_on_disk(kind, place, split, count, ids):
    root = require(f"data/{place}")
    dataset = open_dataset(kind, root=root, split=split)
    assert (len(dataset.pairs), dataset.problems) == (count, ())
    assert (dataset.name, dataset.palette, dataset.table) == (kind, kind, table(kind))
    seen = set()
    for pair in dataset.pairs:
        assert pair.photo.stem == pair.label.stem == pair.name
        assert split in pair.photo.parts
        with Image.open(pair.label) as stored, Image.open(pair.photo) as photo:
            raw, pixels = np.array(stored), np.array(photo)
        example = load_pixels(dataset, pair, pixels.shape[:2])
        assert np.array_equal(example.label, raw)
        assert np.array_equal(example.photo, pixels)
        seen |= set(np.unique(raw).tolist())
    assert seen <= set(ids)
    if kind == "coco-stuff":
        assert 255 in seen


def test_camvid_as_a_folder():
    root = require("data/camvid_mini")
    dataset = open_dataset("folder", images=root / "train", labels=root / "trainannot")
    assert (len(dataset.pairs), dataset.problems, dataset.palette, dataset.table) == (75, (), "", None)
    listed = dict(line.split() for line in (root / "train.txt").read_text().splitlines())
    assert {f"train/{p.photo.name}": f"trainannot/{p.label.name}" for p in dataset.pairs} == listed
    example = load_pair(dataset, dataset.pairs[0], (180, 240), (24, 32))
    assert example.photo.shape == (3, 180, 240)
    assert example.label.shape == (24, 32)
    assert set(example.label.unique().tolist()) <= set(range(12))


@pytest.mark.parametrize("kind_of_map", ["labelTrainIds", "labelIds"])
def test_camvid_laid_out_as_cityscapes(tmp_path, kind_of_map):
    source = require("data/camvid_mini")
    train_ids = np.array([CAMVID_TO_TRAIN_ID[n] for n in range(12)], np.uint8)
    back = table("cityscapes").convert_to["cityscapes-ids"]
    expected = {}
    for number, line in enumerate((source / "train.txt").read_text().splitlines()[:6]):
        photo, label = (source / part for part in line.split())
        city, stem = f"city{number % 2}", f"city{number % 2}_{number:06d}_000019"
        with Image.open(label) as stored:
            wanted = train_ids[np.array(stored)]
        expected[f"{city}/{stem}"] = wanted
        target = tmp_path / "leftImg8bit" / "train" / city / f"{stem}_leftImg8bit.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        os.symlink(photo, target)
        maps = tmp_path / "gtFine" / "train" / city
        ids = wanted if kind_of_map == "labelTrainIds" else np.vectorize(lambda k: back.get(k, 0))(wanted)
        save(maps / f"{stem}_gtFine_{kind_of_map}.png", ids.astype(np.uint8))
        # What else the download has beside them.
        save(maps / f"{stem}_gtFine_instanceIds.png", ids.astype(np.uint16))
        save(maps / f"{stem}_gtFine_color.png", photo_pixels())
        (maps / f"{stem}_gtFine_polygons.json").write_text("{}")
    dataset = open_dataset("cityscapes", root=tmp_path, split="train")
    assert (names(dataset), dataset.problems, dataset.palette) == (sorted(expected), (), "cityscapes")
    for pair in dataset.pairs:
        assert np.array_equal(load_pixels(dataset, pair, (32, 32)).label, expected[pair.name])


# --- layouts --------------------------------------------------------------------------------------------------------


def cityscapes_file(root, folder_name, split, city, n, end):
    return root / folder_name / split / city / f"{city}_{n:06d}_000019_{end}.png"


def test_cityscapes_train_ids_are_preferred_picture_by_picture(tmp_path):
    for n in range(2):
        save(cityscapes_file(tmp_path, "leftImg8bit", "val", "ulm", n, "leftImg8bit"), photo_pixels())
        save(cityscapes_file(tmp_path, "gtFine", "val", "ulm", n, "gtFine_labelIds"), np.full((6, 8), 7, np.uint8))
    save(cityscapes_file(tmp_path, "gtFine", "val", "ulm", 0, "gtFine_labelTrainIds"), np.full((6, 8), 13, np.uint8))
    dataset = open_dataset("cityscapes", root=tmp_path, split="val")
    assert dataset.problems == ()
    assert [np.unique(dataset.read_label(pair.label)).tolist() for pair in dataset.pairs] == [[13], [0]]


def test_every_cityscapes_id_becomes_its_train_id(tmp_path):
    save(cityscapes_file(tmp_path, "leftImg8bit", "val", "ulm", 0, "leftImg8bit"), photo_pixels(1, 34))
    label = save(
        cityscapes_file(tmp_path, "gtFine", "val", "ulm", 0, "gtFine_labelIds"), np.arange(34, dtype=np.uint8)[None]
    )
    dataset = open_dataset("cityscapes", root=tmp_path, split="val")
    to_train = table("cityscapes-ids").convert_to["cityscapes"]
    assert dataset.read_label(label)[0].tolist() == [to_train.get(n, 255) for n in range(34)]
    assert sorted(set(dataset.read_label(label)[0].tolist())) == [*range(19), 255]


def test_the_archives_own_folders_are_found(tmp_path):
    root = tmp_path / "city"
    save(
        cityscapes_file(root / "leftImg8bit_trainvaltest", "leftImg8bit", "val", "ulm", 0, "leftImg8bit"),
        photo_pixels(),
    )
    save(cityscapes_file(root / "gtFine_trainvaltest", "gtFine", "val", "ulm", 0, "gtFine_labelIds"), label_pixels())
    assert len(open_dataset("cityscapes", root=root, split="val").pairs) == 1
    save(tmp_path / "ADEChallengeData2016" / "images" / "training" / "a.jpg", photo_pixels())
    save(tmp_path / "ADEChallengeData2016" / "annotations" / "training" / "a.png", label_pixels())
    assert names(open_dataset("ade20k", root=tmp_path, split="training")) == ["a"]


def test_splits_are_never_mixed(tmp_path):
    for split in ("train", "val", "test"):
        save(cityscapes_file(tmp_path, "leftImg8bit", split, f"{split}town", 1, "leftImg8bit"), photo_pixels())
        save(cityscapes_file(tmp_path, "gtFine", split, f"{split}town", 1, "gtFine_labelIds"), label_pixels())
    for split in ("train", "val"):
        dataset = open_dataset("cityscapes", root=tmp_path, split=split)
        assert names(dataset) == [f"{split}town/{split}town_000001_000019"]


@pytest.mark.parametrize(
    ("kind", "split"), [("cityscapes", "test"), ("ade20k", "val"), ("coco-stuff", "train"), ("ade20k", None)]
)
def test_other_splits_are_refused_with_the_official_names(tmp_path, kind, split):
    with pytest.raises(SCPError, match=", ".join(SPLITS[kind])):
        open_dataset(kind, root=tmp_path, split=split)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "pascal"}, "No data set 'pascal'.*cityscapes, ade20k, coco-stuff, folder"),
        ({"kind": "ade20k", "split": "training"}, "takes a root folder"),
        ({"kind": "ade20k", "root": "x", "split": "training", "palette": "ade20k"}, "nothing else"),
        ({"kind": "folder", "images": "x"}, "two folders"),
        ({"kind": "folder", "images": "x", "labels": "y", "root": "z"}, "no root"),
        ({"kind": "folder", "images": "nowhere", "labels": "y"}, "no folder nowhere.*photos"),
        ({"kind": "ade20k", "root": "nowhere", "split": "training"}, "no folder.*nowhere.*training"),
    ],
)
def test_arguments_that_do_not_belong_together(arguments, message):
    with pytest.raises(SCPError, match=message):
        open_dataset(**arguments)


@pytest.mark.parametrize(("kind", "split", "bad"), [("ade20k", "training", 151), ("coco-stuff", "val2017", 182)])
def test_ids_a_data_set_does_not_have_are_refused(tmp_path, kind, split, bad):
    save(tmp_path / "images" / split / "a.jpg", photo_pixels())
    label = save(tmp_path / "annotations" / split / "a.png", label_pixels(ids=(0, bad)))
    dataset = open_dataset(kind, root=tmp_path, split=split)
    with pytest.raises(SCPError, match=rf"a\.png holds ids that are no classes of {kind}: {bad}\."):
        dataset.read_label(label)


# --- pairing --------------------------------------------------------------------------------------------------------


def test_pairs_are_made_by_name_with_sub_folders_and_any_case_of_suffix(tmp_path):
    fill(tmp_path, ["b", "a", "sub/a", "sub/deep/c.d"])
    save(tmp_path / "images" / "upper.JPG", photo_pixels(), format="JPEG")
    save(tmp_path / "labels" / "upper.Png", label_pixels(), format="PNG")
    dataset = folder(tmp_path)
    assert (names(dataset), dataset.problems) == (["a", "b", "sub/a", "sub/deep/c.d", "upper"], ())
    for pair in dataset.pairs:
        assert pair.photo.relative_to(tmp_path / "images").with_suffix("").as_posix() == pair.name
        assert pair.label.relative_to(tmp_path / "labels").with_suffix("").as_posix() == pair.name


def test_a_stray_file_shifts_no_pair(tmp_path):
    fill(tmp_path, ["b", "c", "d"])
    save(tmp_path / "images" / "a.png", photo_pixels())
    save(tmp_path / "labels" / "z.png", label_pixels())
    dataset = folder(tmp_path)
    assert [(p.photo.stem, p.label.stem) for p in dataset.pairs] == [("b", "b"), ("c", "c"), ("d", "d")]
    assert len(dataset.problems) == 2
    alone = {"a": ("images", "labels"), "z": ("labels", "images")}
    for problem, (name, (here, there)) in zip(dataset.problems, alone.items(), strict=True):
        assert str(tmp_path / here / f"{name}.png") in problem
        assert str(tmp_path / there / name) in problem


def test_two_files_of_one_name_are_a_problem_and_not_a_choice(tmp_path):
    fill(tmp_path, ["a", "b", "c"])
    save(tmp_path / "images" / "a.jpg", photo_pixels())
    save(tmp_path / "labels" / "b.bmp", label_pixels())
    dataset = folder(tmp_path)
    assert names(dataset) == ["c"]
    assert len(dataset.problems) == 2
    for file in ("images/a.png", "images/a.jpg", "labels/b.png", "labels/b.bmp"):
        assert sum(str(tmp_path / file) in problem for problem in dataset.problems) == 1


def test_what_is_no_data_is_passed_over(tmp_path):
    fill(tmp_path, ["a"])
    for side in ("images", "labels"):
        save(tmp_path / side / ".hidden.png", photo_pixels())
        save(tmp_path / side / "._a.png", photo_pixels())
        save(tmp_path / side / "__MACOSX" / "b.png", photo_pixels())
        save(tmp_path / side / ".thumbs" / "b.png", photo_pixels())
        for name in ("Thumbs.db", "desktop.ini", "notes.txt", "README", ".png"):
            (tmp_path / side / name).write_text("x")
    dataset = folder(tmp_path)
    assert (names(dataset), dataset.problems) == (["a"], ())


def test_no_pair_at_all_is_an_error_that_shows_names(tmp_path):
    save(tmp_path / "images" / "one.png", photo_pixels())
    save(tmp_path / "labels" / "one_mask.png", label_pixels())
    with pytest.raises(SCPError, match=r"(?s)1 photos, 1 label maps.*one\.png.*one_mask\.png"):
        folder(tmp_path)


def test_one_folder_for_both_is_refused(tmp_path):
    fill(tmp_path)
    with pytest.raises(SCPError, match="a folder of its own"):
        open_dataset("folder", images=tmp_path / "images", labels=tmp_path / "labels" / ".." / "images")


def test_label_folder_inside_the_photo_folder(tmp_path):
    for name in ("a", "sub/b"):
        save(tmp_path / f"{name}.png", photo_pixels())
        save(tmp_path / "masks" / f"{name}.png", label_pixels())
    dataset = open_dataset("folder", images=tmp_path, labels=tmp_path / "masks")
    assert (names(dataset), dataset.problems) == (["a", "sub/b"], ())


def test_links_are_followed_but_not_in_circles(tmp_path):
    fill(tmp_path / "real", ["a", "b"])
    (tmp_path / "set" / "images").mkdir(parents=True)
    os.symlink(tmp_path / "real" / "labels", tmp_path / "set" / "labels")
    os.symlink(tmp_path / "real" / "images" / "a.png", tmp_path / "set" / "images" / "a.png")
    os.symlink(tmp_path / "set" / "images", tmp_path / "set" / "images" / "again")
    os.symlink(tmp_path / "real" / "images", tmp_path / "set" / "images" / "once")
    os.symlink(tmp_path / "real" / "labels", tmp_path / "real" / "labels" / "again")
    os.symlink(tmp_path / "nowhere.png", tmp_path / "set" / "images" / "b.png")
    dataset = folder(tmp_path / "set")
    assert names(dataset) == ["a", "b"]
    assert any("once" in problem for problem in dataset.problems)
    with pytest.raises(SCPError, match=r"There is no file .*b\.png"):
        load_pair(dataset, dataset.pairs[1], (8, 8))


def test_accents_written_in_two_ways_are_one_name(tmp_path):
    save(tmp_path / "images" / "caf\u00e9.png", photo_pixels())
    save(tmp_path / "labels" / "cafe\u0301.png", label_pixels())
    assert names(folder(tmp_path)) == ["caf\u00e9"]


@given(st.dictionaries(st.sampled_from("abcdef"), st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1))
@settings(max_examples=40, deadline=None)
def test_only_names_with_one_photo_and_one_map_are_pairs_and_the_rest_is_told(tmp_path_factory, counts):
    root = tmp_path_factory.mktemp("set")
    for side in ("images", "labels"):
        (root / side).mkdir()
    for name, (photos, maps) in counts.items():
        for side, number in (("images", photos), ("labels", maps)):
            for end in ("png", "bmp")[:number]:
                (root / side / f"{name}.{end}").touch()
    wanted = sorted(name for name, count in counts.items() if count == (1, 1))
    if not wanted:
        with pytest.raises(SCPError, match="No photo in"):
            folder(root)
        return
    dataset = folder(root)
    assert names(dataset) == wanted
    alone = sum(count in ((0, 1), (1, 0)) for count in counts.values())
    twice = sum(number == 2 for count in counts.values() for number in count)
    assert len(dataset.problems) == alone + twice


# --- photos ---------------------------------------------------------------------------------------------------------


def test_modes_of_photos(tmp_path):
    rgb = photo_pixels()
    grey = rgb[..., 0]
    alpha = np.random.default_rng(9).integers(0, 256, grey.shape, dtype=np.uint8)
    stacked = np.repeat(grey[..., None], 3, axis=2)
    cmyk = Image.fromarray(rgb).convert("CMYK")
    indexed = Image.fromarray(rgb).quantize(16)
    cases = {
        "rgb.png": (Image.fromarray(rgb), rgb),
        "rgb.webp": (Image.fromarray(rgb), rgb),
        "rgba.png": (Image.fromarray(np.dstack([rgb, alpha])), rgb),
        "grey.png": (Image.fromarray(grey), stacked),
        "la.png": (Image.merge("LA", [Image.fromarray(grey), Image.fromarray(alpha)]), stacked),
        "grey16.png": (Image.fromarray(grey.astype(np.uint16) * 257), stacked),
        "grey32.tif": (Image.fromarray(grey.astype(np.int32) * 257), stacked),
        "bit.png": (Image.fromarray(grey > 127), np.repeat((grey > 127)[..., None] * np.uint8(255), 3, axis=2)),
        "cmyk.tif": (cmyk, np.array(cmyk.convert("RGB"))),
        "indexed.png": (indexed, np.array(indexed.convert("RGB"))),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, (picture, wanted) in cases.items():
            path = save(tmp_path / name, picture, **({"lossless": True} if name.endswith("webp") else {}))
            found = read_photo(path)
            assert found.dtype == np.uint8, name
            assert np.array_equal(found, wanted), name
        indexed.save(tmp_path / "t.png", transparency=bytes(range(16)))
        assert np.array_equal(read_photo(tmp_path / "t.png"), cases["indexed.png"][1])


def test_cmyk_jpeg_has_the_colours_it_is_displayed_in(tmp_path):
    rgb = np.full((16, 16, 3), (200, 40, 90), np.uint8)
    path = save(tmp_path / "p.jpg", Image.fromarray(rgb).convert("CMYK"), quality=100)
    assert np.abs(read_photo(path).astype(int) - rgb).max() <= 3


def test_sixteen_bit_grey_is_rounded(tmp_path):
    values = np.array([[0, 128, 129, 256, 257, 65406, 65407, 65535]], np.uint16)
    path = save(tmp_path / "p.png", values)
    assert read_photo(path)[0, :, 0].tolist() == np.rint(values[0] / 257).astype(int).tolist()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_as_exif_says(tmp_path, orientation):
    shown = photo_pixels(4, 6)
    stored = {
        1: shown,
        2: shown[:, ::-1],
        3: shown[::-1, ::-1],
        4: shown[::-1],
        5: shown.transpose(1, 0, 2),
        6: np.rot90(shown),
        7: shown[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(shown, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    save(tmp_path / "images" / "a.png", np.ascontiguousarray(stored), exif=exif)
    save(tmp_path / "labels" / "a.png", label_pixels(4, 6))
    dataset = folder(tmp_path)
    assert np.array_equal(load_pixels(dataset, dataset.pairs[0], (4, 6)).photo, shown)


def test_a_map_that_fits_the_photo_before_turning_is_explained(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "images" / "a.jpg", photo_pixels(4, 6), exif=exif)
    save(tmp_path / "labels" / "a.png", label_pixels(4, 6))
    dataset = folder(tmp_path)
    with pytest.raises(SCPError, match=r"a\.jpg is 4x6 .*a\.png is 6x4.*EXIF"):
        load_pair(dataset, dataset.pairs[0], (8, 8))


# --- label maps -----------------------------------------------------------------------------------------------------


def test_modes_of_id_maps(tmp_path):
    ids = label_pixels(ids=(0, 1, 7, 255))
    indexed = Image.frombytes("P", (8, 6), ids.tobytes())
    indexed.putpalette(random.Random(0).randbytes(768))
    wide = ids.astype(np.uint16) * 100
    alpha = Image.fromarray(255 - ids)
    cases = {
        "l.png": (Image.fromarray(ids), ids),
        "l.bmp": (Image.fromarray(ids), ids),
        "l.tiff": (Image.fromarray(ids), ids),
        "p.png": (indexed, ids),
        "i16.png": (Image.fromarray(wide), wide),
        "i32.tif": (Image.fromarray(wide.astype(np.int32)), wide),
        "one.png": (Image.fromarray(ids > 0), ids > 0),
        "la.png": (Image.merge("LA", [Image.fromarray(ids), alpha]), ids),
        "rgb.png": (Image.merge("RGB", [Image.fromarray(ids)] * 3), ids),
        "rgba.png": (Image.merge("RGBA", [*[Image.fromarray(ids)] * 3, alpha]), ids),
        "rgb.webp": (Image.merge("RGB", [Image.fromarray(ids)] * 3), ids),
    }
    for name, (picture, wanted) in cases.items():
        root = tmp_path / name.replace(".", "_")
        save(root / "images" / "x.png", photo_pixels())
        save(root / "labels" / f"x{Path(name).suffix}", picture, **({"lossless": True} if "webp" in name else {}))
        dataset = folder(root)
        found = load_pixels(dataset, dataset.pairs[0], (6, 8)).label
        assert found.dtype == np.int64, name
        assert np.array_equal(found, wanted), name


def test_maps_of_colours_need_a_palette(tmp_path):
    fill(tmp_path, ["a"])
    save(tmp_path / "labels" / "a.png", photo_pixels())
    dataset = folder(tmp_path)
    with pytest.raises(SCPError, match=r"a\.png is a colour picture.*palette"):
        load_pair(dataset, dataset.pairs[0], (8, 8))


@pytest.mark.parametrize("name", ["ade20k", "ade20k-controlnet", "cityscapes", "cityscapes-ids", "coco-stuff"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_maps_in_the_colours_of_a_palette(tmp_path, name, mode):
    used = palette(name)
    ids = np.array(used.unambiguous_ids()[:40])
    labels = np.random.default_rng(1).choice(ids, (6, 8))
    colours = (hint_from_labels(torch.from_numpy(labels)[None], used)[0] * 255).round().byte().numpy()
    fill(tmp_path, ["a"])
    picture = Image.fromarray(colours)
    save(tmp_path / "labels" / "a.png", picture.quantize(256) if mode == "P" else picture.convert(mode))
    dataset = folder(tmp_path, palette=name)
    assert (dataset.palette, dataset.name, dataset.table) == (name, used.table.dataset, used.table)
    assert np.array_equal(load_pixels(dataset, dataset.pairs[0], (6, 8)).label, labels)


def test_maps_in_other_colours_than_the_palettes_are_refused(tmp_path):
    used = palette("ade20k")
    labels = torch.from_numpy(label_pixels(ids=(3, 5, 13, 21)).astype(np.int64))[None]
    colours = (hint_from_labels(labels, used)[0] * 255).round().byte().numpy()
    fill(tmp_path, ["a"])
    save(tmp_path / "labels" / "a.png", colours)
    dataset = folder(tmp_path, palette="ade20k-controlnet")
    with pytest.raises(SCPError, match=r"Only \d+% of .*a\.png .*Palette ade20k fits better"):
        load_pair(dataset, dataset.pairs[0], (8, 8))


def test_a_grey_palette_checks_the_ids(tmp_path):
    fill(tmp_path, ["a"], ids=(0, 18, 255))
    fill(tmp_path, ["b"], ids=(0, 18, 33))
    dataset = folder(tmp_path, palette="cityscapes-grey")
    assert set(np.unique(load_pixels(dataset, dataset.pairs[0], (6, 8)).label)) == {0, 18, 255}
    with pytest.raises(SCPError, match=r"b\.png holds ids that are no classes of cityscapes: 33\."):
        load_pair(dataset, dataset.pairs[1], (6, 8))


TABLE = "id,name,rgb\n0,ground,#000000\n1,thing,#ffffff\n40,other,#ff8000\n"


@pytest.mark.parametrize("how", ["table", "palette"])
@pytest.mark.parametrize("mode", ["ids", "RGB", "indexed colours", "black and white", "grey black and white"])
def test_a_table_of_ones_own_takes_ids_or_colours(tmp_path, how, mode):
    (tmp_path / "cityscapes.csv").write_text(TABLE)
    two = "black and white" in mode
    labels = label_pixels(ids=(0, 1) if two else (0, 1, 40))
    look_up = np.zeros((256, 3), np.uint8)
    look_up[[1, 40]] = (255, 255, 255), (255, 128, 0)
    picture = Image.fromarray(labels if mode == "ids" else look_up[labels])
    if mode == "indexed colours":
        picture = picture.quantize(3)
    elif mode == "grey black and white":
        picture = picture.convert("L")
    fill(tmp_path, ["a"])
    save(tmp_path / "labels" / "a.png", picture)
    dataset = folder(tmp_path, **{how: str(tmp_path / "cityscapes.csv")})
    # Called after its file it would pass for the data set Cityscapes.
    assert (dataset.name, dataset.palette) == ("folder", "")
    assert dataset.table.names == {0: "ground", 1: "thing", 40: "other"}
    assert np.array_equal(load_pixels(dataset, dataset.pairs[0], (6, 8)).label, labels)


def test_ids_saved_as_grey_rgb_are_ids_of_ones_own_table(tmp_path):
    (tmp_path / "t.csv").write_text(TABLE)
    labels = label_pixels(ids=(0, 1, 40, 255))
    fill(tmp_path, ["a"])
    save(tmp_path / "labels" / "a.png", np.repeat(labels[..., None], 3, axis=2))
    dataset = folder(tmp_path, table=tmp_path / "t.csv")
    assert np.array_equal(load_pixels(dataset, dataset.pairs[0], (6, 8)).label, labels)


def test_indices_that_are_no_ids_are_read_by_their_colours_even_where_these_are_a_little_off(tmp_path):
    (tmp_path / "t.csv").write_text(TABLE)
    labels = label_pixels(ids=(0, 1, 40))
    indices = np.select([labels == 0, labels == 1], [2, 0], 1).astype(np.uint8)
    picture = Image.frombytes("P", (8, 6), indices.tobytes())
    picture.putpalette([253, 254, 255, 250, 130, 4, 3, 2, 0])
    fill(tmp_path, ["a"])
    save(tmp_path / "labels" / "a.png", picture)
    dataset = folder(tmp_path, table=tmp_path / "t.csv")
    assert np.array_equal(load_pixels(dataset, dataset.pairs[0], (6, 8)).label, labels)


def test_strange_ids_and_colours_in_ones_own_table_are_refused(tmp_path):
    (tmp_path / "t.csv").write_text(TABLE)
    fill(tmp_path, ["a", "b"])
    save(tmp_path / "labels" / "a.png", label_pixels(ids=(0, 1, 41)))
    save(tmp_path / "labels" / "b.png", photo_pixels())
    dataset = folder(tmp_path, table=tmp_path / "t.csv")
    with pytest.raises(SCPError, match=r"a\.png holds ids that are no classes of t: 41"):
        load_pair(dataset, dataset.pairs[0], (8, 8))
    with pytest.raises(SCPError, match=r"Only .*b\.png"):
        load_pair(dataset, dataset.pairs[1], (8, 8))


def test_a_palette_and_a_table_exclude_each_other(tmp_path):
    (tmp_path / "t.csv").write_text(TABLE)
    fill(tmp_path)
    for both in ({"palette": "ade20k"}, {"palette": "t.json"}):
        with pytest.raises(SCPError, match=r"(?i)give"):
            folder(tmp_path, table=tmp_path / "t.csv", **both)
    with pytest.raises(SCPError, match="No palette 'ade'"):
        folder(tmp_path, palette="ade")


# --- bad files ------------------------------------------------------------------------------------------------------


def encoded(picture: Image.Image, kind: str) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("side", "kind"), [("images", "PNG"), ("images", "JPEG"), ("labels", "PNG"), ("labels", "TIFF")]
)
def test_files_cut_short_are_refused_with_both_names(tmp_path, side, kind):
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    fill(tmp_path, ["a"])
    pixels = photo_pixels(40, 40) if side == "images" else label_pixels(40, 40)
    whole = encoded(Image.fromarray(pixels), kind)
    dataset = folder(tmp_path)
    pair = dataset.pairs[0]
    bad = pair.photo if side == "images" else pair.label
    for length in (0, 1, 20, len(whole) // 4, len(whole) // 2):
        bad.write_bytes(whole[:length])
        with pytest.raises(SCPError) as caught:
            load_pair(dataset, pair, (8, 8))
        assert str(pair.photo) in str(caught.value)
        assert str(pair.label) in str(caught.value)


@given(st.integers(0, 2**31), st.sampled_from(["PNG", "JPEG", "TIFF", "WEBP", "BMP"]))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_files_are_read_or_refused_but_never_crash(tmp_path, seed, kind):
    rng = random.Random(seed)
    content = bytearray(encoded(Image.fromarray(photo_pixels(12, 12)), kind))
    for _ in range(rng.randint(1, 12)):
        content[rng.randrange(len(content))] = rng.randrange(256)
    path = tmp_path / "x.png"
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = read_photo(path)
        except SCPError as error:
            found, message = np.zeros((0, 0, 3), np.uint8), str(error)
        else:
            message = str(path)
    assert str(path) in message
    assert (found.ndim, found.shape[2], found.dtype) == (3, 3, np.uint8)


def test_a_decompression_bomb_is_refused_even_where_pillow_allows_it(tmp_path, monkeypatch):
    # A PNG of 30000 x 30000 pixels by its header; nothing is ever decoded.
    content = bytearray(encoded(Image.fromarray(label_pixels()), "PNG"))
    content[16:24] = struct.pack(">II", 30000, 30000)
    content[29:33] = struct.pack(">I", zlib.crc32(bytes(content[12:29])))
    path = tmp_path / "x.png"
    path.write_bytes(content)
    assert MAX_PIXELS < 30000**2
    for limit in (Image.MAX_IMAGE_PIXELS, None):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(SCPError, match=r"x\.png.*pixels"):
            read_photo(path)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n"])
def test_files_that_are_no_pictures_are_refused(tmp_path, content):
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(SCPError, match=r"x\.png"):
        read_photo(tmp_path / "x.png")


def test_floats_and_negative_ids_are_refused(tmp_path):
    for n, values in enumerate((np.zeros((6, 8), np.float32), np.full((6, 8), -1, np.int32))):
        save(tmp_path / str(n) / "images" / "a.png", photo_pixels())
        save(tmp_path / str(n) / "labels" / "a.tif", values)
        dataset = folder(tmp_path / str(n))
        with pytest.raises(SCPError, match=r"a\.tif holds"):
            load_pair(dataset, dataset.pairs[0], (8, 8))
        with pytest.raises(SCPError, match=r"a\.tif holds"):
            read_photo(dataset.pairs[0].label)


def test_a_size_mismatch_names_both_files_and_sizes(tmp_path):
    fill(tmp_path, ["a"])
    save(tmp_path / "labels" / "a.png", label_pixels(5, 9))
    dataset = folder(tmp_path)
    pair = dataset.pairs[0]
    with pytest.raises(SCPError) as caught:
        load_pair(dataset, pair, (8, 8))
    assert f"{pair.photo} is 8x6" in str(caught.value)
    assert f"{pair.label} is 9x5" in str(caught.value)


# --- loading --------------------------------------------------------------------------------------------------------


def test_values_of_a_loaded_pair(tmp_path):
    fill(tmp_path, ["a"])
    dataset = folder(tmp_path)
    pair = dataset.pairs[0]
    example = load_pair(dataset, pair, (6, 8))
    assert (example.photo.dtype, example.label.dtype) == (torch.float32, torch.int64)
    assert torch.equal(example.photo, (torch.from_numpy(photo_pixels()) / 127.5 - 1).movedim(-1, 0))
    assert torch.equal(example.label, torch.from_numpy(label_pixels()).long())
    assert example.photo.min() >= -1
    assert example.photo.max() <= 1


def test_photos_are_resized_without_aliasing_and_labels_without_inventing_ids(tmp_path):
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    ids = np.where(np.arange(64) < 40, 3, 200).astype(np.uint8)
    save(tmp_path / "images" / "a.png", stripes)
    save(tmp_path / "labels" / "a.png", np.tile(ids, (64, 1)))
    dataset = folder(tmp_path)
    example = load_pair(dataset, dataset.pairs[0], (16, 24), (8, 12))
    assert example.photo.shape == (3, 16, 24)
    # Every other pixel white is grey when small; picking pixels would give stripes or one of the two colours.
    assert example.photo[..., 2:-2].abs().max() < 0.15
    assert torch.equal(example.label, torch.from_numpy(np.tile(ids[np.arange(12) * 64 // 12], (8, 1))).long())
    assert load_pair(dataset, dataset.pairs[0], (16, 24)).label.shape == (64, 64)


@pytest.mark.parametrize("options", [{}, {"palette": "ade20k-grey"}, {"table": "t.csv"}])
def test_a_dataset_can_be_sent_to_a_worker(tmp_path, monkeypatch, options):
    monkeypatch.chdir(tmp_path)
    Path("t.csv").write_text("id,name,rgb\n0,a,#000000\n1,b,#0000ff\n2,c,#00ff00\n")
    fill(tmp_path, ["a"])
    dataset = folder(tmp_path, **options)
    sent = pickle.loads(pickle.dumps(dataset))
    assert sent.pairs == dataset.pairs
    assert np.array_equal(sent.read_label(sent.pairs[0].label), dataset.read_label(dataset.pairs[0].label))
