"""Pictures of what a prior does not say in colours: how well each cell is known, and how far it may stray."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from .drawing import BACKGROUND, DIM, INK, RGB, WIDTH, fitted, font, heat, logarithmic, map_size
from .methods import CELL, CLASS, NONE, SPATIAL
from .prior import PriorMaps

_MARGIN = 14
_TEXT, _ROW = 18, 27
_SWATCH = 19
_BAR = 16

_STAND_INS: dict[int, RGB] = {CLASS: (226, 88, 148), SPATIAL: (150, 70, 220), NONE: (0, 0, 0)}


class _Row(NamedTuple):
    """A line of the key: a swatch and what it stands for, or a bar of colours between what its ends stand for."""

    text: str
    swatch: RGB | None = None
    bar: np.ndarray | None = None
    ends: tuple[str, str] = ("", "")


def coverage_view(maps: PriorMaps, of_class: str = "class") -> Tensor:
    """How many photos showed each cell's class there, and what stood in where none did, with a key.

    Args:
        maps: of B label maps.
        of_class: what to call the statistics of a class that stand in for its cells.

    Returns:
        `(B, H, 640, 3)` float32 in 0..1 on the CPU; one key for all, so that pictures compare.
    """
    count, origin = maps.count.cpu().numpy(), maps.origin.cpu().numpy()
    most = float(count[origin == CELL].max(initial=0))
    colours = heat(logarithmic(count, most))
    key = []
    if most:
        half = np.expm1(np.log1p(most) / 2)
        text = "photos that showed this class here" + (f" (at the middle {half:.0f})" if half >= 1 else "")
        key.append(_Row(text, bar=heat(np.linspace(0, 1, WIDTH - 2 * _MARGIN)), ends=("0", f"{max(most, 1):.0f}")))
    words = {
        CLASS: f"never seen there: from the {of_class}",
        SPATIAL: "never seen there: from the place",
        NONE: "nothing: an empty latent",
    }
    for stand_in, colour in _STAND_INS.items():
        here = origin == stand_in
        if here.any():
            colours[here] = colour
            key.append(_Row(words[stand_in], swatch=colour))
    return _pages(colours, key)


def spread_view(std: Tensor) -> Tensor:
    """How far each cell's latent may stray from its mean, brighter = farther, with a key.

    Args:
        std: `(B, C, h, w)`, LATENT units; channels are averaged as variances.

    Returns:
        `(B, H, 640, 3)` float32 in 0..1 on the CPU; one key for all, so that pictures compare.
    """
    spread = std.float().square().mean(1).sqrt().cpu().numpy()
    most = float(spread.max())
    bar = np.linspace(0, 1, WIDTH - 2 * _MARGIN)
    key = [_Row("how far a cell may stray from its mean", bar=_grey(bar), ends=("0: always alike", f"{most:.3g}"))]
    return _pages(_grey(spread / (most or 1)), key)


def _grey(scale: np.ndarray) -> np.ndarray:
    return np.repeat((scale * 255).round().astype(np.uint8)[..., None], 3, axis=-1)


def _pages(colours: np.ndarray, key: list[_Row]) -> Tensor:
    """(B, h, w, 3) uint8 and a key -> (B, H, 640, 3) float32."""
    pages = np.stack([np.asarray(_page(one, key)) for one in colours])
    return torch.from_numpy(pages).to(torch.float32).div_(255)


def _page(colours: np.ndarray, key: list[_Row]) -> Image.Image:
    high, wide = map_size(*colours.shape[:2])
    picture = Image.fromarray(colours).resize((wide, high), Image.Resampling.NEAREST)
    heights = [_ROW * (2 if row.bar is not None else 1) for row in key]
    page = Image.new("RGB", (WIDTH, high + 2 * _MARGIN + sum(heights)), BACKGROUND)
    page.paste(picture, ((WIDTH - wide) // 2, 0))
    draw = ImageDraw.Draw(page)
    top = high + _MARGIN
    for row, tall in zip(key, heights, strict=True):
        _draw_row(page, draw, row, top)
        top += tall
    return page


def _draw_row(page: Image.Image, draw: ImageDraw.ImageDraw, row: _Row, top: int) -> None:
    middle, right = top + _ROW // 2, WIDTH - _MARGIN
    if row.bar is None:
        box = (_MARGIN, middle - _SWATCH // 2, _MARGIN + _SWATCH - 1, middle - _SWATCH // 2 + _SWATCH - 1)
        draw.rectangle(box, fill=row.swatch, outline=DIM)
        left = _MARGIN + _SWATCH + 9
        draw.text((left, middle), fitted(draw, row.text, _TEXT, right - left), INK, font(_TEXT), anchor="lm")
        return
    page.paste(Image.fromarray(np.repeat(row.bar[None], _BAR, axis=0)), (_MARGIN, top))
    below = top + _BAR + _ROW // 2
    draw.text((_MARGIN, below), row.ends[0], DIM, font(_TEXT), anchor="lm")
    draw.text((right, below), row.ends[1], DIM, font(_TEXT), anchor="rm")
    draw.text((WIDTH // 2, below), row.text, INK, font(_TEXT), anchor="mm")
