"""Statistics + label map -> starting latent."""

from __future__ import annotations

import torch
from comfy.model_management import intermediate_device
from comfy_api.latest import io, ui

from ..scp_prior import METHODS, SCPError, Statistics, prior_maps, sample_prior
from ..scp_prior.batches import dealt_out
from ..scp_prior.class_strength import absent_classes, cell_strengths, class_strengths, weakened
from ..scp_prior.labels import to_latent_grid
from ..scp_prior.matching import labels_for
from ..scp_prior.prior import repeat_maps
from ..scp_prior.report import report, stand_in
from ..scp_prior.sizes import stretched
from .choices import check_choice
from .compat import search_aliases
from .preview import VIEWS, preview_of
from .say import say
from .sizes import size_inputs, size_of
from .wires import CATEGORY, LabelMaps, LabelsWire, StatisticsWire

_AUTO = -1.0


class SCPPriorLatent(io.ComfyNode):
    """Draws a starting latent from a data set's statistics and a label map."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCPPriorLatent",
            display_name="SCP Prior Latent",
            category=CATEGORY,
            description=(
                "Draws a starting latent that already looks like the classes in the label map. Wire `latent` into "
                "KSampler in place of Empty Latent Image, with denoise and steps from SCP Denoise Start."
            ),
            inputs=[
                StatisticsWire.Input("statistics", tooltip="From SCP Load Statistics, of the label map's data set."),
                LabelsWire.Input("labels", tooltip="From SCP Labels From Image."),
                io.Combo.Input(
                    "method",
                    options=list(METHODS),
                    default="joint",
                    tooltip="joint (default): per class and place, steadied where the data are few. joint-spatial and "
                    "joint-class: the paper's own. class, spatial, mixture: parts of it. normal: an empty latent.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Another seed, another prior. It may equal KSampler's: the two draws stay independent.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    tooltip="1 = the prior as measured, 0 = an empty latent, between = a fainter prior.",
                ),
                io.Int.Input(
                    "batch_size",
                    default=1,
                    min=1,
                    max=4096,
                    tooltip="How many latents to draw. With several label maps: a multiple of their number, "
                    "or 1 for one latent each.",
                ),
                *size_inputs(),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="The model that will sample. Wire it to be told at once if its latents are of another "
                    "kind than the statistics, and to get the preview in its colours.",
                ),
                io.Float.Input(
                    "scene_variation",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    optional=True,
                    tooltip="For joint. 1 = light, haze and palette differ from picture to picture as they did in the "
                    "photos; 0 = every cell is drawn by itself, as in the paper.",
                ),
                io.Float.Input(
                    "shrinkage",
                    default=_AUTO,
                    min=_AUTO,
                    max=1e6,
                    step=1.0,
                    optional=True,
                    tooltip="For joint. -1 = auto, as held-out photos asked for when the file was made. Otherwise: how "
                    "many photos' worth of its surroundings a cell is mixed with (8 times that for its spread), and no "
                    "correction learned from held-out photos; 0 = none.",
                ),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="Decodes the preview, where view is mean. Costs a VAE decode (a second on a GPU, several "
                    "on a CPU) whenever anything but the seed changes.",
                ),
                io.Combo.Input(
                    "view",
                    options=list(VIEWS),
                    default=VIEWS[0],
                    optional=True,
                    tooltip="What the preview shows. mean: the prior's mean as colours. coverage: how many photos "
                    "stand behind each cell, and where something broader stood in. spread: how far cells may stray.",
                ),
                io.String.Input(
                    "class_strength",
                    default="",
                    multiline=True,
                    optional=True,
                    placeholder="car: 0.5",
                    tooltip="A strength for single classes, one 'class: number' a line, e.g. car: 0.5. 1 = as "
                    "measured, 0 = no prior there. It multiplies strength.",
                ),
            ],
            outputs=[
                io.Latent.Output("LATENT", display_name="latent", tooltip="For KSampler's latent_image."),
                io.Image.Output("PREVIEW", display_name="preview", tooltip="The prior as a picture, see view."),
            ],
            hidden=[io.Hidden.unique_id],
            **search_aliases("noise prior", "scp-diff", "empty latent", "joint prior", "segmentation latent"),
        )

    @classmethod
    def validate_inputs(cls, method: str | None = None, view: str | None = None) -> bool | str:
        """Whether method and view exist."""
        told = check_choice("prior method", method, METHODS)
        return told if told is not True else check_choice("view", view, VIEWS)

    @classmethod
    def execute(
        cls,
        statistics: Statistics,
        labels: LabelMaps,
        method: str,
        seed: int,
        strength: float,
        batch_size: int,
        width: int = 0,
        height: int = 0,
        model=None,
        scene_variation: float = 1.0,
        shrinkage: float = _AUTO,
        vae=None,
        view: str = VIEWS[0],
        class_strength: str = "",
    ) -> io.NodeOutput:
        _require_same_latents(statistics, model)
        table = labels.palette.table
        of_class = class_strengths(class_strength, table)
        ids = labels_for(statistics, labels.labels, table)
        size = size_of(ids, width, height, statistics.downscale)
        maps = prior_maps(
            statistics,
            ids,
            method,
            latent_size=size.cells,
            shrinkage=None if shrinkage < 0 else shrinkage,
            scene_variation=scene_variation,
        )
        strengths: torch.Tensor | float = strength
        absent = ""
        if of_class:
            grid = to_latent_grid(labels.labels, size.cells, statistics.label_rule.grid)
            strengths = cell_strengths(grid, of_class, strength)
            absent = absent_classes(of_class, grid, table)

        batch = repeat_maps(maps, max(batch_size, len(ids)))
        drawn = sample_prior(batch, seed)
        latent = weakened(drawn, dealt_out(strengths, len(drawn)) if of_class else strength)
        seen = preview_of(maps, strengths, statistics.downscale, view, stand_in(statistics, method), model, vae)

        text, uncertain = report(statistics, ids, maps, method)
        parted = _stretched(ids.shape[1:], size.pixels)
        say(cls, "\n".join(filter(None, (text, parted, absent, seen.said))), warn=uncertain or bool(parted))
        device = intermediate_device()
        return io.NodeOutput({"samples": latent.to(device)}, seen.picture.to(device), ui=ui.PreviewImage(seen.shown))


def _stretched(of_map: tuple[int, ...], size: tuple[int, int]) -> str:
    """A warning where the label map's proportions change: ComfyUI crops a ControlNet hint to fit, so they part ways."""
    if not stretched(of_map, size):
        return ""
    (map_height, map_width), (height, width) = of_map, size
    return (
        f"label map stretched from {map_width}x{map_height} to {width}x{height}:\n"
        "resize the segmentation image to that first,\nor the hint will not match"
    )


def _require_same_latents(statistics: Statistics, model) -> None:
    if model is None:
        return
    latents = model.get_model_object("latent_format")
    if latents.latent_channels != statistics.channels or latents.latent_dimensions != 2:
        kind = "" if latents.latent_dimensions == 2 else f" in {latents.latent_dimensions} dimensions"
        raise SCPError(
            f"This model samples latents of {latents.latent_channels} channels{kind}; {statistics.name} holds "
            f"statistics of {statistics.channels} channels, made with another VAE "
            f"({statistics.metadata.get('vae', 'unknown')}). Load a model of that family, or statistics made for this "
            "model's VAE."
        )
