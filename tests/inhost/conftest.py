"""The real host in this process: its own loaders and samplers, this pack loaded as it loads any pack."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import node_schemas
import pytest
import torch
from setup_host import host_environment, setup_host
from tiny_models import write_checkpoint, write_controlnet


@pytest.fixture(scope="session")
def base(tmp_path_factory) -> Path:
    """A base directory of our own: models, input, output, custom_nodes with this pack."""
    return tmp_path_factory.mktemp("base")


@pytest.fixture(scope="session")
def host(base) -> Iterator[SimpleNamespace]:
    """The host's modules, with the pack loaded. `host.run(node_id, **inputs)` executes a node's function.

    `host.described` is what the pack's schemas say while the user's folders are empty.
    """
    comfyui = setup_host(base)
    sys.path[:0] = [str(comfyui), *filter(None, host_environment().get("PYTHONPATH", "").split(":"))]
    sys.argv = ["main.py", "--cpu", "--base-directory", str(base)]
    import comfy.options

    comfy.options.enable_args_parsing()
    import comfy.samplers
    import folder_paths

    import nodes

    write_checkpoint(base / "models" / "checkpoints" / "tiny.ckpt")
    write_controlnet(base / "models" / "controlnet" / "tiny.safetensors")
    with torch.inference_mode():
        assert asyncio.run(nodes.load_custom_node(str(base / "custom_nodes" / "scp-diff")))
        # The pack's own copy of the library, so that tests and nodes speak of the same classes.
        library = next(module for name, module in sys.modules.items() if name.endswith("scp-diff.scp_prior"))
        sys.modules["scp_prior"] = library
        yield SimpleNamespace(
            nodes=nodes.NODE_CLASS_MAPPINGS,
            folder_paths=folder_paths,
            samplers=comfy.samplers,
            library=library,
            base=base,
            described=node_schemas.described(nodes.NODE_CLASS_MAPPINGS),
            run=_run,
        )


def _run(node: type, **inputs) -> tuple:
    """What ComfyUI's executor does with a V3 node, less the server."""
    prepared = node.PREPARE_CLASS_CLONE(None)
    return prepared.EXECUTE_NORMALIZED(**inputs).args


@pytest.fixture(scope="session")
def model(host):
    """An SD2-shaped model with random weights, read by CheckpointLoaderSimple."""
    return host.nodes["CheckpointLoaderSimple"]().load_checkpoint("tiny.ckpt")[0]


class Recorder:
    """A clone of a model that keeps what its denoiser is called with, before the host scales the input.

    Attributes:
        calls: (x, sigma) of each call.
        blind: answer zeros instead of running the network, where only the input matters.
    """

    def __init__(self, model):
        self.model, self.calls, self.blind = model.clone(), [], False
        self.model.set_model_unet_function_wrapper(self._denoise)

    def _denoise(self, apply, arguments):
        x, sigma = arguments["input"], arguments["timestep"]
        self.calls.append((x.clone(), sigma.clone()))
        return torch.zeros_like(x) if self.blind else apply(x, sigma, **arguments["c"])


@pytest.fixture
def recorded(model) -> Recorder:
    """A recorder around the session's model."""
    return Recorder(model)


@pytest.fixture(scope="session")
def conditioning() -> list:
    """A prompt of zeros, as CLIPTextEncode would return one."""
    return [[torch.zeros(1, 77, 1024), {}]]
