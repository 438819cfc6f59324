"""Segmentation image -> label map -> ControlNet hint."""

from __future__ import annotations

from typing import NamedTuple

import torch
from comfy.model_management import intermediate_device
from comfy_api.latest import io, ui

from ..scp_prior import SCPError
from ..scp_prior import labels as lib
from ..scp_prior.classes import ANY, Palette, released_palette
from ..scp_prior.detection import detect_palette, palette_fits
from ..scp_prior.legend import legend
from ..scp_prior.recolour import lost_classes, lost_words
from .class_menu import tell_menus
from .compat import search_aliases
from .palettes import AUTO, candidates, check_palette, fingerprint, get_palette, palette_names
from .say import say
from .wires import CATEGORY, LabelMaps, LabelsWire

# By how much better another palette must fit before it is suggested: more than a right one ever lost of its fit to
# JPEG, resizing or a screenshot.
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
                    options=[AUTO, *palette_names()],
                    default="ade20k",
                    tooltip="Which colour means which class. auto finds it out, and says how sure it is. ade20k is "
                    "what UniFormer and older OneFormer preprocessors paint, names ending in -oneformer what OneFormer "
                    "paints since June 2025; names ending in -controlnet are the colours the released ControlNets "
                    "want; names ending in -grey are id images (dark pictures whose grey value is the class id); "
                    "ids is the same for classes of your own. Your own class tables (.csv, .json) appear here when "
                    "you put them into models/scp_statistics.",
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
        """Whether the palette exists, and can be read."""
        return check_palette(palette, AUTO)

    @classmethod
    def fingerprint_inputs(cls, palette: str | None = None, **_: object) -> tuple:
        """Changes when a class table of the user's does."""
        return fingerprint(palette)

    @classmethod
    def execute(cls, image: torch.Tensor, palette: str, tolerance: float, max_unmatched: float = 0.5) -> io.NodeOutput:
        chosen = _Chosen.of(image, palette)
        read = lib.labels_from_image(image, chosen.palette, tolerance)
        share = float(read.unmatched.float().mean())
        if share > max_unmatched:
            raise SCPError(
                f"{share:.0%} of the picture matches no colour of palette '{chosen.palette.name}'. {chosen.advice} "
                f"Or raise tolerance (now {tolerance:g}) or max_unmatched (now {max_unmatched:g})."
            )
        lines = [f"{len(read.labels.unique())} classes, {share:.1%} of the picture unmatched", chosen.words]
        say(cls, "\n".join(filter(None, lines)), warn=chosen.warn or share > lib.FEW_UNMATCHED)
        picture = legend(read.labels, chosen.palette, unmatched=read.unmatched)
        device = intermediate_device()
        maps = LabelMaps(read.labels.to(device), chosen.palette)
        tell_menus(cls, maps)
        return io.NodeOutput(maps, read.unmatched.float().to(device), ui=ui.PreviewImage(picture))


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
                    options=[AUTO, *palette_names(grey=False)],
                    default=AUTO,
                    tooltip="auto: the released SCP-Diff ControlNet's colours. For another ControlNet choose the "
                    "palette it was trained on, usually ade20k.",
                ),
            ],
            outputs=[io.Image.Output("HINT", display_name="hint", tooltip="For the image input of Apply ControlNet.")],
            hidden=[io.Hidden.unique_id],
            **search_aliases("controlnet hint", "segmentation colors", "scp-diff", "palette"),
        )

    @classmethod
    def validate_inputs(cls, palette: str | None = None) -> bool | str:
        """Whether the palette exists, and can be read."""
        return check_palette(palette, AUTO)

    @classmethod
    def fingerprint_inputs(cls, palette: str | None = None, **_: object) -> tuple:
        """Changes when a class table of the user's does."""
        # auto is one of the released ControlNets here, and looks at no file.
        return (palette,) if palette == AUTO else fingerprint(palette)

    @classmethod
    def execute(cls, labels: LabelMaps, palette: str) -> io.NodeOutput:
        table = labels.palette.table
        target = get_palette(released_palette(table.name) if palette == AUTO else palette)
        ids = lib.convert_labels(labels.labels, table, target.table)
        lost = lost_classes(labels.labels, labels.palette, target)
        if lost:
            say(cls, lost_words({table.name_of(one): share for one, share in lost.items()}, target), warn=True)
        return io.NodeOutput(lib.hint_from_labels(ids, target).to(intermediate_device()))


class _Chosen(NamedTuple):
    """The palette a picture is read with; words about it for the node, and for when too little of the picture fits."""

    palette: Palette
    words: str
    warn: bool
    advice: str

    @classmethod
    def of(cls, image: torch.Tensor, name: str) -> _Chosen:
        on_offer, problems = candidates()
        if name == AUTO:
            found = detect_palette(image, on_offer)
            words = "\n".join([found.words, *problems])
            return cls(found.palette, words, not found.sure or bool(problems), "It is the likeliest: choose another.")
        palette = get_palette(name)
        best, better = _compare(palette, palette_fits(image, on_offer))
        return cls(palette, better, bool(better), better or best)


def _compare(palette: Palette, fits: list[tuple[str, float]]) -> tuple[str, str]:
    """Which palette fits a picture best; and the same where it fits clearly better than the one chosen, else ""."""
    # What ids nobody has named should look like, nobody knows: no other palette can be said to fit better.
    own = dict(fits)[palette.name] if palette.name != ANY else 1.0
    top = fits[0][1]
    # Id maps of small ids fit several tables, and palettes share colours: all that fit alike are named.
    names = " or ".join(f"'{name}'" for name, fit in fits if fit == top)
    # A dark id map is near enough to black to pass for any palette that has black; exactly right is another matter.
    exact = top > 0.9999 and own < 0.999
    clearly = exact or top - own >= _CLEARLY
    compared = f"{names} fits it better ({top:.0%} against {own:.0%})"
    return f"The best palette for it is {names} ({top:.0%}).", f"Palette {compared}: choose that." if clearly else ""
