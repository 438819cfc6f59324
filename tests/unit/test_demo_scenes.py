"""The demo's street scenes: exact labels, the same in every process, light apart from layout."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from scp_prior.classes import palette
from scp_prior.labels import labels_from_image

DEMO = Path(__file__).resolve().parents[2] / "demo"


pytestmark = pytest.mark.usefixtures("demo_on_path")


@pytest.fixture(scope="module")
def scenes():
    import scenes

    return scenes


def test_only_known_classes_and_at_least_twelve_of_them_are_common(scenes):
    made = [scenes.scene(i).labels for i in range(60)]
    found = {int(label) for labels in made for label in np.unique(labels)}
    assert found <= set(scenes.CLASSES)
    common = [k for k in found if np.mean([np.any(labels == k) for labels in made]) > 0.2]
    assert len(common) >= 12


def test_the_colours_are_the_packs_cityscapes_palette(scenes):
    classes = np.array(scenes.CLASSES, np.uint8)[None].repeat(8, 0)
    image = torch.from_numpy(scenes.COLOURS[classes].astype(np.float32) / 255)[None]
    read = labels_from_image(image, palette("cityscapes"), tolerance=0.0)
    assert np.array_equal(read.labels[0].numpy(), classes)


def test_a_scene_is_the_same_in_another_process_and_another_order(scenes):
    here = scenes.scene(7, seed=3)
    code = (
        f"import sys; sys.path.append({str(DEMO)!r}); import hashlib, scenes; scenes.scene(1); "
        "one = scenes.scene(7, seed=3); print(hashlib.sha256(one.picture.tobytes() + one.labels.tobytes()).hexdigest())"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert there == hashlib.sha256(here.picture.tobytes() + here.labels.tobytes()).hexdigest()


def test_scenes_differ_by_index_and_by_seed(scenes):
    pictures = [scenes.scene(i, seed).picture.tobytes() for i in range(4) for seed in range(3)]
    assert len(set(pictures)) == len(pictures)


def test_the_same_street_in_another_light_has_the_same_labels(scenes):
    noon, evening = scenes.street(11, 0), scenes.street(11, 1)
    assert np.array_equal(noon.labels, evening.labels)
    assert np.abs(noon.picture.astype(int) - evening.picture).mean() > 5
    assert not np.array_equal(scenes.street(12, 0).labels, noon.labels)


def test_light_is_shared_by_the_whole_picture(scenes):
    """Classes must brighten together: this is what scene effects are about."""
    road, house = [], []
    for light in range(60):
        one = scenes.street(5, light)
        road.append(one.picture[one.labels == 0].mean())
        house.append(one.picture[one.labels == 2].mean())
    assert np.corrcoef(road, house)[0, 1] > 0.5


@pytest.mark.parametrize("index", range(5))
def test_labels_are_the_majority_of_the_sub_pixels(scenes, index):
    from scene_layout import lay_out

    layout = lay_out(index)
    fast = scenes.labels_of(layout)
    classes = [surface.label for surface in layout.surfaces]
    rng = np.random.default_rng(index)
    for y, x in zip(rng.integers(0, 128, 400), rng.integers(0, 256, 400), strict=True):
        votes = [classes[layout.raster[2 * y + dy, 2 * x + dx]] for dy in (0, 1) for dx in (0, 1)]
        assert fast[y, x] == max(votes, key=votes.count)  # max keeps the first of equals


def test_pictures_follow_the_labels_to_the_pixel(scenes):
    """Repaint one class alone: no pixel of another class may change, but on its edge."""
    import scene_light
    from scene_layout import lay_out

    layout = lay_out(21)
    labels = scenes.labels_of(layout)
    before = scene_light.paint(layout, labels, 0).astype(int)
    road = scenes.CLASSES[0]
    surfaces = [one._replace(tint=0.3 * one.tint) if one.label == road else one for one in layout.surfaces]
    after = scene_light.paint(layout._replace(surfaces=surfaces), labels, 0).astype(int)
    changed = np.abs(before - after).max(axis=2) > 2
    of_road = np.array([one.label == road for one in layout.surfaces])[layout.raster]
    touched = of_road.reshape(128, 2, 256, 2).any(axis=(1, 3))
    assert changed[labels == road].mean() > 0.95
    assert not changed[~touched].any()


def test_any_size_shows_the_same_street(scenes):
    small, large = scenes.street(4, 4), scenes.street(4, 4, 256, 512)
    assert large.labels.shape == (256, 512)
    assert (large.labels[::2, ::2] == small.labels).mean() > 0.93


def test_the_committed_maps_are_those_the_code_makes():
    from make_maps import MAPS, maps
    from scenes import COLOURS

    made = maps()
    assert {path.name for path in MAPS.glob("*.png")} == set(made)
    for name, labels in made.items():
        assert np.array_equal(np.asarray(Image.open(MAPS / name).convert("RGB")), COLOURS[labels]), name


def test_shards_are_made_once_and_read_in_order(tmp_path, monkeypatch, scenes):
    import demo_data

    monkeypatch.setattr(demo_data, "SHARD", 3)
    assert demo_data.make_scenes(tmp_path, 5, seed=9, processes=1) == 5
    assert demo_data.make_scenes(tmp_path, 5, seed=9, processes=1) == 0
    read = demo_data.Scenes(tmp_path)
    assert read.count == 5
    one = scenes.scene(4, 9)
    assert np.array_equal(read.labels([4])[0].numpy(), one.labels)
    assert np.array_equal((read.pictures([4])[0] * 255).round().permute(1, 2, 0).numpy().astype(np.uint8), one.picture)
