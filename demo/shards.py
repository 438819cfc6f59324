"""One step's gradient from parts of its batch, each worked out by a thread of its own.

A batch is always cut into the same number of parts, and every part is computed by a single thread, so that the result
does not hang on how many cores there are. Parts wait for each other once a step, not once an operation as torch's own
threads do, which on a machine that is busy otherwise is several times faster.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn

SHARDS = 2
Part = Callable[[], tuple[Tensor, tuple[float, ...]]]


class Shards:
    """Threads that compute gradients; a context manager, within which torch uses one thread of its own."""

    def __init__(self, network: nn.Module):
        self._parameters = list(network.parameters())
        self._pool = ThreadPoolExecutor(SHARDS)
        self._threads = torch.get_num_threads()

    def __enter__(self) -> Shards:
        torch.set_num_threads(1)
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown()
        torch.set_num_threads(self._threads)

    def backward(self, parts: Sequence[Part]) -> list[float]:
        """Set every parameter's gradient to the mean over the parts' losses; return the mean of what they report.

        Args:
            parts: each returns its loss and what it reports.
        """
        done = list(self._pool.map(self._gradients, parts))
        for parameter, *gradients in zip(self._parameters, *(part[0] for part in done), strict=True):
            parameter.grad = sum(gradients[1:], gradients[0]) / len(gradients)
        reports = zip(*(part[1] for part in done), strict=True)
        return [sum(values) / len(values) for values in reports]

    def _gradients(self, part: Part) -> tuple[tuple[Tensor, ...], tuple[float, ...]]:
        loss, report = part()
        return torch.autograd.grad(loss, self._parameters), report
