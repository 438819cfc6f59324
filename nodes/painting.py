"""Label maps composed from masks, a class at a time or many at once; and a class of a map as a mask."""

from __future__ import annotations

import torch
from comfy.model_management import intermediate_device
from comfy_api.latest import io

from ..scp_prior import SCPError
from ..scp_prior.classes import ClassTable
from ..scp_prior.naming import NO_CLASS, id_named, ids_named, ids_of_lines
from ..scp_prior.painting import class_mask, compose, empty_map, hard_mask, paint
from ..scp_prior.painting_report import compose_report, mask_report, paint_report
from ..scp_prior.sizes import MAX_SIDE
from .class_menu import class_input, tell_menus
from .compat import search_aliases
from .palettes import check_palette, fingerprint, get_palette, palette_names
from .say import say
from .wires import CATEGORY, LabelMaps, LabelsWire

_PALETTE = "ade20k"
# Tells validate_inputs an input that is not wired from one that is: of the latter it is given None.
_NOT_WIRED = "not wired"


class SCPMaskFromLabels(io.ComfyNode):
    """One class of a label map, by its name, as a mask."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCPMaskFromLabels",
            display_name="SCP Mask From Labels",
            category=CATEGORY,
            description=(
                "Gives one class of a label map as a mask, chosen by its name. Put it after SCP Labels From Image, and "
                "before whatever works on a region: inpainting, Set Latent Noise Mask, Conditioning (Set Mask)."
            ),
            inputs=[
                LabelsWire.Input("labels", tooltip="From SCP Labels From Image or SCP Paint Labels."),
                class_input(
                    "class_name",
                    default="sky",
                    first=_PALETTE,
                    tooltip="The class, by its name in the label map's palette. After a run, the classes of the map "
                    "come first in the list.",
                ),
            ],
            outputs=[
                io.Mask.Output(
                    "MASK", display_name="mask", tooltip="White where the map has the class, as large as it."
                )
            ],
            hidden=[io.Hidden.unique_id],
            **search_aliases("segmentation mask", "mask by class", "class to mask", "scp-diff"),
        )

    @classmethod
    def validate_inputs(cls, class_name: str | None = None) -> bool:
        """Any name may be right, as long as the label map is not there to tell."""
        return True

    @classmethod
    def execute(cls, labels: LabelMaps, class_name: str) -> io.NodeOutput:
        table = labels.palette.table
        ids = ids_named(table, class_name)
        text, absent = mask_report(labels.labels, table, ids)
        say(cls, text, warn=absent)
        return io.NodeOutput(class_mask(labels.labels, ids).to(intermediate_device()))


class SCPPaintLabels(io.ComfyNode):
    """Paints one class into a label map, or starts a map from nothing but a size."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCPPaintLabels",
            display_name="SCP Paint Labels",
            category=CATEGORY,
            description=(
                "Paints a class into a label map wherever the mask is white. Without labels it starts a map of the "
                "size given; without a mask it fills the whole map. Chain one for each region, the farthest first, "
                "then wire the last into SCP Prior Latent and SCP Hint From Labels."
            ),
            inputs=[
                io.Combo.Input(
                    "palette",
                    options=palette_names(),
                    default=_PALETTE,
                    tooltip="Whose classes a new map is made of: those of the data set of your ControlNet and "
                    "statistics. Where labels are wired in, theirs is kept and this is not used.",
                ),
                class_input(
                    "class_name",
                    default="sky",
                    first=_PALETTE,
                    tooltip="What to paint, by its name in the palette. unlabelled erases.",
                ),
                io.Int.Input(
                    "width",
                    default=512,
                    min=0,
                    max=MAX_SIDE,
                    step=8,
                    tooltip="Width of a new map in pixels; 0 = that of the mask. Where labels are wired in, theirs is "
                    "kept and this is not used.",
                ),
                io.Int.Input(
                    "height",
                    default=512,
                    min=0,
                    max=MAX_SIDE,
                    step=8,
                    tooltip="Height of a new map in pixels; 0 = that of the mask. Where labels are wired in, theirs is "
                    "kept and this is not used.",
                ),
                LabelsWire.Input(
                    "labels", optional=True, tooltip="The map to paint on. Without it, a new one is begun, unlabelled."
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Where to paint: white, or more than half grey. From the mask editor of Load Image, a SAM "
                    "node or a drawn shape; of another size it is brought to the map's. Without it, everywhere.",
                ),
            ],
            outputs=[
                LabelsWire.Output(
                    "LABELS",
                    display_name="labels",
                    tooltip="For the next SCP Paint Labels, SCP Prior Latent and SCP Hint From Labels.",
                )
            ],
            hidden=[io.Hidden.unique_id],
            **search_aliases("paint segmentation", "draw label map", "mask to labels", "compose map", "scp-diff"),
        )

    @classmethod
    def validate_inputs(
        cls, palette: str | None = None, class_name: str | None = None, labels: str | None = _NOT_WIRED
    ) -> bool | str:
        """Whether palette and class exist; with labels wired in, only they know their classes."""
        known = check_palette(palette)
        if known is not True or labels != _NOT_WIRED or palette is None:
            return known
        return _check_names(palette, class_name)

    @classmethod
    def fingerprint_inputs(cls, palette: str | None = None, **_: object) -> tuple:
        """Changes when a class table of the user's does."""
        return fingerprint(palette)

    @classmethod
    def execute(
        cls,
        palette: str,
        class_name: str,
        width: int,
        height: int,
        labels: LabelMaps | None = None,
        mask: torch.Tensor | None = None,
    ) -> io.NodeOutput:
        before = labels or LabelMaps(empty_map(*_size(width, height, mask)), get_palette(palette))
        table = before.palette.table
        class_id = id_named(table, class_name)
        painted = LabelMaps(paint(before.labels, mask, class_id).to(intermediate_device()), before.palette)
        text, doubtful = paint_report(painted.labels, table, class_id, mask)
        say(cls, "\n".join(filter(None, (text, _kept(table, palette)))), warn=doubtful)
        tell_menus(cls, painted)
        return io.NodeOutput(painted)


