"""Procedural street scenes with exact label maps, free of any licence because no photo is involved.

    python demo/scenes.py SHEET.png

shows some of them. Scene i of a seed is always the same, in any process and any order. A label map and a light are
drawn from seeds of their own, so that the same street can be seen at many hours.

Labels and antialiasing: shapes are drawn without antialiasing at twice the resolution. A pixel of the picture is the
mean of its four sub-pixels; its label is the class most of them have, and of equals the one that comes first in reading
order. So a pixel on an edge mixes colours and never labels, and every pixel's class covers at least a quarter of it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from scene_canvas import CLASSES, SUPERSAMPLING, Layout
from scene_layout import lay_out
from scene_light import paint

HEIGHT, WIDTH = 128, 256
COLOURS = np.zeros((256, 3), np.uint8)
"""Cityscapes' colours by train id."""
COLOURS[list(CLASSES)] = [
    (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153), (250, 170, 30),
    (220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142), (0, 0, 70),
    (0, 60, 100), (119, 11, 32),
]  # fmt: skip

__all__ = ["CLASSES", "COLOURS", "HEIGHT", "WIDTH", "Scene", "labels_of", "scene", "street"]


class Scene(NamedTuple):
    """A picture (H, W, 3) uint8 and its labels (H, W) uint8, Cityscapes train ids, all of them in CLASSES."""

    picture: np.ndarray
    labels: np.ndarray


def labels_of(layout: Layout) -> np.ndarray:
    """Return the labels of a layout, (H, W) uint8: the class most of a pixel's sub-pixels have."""
    classes = np.array([surface.label for surface in layout.surfaces], np.uint8)[layout.raster]
    s = SUPERSAMPLING
    votes = [classes[y::s, x::s] for y in range(s) for x in range(s)]
    best, most = votes[0], sum(vote == votes[0] for vote in votes)
    for candidate in votes[1:]:
        count = sum(vote == candidate for vote in votes)
        best, most = np.where(count > most, candidate, best), np.maximum(count, most)
    return best


def street(layout_seed: int, light_seed: int, height: int = HEIGHT, width: int = WIDTH) -> Scene:
    """Return the street of one seed in the light of another."""
    layout = lay_out(layout_seed, height, width)
    labels = labels_of(layout)
    return Scene(paint(layout, labels, light_seed), labels)


def scene(index: int, seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> Scene:
    """Return scene `index` of a seed: a street and a light of its own."""
    layout_seed, light_seed = np.random.default_rng([seed, index]).integers(2**62, size=2)
    return street(int(layout_seed), int(light_seed), height, width)


def sheet(first: int, rows: int, columns: int, seed: int = 0) -> np.ndarray:
    """Return scenes side by side, each picture above its labels, (rows * 2H, columns * W, 3) uint8."""
    lines = []
    for row in range(rows):
        scenes = [scene(first + row * columns + column, seed) for column in range(columns)]
        lines.append(np.concatenate([one.picture for one in scenes], 1))
        lines.append(np.concatenate([COLOURS[one.labels] for one in scenes], 1))
    return np.concatenate(lines)


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "scenes.png")
    Image.fromarray(sheet(0, 3, 4)).save(target)
