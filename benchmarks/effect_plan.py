"""What the effect benchmark draws: which starts, from which timestep, in how many steps, with which seeds."""

from __future__ import annotations

from typing import NamedTuple

TIMESTEP, STEPS = 799, 20
CFG = 3.0
"""The demo model's own, with the ControlNet on the positive side."""


class Start(NamedTuple):
    """A start. method: of SCPPriorLatent, or one of the three below that are none of its. words: for the table."""

    name: str
    method: str
    scene_variation: float
    words: str


NOISE, EVERYWHERE, ITSELF = "noise", "everywhere", "itself"

STARTS = {
    start.name: start
    for start in (
        Start("normal", NOISE, 0.0, "pure noise, at the schedule's top"),
        Start("global", EVERYWHERE, 0.0, "one mean and spread per channel, no labels, no positions"),
        Start("class", "class", 0.0, "the paper's class prior"),
        Start("spatial", "spatial", 0.0, "the paper's spatial prior"),
        Start("joint-spatial", "joint-spatial", 0.0, "the paper's joint prior"),
        Start("joint, cells apart", "joint", 0.0, "ours with `scene_variation` 0"),
        Start("joint", "joint", 1.0, "ours, the default"),
        Start("oracle", ITSELF, 0.0, "the latent of a scene with exactly this map: no prior can know more"),
    )
}
MAIN = ("class", "joint-spatial", "joint")
"""The priors that the single factors are varied for, besides `normal`."""


class Run(NamedTuple):
    """One way to draw all maps. timestep: None for pure noise."""

    start: str
    timestep: int | None
    steps: int
    seed: int

    @property
    def name(self) -> str:
        """Of its file."""
        where = "top" if self.timestep is None else str(self.timestep)
        return f"{self.start.replace(', ', '-').replace(' ', '-')}-t{where}-n{self.steps}-s{self.seed}"

    def as_group(self) -> tuple[str, int | None, int]:
        """What it shares with runs of other seeds."""
        return self.start, self.timestep, self.steps


def _run(start: str, timestep: int, steps: int, seed: int) -> Run:
    return Run(start, None if start == "normal" else timestep, steps, seed)


def plan(seeds: int = 3, fewer_seeds: int = 2) -> list[Run]:
    """All runs, in the order they are drawn: the main comparison, then one factor at a time."""
    runs = [_run(start, TIMESTEP, STEPS, seed) for seed in range(seeds) for start in STARTS]
    for seed in range(fewer_seeds):
        runs += [_run(start, timestep, STEPS, seed) for timestep in (899, 699) for start in MAIN]
        runs += [_run(start, TIMESTEP, steps, seed) for steps in (10, 5) for start in ("normal", *MAIN)]
    return runs