class SCPLabelsFromMasks(io.ComfyNode):
    """A label map of a batch of masks and a list of class names."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCPLabelsFromMasks",
            display_name="SCP Labels From Masks",
            category=CATEGORY,
            description=(
                "Makes a label map of a batch of masks, one class for each. Put it after a node that makes several "
                "masks (SAM, a mask batch), and before SCP Prior Latent and SCP Hint From Labels."
            ),
            inputs=[
                io.Mask.Input(
                    "masks",
                    tooltip="A batch of masks. White, or more than half grey, is the class; a later mask lies over the "
                    "earlier ones. Twice as many masks as classes make two maps.",
                ),
                io.Combo.Input(
                    "palette",
                    options=palette_names(),
                    default=_PALETTE,
                    tooltip="Whose classes these are: those of the data set of your ControlNet and statistics.",
                ),
                io.String.Input(
                    "classes",
                    multiline=True,
                    default="sky\nroad",
                    tooltip="The class of each mask, one name a line, in the order of the masks. A line with - leaves "
                    "its mask out.",
                ),
                class_input(
                    "background",
                    default=NO_CLASS,
                    first=_PALETTE,
                    optional=True,
                    tooltip="The class of what no mask covers.",
                ),
            ],
            outputs=[
                LabelsWire.Output(
                    "LABELS",
                    display_name="labels",
                    tooltip="As large as the masks. For SCP Paint Labels, SCP Prior Latent and SCP Hint From Labels.",
                )
            ],
            hidden=[io.Hidden.unique_id],
            **search_aliases("masks to segmentation", "sam masks", "mask batch", "label map", "scp-diff"),
        )

    @classmethod
    def validate_inputs(
        cls, palette: str | None = None, classes: str | None = None, background: str | None = NO_CLASS
    ) -> bool | str:
        """Whether the palette and every class exist."""
        known = check_palette(palette)
        if known is not True or palette is None:
            return known
        return _check_names(palette, background, classes)

    @classmethod
    def fingerprint_inputs(cls, palette: str | None = None, **_: object) -> tuple:
        """Changes when a class table of the user's does."""
        return fingerprint(palette)

    @classmethod
    def execute(cls, masks: torch.Tensor, palette: str, classes: str, background: str = NO_CLASS) -> io.NodeOutput:
        colours = get_palette(palette)
        ids = ids_of_lines(colours.table, classes)
        labels = compose(masks, ids, id_named(colours.table, background))
        text, doubtful = compose_report(labels, colours.table, ids, masks)
        say(cls, text, warn=doubtful)
        made = LabelMaps(labels.to(intermediate_device()), colours)
        tell_menus(cls, made)
        return io.NodeOutput(made)


def _check_names(palette: str, name: str | None, lines: str | None = None) -> bool | str:
    try:
        table = get_palette(palette).table
        if name is not None:
            id_named(table, name)
        if lines is not None:
            ids_of_lines(table, lines)
    except SCPError as error:
        return str(error)
    return True


def _size(width: int, height: int, mask: torch.Tensor | None) -> tuple[int, int]:
    of_mask = (0, 0) if mask is None else tuple(hard_mask(mask).shape[1:])
    return height or of_mask[0], width or of_mask[1]


def _kept(table: ClassTable, palette: str) -> str:
    """A word where the palette chosen is not that of the labels wired in."""
    own = get_palette(palette).table.name
    return "" if own == table.name else f"classes of {table.name}, not {own}"
