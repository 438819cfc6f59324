"""The demo's trained model under the names that the example workflows look for: `scp_demo_*`.

The repository keeps U-Net, ControlNet, autoencoder and statistics apart, each once. A workflow loads a checkpoint of
U-Net, autoencoder and text encoder together, as users' own models come; it is put together here.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from layout import ROOT

DEMO = ROOT / "demo"
WEIGHTS = DEMO / "weights"
MAPS = DEMO / "maps"
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


def _replaced(target: Path, write: Callable[[Path], None]) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    return target


def install_model(base: Path, name: str) -> Path:
    """Write one of FILES into a base directory's model folder; return its path."""
    folder, write = FILES[name]
    return _replaced(base / "models" / folder / name, write)


def install_nodes(base: Path) -> str:
    """Put the demo's custom nodes beside the pack; return the folder's name, for `Server(extra_nodes=...)`."""
    target = base / "custom_nodes" / NODES
    if not target.is_symlink() and not target.exists():
        try:
            target.symlink_to(DEMO / "host_nodes", target_is_directory=True)
        except OSError:
            shutil.copytree(DEMO / "host_nodes", target)  # Windows without developer mode
    return NODES


def map_of(name: str) -> Path | None:
    """The demo's label map that an input picture of this name is, or None."""
    source = MAPS / {"scp_demo_labels.png": "street-1.png"}.get(name, name.removeprefix("scp_demo_"))
    return source if name.startswith("scp_demo_") and source.parent == MAPS and source.is_file() else None


def install_map(base: Path, name: str) -> bool:
    """Put a label map into the input folder if the demo has one of that name; return whether it has."""
    source = map_of(name)
    if source is not None:
        _replaced(base / "input" / name, partial(_copy, source))
    return source is not None


def install(base: Path) -> None:
    """Put everything there: models, and all maps."""
    for name in FILES:
        install_model(base, name)
    for path in MAPS.glob("*.png"):
        install_map(base, f"scp_demo_{path.name}")
    install_map(base, "scp_demo_labels.png")
