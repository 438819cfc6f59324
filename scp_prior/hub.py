"""Files of one Hugging Face repository, through huggingface_hub: what there is, and getting one whole.

huggingface_hub's own downloads start over after the process ended (since its version 1.18). Here the partial file is
ours, so any later run goes on from it; the transfer itself is the library's, with its endpoint, proxies and token.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from .checksum import Expected
from .errors import SCPError

# A connection that brings nothing this often in a row is given up.
_VAIN_TRIES = 2
_PAUSE = 1.0


class UnreachableError(SCPError):
    """The hub cannot be asked: no huggingface_hub, offline on purpose, or no connection."""


class Listing(NamedTuple):
    """The repository at one commit: {path: size and hash}."""

    commit: str
    files: dict[str, Expected]


class Hub:
    """One repository on the hub that HF_ENDPOINT names, huggingface.co by default.

    Raises:
        UnreachableError: huggingface_hub is not installed.
    """

    def __init__(self, repository: str):
        try:
            import huggingface_hub
            from huggingface_hub import constants
        except ImportError as error:
            raise UnreachableError(
                "Downloading needs the Python package huggingface_hub, which ComfyUI ships: use ComfyUI's Python, or "
                "install it with: pip install huggingface_hub."
            ) from error
        try:
            from huggingface_hub.file_download import http_get
            from huggingface_hub.utils import build_hf_headers
        except ImportError as error:
            raise UnreachableError(
                f"This does not know huggingface_hub {huggingface_hub.__version__}: install another, "
                'with: pip install "huggingface_hub<3".'
            ) from error
        self._http_get, self._headers = http_get, build_hf_headers
        self.repository = repository
        self.endpoint = constants.ENDPOINT
        self._timeout = constants.HF_HUB_ETAG_TIMEOUT
        self._library = huggingface_hub

    def listing(self) -> Listing:
        """What the repository holds now.

        Raises:
            UnreachableError: no answer.
            SCPError: an answer that is an error.
        """
        with self._translated(f"the list of files of {self.repository}"):
            info = self._library.HfApi().model_info(
                self.repository, revision="main", files_metadata=True, timeout=self._timeout
            )
        return Listing(info.sha, {file.rfilename: _expected(file) for file in info.siblings or ()})

    def fetch(
        self,
        path: str,
        listing: Listing,
        target: Path,
        *,
        verified: Callable[[Path], None] | None = None,
        checking: Callable[[int, int], None] | None = None,
    ) -> None:
        """Get one file whole, going on from what an earlier run got of it.

        Until size and hash are those of the listing, what came lies beside `target` in a file that ends in `.part`.

        Args:
            path: in the repository.
            listing: of the repository; the file is that of its commit.
            target: where to put the file; its folder must be there.
            verified: called with the whole file before it takes its name.
            checking: told while the hash is computed: bytes read, bytes in all.

        Raises:
            UnreachableError: the connection failed, and trying again did not help; what came is kept.
            SCPError: an answer that is an error, another file than the listing's (removed), no space (kept), or
                another process at it.
        """
        expected = listing.files[path]
        mark = (expected.sha256 or expected.git or listing.commit)[:12]
        part = target.with_name(f"{target.name}.{mark}.part")
        with _clear_errors(target), _alone(part):
            if expected.size is not None and part.exists() and part.stat().st_size > expected.size:
                part.unlink()
            self._transfer(path, listing.commit, part, expected.size, target.name)
            problem = expected.problem(part, checking)
            if problem:
                part.unlink()
                raise SCPError(
                    f"{target.name} came damaged from {self.endpoint}: {problem}. It was removed, and nothing was "
                    "put in place. Run this again; if it happens again, try another network or HF_ENDPOINT."
                )
            _flush(part)
            if verified:
                verified(part)
            os.replace(part, target)
        for stale in target.parent.glob(f"{target.name}.*.part*"):
            # On Windows not while another process waits for its lock; it is in nobody's way.
            with contextlib.suppress(OSError):
                stale.unlink()

    def _transfer(self, path: str, commit: str, part: Path, size: int | None, shown: str) -> None:
        url = self._library.hf_hub_url(self.repository, path, revision=commit)
        # Compressed on the way, a part of the file could not be asked for.
        headers = {**self._headers(), "Accept-Encoding": "identity"}
        vain = 0
        while True:
            with part.open("ab") as file:
                before = file.tell()
                try:
                    with self._translated(path):
                        self._http_get(
                            url,
                            file,
                            resume_size=before,
                            headers=headers,
                            expected_size=size,
                            displayed_filename=shown,
                        )
                    return
                except UnreachableError as error:
                    come = file.tell()
                    if size is not None and come > size:
                        # Asked for the rest, it sent all: older versions of the library append that.
                        come = file.truncate(0)
                    vain = vain + 1 if come <= before else 0
                    if vain >= _VAIN_TRIES:
                        raise UnreachableError(f"{error} What came of it is kept: the same command goes on.") from error
            time.sleep(_PAUSE)

    @contextlib.contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        """Whatever the library raises, as one line; its exceptions changed their classes with nearly every version."""
        try:
            yield
        except Exception as error:
            if _is_of_the_disk(error):
                raise
            raise self._trouble(error, what) from error

    def _trouble(self, error: Exception, what: str) -> SCPError:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if type(error).__name__ == "OfflineModeIsEnabled":
            return UnreachableError(
                "HF_HUB_OFFLINE is set, so nothing is downloaded: unset it, or get the files by hand."
            )
        if status == 404:
            return SCPError(
                f"{self.endpoint} does not have {what} (404). Look whether {self.endpoint}/{self.repository} is still "
                "there, and for a newer version of this pack."
            )
        if status in (401, 403):
            return SCPError(
                f"{self.endpoint} refused {what} ({status}). The files are public: if you are logged in with an old "
                "token, unset HF_TOKEN or log out; if HF_ENDPOINT is a mirror, ask who runs it."
            )
        if status is not None and status < 500:
            return SCPError(f"{self.endpoint} refused {what} ({status}). Try again later.")
        lines = str(error).strip().splitlines()
        said = f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
        return UnreachableError(f"{self.endpoint} cannot be reached for {what}, or broke off ({said}).")


def _is_of_the_disk(error: Exception) -> bool:
    """Python's own error with a number; what comes from the network has a class of a library's."""
    own = type(error).__module__ == "builtins" and isinstance(error, OSError) and error.errno is not None
    return own and not isinstance(error, ConnectionError | TimeoutError)


def _expected(file: Any) -> Expected:
    lfs = file.lfs
    # An object in the newer versions of the library, a dict in the older ones.
    sha256 = lfs.get("sha256") if isinstance(lfs, dict) else getattr(lfs, "sha256", None)
    return Expected(file.size, sha256, file.blob_id if sha256 is None else None)


@contextlib.contextmanager
def _alone(part: Path) -> Iterator[None]:
    """Two processes appending to one file would spoil it; the lock ends with the process, however that ends."""
    from filelock import FileLock, Timeout

    try:
        with FileLock(f"{part}.lock", timeout=0):
            yield
    except Timeout as error:
        raise SCPError(f"Another process is downloading {part.parent} already: wait for it.") from error


@contextlib.contextmanager
def _clear_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SCPError(
            f"Cannot write {target}: {error.strerror or error}. What came is kept; the same command goes on from it."
        ) from error


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
