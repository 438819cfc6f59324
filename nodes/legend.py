"""A label map and its classes, to look at."""

from __future__ import annotations

from comfy.model_management import intermediate_device
from comfy_api.latest import io, ui

from ..scp_prior import Statistics
from ..scp_prior.knowledge import knowledge
from ..scp_prior.legend import legend
from .compat import search_aliases
from .wires import CATEGORY, LabelMaps, LabelsWire, StatisticsWire


class SCPPreviewLabels(io.ComfyNode):
    """Shows a label map with its legend."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCPPreviewLabels",
            display_name="SCP Preview Labels",
            category=CATEGORY,
            description=(
                "Shows a label map and, below it, colour, name, id and share of each of its classes. Put it anywhere "
                "on a labels wire. With statistics wired in, it also says how well the prior knows each class, and "
                "marks those for which something else stands in."
            ),
            inputs=[
                LabelsWire.Input("labels", tooltip="From SCP Labels From Image, SCP Paint Labels or the like."),
                StatisticsWire.Input(
                    "statistics",
                    optional=True,
                    tooltip="From SCP Load Statistics. Adds how many photos and cells taught the prior each class; a "
                    "triangle marks classes, or parts of them, it never saw there.",
                ),
            ],
            outputs=[
                io.Image.Output("LEGEND", display_name="legend", tooltip="The picture shown in the node, to save it.")
            ],
            is_output_node=True,
            **search_aliases("legend", "show segmentation", "class colors", "label map preview", "scp-diff"),
        )

    @classmethod
    def execute(cls, labels: LabelMaps, statistics: Statistics | None = None) -> io.NodeOutput:
        maps, palette = labels
        if statistics is None:
            picture = legend(maps, palette)
        else:
            known = (knowledge(statistics, one, palette.table) for one in maps.split(1))
            notes, marks = zip(*known, strict=True)
            title = f"{palette.name}, known by {statistics.name}"
            picture = legend(maps, palette, notes=notes, marks=marks, title=title)
        return io.NodeOutput(picture.to(intermediate_device()), ui=ui.PreviewImage(picture))
