"""A registry with one pack, on this machine: what ComfyUI-Manager asks api.comfy.org for when it installs a pack."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit


@contextlib.contextmanager
def serve(name: str, version: str, archive: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield the address and the list of what was asked for, which grows."""
    asked: list[str] = []

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            asked.append(path)
            here = f"http://127.0.0.1:{self.server.server_port}"
            listed = {"id": name, "name": name, "latest_version": {"version": version}}
            answers = {
                "/nodes": {"nodes": [listed], "totalPages": 1},
                f"/nodes/{name}/install": {"id": "1", "version": version, "downloadUrl": f"{here}/node.zip"},
            }
            if path == "/node.zip":
                self.answer(archive.read_bytes())
            elif path in answers:
                self.answer(json.dumps(answers[path]).encode())
            else:
                self.send_error(404)

        def answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
