"""How well each prior describes pictures it has not seen: the tables of docs/prior.md.

    python benchmarks/prior_quality.py                        # all of it
    python benchmarks/prior_quality.py --quick                # two sizes, two draws
    python benchmarks/prior_quality.py --only flat --out t.md

Synthetic families have latents of unit scale and a known truth; CamVid photos (SCP_TEST_DATA) go through a linear
stand-in for the VAE. Likelihoods are expected negative log likelihoods of held-out latents, nats per value. Errors are
standard errors over draws of the training set, of paired differences.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from quality_data import FAMILIES, Case, Pictures, camvid_cases, camvid_folder, synthetic_case  # noqa: E402

from scp_prior.collector import Collector  # noqa: E402
from scp_prior.evaluate import SIGMAS, Asked, evaluate  # noqa: E402
from scp_prior.held_out import HeldOut  # noqa: E402
from scp_prior.likelihood import cell_nll  # noqa: E402
from scp_prior.prior import prior_maps  # noqa: E402
from scp_prior.statistics import Statistics  # noqa: E402

PAPER = ("spatial", "class", "mixture", "joint-spatial", "joint-class")
AUTHORS = ("joint-spatial", "joint-class")
BEFORE, OURS = "joint 8/64", "joint"
SIZES = (10, 20, 50)
TOLERANCE = 0.001
_BATCH = 10


class Found(NamedTuple):
    """One training set's result. nll: method -> per sigma; whole: (independent, scene) per sigma; pooled: grid -> both.

    scene: whether the file has scene effects; where not, both of each pair are alike.
    """

    nll: dict[str, list[float]]
    whole: tuple[list[float], list[float]]
    pooled: dict[str, tuple[float, float]]
    scene: bool
    seconds: float


def measure(learn: Pictures, judge: Pictures) -> Found:
    """Statistics of one training set, judged."""
    collector = Collector(learn.latents.shape[1], tuple(learn.latents.shape[-2:]))
    collector.add(learn.latents, learn.labels)
    start = time.perf_counter()
    statistics = collector.statistics()
    seconds = time.perf_counter() - start
    batches = [
        HeldOut(judge.latents[i : i + _BATCH], judge.labels[i : i + _BATCH])
        for i in range(0, len(judge.labels), _BATCH)
    ]
    nll = {method: likelihoods(statistics, judge, method) for method in PAPER}
    nll[BEFORE] = likelihoods(without_new_parts(statistics), judge, "joint")
    rows = evaluate(statistics, batches, Asked(methods=("joint",), latent_scale=1.0)).methods
    alone, together = rows[0], rows[-1]
    nll[OURS] = list(together.nll)
    pooled = {grid: (alone.frechet_pooled[grid][0], together.frechet_pooled[grid][0]) for grid in alone.frechet_pooled}
    whole = list(alone.picture_nll), list(together.picture_nll)
    return Found(nll, whole, pooled, len(rows) > 1, seconds)


def likelihoods(statistics: Statistics, judge: Pictures, method: str) -> list[float]:
    """Of single values, at each sigma."""
    maps = prior_maps(statistics, judge.labels, method)
    return [float(cell_nll(judge.latents, maps.mean, maps.std, sigma).mean()) for sigma in SIGMAS]


def without_new_parts(statistics: Statistics) -> Statistics:
    """As files were before: cells drawn toward their class by fixed counts, 8 for means and 64 for variances."""
    tensors = {k: t for k, t in statistics.tensors().items() if not k.startswith(("target.", "scene."))}
    return Statistics.from_tensors(tensors, {k: v for k, v in statistics.metadata.items() if k != "shrinkage"})


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean and its standard error; the error of one value is NaN."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, math.nan
    return mean, math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values))


def margin(found: Sequence[Found], methods: Sequence[str], level: int) -> tuple[float, float, str]:
    """By how much ours is below the best of these (by its mean over draws) at a noise level, its error, and which."""
    best = min(methods, key=lambda method: sum(f.nll[method][level] for f in found))
    return *mean_and_error([f.nll[best][level] - f.nll[OURS][level] for f in found]), best


class Row(NamedTuple):
    """All draws of a case at one training size."""

    case: str
    count: int
    found: list[Found]

    @property
    def no_worse(self) -> bool:
        """Whether ours is nowhere above the best of the paper's five by more than the tolerance."""
        return all(margin(self.found, PAPER, level)[0] >= -TOLERANCE for level in range(len(SIGMAS)))

    @property
    def beats_authors(self) -> bool | None:
        """Whether ours is below both authors' joint priors beyond the error, up to sigma 2; None of one draw."""
        if len(self.found) < 2:
            return None
        margins = [margin(self.found, AUTHORS, level) for level, sigma in enumerate(SIGMAS) if sigma <= 2]
        return all(mean > error for mean, error, _ in margins)


def signed(mean: float, error: float, digits: int = 4) -> str:
    """+0.0123 ± 0.0004; without the error where there is none."""
    text = f"{mean:+.{digits}f}" if abs(mean) < 1000 else f"{mean:+.1e}"
    if math.isnan(error):
        return text
    return f"{text} ± {error:.{digits}f}" if error < 1000 else f"{text} ± {error:.0e}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Markdown."""
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)] + [""]


def over_rows(rows: Sequence[Row], head: Sequence[str], cells: Callable[[Row], Sequence[str]]) -> list[str]:
    """A table with a line for each case and size."""
    return table(["data", "photos", *head], [[row.case, str(row.count), *cells(row)] for row in rows])


