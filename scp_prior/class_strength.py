"""How much of the prior each class gets: "car: 0.5" makes cars' share of the latent half as strong."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .class_lines import ClassLine, class_lines
from .classes import ClassTable
from .errors import SCPError

MOST_STRENGTH = 2.0

_WIDGET = "class_strength"
_EXAMPLE = "car: 0.5"


def class_strengths(text: str, table: ClassTable) -> dict[int, float]:
    """Class id -> strength, as written with one "class: number" a line.

    Raises:
        SCPError: a line is not of that form, names an unknown class or one twice, or its number is not within 0..2.
    """
    lines = class_lines(text, table, _WIDGET, _EXAMPLE)
    return {class_id: _strength(line) for line in lines for class_id in line.class_ids}


def cell_strengths(grid: Tensor, of_class: dict[int, float], overall: float = 1.0) -> Tensor:
    """Strength of each latent cell.

    Args:
        grid: `(B, h, w)` int64 class ids at the size of the latent.
        of_class: class id -> strength; 1 for every other class.
        overall: what all are multiplied by.

    Returns:
        `(B, 1, h, w)` float32 on the grid's device.
    """
    strengths = torch.full(grid.shape, overall, dtype=torch.float32, device=grid.device)
    for class_id, strength in of_class.items():
        strengths.masked_fill_(grid == class_id, overall * strength)
    return strengths.unsqueeze(1)


def weakened(latent: Tensor, strengths: Tensor | float) -> Tensor:
    """A latent `(B, C, h, w)` times the strengths `(B, 1, h, w)` of its cells, or one for all; exactly empty at 0."""
    # Zero times a negative number is -0.0; an empty latent holds none.
    if isinstance(strengths, Tensor):
        return torch.where(strengths != 0, latent * strengths, 0)
    return latent * strengths if strengths else torch.zeros_like(latent)


def absent_classes(of_class: dict[int, float], grid: Tensor, table: ClassTable) -> str:
    """Names of the classes with a strength of their own that have no cell, as a line to say; "" where all have."""
    present = {table.name_of(class_id) for class_id in of_class if bool((grid == class_id).any())}
    absent = [name for name in dict.fromkeys(map(table.name_of, of_class)) if name not in present]
    return f"{_WIDGET}: in no cell of the picture: {', '.join(absent)}" if absent else ""


def _strength(line: ClassLine) -> float:
    try:
        strength = float(line.value)
    except ValueError:
        strength = math.nan
    if not 0 <= strength <= MOST_STRENGTH:
        raise SCPError(
            f"{_WIDGET}, line {line.number}: '{line.value:.40}' is not a number from 0 (no prior) to "
            f"{MOST_STRENGTH:g}. Write e.g. '{_EXAMPLE}'."
        )
    return strength
