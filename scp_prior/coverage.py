"""A picture that answers "where does the prior know each class?": a small map per class, brighter = more photos."""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from .drawing import BACKGROUND, DIM, INK, fitted, font, heat, logarithmic
from .errors import SCPError
from .statistics import Statistics

_COLUMNS = 4
_MOST = 24
_TILE_WIDTH = 180
_GAP = 12
_TEXT = 15
_LINE = 20


def coverage(statistics: Statistics) -> Tensor:
    """Counts of the most frequent classes over the picture, each as a small map with name and share of cells seen.

    Returns:
        (1, H, W, 3) float32, 0..1.

    Raises:
        SCPError: the file holds no joint statistics.
    """
    if not statistics.has_joint:
        raise SCPError(f"{statistics.name} holds no joint statistics, so there is no coverage to show.")
    order = statistics.categorical().count.argsort(descending=True)[:_MOST].tolist()
    height, width = statistics.latent_size
    tile_height = round(_TILE_WIDTH * height / width)
    columns, rows = min(_COLUMNS, len(order)), math.ceil(len(order) / _COLUMNS)
    cell = (_TILE_WIDTH + _GAP, tile_height + 2 * _LINE + _GAP)
    page = Image.new("RGB", (columns * cell[0] + _GAP, rows * cell[1] + _GAP), BACKGROUND)
    draw = ImageDraw.Draw(page)
    for place, row in enumerate(order):
        left, top = _GAP + place % _COLUMNS * cell[0], _GAP + place // _COLUMNS * cell[1]
        _draw_class(page, draw, statistics, row, (left, top), (_TILE_WIDTH, tile_height))
    return torch.from_numpy(np.asarray(page, dtype=np.float32) / 255).unsqueeze(0)


def _draw_class(
    page: Image.Image,
    draw: ImageDraw.ImageDraw,
    statistics: Statistics,
    row: int,
    at: tuple[int, int],
    size: tuple[int, int],
) -> None:
    class_id = int(statistics.class_ids[row])
    count = statistics.joint([row]).count[0]
    picture = Image.fromarray(_colours(count.numpy())).resize(size, Image.Resampling.NEAREST)
    page.paste(picture, at)
    name = statistics.class_names.get(class_id, f"class {class_id}")
    below = at[1] + size[1] + 3
    draw.text((at[0], below), fitted(draw, name, _TEXT, size[0]), INK, font(_TEXT))
    most = int(count.max())
    seen = f"{float((count > 0).float().mean()):.0%}, up to {most} photo{'s' if most != 1 else ''}"
    draw.text((at[0], below + _LINE), fitted(draw, seen, _TEXT - 2, size[0]), DIM, font(_TEXT - 2))


def _colours(count: np.ndarray) -> np.ndarray:
    """(h, w) counts -> (h, w, 3) uint8."""
    return heat(logarithmic(count, float(count.max())))
