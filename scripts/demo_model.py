"""The demo's trained model under the names that the example workflows look for: `scp_demo_*`.

The repository keeps U-Net, ControlNet, autoencoder and statistics apart, each once. A workflow loads a checkpoint of
U-Net, autoencoder and text encoder together, as users' own models come; it is put together here.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import demo_inputs
from demo_inputs import DEMO
from layout import replacing

WEIGHTS = DEMO / "weights"
NODES = "scp-demo-model"
"""The folder of custom nodes that lets the host's loaders read the model (demo/host_nodes)."""


def write_checkpoint(target: Path) -> None:
    """Write U-Net, autoencoder and the one prompt as one checkpoint."""
    import torch
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    unet = WEIGHTS / "scp-demo.safetensors"
    with safe_open(unet, framework="pt") as file:
        metadata = file.metadata()
    vae = load_file(WEIGHTS / "scp-demo-vae.safetensors")
    weights = load_file(unet) | {f"first_stage_model.{name}": tensor for name, tensor in vae.items()}
    weights["cond_stage_model.context"] = torch.zeros(1, 1, 32)
    save_file(weights, target, metadata)


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)


FILES: dict[str, tuple[str, Callable[[Path], None]]] = {
    "scp_demo_checkpoint.safetensors": ("checkpoints", write_checkpoint),
    "scp_demo_controlnet.safetensors": ("controlnet", partial(_copy, WEIGHTS / "scp-demo-controlnet.safetensors")),
    "scp_demo.safetensors": ("scp_statistics", partial(_copy, WEIGHTS / "scp-demo-statistics.safetensors")),
}
"""Name in the workflows -> model folder, and what writes the file."""


def install_model(base: Path, name: str) -> Path:
    """Write one of FILES into a base directory's model folder; return its path."""
    folder, write = FILES[name]
    target = base / "models" / folder / name
    with replacing(target) as temporary:
        write(temporary)
    return target


def install_nodes(base: Path) -> str:
    """Put the demo's custom nodes beside the pack; return the folder's name, for `Server(extra_nodes=...)`."""
    target = base / "custom_nodes" / NODES
    if not target.is_symlink() and not target.exists():
        try:
            target.symlink_to(DEMO / "host_nodes", target_is_directory=True)
        except OSError:
            shutil.copytree(DEMO / "host_nodes", target)  # Windows without developer mode
    return NODES


def install(base: Path) -> None:
    """Put everything there: models, and all pictures."""
    for name in FILES:
        install_model(base, name)
    for name in demo_inputs.PICTURES:
        demo_inputs.install_picture(base, name)
