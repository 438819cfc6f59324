"""Train the demo's model from nothing, and make everything that goes with it.

Scenes, autoencoder, latents, U-Net and ControlNet, the decoder once more, export, statistics, and the segmenter that
judges what comes out:

    make demo-train            or            python demo/train.py [--steps N] [--work DIR] [--weights DIR]

Interrupt it when you like; the same command goes on where it was, and ends at the same weights as if it had never
stopped. The committed weights were made with the defaults.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
import train_decoder
import train_segmenter
import train_unet
import train_vae
from checkpoints import SCPError, write_safetensors
from demo_data import Scenes, make_scenes
from export import VAE, WEIGHTS, WORK, add_losses, export, write_sums
from make_statistics import COUNT, STATISTICS, make_statistics
from safetensors import safe_open
from torch import Tensor

SCENES, CHECKS = 8000, 500
_LATENTS = "latents.safetensors"


def _latents(work: Path, scenes: Scenes) -> Tensor:
    """Return the latents of all scenes, from `work` when they are there already and of this autoencoder."""
    plan, path = str(train_vae.load_average(work / train_vae.CHECKPOINT)[1]), work / _LATENTS
    if path.exists():
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get("vae") == plan:
                return file.get_tensor("latents")
    latents = train_vae.encode_scenes(train_vae.load(work), scenes)
    write_safetensors(path, {"latents": latents}, {"vae": plan})
    return latents


def run(options: argparse.Namespace) -> None:
    """Do what is not done yet, in order."""
    work: Path = options.work
    make_scenes(work / "train-scenes", options.scenes, options.seed, options.threads)
    make_scenes(work / "check-scenes", min(CHECKS, options.scenes), options.seed + 1, options.threads)
    scenes = Scenes(work / "train-scenes")
    train_vae.train(work, scenes, seed=options.seed, steps=options.steps or train_vae.STEPS)
    latents = _latents(work, scenes)
    train_unet.train(work, scenes, latents, seed=options.seed, steps=options.steps or train_unet.STEPS)
    train_decoder.train(work, scenes, latents, seed=options.seed, steps=options.steps or train_decoder.STEPS)
    export(work, options.weights)
    count = min(options.scenes, COUNT)
    make_statistics(options.weights / VAE, options.weights / STATISTICS, count=count, seed=options.seed)
    judge = train_segmenter.make(
        work,
        options.weights,
        train_decoder.load_polished(work),
        seed=options.seed,
        steps=options.steps or train_segmenter.STEPS,
        scenes=min(options.scenes, train_segmenter.SCENES),
        processes=options.threads,
    )
    add_losses(options.weights, {"segmenter": judge})
    write_sums(options.weights)


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=WORK, help="folder for scenes and checkpoints (3 GB)")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="folder for the result")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="steps of each training, for a short trial")
    parser.add_argument("--scenes", type=int, default=SCENES)
    parser.add_argument("--threads", type=int, default=2, help="for all but the trainings, which use two")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    try:
        run(options)
    except SCPError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted; the same command goes on from the last checkpoint.\n")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(_main())
