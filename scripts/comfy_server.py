"""Run a real ComfyUI as a process of its own and talk to it over its HTTP API. Standard library only."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from layout import BASE, PACK_FOLDER, HarnessError, host_python
from setup_host import host_environment, setup_host

# No proxy: the server is on this machine.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class PromptRejected(HarnessError):
    """The host refused a prompt (HTTP 400); `node_errors` is what it said about each node."""

    def __init__(self, error: Any, node_errors: Mapping[str, Any]) -> None:
        self.error, self.node_errors = error, dict(node_errors)
        details = [
            f"node {node} ({found.get('class_type')}): {one.get('message')}: {one.get('details')}"
            for node, found in self.node_errors.items()
            for one in found.get("errors", [])
        ]
        super().__init__("\n".join([str(error), *details]))


class ExecutionFailed(HarnessError):
    """A node raised while the prompt ran; `node_id`, `node_type` and the node's own `reason` say which and why."""

    def __init__(self, details: Mapping[str, Any]) -> None:
        self.details = dict(details)
        self.node_id, self.node_type = details.get("node_id"), details.get("node_type")
        self.reason = str(details.get("exception_message", details)).strip()
        super().__init__(f"node {self.node_id} ({self.node_type}): {self.reason}")


def free_port() -> int:
    """Return a TCP port that is free on the loopback interface at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


_OWN_NODES = re.compile(
    r"^Traceback(?:(?!^Traceback).)*?^Cannot import [^\n]*comfy_(?:extras|api_nodes)[/\\][^\n]*$",
    re.DOTALL | re.MULTILINE,
)


def log_problems(log: str) -> list[str]:
    """Return the lines of a host's log that tell of a failed pack or an exception (see Server.log_problems)."""
    problems, reported = [], False
    for line in _OWN_NODES.sub("", log).splitlines():
        reported = reported or "Exception during processing" in line
        if "(IMPORT FAILED)" in line or "Error while calling comfy_entrypoint" in line:
            problems.append(line)
        elif "Traceback" in line:
            if not reported:
                problems.append(line)
            reported = False
    return problems


