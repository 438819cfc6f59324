"""What the pictures inside nodes have in common: colours, and text that fits."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from PIL import ImageDraw, ImageFont

RGB = tuple[int, int, int]

# Sized for a node's preview, which shows some 350 pixels of width: text of 18 pixels is still read there.
WIDTH, MAP_HEIGHT = 640, 480
BACKGROUND: RGB = (28, 30, 34)
INK: RGB = (236, 238, 242)
DIM: RGB = (152, 158, 170)
# Nothing, some, most.
_RAMP: tuple[RGB, RGB, RGB] = ((44, 47, 54), (32, 110, 140), (250, 214, 96))


def fitted(draw: ImageDraw.ImageDraw, text: str, size: int, room: float) -> str:
    """The text, cut and ended with "..." where it is wider than the room."""
    if draw.textlength(text, font(size)) <= room:
        return text
    while text and draw.textlength(text + "...", font(size)) > room:
        text = text[:-1]
    return text.rstrip() + "..."


@functools.cache
def font(size: int) -> Any:
    """Pillow's built-in font at a size in pixels."""
    return ImageFont.load_default(size)


def map_size(height: int, width: int) -> tuple[int, int]:
    """(H, W) a map is drawn at: as large as WIDTH x MAP_HEIGHT has room for."""
    scale = min(WIDTH / width, MAP_HEIGHT / height)
    return max(1, round(height * scale)), max(1, round(width * scale))


def logarithmic(count: np.ndarray, most: float) -> np.ndarray:
    """Counts of photos on a scale of 0..1 on which one is told from none; `most` becomes 1."""
    return np.log1p(count) / max(float(np.log1p(most)), 1e-6)


def heat(scale: np.ndarray) -> np.ndarray:
    """0..1 of any shape -> (..., 3) uint8: dark grey, blue at a half, yellow."""
    ramp = np.array(_RAMP, dtype=np.float32)
    return np.stack([np.interp(scale, (0, 0.5, 1), ramp[:, c]) for c in range(3)], axis=-1).round().astype(np.uint8)
