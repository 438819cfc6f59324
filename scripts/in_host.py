"""Run a script inside the host, without a server: `in_host.py COMFYUI BASE SCRIPT [ARGUMENT ...]`.

The process has the host importable, this pack loaded by the host's own loader, and torch in inference mode, as in the
host's own executor. The script's last line of output is its answer, as JSON. `run` starts such a process and returns
the answer.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __name__ != "__main__":
    from layout import BASE, HarnessError, host_python
    from setup_host import host_environment, setup_host


def run(
    script: Path,
    arguments: Sequence[str] = (),
    *,
    base: Path | None = None,
    timeout: float = 300,
    progress: bool = False,
) -> Any:
    """Run a script inside the host in a process of its own; return what it printed last, read as JSON.

    With `progress`, what it writes to its standard error is shown as it comes.

    Raises HarnessError with the end of its output when it fails.
    """
    base = base or BASE
    comfyui = setup_host(base)
    command = [str(host_python()), str(Path(__file__).resolve()), str(comfyui), str(base), str(script), *arguments]
    done = subprocess.run(
        command,
        cwd=comfyui,
        env=host_environment(),
        stdout=subprocess.PIPE,
        stderr=None if progress else subprocess.PIPE,
        encoding="utf-8",
        timeout=timeout,
    )
    if done.returncode:
        said = (done.stderr or "")[-6000:]
        raise HarnessError(f"{script} failed inside the host.\n{done.stdout[-2000:]}\n{said}")
    lines = done.stdout.strip().splitlines()
    try:
        return json.loads(lines[-1])
    except (IndexError, ValueError):
        raise HarnessError(f"{script} printed no JSON as its last line.\n{done.stdout[-2000:]}") from None


def _main(comfyui: str, base: str, script: str, *arguments: str) -> None:
    import asyncio
    import runpy

    # Out with this script's own folder, in with the host's; the pack's root must never be on the path (see setup_host).
    sys.path[0] = comfyui
    only_pack = ["--disable-all-custom-nodes", "--whitelist-custom-nodes", "scp-diff"]
    sys.argv = ["x", "--cpu", "--base-directory", base, *only_pack]
    import comfy.options

    comfy.options.enable_args_parsing()
    import torch

    import nodes

    asyncio.run(nodes.init_external_custom_nodes())
    sys.argv = [script, *arguments]
    with torch.inference_mode():
        runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    _main(*sys.argv[1:])
