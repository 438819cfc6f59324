"""Every node of the pack as plain data: what saved graphs, translations and templates depend on.

Inside a host: `describe(schema)`. From anywhere else: `python scripts/node_schemas.py` prints {node id: description},
and `read()` returns it, from a host in a process of its own whose folders are empty.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PACK = "custom_nodes.scp-diff"
# Options that are files of the user's, or the host's own.
NOT_OURS = frozenset({"checkpoint", "files", "images_folder", "labels_folder", "scheduler", "statistics"})


def describe(schema: Any) -> dict[str, Any]:
    """Return a schema's names, texts, inputs in order and outputs in order; options only where they are the pack's."""
    return {
        "display_name": schema.display_name,
        "category": schema.category,
        "description": schema.description,
        "output_node": schema.is_output_node,
        "deprecated": schema.is_deprecated,
        "experimental": schema.is_experimental,
        "inputs": [_input(port) for port in schema.inputs],
        "outputs": [
            {"name": port.display_name or port.id, "type": port.get_io_type(), "tooltip": port.tooltip}
            for port in schema.outputs
        ],
    }


def _input(port: Any) -> dict[str, Any]:
    told = port.as_dict()
    if port.id in NOT_OURS:
        told.pop("options", None)
    known = ("display_name", "optional", "tooltip")
    return {
        "id": port.id,
        "type": str(port.get_io_type()),
        "optional": bool(port.optional),
        "tooltip": port.tooltip,
        **{name: value for name, value in told.items() if name not in known},
    }


def described(nodes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the pack's own among a host's nodes, in the order they were registered."""
    return {
        name: describe(node.GET_SCHEMA())
        for name, node in nodes.items()
        if getattr(node, "RELATIVE_PYTHON_MODULE", "") == PACK
    }


def read() -> dict[str, Any]:
    """Start a host that has nothing but the pack, and return what `described` says there.

    Raises HarnessError where the host cannot be had or fails.
    """
    import in_host
    from setup_host import make_base

    with tempfile.TemporaryDirectory() as folder:
        return in_host.run(Path(__file__), base=make_base(Path(folder) / "base"))


def _print() -> None:
    if "nodes" in sys.modules and hasattr(sys.modules["nodes"], "NODE_CLASS_MAPPINGS"):  # inside a host, by `read`
        print(json.dumps(described(sys.modules["nodes"].NODE_CLASS_MAPPINGS)))
    else:
        print(json.dumps(read(), indent=1, ensure_ascii=False))


if __name__ == "__main__":
    _print()
