"""Draw the demo's maps with the demo's model in the real host, side by side: a contact sheet to look at.

    python demo/sample.py [SHEET.png] [--weights DIR] [--steps 20] [--cfg 1.5]

Columns: labels, normal start (pure noise), the pack's joint prior at t = 799, and a generated street with these labels
(what the model could have drawn at best). Prints what it took, as JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

DEMO = Path(__file__).resolve().parent
TIMESTEP = 799


class Graph:
    """The demo's graph in this process, by the host's own nodes: load once, then draw."""

    def __init__(self, weights: Path):
        import asyncio

        import folder_paths

        import nodes

        asyncio.run(nodes.load_custom_node(str(DEMO / "host_nodes")))
        for kind in ("checkpoints", "controlnet", "vae", "scp_statistics"):
            folder_paths.add_model_folder_path(kind, str(weights), is_default=True)
        self.nodes = nodes.NODE_CLASS_MAPPINGS
        self.model = self.nodes["CheckpointLoaderSimple"]().load_checkpoint("scp-demo.safetensors")[0]
        self.controlnet = self.nodes["ControlNetLoader"]().load_controlnet("scp-demo-controlnet.safetensors")[0]
        self.vae = self.nodes["VAELoader"]().load_vae("scp-demo-vae.safetensors")[0]
        self.statistics = self.run("SCPLoadStatistics", statistics="scp-demo-statistics.safetensors")[0]
        self.prompt = self.run("SCPDemoPrompt")[0]

    def run(self, name: str, **inputs: Any) -> tuple:
        """Execute a node of the current kind, as the host's executor does."""
        return self.nodes[name].PREPARE_CLASS_CLONE(None).EXECUTE_NORMALIZED(**inputs).args

    def draw(self, image: Any, *, seed: int, steps: int, cfg: float, prior: bool) -> tuple[Any, float]:
        """Draw label maps given as pictures (B, H, W, 3); return pictures of that shape, and seconds of sampling."""
        labels = self.run("SCPLabelsFromImage", image=image, palette="cityscapes", tolerance=0.0)[0]
        hint = self.run("SCPHintFromLabels", labels=labels, palette="cityscapes")[0]
        apply = self.nodes["ControlNetApplyAdvanced"]().apply_controlnet
        positive = apply(self.prompt, self.prompt, self.controlnet, hint, 1.0, 0.0, 1.0)[0]
        if prior:
            inputs = {"statistics": self.statistics, "labels": labels, "method": "joint", "strength": 1.0}
            latent = self.run("SCPPriorLatent", **inputs, seed=seed, batch_size=len(image))[0]
            start = {"model": self.model, "timestep": TIMESTEP, "steps": steps, "scheduler": "ddim_uniform"}
            denoise, count, *_ = self.run("SCPDenoiseStart", **start)
        else:
            _, height, width, _ = image.shape
            latent = self.nodes["EmptyLatentImage"]().generate(width, height, len(image))[0]
            denoise, count = 1.0, steps
        sample = self.nodes["KSampler"]().sample
        started = time.perf_counter()
        settings = (self.model, seed, count, cfg, "ddim", "ddim_uniform", positive, self.prompt, latent, denoise)
        done = sample(*settings)[0]
        seconds = time.perf_counter() - started
        return self.nodes["VAEDecode"]().decode(self.vae, done)[0], seconds


def _inside(target: str, weights: str, steps: str, cfg: str) -> None:
    """The half that runs in the host's process."""
    sys.path.append(str(DEMO))
    import numpy as np
    import torch
    from make_maps import MAPS, PAINTED, UNSEEN, UNSEEN_SEED
    from PIL import Image
    from scenes import scene

    torch.set_num_threads(2)
    graph = Graph(Path(weights))
    rows, times = [], {"normal": [], "prior": []}
    for k, path in enumerate([*(MAPS / f"street-{index + 1}.png" for index in UNSEEN), MAPS / PAINTED]):
        colours = np.asarray(Image.open(path).convert("RGB"))
        image = torch.from_numpy(colours.astype(np.float32) / 255)[None]
        cells = [colours]
        for name in times:
            drawn, seconds = graph.draw(image, seed=k, steps=int(steps), cfg=float(cfg), prior=name == "prior")
            times[name].append(seconds)
            cells.append((drawn[0].clamp(0, 1) * 255 + 0.5).byte().numpy())
        cells.append(scene(k, UNSEEN_SEED).picture if path.name != PAINTED else np.zeros_like(colours))
        rows.append(np.concatenate(cells, 1))
    Image.fromarray(np.concatenate(rows)).save(target)
    medians = {f"{name}_seconds": float(np.median(seconds)) for name, seconds in times.items()}
    sys.stdout.write(json.dumps({"sheet": target, **medians}) + "\n")


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sheet", nargs="?", type=Path, default=Path("demo-sheet.png"))
    parser.add_argument("--weights", type=Path, default=DEMO / "weights")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cfg", type=float, default=1.5)
    options = parser.parse_args()
    sys.path.append(str(DEMO.parent / "scripts"))
    from in_host import run

    arguments = [str(options.sheet.resolve()), str(options.weights.resolve()), str(options.steps), str(options.cfg)]
    sys.stdout.write(json.dumps(run(Path(__file__).resolve(), ["inside", *arguments]), indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["inside"]:
        _inside(*sys.argv[2:])
    else:
        _main()
