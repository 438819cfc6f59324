"""Only for the demo: lets the host's own loaders read the demo's narrow model, and gives it the prompt it knows.

The host knows Stable Diffusion 2 by its widths. This registers the same family at the demo model's widths; the loaders
and samplers stay the host's own, untouched. The pack needs none of it and does not ship it.
"""

from __future__ import annotations

from typing import Any

import comfy.supported_models
import torch
from comfy.supported_models_base import ClipTarget
from comfy_api.latest import ComfyExtension, io

from .text import CONTEXT, NoWords, OneContext

_TEXT = "cond_stage_model."


class DemoSD2(comfy.supported_models.SD20):
    """Stable Diffusion 2 with 64 channels for 320, a context of 32 for 1024, and no words."""

    unet_config = {**comfy.supported_models.SD20.unet_config, "model_channels": 64, "context_dim": CONTEXT}  # noqa: RUF012

    def clip_target(self, state_dict: Any = None) -> ClipTarget:
        return ClipTarget(NoWords, OneContext)

    def process_clip_state_dict(self, state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        names = [name for name in state_dict if name.startswith(_TEXT)]
        return {name.removeprefix(_TEXT): state_dict.pop(name) for name in names}


class SCPDemoPrompt(io.ComfyNode):
    """The empty prompt; the demo model has learnt no words."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCPDemoPrompt",
            display_name="Empty Prompt (SCP demo model)",
            category="conditioning/SCP-Diff demo",
            description="The demo model has no text encoder: this is the only prompt it knows. Apply the ControlNet to "
            "the positive side and leave the negative side bare; CFG then strengthens the label map.",
            inputs=[],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput([[torch.zeros(1, 1, CONTEXT), {}]])


class _Extension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [SCPDemoPrompt]


async def comfy_entrypoint() -> ComfyExtension:
    """Register the narrow shape once, then hand over the node."""
    models = comfy.supported_models.models
    if not any(getattr(model, "__name__", "") == DemoSD2.__name__ for model in models):
        models.append(DemoSD2)
    return _Extension()
