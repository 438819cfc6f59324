"""A picture that answers "which colour is which class?": the label map, and below it one row a class."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from .classes import Palette, palette, palettes
from .drawing import BACKGROUND, DIM, INK, RGB, WIDTH, fitted, font, map_size
from .errors import SCPError
from .labels import class_shares, hint_from_labels

_MARGIN = 14
_TEXT = 18
_SMALL = 14
_ROW = 27
_NOTE = 18
_HEADER = 40
_SWATCH = 19
_MARK = 16
_MAX_ROWS = 40
_ONE_COLUMN_UP_TO = 5

_RULE: RGB = (70, 74, 82)
_AMBER: RGB = (255, 190, 90)
_MAGENTA: RGB = (255, 0, 220)
_HATCH_DARK: RGB = (60, 0, 52)
_HATCH_PERIOD = 8

Remarks = Mapping[int, str]
"""By class id, a few words."""


class _Row(NamedTuple):
    name: str
    number: str
    share: str
    note: str = ""
    swatch: RGB | None = None
    warning: bool = False
    mark: str = ""

    @property
    def height(self) -> int:
        return _ROW + _NOTE * (bool(self.note) + bool(self.mark))


def legend(
    labels: Tensor,
    palette: Palette,
    *,
    unmatched: Tensor | None = None,
    notes: Remarks | Sequence[Remarks] = (),
    marks: Remarks | Sequence[Remarks] = (),
    title: str = "",
) -> Tensor:
    """Draw label maps with, below each, colour, name, id and share of every class in it, most frequent first.

    At most 40 rows are drawn; the last one then counts the classes left out. Unmatched pixels are hatched in magenta
    and come first. Maps in a grey-id palette, in which neighbouring classes look alike, are drawn in the colours of
    their data set. A large map is drawn by nearest pixel: a detail too small for that shows in the shares alone.

    Args:
        labels: `(B, H, W)` integer ids of the palette's table.
        palette: names and colours.
        unmatched: `(B, H, W)` bool, pixels whose colour was not recognised.
        notes: remarks for some of the ids, e.g. how well the statistics know the class; the same for all maps, or one
            mapping for each.
        marks: likewise warnings, drawn below the remarks behind a triangle.
        title: shown above the rows; the palette's name when empty.

    Returns:
        `(B, H', 640, 3)` float32 in 0..1 on the CPU; within a batch the shorter legends are filled up below.

    Raises:
        SCPError: the labels have another shape, dtype or range, or the mask another shape than the labels.
    """
    class_shares(labels)  # refuses what is no label map while its shape is still the caller's
    if unmatched is not None and unmatched.shape != labels.shape:
        raise SCPError(
            f"The unmatched mask has the shape {tuple(unmatched.shape)}, the label map {tuple(labels.shape)}; "
            "they must be of one picture."
        )
    shown = _shown_palette(palette)
    masks = [None] * len(labels) if unmatched is None else list(unmatched.detach().cpu().bool())
    remarks = zip(_for_each(notes, len(labels)), _for_each(marks, len(labels)), strict=True)
    pages = [
        _page(one.detach().cpu(), shown, mask, remark, title or palette.name)
        for one, mask, remark in zip(labels, masks, remarks, strict=True)
    ]
    drawn = np.empty((len(pages), max(page.height for page in pages), WIDTH, 3), dtype=np.uint8)
    drawn[:] = BACKGROUND
    for canvas, page in zip(drawn, pages, strict=True):
        canvas[: page.height] = np.asarray(page)
    return torch.from_numpy(drawn).to(torch.float32).div_(255)


def _for_each(remarks: Remarks | Sequence[Remarks], maps: int) -> Sequence[Remarks]:
    return [remarks] * maps if isinstance(remarks, Mapping) else remarks or [{}] * maps


def _shown_palette(asked: Palette) -> Palette:
    if not asked.grey:
        return asked
    candidates = (palette(name) for name in palettes())
    return next((other for other in candidates if other.table == asked.table and not other.grey), asked)


def _page(
    labels: Tensor, shown: Palette, unmatched: Tensor | None, remarks: tuple[Remarks, Remarks], title: str
) -> Image.Image:
    rows = _rows(labels, shown, unmatched, *remarks)
    columns = _columns(rows)
    picture = _picture(labels, shown, unmatched)
    height = picture.height + _HEADER + max(sum(row.height for row in column) for column in columns) + _MARGIN
    page = Image.new("RGB", (WIDTH, height), BACKGROUND)
    page.paste(picture, ((WIDTH - picture.width) // 2, 0))
    draw = ImageDraw.Draw(page)
    _draw_header(draw, picture.height, title, f"{labels.shape[1]} x {labels.shape[0]}")
    column_width = (WIDTH - _MARGIN * (len(columns) + 1)) // len(columns)
    for number, column in enumerate(columns):
        left = _MARGIN + number * (column_width + _MARGIN)
        top = picture.height + _HEADER
        for row in column:
            _draw_row(page, draw, row, left, top, left + column_width)
            top += row.height
    return page


def _rows(labels: Tensor, shown: Palette, unmatched: Tensor | None, notes: Remarks, marks: Remarks) -> list[_Row]:
    total = labels.numel()
    missed = 0 if unmatched is None else int(unmatched.sum())
    matched = labels.flatten() if unmatched is None or not missed else labels[~unmatched]
    shares = class_shares(matched.view(1, 1, -1)) if len(matched) else {}
    kept = len(matched) / total
    rows = []
    if missed:
        rows.append(_Row("unmatched colours", "", _percent(missed / total), warning=True))
    room = _MAX_ROWS - len(rows)
    listed = list(shares.items())
    left_out = listed[room - 1 :] if len(listed) > room else []
    for class_id, share in listed[: len(listed) - len(left_out)]:
        colour = shown.paint.get(class_id, shown.unlabelled_colour)
        name = shown.table.name_of(class_id)
        remarks = {"note": notes.get(class_id, ""), "mark": marks.get(class_id, "")}
        rows.append(_Row(name, str(class_id), _percent(share * kept), swatch=colour, **remarks))
    if left_out:
        rest = sum(share for _, share in left_out) * kept
        rows.append(_Row(f"and {len(left_out)} more", "", _percent(rest)))
    return rows


def _columns(rows: list[_Row]) -> list[list[_Row]]:
    """One column for a few rows, else two of about the same height."""
    if len(rows) <= _ONE_COLUMN_UP_TO:
        return [rows]
    half = sum(row.height for row in rows) / 2
    height = split = 0
    while height < half:
        height += rows[split].height
        split += 1
    return [rows[:split], rows[split:]]


def _percent(share: float) -> str:
    return "< 0.1 %" if share < 0.0005 else f"{100 * share:.1f} %"


def _picture(labels: Tensor, shown: Palette, unmatched: Tensor | None) -> Image.Image:
    height, width = labels.shape
    size = map_size(height, width)
    row = torch.arange(size[0]) * height // size[0]
    column = torch.arange(size[1]) * width // size[1]
    painted = hint_from_labels(labels[row[:, None], column][None], shown)[0]
    pixels = painted.mul(255).round_().to(torch.uint8).numpy()
    if unmatched is not None:
        mask = unmatched[row[:, None], column].numpy()
        pixels[mask] = _hatch(*size)[mask]
    return Image.fromarray(pixels)


@functools.lru_cache(maxsize=2)
def _hatch(height: int, width: int) -> np.ndarray:
    diagonal = (np.arange(height)[:, None] + np.arange(width)) % _HATCH_PERIOD < _HATCH_PERIOD * 5 // 8
    return np.where(diagonal[..., None], _MAGENTA, _HATCH_DARK).astype(np.uint8)


def _draw_header(draw: ImageDraw.ImageDraw, top: int, title: str, size: str) -> None:
    middle = top + (_HEADER - 4) // 2
    size_width = draw.textlength(size, font(_SMALL))
    room = WIDTH - 3 * _MARGIN - size_width
    draw.text((_MARGIN, middle), fitted(draw, title, _TEXT, room), INK, font(_TEXT), anchor="lm")
    draw.text((WIDTH - _MARGIN, middle), size, DIM, font(_SMALL), anchor="rm")
    bottom = top + _HEADER - 5
    draw.line((_MARGIN, bottom, WIDTH - _MARGIN, bottom), _RULE)


def _draw_row(page: Image.Image, draw: ImageDraw.ImageDraw, row: _Row, left: int, top: int, right: int) -> None:
    middle = top + _ROW // 2
    corner = left, middle - _SWATCH // 2
    box = (*corner, corner[0] + _SWATCH - 1, corner[1] + _SWATCH - 1)
    if row.warning:
        page.paste(Image.fromarray(_hatch(_SWATCH, _SWATCH)), corner)
    if row.swatch is not None:
        draw.rectangle(box, fill=row.swatch)
    if row.warning or row.swatch is not None:
        draw.rectangle(box, outline=DIM)
    ink = _MAGENTA if row.warning else INK
    draw.text((right, middle), row.share, ink, font(_TEXT), anchor="rm")
    name_left = left + _SWATCH + 9
    number_width = draw.textlength(row.number, font(_SMALL)) + 7 if row.number else 0
    room = right - draw.textlength(row.share, font(_TEXT)) - 10 - name_left - number_width
    name = fitted(draw, row.name, _TEXT, room)
    draw.text((name_left, middle), name, ink, font(_TEXT), anchor="lm")
    number_left = name_left + draw.textlength(name, font(_TEXT)) + 7
    draw.text((number_left, middle + 1), row.number, DIM, font(_SMALL), anchor="lm")
    line = top + _ROW + _NOTE // 2 - 3
    if row.note:
        draw.text((name_left, line), fitted(draw, row.note, _SMALL, right - name_left), DIM, font(_SMALL), anchor="lm")
        line += _NOTE
    if row.mark:
        corners = [(name_left, line + 5), (name_left + 5, line - 5), (name_left + 10, line + 5)]
        draw.polygon(corners, fill=_AMBER)
        room = right - name_left - _MARK
        text = fitted(draw, row.mark, _SMALL, room)
        draw.text((name_left + _MARK, line), text, _AMBER, font(_SMALL), anchor="lm")
