"""The loop every training of the demo is: draw, differentiate, step, say, save, until the plan's end."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from checkpoints import Training, generator
from progress import Progress
from shards import Part, Shards
from torch import Tensor


class Pace(NamedTuple):
    """How fast a training goes: AdamW's rate at its height, steps until there, the share of the steps it stays there
    before it falls, and how much of the weights' average each step keeps."""

    rate: float
    warm_up: int
    decay: float
    flat_share: float = 0.0

    def at(self, step: int, steps: int) -> float:
        """The rate of a step: a line up, a plateau, half a cosine down to a fiftieth."""
        fall = max(0.0, (step / steps - self.flat_share) / (1 - self.flat_share))
        return self.rate * min(1.0, (step + 1) / self.warm_up) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * fall)))


def run(
    training: Training,
    path: Path,
    pace: Pace,
    draw_parts: Callable[[torch.Generator], Sequence[Part]],
    *,
    until: int | None,
    save_every: int,
    shown: Callable[[Tensor], str],
) -> Tensor:
    """Train, or go on training, and return the losses of each step (steps, quantities).

    Args:
        path: the checkpoint to go on from and to leave.
        draw_parts: the parts of a step's batch, drawn from that step's generator.
        until: stop after this step already; None: at the plan's end.
        shown: what to say of the losses so far.
    """
    training.resume(path)
    plan = training.plan
    seed, steps = int(plan["seed"]), int(plan["steps"])
    progress = Progress(str(plan["what"]), steps, training.step)
    last = steps if until is None else min(until, steps)
    with Shards(training.network) as shards:
        while training.step < last:
            step = training.step
            training.advance(pace.at(step, steps), pace.decay, shards.backward(draw_parts(generator(seed, step))))
            progress.show(training.step, lambda: shown(training.losses))
            if training.step % save_every == 0 or training.step == last:
                training.save(path)
    return training.losses


def decibel(squared: Tensor) -> str:
    """Words for the errors of the last steps, (n,) mean squares."""
    return f"PSNR {-10 * math.log10(float(squared[-50:].mean())):.2f} dB"
