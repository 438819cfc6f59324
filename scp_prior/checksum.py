"""Whether a file is the one its sender has: its size, and its SHA-256 or git's own hash."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

_CHUNK = 1 << 22


class Expected(NamedTuple):
    """Size in bytes, and hash: `sha256` of a large file, `git` (the blob's SHA-1) of one kept in git itself.

    What is not known is None.
    """

    size: int | None = None
    sha256: str | None = None
    git: str | None = None

    def problem(self, path: Path, progress: Callable[[int, int], None] | None = None) -> str | None:
        """What is wrong with the file, in words; None where it is as expected.

        Args:
            path: the file.
            progress: told after each piece: bytes read, bytes in all.

        Raises:
            OSError: it cannot be read.
        """
        size = path.stat().st_size
        if self.size is not None and size != self.size:
            return f"it has {size} bytes and should have {self.size}"
        name, hasher, wanted = self._hasher(size)
        if wanted is None:
            return None
        done = 0
        with path.open("rb") as file:
            while piece := file.read(_CHUNK):
                hasher.update(piece)
                done += len(piece)
                if progress:
                    progress(done, size)
        came = hasher.hexdigest()
        return None if came == wanted else f"its {name} is {came} and should be {wanted}"

    def _hasher(self, size: int):
        if self.sha256 is not None or self.git is None:
            return "sha256", hashlib.sha256(), self.sha256
        # How git names a blob. Against errors on the way, not against an attacker.
        return "git hash", hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False), self.git
