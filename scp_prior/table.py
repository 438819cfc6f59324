"""One method's means and spreads for every class and cell, filled in class by class as label maps ask for them."""

from __future__ import annotations

import torch
from torch import Tensor

from .classes import UNLABELLED
from .errors import SCPError
from .methods import METHODS, Evidence, Options
from .statistics import MAX_CLASS_ID, Statistics

# No spread is ever exactly zero: a cell seen once would otherwise be a training pixel. In LATENT units, far below
# anything visible (a latent's own spread is about 5).
SPREAD_FLOOR = 1e-5


class PriorTable:
    """Rows of (mean, std) per class, one column per cell, so that a prior is a single gather.

    Row K stands for every class the file does not know: it has no cells of its own, and falls back as unlabelled
    does, to class 255 where the file has it, else to the position.

    Attributes:
        values: (K + 1, h * w, 2 C) float32, the C means and then the C stds of each cell, LATENT units.
        origin: (K + 1, h * w) uint8, see `methods`.
    """

    def __init__(self, statistics: Statistics, method: str, size: tuple[int, int], options: Options):
        self._statistics = statistics.resample(size)
        self._method = METHODS[method]
        self._options = options
        self._require_parts(method)
        self.size = size
        rows, cells, channels = len(statistics.class_ids) + 1, size[0] * size[1], statistics.channels
        # Never written, never paid for: memory is touched only for the classes that are asked for.
        self.values = torch.empty(rows, cells, 2 * channels)
        self.origin = torch.empty(rows, cells, dtype=torch.uint8)
        self._filled = torch.zeros(rows, dtype=torch.bool)
        self._lookup = self._make_lookup()

    def rows_of(self, labels: Tensor) -> Tensor:
        """Row of each label, (…) int64 -> (…) int64, filling in those asked for the first time."""
        rows = self._lookup[labels]
        wanted = torch.bincount(rows.flatten(), minlength=len(self._filled)) > 0
        missing = (wanted & ~self._filled).nonzero().flatten().tolist()
        if missing:
            self._fill(missing)
        return rows

    def _fill(self, rows: list[int]) -> None:
        resolved = self._method.resolve(self._evidence(rows), self._options)
        channels = self._statistics.channels
        for i, row in enumerate(rows):
            cells = self.values[row].unflatten(0, self.size)
            cells[..., :channels] = resolved.mean[i].permute(1, 2, 0)
            # `normal` has no spread by definition; everything else keeps a floor.
            floor = SPREAD_FLOOR if self._method.needs else 0.0
            cells[..., channels:] = resolved.std[i].permute(1, 2, 0).clamp_min(floor)
            self.origin[row] = resolved.origin[i].flatten()
        self._filled[rows] = True

    def _evidence(self, rows: list[int]) -> Evidence:
        s, (h, w), unknown = self._statistics, self.size, len(self._statistics.class_ids)
        known = [row for row in rows if row != unknown]
        count = torch.zeros(len(rows), 1, h, w)
        mean, std = torch.zeros(len(rows), s.channels, h, w), torch.zeros(len(rows), s.channels, h, w)
        if "joint" in self._method.needs and known:
            at = [i for i, row in enumerate(rows) if row != unknown]
            cells = s.joint(known)
            count[at], mean[at], std[at] = cells.count.unsqueeze(1), cells.mean, cells.std
        class_mean, class_std, class_known = self._categorical(rows)
        spatial_mean, spatial_std = self._spatial()
        return Evidence(count, mean, std, class_mean, class_std, class_known, spatial_mean, spatial_std)

    def _categorical(self, rows: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        s, n = self._statistics, len(rows)
        if not s.has_categorical:
            return torch.zeros(n, s.channels, 1, 1), torch.zeros(n, s.channels, 1, 1), torch.zeros(n, 1, 1, 1).bool()
        moments, unlabelled = s.categorical(), s.row_of(UNLABELLED)
        unknown = len(s.class_ids)
        use = torch.tensor([(unlabelled if unlabelled is not None else 0) if row == unknown else row for row in rows])
        known = torch.tensor([row != unknown or unlabelled is not None for row in rows])
        return moments.mean[use][..., None, None], moments.std[use][..., None, None], known.view(n, 1, 1, 1)

    def _spatial(self) -> tuple[Tensor, Tensor]:
        s = self._statistics
        if s.has_spatial:
            return tuple(part.unsqueeze(0) for part in s.spatial())
        mean, std = _overall(s)
        return mean.view(1, -1, 1, 1).expand(1, -1, *self.size), std.view(1, -1, 1, 1).expand(1, -1, *self.size)

    def _make_lookup(self) -> Tensor:
        s = self._statistics
        lookup = torch.full((MAX_CLASS_ID + 1,), len(s.class_ids), dtype=torch.int64)
        lookup[s.class_ids] = torch.arange(len(s.class_ids))
        for old, new in s.label_rule.replace:
            lookup[old] = lookup[new]
        return lookup

    def _require_parts(self, method: str) -> None:
        s = self._statistics
        here = {"joint": s.has_joint, "class": s.has_categorical, "spatial": s.has_spatial}
        missing = [part for part in self._method.needs if not here[part]]
        if missing:
            able = [name for name, m in METHODS.items() if all(here[part] for part in m.needs)]
            raise SCPError(
                f"Method '{method}' needs {' and '.join(missing)} statistics, which {s.name} does not hold. "
                f"Choose one of: {', '.join(able)}."
            )


def _overall(s: Statistics) -> tuple[Tensor, Tensor]:
    """Moments of all classes together, by count; what stands in where a file holds no spatial statistics."""
    if not s.has_categorical:
        return torch.zeros(s.channels), torch.ones(s.channels)
    count, mean, std = s.categorical()
    weight = count.double().unsqueeze(1)
    weight = weight / weight.sum() if float(weight.sum()) > 0 else torch.full_like(weight, 1 / len(weight))
    overall = (weight * mean).sum(0)
    variance = (weight * (std.double() ** 2 + (mean - overall) ** 2)).sum(0)
    return overall.float(), variance.sqrt().float()
