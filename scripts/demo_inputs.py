"""What the example workflows find in the input folder: label maps, a street to inpaint, masks, pairs to reduce.

Pictures whose names begin with `scp_demo_` are of the streets the demo's model was trained on, and of its size.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from layout import ROOT, replacing
from PIL import Image, ImageDraw

DEMO = ROOT / "demo"
MAPS = DEMO / "maps"
BEGINNING = "scp_demo"
# The street to inpaint: its label map is among the demo's, and its picture is drawn here.
_PHOTO_SEED, _PHOTO_INDEX = 2, 2
PAIRS, _PAIRS_SEED = 24, 3
# What somebody would paint by hand in the mask editor: corners in pixels of 256x128.
MASKS: dict[str, tuple[tuple[tuple[int, int], ...], ...]] = {
    "building": (
        ((0, 6), (40, 8), (42, 22), (76, 24), (78, 36), (104, 40), (106, 68), (0, 104)),
        ((152, 44), (178, 30), (204, 32), (206, 16), (256, 12), (256, 104), (150, 68)),
    ),
    "sidewalk": (((114, 62), (0, 92), (0, 128), (256, 128), (256, 92), (148, 62)),),
    "road": (((122, 60), (8, 128), (250, 128), (140, 60)),),
    "car": (
        ((56, 96), (56, 83), (64, 81), (69, 71), (90, 71), (95, 81), (99, 84), (99, 96)),
        ((150, 84), (150, 74), (155, 66), (172, 66), (177, 74), (177, 84)),
    ),
}


def scene(index: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a street's picture and label map, both (128, 256, 3) uint8."""
    if str(DEMO) not in sys.path:
        sys.path.append(str(DEMO))
    import scenes

    street = scenes.scene(index, seed)
    return street.picture, scenes.COLOURS[street.labels]


def _save(pixels: np.ndarray, target: Path) -> None:
    Image.fromarray(pixels).save(target, format="PNG")


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)


def write_photo(target: Path) -> None:
    """Write the picture of the street to inpaint."""
    _save(scene(_PHOTO_INDEX, _PHOTO_SEED)[0], target)


def write_mask(name: str, target: Path) -> None:
    """Write a picture as the mask editor leaves it: a hole where the class is to be."""
    picture = Image.new("RGBA", (256, 128), (205, 205, 205, 255))
    draw = ImageDraw.Draw(picture)
    for corners in MASKS[name]:
        draw.polygon(corners, fill=(205, 205, 205, 0))
    picture.save(target, format="PNG")


PICTURES: dict[str, Callable[[Path], None]] = {
    **{f"{BEGINNING}_{path.name}": partial(_copy, path) for path in sorted(MAPS.glob("*.png"))},
    f"{BEGINNING}_labels.png": partial(_copy, MAPS / "painted.png"),
    f"{BEGINNING}_photo.png": write_photo,
    f"{BEGINNING}_photo_labels.png": partial(_copy, MAPS / f"street-{_PHOTO_INDEX + 1}.png"),
    **{f"{BEGINNING}_mask_{name}.png": partial(write_mask, name) for name in MASKS},
}
"""Name in the input folder -> what writes it."""


def install_picture(base: Path, name: str) -> bool:
    """Put a picture into the input folder if the demo has one of that name; return whether it has."""
    if name not in PICTURES:
        return False
    with replacing(base / "input" / name) as temporary:
        PICTURES[name](temporary)
    return True


def write_pairs(photos: Path, labels: Path, count: int = PAIRS) -> None:
    """Write streets as pictures and, named alike, their label maps."""
    for folder in (photos, labels):
        folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        picture, colours = scene(index, _PAIRS_SEED)
        _save(picture, photos / f"street-{index}.png")
        _save(colours, labels / f"street-{index}.png")
