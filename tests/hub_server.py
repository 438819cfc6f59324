"""A hub on loopback: as much of huggingface.co's protocol as huggingface_hub asks for, and ways to misbehave.

Large files answer as on the hub: `resolve` redirects to another address, which knows Range; small ones are answered at
once, with git's hash for an ETag.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

REPOSITORY = "c7w/SCP-Diff"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
SMALL = 2000
PATIENCE = 60


class Request(NamedTuple):
    method: str
    path: str
    first: int
    """The first byte asked for."""


class HubServer:
    """Serves `files`, {path in the repository: content}; what misbehaves is set on it from outside.

    Args:
        drop: {path: sizes}: close the connection after so many bytes of the body, once for each size.
        altered: {path: content} sent in place of what the listing says.
        status: {path: code} to answer with; the listing's path is "".
        hold: {path: size}: send so many bytes, then wait for `go`; `held` tells that it waits.
        ranges: whether Range is heeded.
    """

    def __init__(self, files: Mapping[str, bytes]):
        self.files = dict(files)
        self.requests: list[Request] = []
        self.drop: dict[str, list[int]] = {}
        self.altered: dict[str, bytes] = {}
        self.status: dict[str, int] = {}
        self.hold: dict[str, int] = {}
        self.held, self.go = threading.Event(), threading.Event()
        self.ranges = True
        self._server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def bodies(self, path: str) -> list[int]:
        """The first byte of each time a file's content was asked for."""
        return [request.first for request in self.requests if request.method == "GET" and request.path == path]

    @contextlib.contextmanager
    def running(self) -> Iterator[HubServer]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.go.set()
            self._server.shutdown()
            self._server.server_close()
            thread.join(PATIENCE)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Whoever asked is gone: the tests end their processes in the middle."""


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"
    # Or every body would wait for the headers to be acknowledged.
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path == f"/api/models/{REPOSITORY}/revision/main":
            self._listing()
        elif found := re.fullmatch(rf"/{REPOSITORY}/resolve/(?:main|{COMMIT})/(.+)", path):
            self._resolve(found[1])
        elif found := re.fullmatch(r"/large/(.+)", path):
            self._content(found[1])
        else:
            self._send(404, b"", {})

    def _listing(self) -> None:
        self.hub.requests.append(Request(self.command, "", 0))
        if "" in self.hub.status:
            self._send(self.hub.status[""], b"", {})
            return
        # Sizes and hashes are only told when asked for.
        told = "blobs" in parse_qs(urlsplit(self.path).query)
        siblings = [
            _sibling(path, content) if told else {"rfilename": path} for path, content in self.hub.files.items()
        ]
        info = {"id": REPOSITORY, "modelId": REPOSITORY, "sha": COMMIT, "private": False, "tags": [], "downloads": 1}
        body = json.dumps({**info, "siblings": siblings}).encode()
        self._send(200, body, {"Content-Type": "application/json"})

    def _resolve(self, path: str) -> None:
        content = self.hub.files.get(path)
        if path in self.hub.status or content is None:
            self.hub.requests.append(Request(self.command, path, 0))
            status = self.hub.status.get(path, 404)
            self._send(status, b"", {"X-Error-Code": "EntryNotFound"} if status == 404 else {})
        elif len(content) < SMALL:
            self._content(path)
        else:
            linked = {"X-Linked-Size": str(len(content)), "X-Linked-Etag": f'"{_sha256(content)}"'}
            self._send(302, b"", {"Location": f"{self.hub.endpoint}/large/{path}", "X-Repo-Commit": COMMIT, **linked})

    def _content(self, path: str) -> None:
        hub, content = self.hub, self.hub.altered.get(path, self.hub.files[path])
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        first = int(asked[1]) if asked and hub.ranges else 0
        hub.requests.append(Request(self.command, path, first))
        headers = {"ETag": f'"{_git(content)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if first:
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        body = content[first:]
        self._send(206 if first else 200, body, headers, self._cut(path, len(body)))

    def _cut(self, path: str, size: int) -> int:
        drops = self.hub.drop.get(path) if self.command == "GET" else None
        return min(drops.pop(0), size) if drops else size

    def _send(self, status: int, body: bytes, headers: Mapping[str, str], cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        sent = body if cut is None else body[:cut]
        with contextlib.suppress(ConnectionError):
            hold = self.hub.hold.get(unquote(self.path).removeprefix("/large/")) if cut is not None else None
            if hold is not None:
                self.wfile.write(sent[:hold])
                self.wfile.flush()
                self.hub.held.set()
                self.hub.go.wait(PATIENCE)
                sent = sent[hold:]
            self.wfile.write(sent)
        if cut is not None and cut < len(body):
            self.close_connection = True


def _sibling(path: str, content: bytes) -> dict:
    entry = {"rfilename": path, "size": len(content), "blobId": _git(content)}
    if len(content) >= SMALL:
        entry["lfs"] = {"sha256": _sha256(content), "size": len(content), "pointerSize": 134}
    return entry


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _git(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
