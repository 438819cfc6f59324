"""Released .npy files in a folder: which belong together, and of which data set."""

from __future__ import annotations

import pytest

from scp_prior import dropped
from scp_prior.dropped import dataset_of, dropped_series

KINDS = ("categorical", "spatial", "spatial_class")


def touch(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


def test_files_are_told_apart_by_what_stands_before_their_ending(tmp_path):
    trio = [f"ade20k_10000_{kind}_mean_std.npy" for kind in KINDS]
    touch(tmp_path, *trio, "cityscapes_spatial_mean_std.npy", "cityscapes_spatial_mean_std_raw.npy", "x.npy", "a.txt")
    touch(tmp_path / "down loads", *(f"coco-stuff_{kind}_mean_std.npy" for kind in KINDS[:2]))
    touch(tmp_path / ".hidden", *trio)
    found = {series: sorted(path.name for path in files) for series, files in dropped_series(tmp_path).items()}
    assert found == {
        "ade20k_10000": sorted(trio),
        "cityscapes": ["cityscapes_spatial_mean_std.npy"],
        "down loads/coco-stuff": ["coco-stuff_categorical_mean_std.npy", "coco-stuff_spatial_mean_std.npy"],
    }


def test_a_folder_that_is_not_there_holds_nothing(tmp_path):
    assert dropped_series(tmp_path / "absent") == {}


def test_the_search_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(dropped, "_MOST_FOLDERS", 3)
    for number in range(9):
        touch(tmp_path / str(number), f"ade20k_{number}_spatial_mean_std.npy")
    assert 0 < len(dropped_series(tmp_path)) < 9


@pytest.mark.parametrize(
    ("series", "dataset"),
    [
        ("cityscapes_hr_10000", "cityscapes"),
        ("x/ade20k_10000", "ade20k"),
        ("coco-stuff_10000", "coco-stuff"),
        ("Coco_Stuff", "coco-stuff"),
        ("my_cityscapes", None),
        ("cityscapes/own", None),
        ("", None),
    ],
)
def test_the_data_set_is_read_off_the_name(series, dataset):
    assert dataset_of(series) == dataset
