"""One method's means and spreads for every class and cell, filled in as label maps ask for them."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from .errors import SCPError
from .ids import UNLABELLED
from .methods import METHODS, Evidence, Options
from .statistics import Statistics

# No spread is ever exactly zero: a cell seen once would otherwise be a training pixel. In LATENT units, far below
# anything visible (a latent's own spread is about 5).
SPREAD_FLOOR = 1e-5


class PriorTable:
    """(mean, std) of every class at every cell, so that a prior is a single gather.

    Filled in cell by cell as label maps ask for them, with room for the classes met so far only. Class row K stands
    for every class the file does not know: it has no cells of its own, and falls back as unlabelled does, to class 255
    where the file has it, else to the position.

    Attributes:
        values: (classes met * h * w, 2 C) float32, the C means and then the C stds of each cell, LATENT units.
        origin: (classes met * h * w,) uint8, see `methods`.
        count: (classes met * h * w,) float32, photos that showed the class there; 0 where the method asks for none.
    """

    def __init__(self, statistics: Statistics, method: str, size: tuple[int, int], options: Options):
        self._statistics = statistics.resample(size)
        self._method = METHODS[method]
        self._options = options
        self._size = size
        self._corner_table: tuple[Tensor, Tensor] | None = None
        self._require_parts(method)
        self._positions = torch.arange(size[0] * size[1])
        self._unknown = len(statistics.class_ids)
        self._row_of_label = _row_of_label(statistics)
        # Classes get their places as they are met: a file may know 150, and a picture shows a dozen.
        self._slot_of_row = torch.full((self._unknown + 1,), -1)
        self._rows: list[int] = []
        self.values = torch.empty(0, 2 * statistics.channels)
        self.origin = torch.empty(0, dtype=torch.uint8)
        self.count = torch.empty(0)
        self._filled = torch.zeros(0, dtype=torch.bool)

    def cells_of(self, labels: Tensor) -> Tensor:
        """Index into `values` of each cell of the label maps, (B, h, w) int64 -> (B * h * w,), all of them filled."""
        # Every id above the largest known one is as unknown as the next. (index_select: a third of the time of [...].)
        known = labels.flatten().clamp_max(len(self._row_of_label) - 1)
        rows = self._row_of_label.index_select(0, known)
        slots = self._slot_of_row.index_select(0, rows)
        if slots.min() < 0:
            self._make_room(rows)
            slots = self._slot_of_row.index_select(0, rows)
        cells = torch.add(self._positions, slots.view(len(labels), -1), alpha=len(self._positions)).flatten()
        filled = self._filled.index_select(0, cells)
        if not filled.all():
            missing = cells[~filled]
            # One map names each cell once; several may share some.
            self._fill(missing if len(labels) == 1 else missing.unique())
        return cells

    def _make_room(self, rows: Tensor) -> None:
        met = (torch.bincount(rows, minlength=self._unknown + 1) > 0) & (self._slot_of_row < 0)
        new = met.nonzero().flatten()
        self._slot_of_row[new] = torch.arange(len(new)) + len(self._rows)
        self._rows += new.tolist()
        more = len(new) * len(self._positions)
        self.values = torch.cat([self.values, self.values.new_empty(more, self.values.shape[1])])
        self.origin = torch.cat([self.origin, self.origin.new_empty(more)])
        self.count = torch.cat([self.count, self.count.new_empty(more)])
        self._filled = torch.cat([self._filled, self._filled.new_zeros(more)])

    def _fill(self, cells: Tensor) -> None:
        slots, positions = cells // len(self._positions), cells % len(self._positions)
        rows = torch.tensor(self._rows)[slots]
        evidence = self._evidence(rows, positions)
        resolved = self._method.resolve(evidence, self._options)
        # `normal` has no spread by definition; everything else keeps a floor.
        floor = SPREAD_FLOOR if self._method.needs else 0.0
        self.values[cells] = torch.cat([resolved.mean, resolved.std.clamp_min(floor)], dim=1)
        self.origin[cells] = resolved.origin.flatten().to(torch.uint8)
        self.count[cells] = evidence.count.flatten()
        self._filled[cells] = True

    def _evidence(self, rows: Tensor, positions: Tensor) -> Evidence:
        joint, of_class = self._joint(rows, positions), self._class_moments(rows)
        spatial = self._spatial_moments(positions)
        return Evidence(*joint, *of_class, *spatial, *self._target(rows, positions, of_class, spatial))

    def _joint(self, rows: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        s, m = self._statistics, len(rows)
        known = (rows != self._unknown).nonzero().flatten()
        if "joint" not in self._method.needs or not len(known):
            nothing = torch.zeros(m, s.channels)
            return nothing[:, :1], nothing, nothing
        if len(known) == m:
            count, mean, std = s.joint_at(rows, positions)
            return count.unsqueeze(1), mean, std
        here = s.joint_at(rows[known], positions[known])
        parts = (here.count.unsqueeze(1), here.mean, here.std)
        return tuple(torch.zeros(m, part.shape[1]).index_copy_(0, known, part) for part in parts)

    def _class_moments(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, std, known = self._categorical
        return mean[rows], std[rows], known[rows]

    @cached_property
    def _categorical(self) -> tuple[Tensor, Tensor, Tensor]:
        """mean, std (K + 1, C), known (K + 1, 1); the last row is that of unknown classes."""
        s, unlabelled = self._statistics, self._statistics.row_of(UNLABELLED)
        if not s.has_categorical:
            nothing = torch.zeros(self._unknown + 1, s.channels)
            return nothing, nothing, torch.zeros(self._unknown + 1, 1, dtype=torch.bool)
        _, mean, std = s.categorical()
        last = unlabelled if unlabelled is not None else 0
        known = torch.ones(self._unknown + 1, 1, dtype=torch.bool)
        known[-1] = unlabelled is not None
        return torch.cat([mean, mean[last, None]]), torch.cat([std, std[last, None]]), known

    def _target(self, rows: Tensor, positions: Tensor, of_class: tuple, spatial: tuple) -> tuple[Tensor, Tensor]:
        """What the cells are drawn toward, mean and std (m, C): bilinear between corners, class or place if none."""
        if self._method is METHODS["joint"] and self._statistics.has_target:
            here = (rows != self._unknown).nonzero().flatten()
            if len(here) == len(rows):
                return self._between_corners(rows, positions)
        else:
            here = rows[:0]
        class_mean, class_std, known = of_class
        mean, std = torch.where(known, class_mean, spatial[0]), torch.where(known, class_std, spatial[1])
        if not len(here):
            return mean, std
        found = self._between_corners(rows[here], positions[here])
        return mean.index_copy_(0, here, found[0]), std.index_copy_(0, here, found[1])

    def _between_corners(self, rows: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Target mean and std (m, C) of cells of known classes."""
        present, index = rows.unique(return_inverse=True)
        mean, std = self._statistics.target(present.tolist())
        # Between corners variances are interpolated, not spreads.
        moments = torch.cat([mean, std**2], dim=1)  # (n, 2 C, gh, gw)
        corner, weight = self._corners(*mean.shape[2:])
        rows_of_corners = moments.flatten(2).transpose(1, 2).flatten(0, 1)  # (n gh gw, 2 C)
        first = index * (mean.shape[2] * mean.shape[3])
        at, share = corner.index_select(1, positions), weight.index_select(1, positions).unsqueeze(2)
        found = share[0] * rows_of_corners.index_select(0, first + at[0])
        for i in (1, 2, 3):
            found.addcmul_(share[i], rows_of_corners.index_select(0, first + at[i]))
        mean, variance = found.chunk(2, dim=1)
        return mean, variance.sqrt()

    def _corners(self, gh: int, gw: int) -> tuple[Tensor, Tensor]:
        """The four corners around each cell, (4, h w) index into a gh x gw grid, and their weights."""
        if self._corner_table is None:
            h, w = self._size
            (top, down), (left, right) = _between(h, gh), _between(w, gw)
            index, weight = [], []
            for y, wy in (top, down):
                for x, wx in (left, right):
                    index.append((y.unsqueeze(1) * gw + x).flatten())
                    weight.append((wy.unsqueeze(1) * wx).flatten())
            self._corner_table = torch.stack(index), torch.stack(weight)
        return self._corner_table

    def rows_of(self, labels: Tensor) -> Tensor:
        """Class row of each cell, of the labels' shape; K where the file knows neither the class nor class 255."""
        rows = self._row_of_label[labels.clamp_max(len(self._row_of_label) - 1)]
        unlabelled = self._statistics.row_of(UNLABELLED)
        return rows if unlabelled is None else torch.where(rows == self._unknown, unlabelled, rows)

    def _spatial_moments(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = self._spatial
        return mean[positions], std[positions]

    @cached_property
    def _spatial(self) -> tuple[Tensor, Tensor]:
        """mean, std (h * w, C)."""
        s = self._statistics
        if s.has_spatial:
            mean, std = s.spatial()
            return mean.flatten(1).T, std.flatten(1).T
        mean, std = _overall(s)
        return mean.expand(len(self._positions), -1), std.expand(len(self._positions), -1)

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


def _between(cells: int, corners: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The corners before and after each cell's centre along one side, (cells,) each, with their weights."""
    at = ((torch.arange(cells) + 0.5) * (corners / cells) - 0.5).clamp(0, corners - 1)
    before = at.floor().long()
    after = (before + 1).clamp_max(corners - 1)
    share = at - before
    return (before, 1 - share), (after, share)


def _overall(s: Statistics) -> tuple[Tensor, Tensor]:
    """Moments (C,) of all classes together, by count: what stands in where a file holds no spatial statistics."""
    if not s.has_categorical:
        return torch.zeros(s.channels), torch.ones(s.channels)
    count, mean, std = s.categorical()
    weight = count.double().unsqueeze(1)
    weight = weight / weight.sum() if float(weight.sum()) > 0 else torch.full_like(weight, 1 / len(weight))
    overall = (weight * mean).sum(0)
    variance = (weight * (std.double() ** 2 + (mean - overall) ** 2)).sum(0)
    return overall.float(), variance.sqrt().float()


def _row_of_label(s: Statistics) -> Tensor:
    """(largest known id + 2,) int64: row of each label, the last entry and every gap being "unknown"."""
    replace = s.label_rule.replace
    top = max([int(s.class_ids[-1]), *(old for old, _ in replace)])
    own = torch.full((top + 2,), len(s.class_ids), dtype=torch.int64)
    own[s.class_ids] = torch.arange(len(s.class_ids))
    # All at once: "2->3; 1->2" makes 1 what 2 was, not what 3 is.
    rows = own.clone()
    for old, new in replace:
        rows[old] = own[new] if new <= top else len(s.class_ids)
    return rows
