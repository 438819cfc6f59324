"""The demo's graph inside a host's process, by the host's own nodes and the pack's, which must be loaded."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from torch import Tensor

DEMO = Path(__file__).resolve().parent
TIMESTEP = 799
"""Where the paper starts sampling from its prior."""

Latent = dict[str, Any]


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

    def labels(self, image: Tensor) -> Any:
        """Read label maps given as pictures (B, H, W, 3) in Cityscapes' colours, exactly."""
        return self.run("SCPLabelsFromImage", image=image, palette="cityscapes", tolerance=0.0)[0]

    def guided(self, labels: Any) -> Any:
        """The prompt with the ControlNet on it, for the positive side: on both, guidance would do nothing."""
        hint = self.run("SCPHintFromLabels", labels=labels, palette="cityscapes")[0]
        apply = self.nodes["ControlNetApplyAdvanced"]().apply_controlnet
        return apply(self.prompt, self.prompt, self.controlnet, hint, 1.0, 0.0, 1.0)[0]

    def prior(self, labels: Any, seed: int, method: str = "joint", scene_variation: float = 1.0) -> Latent:
        """A starting latent for each label map."""
        inputs = {"statistics": self.statistics, "labels": labels, "method": method, "strength": 1.0}
        batch = len(labels.labels)
        return self.run(
            "SCPPriorLatent", **inputs, seed=seed, batch_size=batch, scene_variation=scene_variation, shrinkage=-1.0
        )[0]

    def empty(self, labels: Any) -> Latent:
        """The host's own start for each label map."""
        count, height, width = labels.labels.shape
        return self.nodes["EmptyLatentImage"]().generate(width, height, count)[0]

    def sample(
        self, latent: Latent, positive: Any, *, seed: int, steps: int, cfg: float, timestep: int | None
    ) -> Latent:
        """KSampler from `timestep` of a schedule of `steps`; None: from pure noise, at the schedule's top."""
        denoise = 1.0
        if timestep is not None:
            start = {"model": self.model, "timestep": timestep, "steps": steps, "scheduler": "ddim_uniform"}
            denoise, steps, *_ = self.run("SCPDenoiseStart", **start)
        settings = (self.model, seed, steps, cfg, "ddim", "ddim_uniform", positive, self.prompt, latent, denoise)
        return self.nodes["KSampler"]().sample(*settings)[0]

    def draw(self, image: Tensor, *, seed: int, steps: int, cfg: float, prior: bool) -> tuple[Tensor, float]:
        """Draw label maps given as pictures (B, H, W, 3); return pictures of that shape, and seconds of sampling."""
        labels = self.labels(image)
        positive = self.guided(labels)
        latent = self.prior(labels, seed) if prior else self.empty(labels)
        started = time.perf_counter()
        timestep = TIMESTEP if prior else None
        done = self.sample(latent, positive, seed=seed, steps=steps, cfg=cfg, timestep=timestep)
        seconds = time.perf_counter() - started
        return self.nodes["VAEDecode"]().decode(self.vae, done)[0], seconds