def end_with_host_on_sigterm() -> None:
    """Make a terminated script leave its `with Server()`, so that no host outlives it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


class Server:
    """A ComfyUI with this pack and no other; use it as a context manager.

    `base` is the base directory (setup_host.make_base), `extra_nodes` names more folders of its custom_nodes to load,
    `log` is where the host's output goes (default: base/server.log).
    """

    def __init__(
        self,
        base: Path = BASE,
        *,
        port: int | None = None,
        extra_nodes: Sequence[str] = (),
        extra_arguments: Sequence[str] = (),
        log: Path | None = None,
        boot_timeout: float = 180.0,
    ) -> None:
        self.base = Path(base)
        self.port = port or free_port()
        self.log = log or self.base / "server.log"
        self.boot_seconds = 0.0
        self._extra_nodes, self._extra_arguments = list(extra_nodes), list(extra_arguments)
        self._boot_timeout = boot_timeout
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def command(self, comfyui: Path) -> list[str]:
        """Return the command line that starts the host."""
        named = ["--whitelist-custom-nodes", PACK_FOLDER, *self._extra_nodes]
        database = f"sqlite:///{(self.base / 'user' / 'comfyui.db').as_posix()}"
        arguments = ["--cpu", "--listen", "127.0.0.1", "--port", str(self.port), "--base-directory", str(self.base)]
        arguments += ["--database-url", database, "--disable-auto-launch", "--disable-all-custom-nodes", *named]
        return [str(host_python()), str(comfyui / "main.py"), *arguments, *self._extra_arguments]

    def start(self) -> None:
        """Start the host and wait until it answers. Raises HarnessError with the end of its log when it does not."""
        comfyui = setup_host(self.base)
        started = time.monotonic()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as sink:
            self._process = subprocess.Popen(
                self.command(comfyui), cwd=comfyui, env=host_environment(), stdout=sink, stderr=subprocess.STDOUT
            )
        try:
            self._wait_until_up(started)
        except BaseException:
            self.stop()
            raise
        self.boot_seconds = time.monotonic() - started

    def _wait_until_up(self, started: float) -> None:
        while time.monotonic() - started < self._boot_timeout:
            self._check_alive()
            with contextlib.suppress(OSError, urllib.error.URLError):
                self.get("/system_stats", timeout=5)
                return
            time.sleep(0.1)
        raise HarnessError(f"ComfyUI did not answer within {self._boot_timeout:.0f} s.\n{self._log_tail()}")

    def _check_alive(self) -> None:
        if self._process is None or self._process.poll() is not None:
            code = self._process.returncode if self._process else None
            raise HarnessError(f"ComfyUI is not running (exit code {code}).\n{self._log_tail()}")

    def stop(self) -> None:
        """Stop the host, politely at first."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(15)

    def wait(self) -> int:
        """Wait until the host ends by itself, and return its exit code."""
        return self._process.wait() if self._process else 0

    def log_text(self) -> str:
        """Return what the host has logged so far."""
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""

    def log_problems(self) -> list[str]:
        """Return the log's lines that tell of a pack that failed to import or of an exception.

        Not among them: a node that raised, which `run` has reported, and nodes of the host's own that want packages we
        do without.
        """
        return log_problems(self.log_text())

    def _log_tail(self, lines: int = 30) -> str:
        return "\n".join(self.log_text().splitlines()[-lines:])

    def _request(self, path: str, body: bytes | None, kind: str, timeout: float) -> bytes:
        request = urllib.request.Request(self.url + path, data=body, headers={"Content-Type": kind} if body else {})
        with _OPENER.open(request, timeout=timeout) as answer:
            return answer.read()

    def get(self, path: str, timeout: float = 60) -> Any:
        """Return the JSON the host gives for a path."""
        return json.loads(self._request(path, None, "", timeout))

    def object_info(self) -> dict[str, Any]:
        """Return the host's description of every node it has."""
        return self.get("/object_info")

    def post(self, prompt: Mapping[str, Any], extra_data: Mapping[str, Any] | None = None) -> str:
        """Queue an API prompt and return its id.

        Raises PromptRejected when the host refuses the prompt, and also when it would only drop some of its outputs.
        """
        body = {"prompt": prompt, "client_id": uuid.uuid4().hex, "extra_data": dict(extra_data or {})}
        try:
            answer = json.loads(self._request("/prompt", json.dumps(body).encode(), "application/json", 60))
        except urllib.error.HTTPError as refused:
            text = refused.read().decode(errors="replace")
            try:
                said = json.loads(text)
            except ValueError:
                raise HarnessError(f"HTTP {refused.code}: {text[:2000]}") from None
            error = said.get("error", said)
            message = error.get("message", error) if isinstance(error, dict) else error
            raise PromptRejected(message, said.get("node_errors") or {}) from None
        if answer.get("node_errors"):
            self.interrupt()
            raise PromptRejected("Some outputs failed validation", answer["node_errors"])
        return answer["prompt_id"]

    def interrupt(self) -> None:
        """Empty the queue and stop what runs."""
        self._request("/queue", b'{"clear": true}', "application/json", 10)
        self._request("/interrupt", b"{}", "application/json", 10)

    def history(self, prompt_id: str, timeout: float = 600) -> dict[str, Any]:
        """Wait for a queued prompt and return its history entry.

        Raises ExecutionFailed when a node raised, HarnessError when the host died or the time is over.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            entry = self.get(f"/history/{prompt_id}").get(prompt_id)
            if entry is not None:
                for kind, details in entry.get("status", {}).get("messages", []):
                    if kind in ("execution_error", "execution_interrupted"):
                        raise ExecutionFailed(details)
                return entry
            self._check_alive()
            time.sleep(0.05)
        self.interrupt()
        raise HarnessError(f"the prompt took longer than {timeout:.0f} s.\n{self._log_tail()}")

    def run(self, prompt: Mapping[str, Any], timeout: float = 600) -> dict[str, Any]:
        """Run an API prompt to its end and return its outputs: {node id: {"images": [{filename, subfolder, type}]}}."""
        return self.history(self.post(prompt), timeout)["outputs"]

    def upload_image(self, path: Path, name: str | None = None) -> str:
        """Put a picture into the host's input folder through the API; return the name LoadImage knows it by."""
        boundary = uuid.uuid4().hex
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="overwrite"\r\n\r\ntrue\r\n--{boundary}\r\n'
        head += f'Content-Disposition: form-data; name="image"; filename="{name or Path(path).name}"\r\n'
        head += "Content-Type: application/octet-stream\r\n\r\n"
        body = head.encode() + Path(path).read_bytes() + f"\r\n--{boundary}--\r\n".encode()
        answer = json.loads(self._request("/upload/image", body, f"multipart/form-data; boundary={boundary}", 60))
        return "/".join(part for part in (answer["subfolder"], answer["name"]) if part)

    def view(self, filename: str, subfolder: str = "", type: str = "output") -> bytes:
        """Return the bytes of a picture the host made (the three keys of an output's "images" entry)."""
        query = urllib.parse.urlencode({"filename": filename, "subfolder": subfolder, "type": type})
        return self._request(f"/view?{query}", None, "", 60)

    def pictures(self, outputs: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
        """Yield (node id, PNG bytes) of every picture in what `run` returned."""
        for node, output in outputs.items():
            for image in output.get("images", []):
                if isinstance(image, dict) and "filename" in image:
                    yield node, self.view(image["filename"], image.get("subfolder", ""), image.get("type", "output"))
