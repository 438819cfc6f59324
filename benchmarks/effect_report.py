"""The tables and the figure of the effect benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from effect_measures import Estimate, Measured, apart, estimates, quantities
from effect_plan import STARTS, STEPS, TIMESTEP, Run

Group = tuple[str, int | None, int]
Found = dict[str, dict[str, Any]]

_DIGITS = {"mIoU": 4, "accuracy": 4, "FD features": 3, "FD latents": 2, "FD colours": 4, "variety": 3}
_BETTER = {"mIoU": "higher", "accuracy": "higher", "variety": "nearer 1"}


def _grouped(runs: Mapping[Run, Measured]) -> dict[Group, list[Measured]]:
    groups: dict[Group, list[Measured]] = {}
    for run in sorted(runs, key=lambda run: run.seed):
        groups.setdefault(run.as_group(), []).append(runs[run])
    return groups


def _cell(name: str, value: Estimate, difference: Estimate | None) -> str:
    digits = _DIGITS[name]
    if difference is None:
        return f"{value.value:.{digits}f}"
    clear = abs(difference.value) > 2 * difference.error
    text = f"{value.value:.{digits}f} ({difference.value:+.{digits}f} ± {difference.error:.{digits}f})"
    return f"**{text}**" if clear else text


def _table(groups: Mapping[str, Sequence[Measured]], real: Measured, against: str, found: Found) -> list[str]:
    """Rows of one comparison: every measure, and its difference from `against`, bold beyond two standard errors."""
    columns = {}
    for name, quantity in quantities(real).items():
        columns[name] = estimates(groups, quantity, against)
    lines = [f"| start | {' | '.join(columns)} | apart |", "|---" * (len(columns) + 2) + "|"]
    for group, runs in groups.items():
        cells = []
        for name, column in columns.items():
            value, difference = column[group]
            cells.append(_cell(name, value, None if group == against else difference))
            found.setdefault(group, {})[name] = {
                "value": value.value,
                "error": value.error,
                "difference": difference.value,
                "difference_error": difference.error,
            }
        among = f"{apart(runs):.4f}" if len(runs) > 1 else ""
        lines.append(f"| {group} | {' | '.join(cells)} | {among} |")
    return lines


def tables(runs: Mapping[Run, Measured], references: Mapping[str, Measured]) -> tuple[str, Found]:
    """All tables as Markdown, and the numbers of the main one."""
    groups, real = _grouped(runs), references["real"]
    main = {
        name: groups[key] for name in STARTS if (key := (name, None if name == "normal" else TIMESTEP, STEPS)) in groups
    }
    seeds = len(next(iter(main.values())))
    lines = [f"## t = {TIMESTEP}, {STEPS} steps, {seeds} seeds; differences from `normal`", ""]
    found: Found = {}
    lines += _table(main, real, "normal", found)
    lines += ["", f"## The same, differences from the paper's joint prior ({seeds} seeds)", ""]
    lines += _table(
        {name: main[name] for name in ("joint-spatial", "joint, cells apart", "joint")}, real, "joint-spatial", {}
    )
    lines += ["", "## No sampling: the scenes of these maps, as generated and through the autoencoder", ""]
    lines += _table({name: [references[name]] for name in ("scenes", "decoded")}, real, "scenes", {})
    others = {key for key in groups if key[1:] not in ((TIMESTEP, STEPS), (None, STEPS))}
    for timestep, steps in sorted(
        {(key[1] or TIMESTEP, key[2]) for key in others}, key=lambda pair: (-pair[1], -pair[0])
    ):
        some = {
            key[0]: groups[key]
            for key in groups
            if key[2] == steps and key[1] in ((timestep,) if steps == STEPS else (timestep, None))
        }
        if steps == STEPS:
            some = {"normal": main["normal"][: len(next(iter(some.values())))], **some}
        lines += [
            "",
            f"## t = {timestep}, {steps} steps, {len(next(iter(some.values())))} seeds; differences from `normal`",
            "",
        ]
        lines += _table(some, real, "normal", {})
    return "\n".join(lines) + "\n", found


def figure(found: Found, path: Path) -> None:
    """Draw the main comparison: each measure a panel, each start a point with two standard errors."""
    from matplotlib.figure import Figure  # never pyplot: it would look for a screen

    names = [name for name in _DIGITS if name in next(iter(found.values()))]
    picture = Figure(figsize=(2.2 * len(names) + 1.4, 3.2), layout="constrained")
    axes = picture.subplots(1, len(names), sharey=True)
    rows = list(found)[::-1]
    for axis, name in zip(axes, names, strict=True):
        values = [found[row][name]["value"] for row in rows]
        errors = [2 * found[row][name]["difference_error"] for row in rows]
        colours = ["#c0392b" if row == "joint" else "#555555" for row in rows]
        for place, (value, error, colour) in enumerate(zip(values, errors, colours, strict=True)):
            axis.errorbar(value, place, xerr=error, fmt="o", color=colour, markersize=5, capsize=2)
        axis.axvline(found["normal"][name]["value"], color="#999999", linewidth=0.8, linestyle=":")
        axis.set_title(f"{name}\n{_BETTER.get(name, 'lower')} is better", fontsize=9)
        axis.tick_params(labelsize=8)
        axis.grid(axis="x", alpha=0.25)
    axes[0].set_yticks(range(len(rows)), rows)
    picture.savefig(path, dpi=110)
