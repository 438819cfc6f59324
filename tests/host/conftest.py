"""A real ComfyUI with this pack, on stand-in models: as a running server, and as a process a script can run in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import demo_model
import in_host
import pytest
from comfy_server import Server
from setup_host import make_base


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base directory of the tests' own; its name has a space, because users' names have."""
    made = make_base(tmp_path_factory.mktemp("host") / "base directory")
    demo_model.install_nodes(made)
    return made


@pytest.fixture(scope="session")
def server(base: Path) -> Iterator[Server]:
    """A running ComfyUI that must not have logged a failed import or an exception of its own by the end."""
    with Server(base, extra_nodes=[demo_model.NODES]) as running:
        yield running
        problems = running.log_problems()
    assert not problems, f"{problems}\n{running.log_text()[-8000:]}"


@pytest.fixture(scope="session")
def object_info(server: Server) -> dict[str, Any]:
    """The host's description of all its nodes."""
    return server.object_info()


@pytest.fixture(scope="session")
def inhost(base: Path) -> Callable[..., Any]:
    """Call `inhost(script, *arguments)` to run a script file inside the host and get the JSON it prints last."""

    def run(script: Path, *arguments: str, timeout: float = 300) -> Any:
        return in_host.run(Path(script), arguments, base=base, timeout=timeout)

    return run
