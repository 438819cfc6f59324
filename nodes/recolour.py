"""Segmentation image in one palette -> the same in another."""

from __future__ import annotations

import torch
from comfy.model_management import intermediate_device
from comfy_api.latest import io

from ..scp_prior.labels import DEFAULT_TOLERANCE, FEW_UNMATCHED
from ..scp_prior.recolour import detect_for, lost_words, recolour
from .compat import search_aliases
from .palettes import AUTO, candidates, check_palette, fingerprint, get_palette, palette_names
from .say import say
from .wires import CATEGORY


class SCPRecolor(io.ComfyNode):
    """Repaints a segmentation image from one palette to another."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCPRecolor",
            display_name="SCP Recolor",
            category=CATEGORY,
            description=(
                "Repaints a segmentation image in another palette of the same classes, e.g. what a preprocessor "
                "painted in the colours a ControlNet was trained on. Put it between a segmentation preprocessor and "
                "Apply ControlNet."
            ),
            inputs=[
                io.Image.Input("image", tooltip="The segmentation image: flat colours, or grey values that are ids."),
                io.Combo.Input(
                    "from_palette",
                    options=[AUTO, *palette_names()],
                    default=AUTO,
                    tooltip="How the image is painted. auto finds it out, and says in the node how sure it is and "
                    "what comes next. Your own class tables (.csv, .json) appear here when you put them into "
                    "models/scp_statistics.",
                ),
                io.Combo.Input(
                    "to_palette",
                    options=palette_names(),
                    default="ade20k",
                    tooltip="How it shall be painted: for ade20k what most segmentation ControlNets were trained on, "
                    "for the released SCP-Diff ones the names ending in -controlnet (and cityscapes). It must be of "
                    "the same data set.",
                ),
                io.Float.Input(
                    "tolerance",
                    default=DEFAULT_TOLERANCE,
                    min=0.0,
                    max=128.0,
                    step=1.0,
                    tooltip="How far a colour may be from a class's colour (distance in RGB, 0..255 per channel). "
                    "0 = exact colours only. Resized or JPEG-compressed maps need some.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    "IMAGE",
                    display_name="image",
                    tooltip="In the colours of to_palette and no others. For Apply ControlNet, or SCP Labels From "
                    "Image.",
                ),
                io.Mask.Output(
                    "UNMATCHED",
                    display_name="unmatched",
                    tooltip="White where no colour was near enough, or where the class has no colour in to_palette; "
                    "painted as unlabelled.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
            **search_aliases("recolour", "palette swap", "segmentation colors", "oneformer", "scp-diff"),
        )

    @classmethod
    def validate_inputs(cls, from_palette: str | None = None, to_palette: str | None = None) -> bool | str:
        """Whether the palettes exist, and can be read."""
        told = check_palette(from_palette, AUTO)
        return told if told is not True else check_palette(to_palette)

    @classmethod
    def fingerprint_inputs(cls, from_palette: str | None = None, to_palette: str | None = None, **_: object) -> tuple:
        """Changes when a class table of the user's does."""
        return fingerprint(from_palette, to_palette)

    @classmethod
    def execute(cls, image: torch.Tensor, from_palette: str, to_palette: str, tolerance: float) -> io.NodeOutput:
        target = get_palette(to_palette)
        if from_palette == AUTO:
            on_offer, lines = candidates()
            found = detect_for(image, target, on_offer)
            source, warn = found.palette, not found.sure or bool(lines)
            lines = [found.words, *lines]
        else:
            source, lines, warn = get_palette(from_palette), [], False
        made = recolour(image, source, target, tolerance)
        lines.insert(0, f"{source.name} -> {target.name}, {made.unmatched_share:.1%} of the picture unmatched")
        lines += filter(None, [lost_words(made.lost, target)])
        say(cls, "\n".join(lines), warn=warn or bool(made.lost) or made.unmatched_share > FEW_UNMATCHED)
        device = intermediate_device()
        return io.NodeOutput(made.image.to(device), made.unmatched.float().to(device))
