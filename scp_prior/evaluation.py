"""What an evaluation found: plain data, and how it is shown and written."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass

from .files import atomic_write


@dataclass(frozen=True)
class NoiseLevel:
    """How much noise is added to latents of the model's own scale; `timestep` where it was asked for by that."""

    sigma: float
    timestep: int | None = None

    def __str__(self) -> str:
        return f"{self.sigma:.3g}" if self.timestep is None else f"t={self.timestep}"


@dataclass(frozen=True)
class ClassResult:
    """One class under one method.

    nll: expected negative log likelihood, nats per value, at each noise level.
    within: share of the values within 1 and 2 std of the mean (0.683 and 0.954 where the prior is right).
    fallback: share of its cells that had to do without what the method is about.
    frechet: distance between the class's values under the prior and the real ones, clean; None for fewer than two.
    """

    class_id: int
    name: str
    cells: int
    nll: tuple[float, ...]
    within: tuple[float, float]
    fallback: float
    frechet: float | None


@dataclass(frozen=True)
class MethodResult:
    """One method on all held-out pictures; lists have one number per noise level.

    scene_variation: 0 or 1 where the method was evaluated with both, else None.
    nll, within, fallback: as in ClassResult, over all values.
    origin: share of cells by what their numbers came from.
    picture_nll: of whole pictures, nats per value: differs from `nll` where cells are not independent.
    picture_nll_error: its standard error over pictures.
    frechet_cell: distance at each cell, averaged; None where pictures are too few.
    frechet_pooled: distance of latents pooled over areas, by "rows x columns".
    """

    method: str
    scene_variation: float | None
    nll: tuple[float, ...]
    within: tuple[float, float]
    fallback: float
    origin: dict[str, float]
    picture_nll: tuple[float, ...]
    picture_nll_error: tuple[float, ...] | None
    frechet_cell: tuple[float, ...] | None
    frechet_pooled: dict[str, tuple[float, ...]]
    classes: tuple[ClassResult, ...]

    @property
    def label(self) -> str:
        """The method, and whether its cells are independent where it knows both."""
        return f"{self.method}, independent cells" if self.scene_variation == 0 else self.method


@dataclass(frozen=True)
class Evaluation:
    """Methods of one statistics file on the same pictures.

    latent_scale: what latents, and so all numbers here, were multiplied by: the model's own scale.
    left_out: pooled grids whose covariance these pictures are too few for.
    unknown: share of cells of each class that the statistics do not know.
    notes: what to bear in mind.
    """

    statistics: str
    dataset: str
    pictures: int
    cells: int
    latent_size: tuple[int, int]
    channels: int
    latent_scale: float
    noise: tuple[NoiseLevel, ...]
    left_out: tuple[str, ...]
    unknown: dict[int, float]
    notes: tuple[str, ...]
    methods: tuple[MethodResult, ...]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON, whole or not at all.

        Raises:
            SCPError: it cannot be written.
        """
        with atomic_write(path) as temporary:
            text = json.dumps(dataclasses.asdict(self), indent=2, allow_nan=False)
            temporary.write_text(text + "\n", encoding="utf-8")


def as_text(evaluation: Evaluation, *, classes: bool = False) -> str:
    """Tables for a console: likelihoods, calibration, distances; with `classes`, every class of every method too."""
    e = evaluation
    lines = [
        f"{e.statistics}: {e.pictures} pictures of {e.dataset}, {e.cells} cells, latents times {e.latent_scale:g}",
        *(f"note: {note}" for note in e.notes),
    ]
    if e.unknown:
        shares = ", ".join(f"class {class_id} ({share:.1%})" for class_id, share in e.unknown.items())
        lines.append(f"not in {e.statistics}: {shares}")
    levels = [str(level) for level in e.noise]
    lines += _table(
        "negative log likelihood, nats per value, at sigma",
        [*levels, "1 std", "2 std", "fallback"],
        # Independent cells have the same marginals as those with scene effects: one row for both.
        [
            (m.method, [*_numbers(m.nll, 4), *_shares((*m.within, m.fallback))])
            for m in e.methods
            if m.scene_variation != 0
        ],
    )
    lines += _table(
        "the same of whole pictures, and its standard error over them",
        levels,
        [
            (
                m.label,
                [f"{n}±{e}" for n, e in zip(_numbers(m.picture_nll, 4), _numbers(m.picture_nll_error, 4), strict=True)],
            )
            for m in e.methods
            if m.picture_nll_error is not None
        ],
    )
    for name in dict.fromkeys(grid for m in e.methods for grid in m.frechet_pooled):
        rows = [(m.label, _numbers(m.frechet_pooled[name], 3)) for m in e.methods]
        lines += _table(f"Frechet distance of latents pooled to {name}, at sigma", levels, rows)
    rows = [(m.label, _numbers(m.frechet_cell, 3)) for m in e.methods if m.frechet_cell is not None]
    lines += _table("Frechet distance of single cells, averaged, at sigma", levels, rows)
    if e.left_out:
        grids = ", ".join(e.left_out)
        lines.append(f"\ntoo few pictures for distances at {grids}: a covariance needs two for each of its dimensions")
    if classes:
        for method in (m for m in e.methods if m.scene_variation != 0):
            rows = [
                (
                    f"{c.class_id} {c.name}".strip(),
                    [*_numbers(c.nll, 4), *_shares((*c.within, c.fallback)), f"{c.cells}"],
                )
                for c in method.classes
            ]
            lines += _table(f"classes, {method.method}", [*levels, "1 std", "2 std", "fallback", "cells"], rows)
    return "\n".join(lines)


def _numbers(values: tuple[float, ...], digits: int) -> list[str]:
    # A prior without spread somewhere has likelihoods no table is wide enough for.
    return [f"{value:.{digits}f}" if abs(value) < 1e5 else f"{value:.3g}" for value in values]


def _shares(values: tuple[float, ...]) -> list[str]:
    return [f"{value:.1%}" for value in values]


def _table(title: str, columns: list[str], rows: list[tuple[str, list[str]]]) -> list[str]:
    if not rows:
        return []
    first = max(len(label) for label, _ in rows)
    widths = [max(len(column), *(len(row[i]) for _, row in rows)) for i, column in enumerate(columns)]
    head = "  ".join(column.rjust(width) for column, width in zip(columns, widths, strict=True))
    body = [
        f"{label:{first}}  " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for label, row in rows
    ]
    return ["", title, f"{'':{first}}  {head}", *body]
