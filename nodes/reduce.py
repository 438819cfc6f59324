"""Statistics from the user's own photos, and putting statistics together."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from comfy_api.latest import io, ui

from ..scp_prior import SCPError, Statistics, load_statistics, save_statistics
from ..scp_prior.classes import ANY, palettes
from . import folders
from .choices import check_choice
from .compat import search_aliases
from .palettes import check_palette, fingerprint, palette_names
from .say import say
from .wires import CATEGORY, StatisticsWire


class SCPReduceStatistics(io.ComfyNode):
    """Makes a statistics file from photos and label maps, encoded with the graph's own VAE."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        choices = folders.input_folders()
        return io.Schema(
            node_id="SCPReduceStatistics",
            display_name="SCP Reduce Statistics",
            category=CATEGORY,
            description=(
                "Makes statistics from your own photos and their label maps, and saves them in models/scp_statistics. "
                "Put both into folders under ComfyUI's input folder, with the same file names."
            ),
            inputs=[
                io.Vae.Input("vae", tooltip="The VAE of the model you will sample with: statistics belong to it."),
                io.Combo.Input("images_folder", options=choices, tooltip="Folder of photos, under input."),
                io.Combo.Input(
                    "labels_folder", options=choices, tooltip="Folder of label maps named like the photos, under input."
                ),
                io.Combo.Input(
                    "palette",
                    options=palette_names(),
                    default=ANY,
                    tooltip="How the label maps are painted. ids: grey or indexed pictures that hold class ids. Your "
                    "own class tables (.csv, .json) in models/scp_statistics name and colour classes of your own.",
                ),
                io.Int.Input(
                    "width", default=512, min=64, max=8192, step=8, tooltip="Every photo is brought to this width."
                ),
                io.Int.Input(
                    "height", default=512, min=64, max=8192, step=8, tooltip="Every photo is brought to this height."
                ),
                io.String.Input(
                    "name", default="my_photos", tooltip="Name of the file. An existing file of that name is replaced."
                ),
                io.Combo.Input(
                    "on_error",
                    options=["stop", "skip"],
                    default="stop",
                    optional=True,
                    tooltip="At a pair that cannot be read: stop with a message, or leave it out and say so.",
                ),
                io.Int.Input(
                    "batch_size",
                    default=4,
                    min=1,
                    max=64,
                    optional=True,
                    tooltip="Photos encoded at once. Larger is faster on a GPU, and takes more memory.",
                ),
            ],
            outputs=[
                StatisticsWire.Output(
                    "STATISTICS", display_name="statistics", tooltip="For the statistics input of SCP Prior Latent."
                )
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
            **search_aliases("train prior", "dataset statistics", "scp-diff", "reduce"),
        )

    @classmethod
    def validate_inputs(
        cls,
        images_folder: str | None = None,
        labels_folder: str | None = None,
        palette: str | None = None,
        name: str | None = None,
        on_error: str | None = None,
    ) -> bool | str:
        """Whether folders, palette and name will do, before anything runs."""
        try:
            for folder in (images_folder, labels_folder):
                if folder is not None:
                    folders.input_folder(folder)
            if name is not None:
                folders.new_statistics_path(name)
        except SCPError as error:
            return str(error)
        told = check_palette(palette)
        return told if told is not True else check_choice("on_error", on_error, ("stop", "skip"))

    @classmethod
    def fingerprint_inputs(
        cls, images_folder: str, labels_folder: str, palette: str | None = None, **_: object
    ) -> tuple:
        """Changes when a file in the folders does, or the class table."""
        table = fingerprint(palette)
        try:
            listings = tuple(_listing(folders.input_folder(folder)) for folder in (images_folder, labels_folder))
        except (SCPError, OSError):
            return (images_folder, labels_folder, *table)
        return (*listings, *table)

    @classmethod
    def execute(
        cls,
        vae,
        images_folder: str,
        labels_folder: str,
        palette: str,
        width: int,
        height: int,
        name: str,
        on_error: str = "stop",
        batch_size: int = 4,
    ) -> io.NodeOutput:
        # Late: what it takes to read photos is not for every start of ComfyUI to import.
        from .reducing import make_statistics

        statistics, text, complete, picture = make_statistics(
            vae,
            folders.input_folder(images_folder),
            folders.input_folder(labels_folder),
            _source(palette),
            (height, width),
            folders.new_statistics_path(name),
            on_error=on_error,
            batch_size=batch_size,
        )
        say(cls, text, warn=not complete)
        return io.NodeOutput(statistics, ui=ui.PreviewImage(picture))


def _source(palette: str) -> str | None:
    """What the reader of label maps calls a palette: None for ids, and a class table by its path."""
    if palette == ANY:
        return None
    return palette if palette in palettes() else folders.palette_path(palette)


class SCPSaveStatistics(io.ComfyNode):
    """Writes statistics into the model folder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCPSaveStatistics",
            display_name="SCP Save Statistics",
            category=CATEGORY,
            description="Saves statistics as a file in models/scp_statistics. Put it after SCP Merge Statistics.",
            inputs=[
                StatisticsWire.Input("statistics", tooltip="From SCP Merge Statistics, or any other statistics."),
                io.String.Input("name", default="merged", tooltip="Name of the file in models/scp_statistics."),
                io.Boolean.Input(
                    "overwrite",
                    default=False,
                    optional=True,
                    tooltip="Replace a file of that name; off: stop with a message.",
                ),
            ],
            outputs=[
                StatisticsWire.Output("STATISTICS", display_name="statistics", tooltip="The statistics, as saved.")
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
            **search_aliases("scp-diff", "export statistics"),
        )

    @classmethod
    def validate_inputs(cls, name: str | None = None) -> bool | str:
        """Whether the name will do."""
        try:
            if name is not None:
                folders.new_statistics_path(name)
        except SCPError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, statistics: Statistics, name: str, overwrite: bool = False) -> io.NodeOutput:
        out = folders.new_statistics_path(name)
        if out.exists() and not overwrite:
            raise SCPError(f"{out.name} is already in {out.parent}. Choose another name, or turn overwrite on.")
        save_statistics(statistics, out)
        from ..scp_prior.coverage import coverage

        saved = load_statistics(out)
        say(cls, f"saved as {out.name}")
        return io.NodeOutput(saved, ui=ui.PreviewImage(coverage(saved)) if saved.has_joint else None)


class SCPMergeStatistics(io.ComfyNode):
    """Adds up statistics made from different photos with the same VAE."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCPMergeStatistics",
            display_name="SCP Merge Statistics",
            category=CATEGORY,
            description=(
                "Puts statistics of two sets of photos together, as if they had been made at once. "
                "Both must be of the same VAE, size and classes. Follow with SCP Save Statistics to keep the result."
            ),
            inputs=[
                StatisticsWire.Input("statistics_a", tooltip="Statistics of some photos."),
                StatisticsWire.Input("statistics_b", tooltip="Statistics of other photos."),
            ],
            outputs=[
                StatisticsWire.Output(
                    "STATISTICS", display_name="statistics", tooltip="For SCP Prior Latent, or SCP Save Statistics."
                )
            ],
            hidden=[io.Hidden.unique_id],
            **search_aliases("scp-diff", "combine statistics"),
        )

    @classmethod
    def execute(cls, statistics_a: Statistics, statistics_b: Statistics) -> io.NodeOutput:
        from ..scp_prior.merge import merge_statistics

        merged = merge_statistics([statistics_a, statistics_b])
        lost = _lost(merged, (statistics_a, statistics_b))
        say(cls, f"{merged.metadata['images']} images, {len(merged.class_ids)} classes{lost}", warn=bool(lost))
        return io.NodeOutput(merged)


def _lost(merged: Statistics, parts: tuple[Statistics, ...]) -> str:
    """A line about what one part has and the other has not, so that the two together have not."""
    what = [
        name
        for name, has in (("how far joint believes each cell", "has_target"), ("scene effects", "has_scene"))
        if any(getattr(part, has) for part in parts) and not getattr(merged, has)
    ]
    return f"\nleft out, as one of them lacks it: {', '.join(what)}" if what else ""


def _listing(folder: Path) -> str:
    """Changes when any file below the folder does, an older one put in its place included."""
    digest = hashlib.sha256()
    for where, below, names in os.walk(folder, followlinks=True):
        below.sort()
        for name in sorted(names):
            status = os.stat(os.path.join(where, name))
            digest.update(f"{where}/{name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()
