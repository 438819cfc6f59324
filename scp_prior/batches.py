"""Batches of different lengths that belong together."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .errors import SCPError


def dealt_out(part: Tensor, total: int) -> Tensor:
    """A batch for `total` items, item i being item i mod B of it: how the host spreads hints and masks over latents.

    `total` must be a multiple of B.
    """
    return part if len(part) == total else part.repeat(total // len(part), *[1] * (part.ndim - 1))


def common_batch(**counts: int) -> int:
    """The largest of some numbers of items, which all others must divide.

    Raises:
        SCPError: one does not.
    """
    total = max(counts.values())
    if any(total % count for count in counts.values()):
        listed = ", ".join(f"{count} {what}" for what, count in counts.items())
        raise SCPError(
            f"These do not go together: {listed}. The largest number, {total}, must be a multiple of the others; or "
            "wire one of each."
        )
    return total


def repeated_index(index: Sequence[int], times: int) -> list[int]:
    """The batch index of a batch repeated so many times, every item with a number of its own, as the host does it."""
    offset = max(index) - min(index) + 1
    return [item + turn * offset for turn in range(times) for item in index]
