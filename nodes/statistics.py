"""Loading statistics."""

from __future__ import annotations

import os

from comfy_api.latest import io

from ..scp_prior import SCPError, Statistics, load_statistics
from . import folders
from .compat import search_aliases
from .say import say
from .wires import CATEGORY, StatisticsWire


class SCPLoadStatistics(io.ComfyNode):
    """Opens a statistics file; only its header is read here."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCPLoadStatistics",
            display_name="SCP Load Statistics",
            category=CATEGORY,
            description=(
                "Loads the statistics of a data set: what latents look like per class and place. "
                "Wire it into SCP Prior Latent. Files live in models/scp_statistics."
            ),
            inputs=[
                io.Combo.Input(
                    "statistics",
                    options=folders.statistics_files(),
                    tooltip="A statistics file (.safetensors) in models/scp_statistics. Use the one that belongs to "
                    f"your ControlNet: cityscapes, ade20k or coco-stuff. {folders.unconverted_hint()}".rstrip(),
                )
            ],
            outputs=[
                StatisticsWire.Output(
                    "STATISTICS", display_name="statistics", tooltip="For the statistics input of SCP Prior Latent."
                )
            ],
            hidden=[io.Hidden.unique_id],
            **search_aliases("noise prior", "scp-diff", "dataset statistics", "segmentation prior"),
        )

    @classmethod
    def validate_inputs(cls, statistics: str | None = None) -> bool | str:
        """Whether the file is there and is a statistics file, before anything runs."""
        if statistics is None:
            return True
        try:
            load_statistics(folders.statistics_path(statistics))
        except SCPError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, statistics: str) -> tuple:
        """Changes when the file does."""
        try:
            status = os.stat(folders.statistics_path(statistics))
        except (SCPError, OSError):
            return (statistics,)
        return statistics, status.st_mtime_ns, status.st_size

    @classmethod
    def execute(cls, statistics: str) -> io.NodeOutput:
        opened = load_statistics(folders.statistics_path(statistics))
        say(cls, _summary(opened))
        return io.NodeOutput(opened)


def _summary(statistics: Statistics) -> str:
    lines = [f"{statistics.dataset or 'unnamed data set'}, {len(statistics.class_ids)} classes"]
    if statistics.latent_size:
        height, width = (side * statistics.downscale for side in statistics.latent_size)
        lines.append(f"made at {width}x{height}")
    return "\n".join(lines)
