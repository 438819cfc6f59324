"""The released files as they came, in a folder no loader lists, and which of them this pack put there itself."""

from __future__ import annotations

import json
from pathlib import Path

from .errors import SCPError


class Original:
    """One file as released. A note beside it tells a file downloaded and verified here from one put there by hand."""

    def __init__(self, path: Path):
        self.path = path
        self._note = path.with_name(f"{path.name}.downloaded.json")

    @property
    def there(self) -> bool:
        """Whether there is such a file, whoever put it there."""
        return self.path.is_file()

    @property
    def downloaded(self) -> bool:
        """Whether the file is the one downloaded here, unchanged since."""
        return self._noted() is not None

    @property
    def kept(self) -> bool:
        """Whether the file is to stay unless removing is asked for: wished for once, or put there by hand."""
        noted = self._noted()
        return noted is None or noted.get("keep") is True

    def note(self, whole: Path, commit: str, *, keep: bool) -> None:
        """Remember that `whole`, about to take this file's name, was downloaded and verified."""
        self._write({"commit": commit, "is": _identity(whole), "keep": keep})

    def keep(self) -> None:
        """Remember the wish that it stays."""
        noted = self._noted()
        if noted is not None:
            self._write({**noted, "keep": True})

    def remove(self) -> None:
        """Remove the file and its note.

        Raises:
            SCPError: it cannot be removed.
        """
        try:
            self.path.unlink()
            self._note.unlink(missing_ok=True)
        except OSError as error:
            raise SCPError(f"Cannot remove {self.path}: {error.strerror or error}.") from error

    def _noted(self) -> dict | None:
        try:
            noted = json.loads(self._note.read_text(encoding="utf-8"))
            return noted if noted["is"] == _identity(self.path) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _write(self, noted: dict) -> None:
        try:
            self._note.write_text(json.dumps(noted), encoding="utf-8")
        except OSError as error:
            raise SCPError(f"Cannot write {self._note}: {error.strerror or error}.") from error


def _identity(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]
