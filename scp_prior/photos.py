"""Picture files as arrays: photos as RGB, label maps as ids. Every failure is one message that names the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from .errors import SCPError

MAX_PIXELS = 178_956_970
"""Twice Pillow's own limit, where Pillow refuses too; kept here since other node packs switch Pillow's off."""

_MAX_ID = 65535
_WIDE_GREY = 257
"""65535 / 255: a 16 bit grey value over an 8 bit one."""


def read_photo(path: Path) -> np.ndarray:
    """A photo as it is displayed: turned as its EXIF orientation says, alpha dropped, grey and CMYK as RGB.

    16 bit grey is divided by 257; of a file with several frames the first is taken.

    Returns:
        (H, W, 3) uint8.

    Raises:
        SCPError: the file is missing, no picture, cut short, larger than `MAX_PIXELS`, or of floats.
    """
    picture = _displayed(_open(path, "a photo"), path)
    if picture.mode.startswith("I"):
        grey = np.asarray(picture).astype(np.int64)
        if grey.min() < 0 or grey.max() > _MAX_ID:
            raise SCPError(f"{path} holds grey values from {grey.min()} to {grey.max()}; expected 8 or 16 bit.")
        grey = ((grey + _WIDE_GREY // 2) // _WIDE_GREY).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if picture.mode == "F":
        raise SCPError(f"{path} holds floats; expected a photo of 8 or 16 bit. Save it as PNG or JPEG.")
    return np.array(as_rgb(picture, path))


def as_rgb(picture: Image.Image, path: Path) -> Image.Image:
    """A picture of 8 bit channels as RGB; alpha is dropped, as ComfyUI's LoadImage does.

    Raises:
        SCPError: Pillow has no way from its colours to RGB.
    """
    try:
        if picture.mode in ("P", "PA", "LA"):
            # By way of RGBA, the only mode in which Pillow takes every kind of transparency without a warning.
            picture = picture.convert("RGBA")
        return picture.convert("RGB")
    except ValueError as error:
        raise SCPError(f"{path} has colours of the kind {picture.mode}; expected RGB. Save it as PNG.") from error


def read_map(path: Path) -> Image.Image:
    """The picture of a label map, decoded but not converted; its EXIF orientation, if any, is not applied.

    Raises:
        SCPError: as `read_photo`.
    """
    return _open(path, "a label map")


def ids_of(picture: Image.Image, path: Path) -> np.ndarray | None:
    """The ids in an id map, or None where the picture is in colours.

    Grey values are ids, and so are the indices (not the colours) of an indexed picture. RGB whose channels are equal
    everywhere is grey. Alpha is dropped.

    Returns:
        (H, W) int64.

    Raises:
        SCPError: ids beyond 0..65535, or a picture of floats.
    """
    if picture.mode == "F":
        raise SCPError(f"{path} holds floats; expected class ids as an 8 or 16 bit grey picture.")
    values = np.asarray(picture)
    if picture.mode in ("LA", "PA", "La"):
        values = values[..., 0]
    elif values.ndim == 3:
        if picture.mode not in ("RGB", "RGBA", "RGBX"):
            return None
        red = values[..., 0]
        if not ((red == values[..., 1]).all() and (red == values[..., 2]).all()):
            return None
        values = red
    ids = values.astype(np.int64)
    if ids.min() < 0 or ids.max() > _MAX_ID:
        raise SCPError(f"{path} holds ids from {ids.min()} to {ids.max()}; class ids lie within 0..{_MAX_ID}.")
    return ids


def stored_size(path: Path) -> tuple[int, int]:
    """(width, height) of a picture as stored, before any turning; read from its header."""
    with Image.open(path) as picture:
        return picture.size


def _open(path: Path, what: str) -> Image.Image:
    try:
        with Image.open(path) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise Image.DecompressionBombError(
                    f"{picture.width}x{picture.height} pixels are more than {MAX_PIXELS}"
                )
            picture.load()
            return picture
    except FileNotFoundError as error:
        raise SCPError(f"There is no file {path}; expected {what}.") from error
    except Image.UnidentifiedImageError as error:
        raise SCPError(f"{path} is not a picture that can be read; expected {what}. Is it whole?") from error
    # Whatever a decoder meets in a damaged file (struct.error, IndexError, zlib.error ...), the file is what is wrong.
    except Exception as error:
        reason = getattr(error, "strerror", None) or error or type(error).__name__
        raise SCPError(f"Cannot read {path} as {what}: {reason}. Get the file again, or take it out.") from error


def _displayed(picture: Image.Image, path: Path) -> Image.Image:
    try:
        return ImageOps.exif_transpose(picture)
    except Exception as error:
        raise SCPError(f"The EXIF data of {path} are damaged ({error}). Save the photo again without them.") from error