def report(rows: Sequence[Row]) -> str:
    """All tables, as markdown."""
    levels, sigmas = range(len(SIGMAS)), [f"sigma {sigma:g}" for sigma in SIGMAS]
    lines = ["### Single values: `joint`, nats per value", ""]
    lines += over_rows(
        rows, sigmas, lambda row: [f"{mean_and_error([f.nll[OURS][i] for f in row.found])[0]:.4f}" for i in levels]
    )
    lines += [
        f"### How much lower than the best of {', '.join(PAPER)} (more is better; no worse: within {TOLERANCE} nats)",
        "",
    ]
    lines += over_rows(
        rows,
        [*sigmas, "best at sigma 1", "no worse"],
        lambda row: [
            *(signed(*margin(row.found, PAPER, i)[:2]) for i in levels),
            margin(row.found, PAPER, SIGMAS.index(1.0))[2],
            "yes" if row.no_worse else "**no**",
        ],
    )
    lines += ["### How much lower than the better of the authors' two joint priors", ""]
    lines += over_rows(
        rows,
        [*sigmas, "beyond the error up to sigma 2"],
        lambda row: [
            *(signed(*margin(row.found, AUTHORS, i)[:2]) for i in levels),
            {True: "yes", False: "**no**", None: "one draw"}[row.beats_authors],
        ],
    )
    lines += ["### How much lower than cells drawn toward their class by fixed counts (8 and 64)", ""]
    lines += over_rows(rows, sigmas, lambda row: [signed(*margin(row.found, (BEFORE,), i)[:2]) for i in levels])
    lines += ["### Whole pictures: independent cells -> scene effects, nats per value", ""]
    lines += over_rows(rows, [*sigmas, "gain at sigma 1", "least gain"], _whole)
    lines += ["### Frechet distance of pooled latents, clean: independent cells -> scene effects", ""]
    grids = list(dict.fromkeys(grid for row in rows for f in row.found for grid in f.pooled))
    lines += over_rows(rows, grids, lambda row: [_pooled(row, grid) for grid in grids])
    lines += ["### Every prior, nats per value", ""]
    lines += table(
        ["data", "photos", "prior", *sigmas],
        [
            [
                row.case,
                str(row.count),
                method,
                *(_plain(mean_and_error([f.nll[method][i] for f in row.found])[0]) for i in levels),
            ]
            for row in rows
            for method in (*PAPER, BEFORE, OURS)
        ],
    )
    return "\n".join(lines)


def _plain(value: float) -> str:
    return f"{value:.4f}" if value < 1e5 else f"{value:.1e}"


def _whole(row: Row) -> list[str]:
    pairs = [[mean_and_error([f.whole[side][i] for f in row.found])[0] for side in (0, 1)] for i in range(len(SIGMAS))]
    gains = [f.whole[0][SIGMAS.index(1.0)] - f.whole[1][SIGMAS.index(1.0)] for f in row.found]
    least = min(alone - together for alone, together in pairs)
    return [
        *(f"{alone:.4f} -> {together:.4f}" for alone, together in pairs),
        signed(*mean_and_error(gains)),
        f"{least:+.4f}",
    ]


def _pooled(row: Row, grid: str) -> str:
    pairs = [f.pooled[grid] for f in row.found if grid in f.pooled]
    if not pairs:
        return ""
    alone, together = (mean_and_error([pair[side] for pair in pairs])[0] for side in (0, 1))
    gain, error = mean_and_error([a - t for a, t in pairs])
    return f"{alone:.3f} -> {together:.3f} ({signed(gain, error, 3)})"


def main() -> None:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="20 and all photos, two draws")
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"cases: {', '.join(FAMILIES)}, camvid")
    parser.add_argument("--out", type=Path, metavar="FILE.md")
    args = parser.parse_args()
    torch.set_num_threads(1)
    draws, sizes = (2, (20,)) if args.quick else (5, SIZES)
    rows = []
    for case in cases(args.only, draws):
        for count in (*sizes, case.all):
            start = time.perf_counter()
            many = case.draws_of_all if count == case.all else draws
            row = Row(case.name, count, [measure(*case.draw(count, number)) for number in range(many)])
            rows.append(row)
            margins = " ".join(f"{margin(row.found, PAPER, i)[0]:+.4f}" for i in range(len(SIGMAS)))
            fit = max(f.seconds for f in row.found)
            seconds = time.perf_counter() - start
            print(f"{case.name} {count}: {margins} (fit {fit:.1f} s, in all {seconds:.0f} s)", file=sys.stderr)
    text = report(rows)
    print(text)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")
    if not all(row.no_worse for row in rows):
        print("somewhere `joint` is worse than the best of the paper's priors", file=sys.stderr)


def cases(only: Sequence[str] | None, draws: int) -> list[Case]:
    """Those asked for; CamVid where it lies."""
    wanted = set(only or (*FAMILIES, "camvid"))
    if wanted - {*FAMILIES, "camvid"}:
        sys.exit(f"there is no case {', '.join(sorted(wanted - {*FAMILIES, 'camvid'}))}")
    found = []
    if "camvid" in wanted:
        folder = camvid_folder()
        if folder is None:
            print("CamVid is not here (set SCP_TEST_DATA): left out", file=sys.stderr)
        else:
            found += camvid_cases(folder, draws)
    return found + [synthetic_case(family, draws=draws) for family in FAMILIES if family in wanted]


if __name__ == "__main__":
    main()
