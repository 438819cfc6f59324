"""Segmentation image -> label map -> ControlNet hint."""

from __future__ import annotations

from typing import NamedTuple

import torch
from comfy.model_management import intermediate_device
from comfy_api.latest import io

from ..scp_prior import SCPError
from ..scp_prior import labels as lib
from ..scp_prior.classes import ANY, Palette, any_ids, palettes, released_palette
from ..scp_prior.classes import palette as built_in_palette
from ..scp_prior.legend import legend
from .choices import check_choice
from .class_menu import told
from .compat import search_aliases
from .say import say
from .wires import CATEGORY, LabelMaps, LabelsWire

_AUTO = "auto"
# Below this share of unmatched pixels nothing is said; they are edges.
_WARN_ABOVE = 0.05
# By how much another palette's score must be higher before it is suggested. Right palettes lead by 0.09 at least on
# heavily compressed maps, and by several times that where the chosen one is wrong.
_CLEARLY = 0.25


class SCPLabelsFromImage(io.ComfyNode):
    """Reads the colours of a segmentation image as classes."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCPLabelsFromImage",
            display_name="SCP Labels From Image",
            category=CATEGORY,
            description=(
                "Reads a segmentation image as a label map, one class per pixel. Put it after Load Image or a "
                "segmentation preprocessor, and before SCP Prior Latent and SCP Hint From Labels. "
                "The legend in the node shows which classes were found."
            ),
            inputs=[
                io.Image.Input("image", tooltip="The segmentation image: flat colours, or grey values that are ids."),
                io.Combo.Input(
                    "palette",
                    options=[*palettes(), ANY],
                    default="ade20k",
                    tooltip="Which colour means which class. ade20k is what most preprocessors paint; "
                    "names ending in -controlnet are the colours the released ControlNets want; "
                    "names ending in -grey are id images (dark pictures whose grey value is the class id); "
                    "ids is the same for classes of your own.",
                ),
                io.Float.Input(
                    "tolerance",
                    default=lib.DEFAULT_TOLERANCE,
                    min=0.0,
                    max=128.0,
                    step=1.0,
                    tooltip="How far a colour may be from a class's colour (distance in RGB, 0..255 per channel). "
                    "0 = exact colours only. Resized or JPEG-compressed maps need some.",
                ),
                io.Float.Input(
                    "max_unmatched",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    optional=True,
                    tooltip="Stop with a message when more than this share of the picture matches no class: "
                    "it is probably another palette.",
                ),
            ],
            outputs=[
                LabelsWire.Output(
                    "LABELS", display_name="labels", tooltip="For SCP Prior Latent and SCP Hint From Labels."
                ),
                io.Mask.Output(
                    "UNMATCHED",
                    display_name="unmatched",
                    tooltip="White where no class was near enough; such pixels count as unlabelled.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
            **search_aliases("segmentation", "semantic map", "label map", "scp-diff", "palette"),
        )

    @classmethod
    def validate_inputs(cls, palette: str | None = None) -> bool | str:
        """Whether the palette exists."""
        return check_choice("palette", palette, (*palettes(), ANY))

    @classmethod
    def execute(cls, image: torch.Tensor, palette: str, tolerance: float, max_unmatched: float = 0.5) -> io.NodeOutput:
        colours = _palette(palette)
        read = lib.labels_from_image(image, colours, tolerance)
        share = float(read.unmatched.float().mean())
        fit = _Fit.of(image, palette, tolerance)
        if share > max_unmatched:
            raise SCPError(
                f"{share:.0%} of the picture matches no colour of palette '{palette}'. {fit.better or fit.best} "
                f"Or raise tolerance (now {tolerance:g}) or max_unmatched (now {max_unmatched:g})."
            )
        lines = [f"{len(read.labels.unique())} classes, {share:.1%} of the picture unmatched", fit.better]
        say(cls, "\n".join(filter(None, lines)), warn=bool(fit.better) or share > _WARN_ABOVE)
        picture = legend(read.labels, colours, unmatched=read.unmatched)
        device = intermediate_device()
        maps = LabelMaps(read.labels.to(device), colours)
        return io.NodeOutput(maps, read.unmatched.float().to(device), ui=told(maps, picture))


class SCPHintFromLabels(io.ComfyNode):
    """Paints a label map in the colours a ControlNet was trained on."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCPHintFromLabels",
            display_name="SCP Hint From Labels",
            category=CATEGORY,
            description=(
                "Paints a label map as the picture a ControlNet expects. Put it before Apply ControlNet. "
                "auto chooses the colours the released SCP-Diff ControlNet of that data set was trained on, "
                "which for ADE20K are not the usual ones."
            ),
            inputs=[
                LabelsWire.Input("labels", tooltip="From SCP Labels From Image."),
                io.Combo.Input(
                    "palette",
                    options=[_AUTO, *(name for name in palettes() if not built_in_palette(name).grey)],
                    default=_AUTO,
                    tooltip="auto: the released SCP-Diff ControlNet's colours. For another ControlNet choose the "
                    "palette it was trained on, usually ade20k.",
                ),
            ],
            outputs=[io.Image.Output("HINT", display_name="hint", tooltip="For the image input of Apply ControlNet.")],
            **search_aliases("controlnet hint", "segmentation colors", "scp-diff", "palette"),
        )

    @classmethod
    def validate_inputs(cls, palette: str | None = None) -> bool | str:
        """Whether the palette exists."""
        return check_choice("palette", palette, (_AUTO, *palettes()))

    @classmethod
    def execute(cls, labels: LabelMaps, palette: str) -> io.NodeOutput:
        table = labels.palette.table
        target = built_in_palette(released_palette(table.name) if palette == _AUTO else palette)
        ids = lib.convert_labels(labels.labels, table, target.table.name)
        return io.NodeOutput(lib.hint_from_labels(ids, target).to(intermediate_device()))


def _palette(name: str) -> Palette:
    return any_ids() if name == ANY else built_in_palette(name)


class _Fit(NamedTuple):
    """How palettes fit a picture: the best, and one that fits clearly better than the one chosen (or "")."""

    best: str
    better: str

    @classmethod
    def of(cls, image: torch.Tensor, palette: str, tolerance: float) -> _Fit:
        scores = lib.palette_scores(image, tolerance)
        # What ids nobody has named should look like, nobody knows: no other palette can be said to fit better.
        own = dict(scores)[palette] if palette != ANY else 1.0
        top = scores[0][1]
        # Id maps of small ids fit several tables, and palettes share colours: all that fit alike are named.
        names = " or ".join(f"'{name}'" for name, score in scores if score == top)
        # A dark id map is near enough to black to pass for any palette that has black; exactly right is another matter.
        exact = top > 0.9999 and own < 0.999
        clearly = exact or top - own >= _CLEARLY
        compared = f"{names} fits it better ({top:.0%} against {own:.0%})"
        return cls(
            f"The best palette for it is {names} ({top:.0%}).", f"Palette {compared}: choose that." if clearly else ""
        )
