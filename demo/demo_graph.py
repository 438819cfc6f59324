"""The demo's graph inside a host's process, by the host's own nodes and the pack's, which must be loaded."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

DEMO = Path(__file__).resolve().parent
TIMESTEP = 799
"""Where the paper starts sampling from its prior."""


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
