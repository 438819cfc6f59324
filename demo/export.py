"""Write what was trained as the files the host's loaders read: fp16 safetensors that say how they were made.

    python demo/export.py [--work DIR] [--weights DIR]

`train.py` does this at its end; alone it only reads the checkpoints of a finished training. The U-Net loads with
CheckpointLoaderSimple and UNETLoader, the ControlNet with ControlNetLoader, the autoencoder with VAELoader.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
import train_decoder
import train_unet
import train_vae
from checkpoints import load_average, write_safetensors
from demo_data import Scenes
from host_classes import SHAPE
from scenes import CLASSES, HEIGHT, WIDTH
from tiny_vae import WIDTHS, widen
from torch import Tensor

DEMO = Path(__file__).resolve().parent
WEIGHTS = DEMO / "weights"
WORK = DEMO.parent / ".host" / "demo-train"
UNET, CONTROLNET, VAE = "scp-demo.safetensors", "scp-demo-controlnet.safetensors", "scp-demo-vae.safetensors"
LOSSES = "losses.json"
SUMS = "SHA256SUMS"
_WINDOWS = 20
_FIRST = 5


def loss_statistics(losses: Tensor, names: tuple[str, ...]) -> dict[str, object]:
    """Return the first losses of a training, the mean over each twentieth of it, and over the last twentieth alone."""
    windows = [part.mean(0).tolist() for part in losses.chunk(min(_WINDOWS, len(losses)))]
    columns = {name: [round(window[k], 6) for window in windows] for k, name in enumerate(names)}
    first = {name: [round(value, 6) for value in losses[:_FIRST, k].tolist()] for k, name in enumerate(names)}
    last = {name: column[-1] for name, column in columns.items()}
    return {"steps": len(losses), "first": first, "means": columns, "last": last}


def commit() -> str:
    """Return the commit the code is at, with "+changes" where demo/ differs from it; "unknown" outside git."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=DEMO, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "*.py")
        return git("rev-parse", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def write_sums(folder: Path) -> None:
    """Write the SHA-256 of every safetensors file of a folder, as `sha256sum -c` reads them."""
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
        for path in sorted(folder.glob("*.safetensors"))
    ]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def _half(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.to(torch.float16).contiguous() for name, tensor in weights.items()}


def export(work: Path, weights: Path = WEIGHTS) -> dict[str, object]:
    """Write the three files, `losses.json` and the sums; return what `losses.json` holds.

    Raises:
        SCPError: the training in `work` is not finished, or a file cannot be written.
    """
    weights.mkdir(parents=True, exist_ok=True)
    _, vae_plan, vae_losses = load_average(work / train_vae.CHECKPOINT)
    _, decoder_plan, decoder_losses = load_average(work / train_decoder.CHECKPOINT)
    vae = train_decoder.load_polished(work).state_dict()
    networks, unet_plan, unet_losses = load_average(work / train_unet.CHECKPOINT)
    measured = _measure(work)
    losses = {
        "vae": loss_statistics(vae_losses, train_vae.QUANTITIES),
        "decoder": loss_statistics(decoder_losses, train_decoder.QUANTITIES) | {"psnr_unseen": measured["psnr"]},
        "unet": loss_statistics(unet_losses, train_unet.QUANTITIES) | {"error_unseen": measured["error"]},
        "torch": torch.__version__,
    }
    common = {
        "format": "pt",
        "commit": commit(),
        "data": f"{unet_plan['scenes']} procedural street scenes of demo/scenes.py, {HEIGHT}x{WIDTH}, seed "
        f"{unet_plan['seed']}, classes (Cityscapes train ids) {','.join(map(str, CLASSES))}; no photo involved",
        "license": "Apache-2.0",
        "made_by": "demo/train.py",
        "torch": torch.__version__,
    }
    about = {
        "vae": {
            "recipe": json.dumps(vae_plan | {"widths": WIDTHS, "decoder": decoder_plan}),
            "losses": json.dumps({"vae": losses["vae"], "decoder": losses["decoder"]}),
        },
        "unet": {"recipe": json.dumps(unet_plan | {"shape": SHAPE}), "losses": json.dumps(losses["unet"])},
    }
    unet = {f"model.diffusion_model.{name}": tensor for name, tensor in _of(networks, "unet.").items()}
    write_safetensors(weights / VAE, _half(widen(vae)), common | about["vae"])
    write_safetensors(weights / UNET, _half(unet), common | about["unet"])
    write_safetensors(weights / CONTROLNET, _half(_of(networks, "controlnet.")), common | about["unet"])
    add_losses(weights, losses)
    write_sums(weights)
    return losses


def add_losses(weights: Path, more: Mapping[str, object]) -> None:
    """Put how a training went into the folder's `losses.json`, beside what it says of others."""
    path = weights / LOSSES
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps({**known, **more}, indent=1) + "\n", encoding="utf-8")


def _of(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}


def _measure(work: Path) -> dict[str, float]:
    """Measure both on scenes they were not trained on."""
    scenes = Scenes(work / "check-scenes")
    vae = train_decoder.load_polished(work)
    latents = train_vae.encode_scenes(vae, scenes)
    error = train_unet.error(train_unet.load(work), scenes, latents, range(min(200, scenes.count)))
    return {"psnr": round(train_vae.psnr(vae, scenes), 3), "error": round(error, 5)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=WORK, help="where the training's checkpoints are")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="where to write")
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    sys.stdout.write(json.dumps(export(chosen.work, chosen.weights), indent=1) + "\n")
