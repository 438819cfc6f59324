"""Draw the pack's icon: `python scripts/make_icon.py [FILE]`. A street as a segmentation map that turns into noise."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from layout import ROOT
from PIL import Image, ImageDraw

ICON = ROOT / "docs" / "images" / "icon.png"
SIDE, CELL, CORNER = 400, 20, 60
FINE = 4  # drawn this much larger, then averaged: smooth edges
SKY, BUILDING, TREE, ROAD, CAR = (70, 130, 180), (70, 70, 70), (107, 142, 35), (128, 64, 128), (0, 0, 142)
NOISE = 70  # spread of a cell's colour at the right edge, 8-bit


def street() -> Image.Image:
    """The map, in Cityscapes' colours."""
    picture = Image.new("RGB", (SIDE * FINE, SIDE * FINE), SKY)
    draw = ImageDraw.Draw(picture)

    def shape(colour: tuple[int, int, int], *points: tuple[int, int]) -> None:
        draw.polygon([(x * FINE, y * FINE) for x, y in points], fill=colour)

    shape(BUILDING, (0, 60), (90, 60), (90, 110), (150, 110), (150, 270), (0, 270))
    shape(TREE, (250, 150), (400, 90), (400, 270), (230, 270))
    shape(ROAD, (0, 270), (400, 270), (400, 400), (0, 400))
    shape(CAR, (70, 310), (90, 260), (170, 260), (195, 310), (195, 345), (70, 345))
    return picture.resize((SIDE, SIDE), Image.Resampling.BOX)


def icon() -> Image.Image:
    """400x400 RGBA: the map at the left, cells of noise around its colours growing toward the right."""
    clean = np.asarray(street(), np.float64)
    cells = SIDE // CELL
    means = clean.reshape(cells, CELL, cells, CELL, 3).mean((1, 3))
    noisy = means + np.random.default_rng(7).normal(size=means.shape) * NOISE
    noisy = noisy.repeat(CELL, 0).repeat(CELL, 1)
    blend = np.clip((np.arange(cells) - cells * 0.4) / (cells * 0.4), 0, 1).repeat(CELL)[None, :, None]
    pixels = np.clip(clean * (1 - blend) + noisy * blend, 0, 255).round().astype(np.uint8)
    corners = Image.new("L", (SIDE * FINE, SIDE * FINE), 0)
    box = (0, 0, SIDE * FINE - 1, SIDE * FINE - 1)
    ImageDraw.Draw(corners).rounded_rectangle(box, CORNER * FINE, fill=255)
    picture = Image.fromarray(pixels).convert("RGBA")
    picture.putalpha(corners.resize((SIDE, SIDE), Image.Resampling.BOX))
    return picture


if __name__ == "__main__":
    icon().save(Path(sys.argv[1]) if sys.argv[1:] else ICON, optimize=True)
