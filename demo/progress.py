"""Says now and then how far a long run is."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable


class Progress:
    """Prints a line at most every few seconds: how far, how fast, how long still, and what the caller adds."""

    def __init__(self, name: str, total: int, done: int, every: float = 10.0):
        self._name, self._total, self._every = name, total, every
        self._first, self._started = done, time.monotonic()
        self._shown = self._started

    def show(self, done: int, more: Callable[[], str] = str) -> None:
        """Say that `done` of the total are done, when it is time to, and at the end; `more` is asked only then."""
        now = time.monotonic()
        if now - self._shown < self._every and done < self._total:
            return
        self._shown = now
        speed = (done - self._first) / max(now - self._started, 1e-6)
        left = (self._total - done) / max(speed, 1e-6)
        line = f"{self._name}: {done}/{self._total}, {speed:.2f}/s, {left / 60:.1f} min left {more()}"
        sys.stderr.write(f"{line.rstrip()}\n")
        sys.stderr.flush()
