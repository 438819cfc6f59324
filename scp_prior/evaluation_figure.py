"""One figure of an evaluation: likelihood over noise, calibration, distances."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import SCPError
from .evaluation import Evaluation
from .files import atomic_write

_FORMATS = {".png": "png", ".pdf": "pdf", ".svg": "svg"}


def check_figure(path: str | os.PathLike[str]) -> None:
    """Find out before the work that the figure could not be drawn after it.

    Raises:
        SCPError: matplotlib is missing, or the ending is no format of it.
    """
    if Path(path).suffix.lower() not in _FORMATS:
        raise SCPError(f"--figure {path} is no picture file; end it in one of: {', '.join(_FORMATS)}.")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise SCPError(
            "--figure needs matplotlib, which is not installed. Install it (pip install matplotlib), or leave --figure "
            "out: --out has every number."
        ) from error


def save_figure(evaluation: Evaluation, path: str | os.PathLike[str]) -> None:
    """Draw it.

    Raises:
        SCPError: as `check_figure`, or the file cannot be written.
    """
    check_figure(path)
    # Never pyplot: it would look for a screen, and keep every figure.
    from matplotlib.figure import Figure

    e = evaluation
    figure = Figure(figsize=(12, 4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    levels = sorted(range(len(e.noise)), key=lambda i: e.noise[i].sigma)
    # The lowest at each level is 0: the rest would be lost beside what the noise itself costs.
    best = {i: min(m.picture_nll[i] for m in e.methods) for i in levels}
    for m in e.methods:
        left.plot([m.picture_nll[i] - best[i] for i in levels], marker="o", label=m.label)
    left.set(title="whole pictures, nats per value above the best", xlabel="sigma")
    left.set_yscale("symlog", linthresh=1e-3)
    left.set_xticks(range(len(levels)), [str(e.noise[i]) for i in levels])
    left.legend(fontsize="small")

    shown = [m for m in e.methods if m.scene_variation != 0]
    for i, (many, wanted) in enumerate(((1, 0.6827), (2, 0.9545))):
        bars = middle.bar([x + 0.4 * i for x in range(len(shown))], [m.within[i] for m in shown], 0.4)
        bars.set_label(f"within {many} std")
        middle.axhline(wanted, color=bars[0].get_facecolor(), linestyle=":")
    middle.set(title="calibration (dotted: as it should be)", ylim=(0, 1))
    middle.set_xticks([x + 0.2 for x in range(len(shown))], [m.method for m in shown], rotation=30, ha="right")
    middle.legend(fontsize="small", loc="lower right")

    grids = list(dict.fromkeys(grid for m in e.methods for grid in m.frechet_pooled))
    for m in e.methods:
        right.plot(grids, [m.frechet_pooled[grid][0] for grid in grids], marker="o", label=m.label)
    right.set(title=f"Frechet distance, pooled, sigma {e.noise[0]}", xlabel="areas", ylim=(0, None))
    figure.suptitle(f"{e.statistics}, {e.pictures} pictures of {e.dataset}")
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format=_FORMATS[Path(path).suffix.lower()], dpi=150)
