"""Words for the classes of a label map: which cells of the latent each prompt speaks for."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .class_lines import class_lines
from .classes import ClassTable
from .labels import where_any

_WIDGET = "prompts"
_EXAMPLE = "sky: storm clouds"


class Region(NamedTuple):
    """Cells that share a prompt.

    words: the prompt. names: of the classes. mask: `(B, h, w)` float32, 1 where one of them is. share: of all cells.
    """

    words: str
    names: tuple[str, ...]
    mask: Tensor
    share: float


class RegionsRead(NamedTuple):
    """The regions of a picture in the order of their lines, and names of classes that have a line but no cell."""

    regions: list[Region]
    absent: list[str]


def region_prompts(text: str, grid: Tensor, table: ClassTable) -> RegionsRead:
    """Read "class: words", one a line, against a label map at the size of the latent.

    Classes with the very same words are one region: every region costs the sampler a run of the network.

    Args:
        grid: `(B, h, w)` int64 ids of the table.

    Raises:
        SCPError: a line is not of that form, or names an unknown class or one twice.
    """
    named: dict[str, list[tuple[str, Tensor]]] = {}
    absent = []
    for line in class_lines(text, table, _WIDGET, _EXAMPLE):
        here = where_any(grid, line.class_ids)
        if bool(here.any()):
            named.setdefault(line.value, []).append((line.name, here))
        else:
            absent.append(line.name)
    regions = []
    for words, parts in named.items():
        mask = torch.stack([here for _, here in parts]).any(0).to(torch.float32)
        regions.append(Region(words, tuple(name for name, _ in parts), mask, float(mask.mean())))
    return RegionsRead(regions, absent)
