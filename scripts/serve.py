"""`make comfy`: ComfyUI in the browser, the demo's model in place, the first workflow open.

A page opens what its address names in `?template=`, so the address printed brings the graph along.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import socket
import sys
from pathlib import Path

import demo_model
import demo_set
import graph_convert
from comfy_server import Server, end_with_host_on_sigterm, free_port
from layout import BASE, PACK_FOLDER, ROOT, HarnessError

FIRST = "minimal"


def usable_port(wanted: int) -> int:
    """Return the wanted port, or another where something else listens on it."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            return free_port()
    return wanted


def install_workflows(base: Path) -> list[Path]:
    """Copy the example workflows to where the page lists the user's own; return the copies."""
    folder = base / "user" / "default" / "workflows"
    folder.mkdir(parents=True, exist_ok=True)
    return [Path(shutil.copy2(path, folder)) for path in sorted((ROOT / "example_workflows").glob("*.json"))]


def main() -> None:
    end_with_host_on_sigterm()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8188)
    options = parser.parse_args()
    try:
        workflows = install_workflows(BASE)
        nodes = [demo_model.install_nodes(BASE)]
        with Server(BASE, port=usable_port(options.port), extra_nodes=nodes) as server:
            info = server.object_info()
            demo_model.install(BASE)
            for workflow in workflows:
                demo_set.prepare(graph_convert.load(workflow, info), BASE)
            names = ", ".join(path.stem for path in workflows)
            print(f"ComfyUI with a graph to run: {server.url}/?template={FIRST}&source={PACK_FOLDER}")
            print(f"Others under Templates, or Workflows (key w): {names}")
            print("Graphs whose files are called scp_demo draw streets with the demo's small trained model (128x256);")
            print(f"the others have stand-ins that were never trained. Log: {server.log}. Ctrl-C ends.", flush=True)
            with contextlib.suppress(KeyboardInterrupt):
                server.wait()
    except (HarnessError, graph_convert.ConvertError) as error:
        sys.exit(f"comfy: {error}")


if __name__ == "__main__":
    main()
