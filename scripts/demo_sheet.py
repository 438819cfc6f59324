"""The demonstration's pictures side by side, each with its name."""

from __future__ import annotations

from pathlib import Path

from layout import replacing
from PIL import Image, ImageDraw, ImageFont

SHOWN = (
    ("hint", "label map"),
    ("prior_preview", "the prior's mean"),
    ("normal", "from pure noise"),
    ("result", "from the prior"),
)
_SCALE, _GAP, _CAPTION = 2, 12, 34


def write_sheet(folder: Path, name: str = "sheet.png") -> Path:
    """Write the sheet of a folder's pictures beside them; return its path."""
    tiles = []
    for file, words in SHOWN:
        with Image.open(folder / f"{file}.png") as image:
            tiles.append((image.convert("RGB"), words))
    width, height = (side * _SCALE for side in tiles[0][0].size)
    page = Image.new("RGB", (2 * width + 3 * _GAP, 2 * (height + _CAPTION) + 2 * _GAP), (24, 26, 30))
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(20)
    for place, (image, words) in enumerate(tiles):
        left, top = _GAP + place % 2 * (width + _GAP), _GAP + place // 2 * (height + _CAPTION)
        page.paste(image.resize((width, height), Image.Resampling.LANCZOS), (left, top))
        draw.text((left + 2, top + height + 4), words, (235, 235, 235), font)
    target = folder / name
    with replacing(target) as temporary:
        page.save(temporary, format="PNG")
    return target
