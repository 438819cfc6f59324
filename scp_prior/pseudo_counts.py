"""How far a cell of the joint statistics is believed: the numbers a file carries, and what they do to a variance."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from .errors import SCPError

# More pseudo-counts than photos there could be are all the same: the target. Beyond, float32 would overflow.
MOST_PSEUDO_COUNT = 1e9
_INFLATION = (0.01, 100.0)


class Shrinkage(NamedTuple):
    """How cells are drawn toward their target.

    mean, variance: pseudo-counts, in photos. inflation: what variances are multiplied with, so that held-out photos are
    as surprising as they should be. steps: the pseudo-counts the target was made with, for whoever wants to know.
    """

    mean: float
    variance: float
    inflation: float
    steps: Mapping[str, Mapping[str, float]]

    def to_json(self) -> str:
        """As written in the file's metadata."""
        return json.dumps(
            {
                "mean": self.mean,
                "variance": self.variance,
                "inflation": self.inflation,
                "steps": {part: dict(steps) for part, steps in self.steps.items()},
            }
        )

    @classmethod
    def from_json(cls, text: str, name: str) -> Shrinkage:
        """Read the metadata's spelling.

        Raises:
            SCPError: it is not of that form, a number is negative or not finite, or the inflation is absurd.
        """
        try:
            found = json.loads(text)
            numbers = [float(found[key]) for key in ("mean", "variance", "inflation")]
            steps = {str(part): {str(k): float(v) for k, v in s.items()} for part, s in found.get("steps", {}).items()}
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise SCPError(f"{name}: its shrinkage metadata cannot be read. Make the file again.") from error
        low, high = _INFLATION
        if not all(math.isfinite(number) and number >= 0 for number in numbers) or not low <= numbers[2] <= high:
            raise SCPError(
                f"{name}: its shrinkage metadata holds mean, variance and inflation {numbers}; expected finite "
                f"numbers, 0 or more, and an inflation within {low:g} and {high:g}. Make the file again."
            )
        return cls(*numbers, steps)


def held_out_correction(count: Tensor, pseudo_count: float) -> Tensor:
    """What squared residuals about a shrunk mean grow by when the photo itself is left out of that mean.

    With m = (S + a t) / (n + a), the residual of a photo about the mean made without it is (n + a) / (n + a - 1) times
    its residual about m.
    """
    return ((count + pseudo_count) / (count + pseudo_count - 1).clamp_min(0.5)) ** 2
