"""Words for single classes of the label map."""

from __future__ import annotations

from comfy.model_management import intermediate_device
from comfy_api.latest import io

from ..scp_prior import SCPError, Statistics
from ..scp_prior.labels import to_latent_grid
from ..scp_prior.regions import RegionsRead, region_prompts
from .compat import search_aliases
from .say import say
from .sizes import size_inputs, size_of
from .wires import CATEGORY, LabelMaps, LabelsWire, StatisticsWire

# Where no statistics say otherwise: as the released ones, and nearly every image VAE.
_DOWNSCALE, _RULE = 8, "nearest"
# What belongs to a part's own words, place and time; all else (ControlNet, guidance, reference pictures) is of the
# picture, and regions are to have it too.
_OF_THE_PART = frozenset(
    {"pooled_output", "mask", "mask_strength", "set_area_to_bounds", "area", "strength", "start_percent", "end_percent"}
    | {"clip_start_percent", "clip_end_percent", "default", "gligen"}
)


class SCPRegionPrompts(io.ComfyNode):
    """Adds a prompt for each class that has a line, masked to the very cells the prior fills for that class."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCPRegionPrompts",
            display_name="SCP Region Prompts",
            category=CATEGORY,
            description=(
                "Adds words for single classes, one 'class: words' a line, to the prompt for the whole picture. Put it "
                "between CLIP Text Encode and Apply ControlNet. Prior, ControlNet and words then agree cell for cell."
            ),
            inputs=[
                io.Conditioning.Input(
                    "conditioning", tooltip="The prompt for the whole picture; classes without a line keep it."
                ),
                io.Clip.Input("clip", tooltip="The same text encoder the whole picture's prompt was made with."),
                LabelsWire.Input("labels", tooltip="The label map that SCP Prior Latent gets."),
                io.String.Input(
                    "prompts",
                    default="",
                    multiline=True,
                    dynamic_prompts=True,
                    placeholder="sky: storm clouds\nroad: wet cobblestones",
                    tooltip="One 'class: words' a line, e.g. sky: storm clouds. Every line makes sampling longer, by "
                    "as much as the whole picture's prompt takes; classes with the same words count once.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.05,
                    tooltip="Weight of a class's words against those for the whole picture, where the class is: "
                    "1 = as much, 3 = three parts in four, 0 = none.",
                ),
                StatisticsWire.Input(
                    "statistics",
                    optional=True,
                    tooltip="Those SCP Prior Latent gets. Needed only where they are of a VAE that does not shrink by "
                    "8, or were made with label rule majority.",
                ),
                *size_inputs(),
            ],
            outputs=[
                io.Conditioning.Output(
                    "CONDITIONING", display_name="conditioning", tooltip="For Apply ControlNet, or KSampler's positive."
                )
            ],
            hidden=[io.Hidden.unique_id],
            **search_aliases("regional prompt", "prompt per class", "conditioning set mask", "scp-diff"),
        )

    @classmethod
    def execute(
        cls,
        conditioning: list,
        clip,
        labels: LabelMaps,
        prompts: str,
        strength: float,
        statistics: Statistics | None = None,
        width: int = 0,
        height: int = 0,
    ) -> io.NodeOutput:
        if clip is None:
            raise SCPError("There is no text encoder on this wire: the checkpoint holds none. Load one with Load CLIP.")
        downscale, rule = (statistics.downscale, statistics.label_rule.grid) if statistics else (_DOWNSCALE, _RULE)
        cells = size_of(labels.labels, width, height, downscale).cells
        read = region_prompts(prompts, to_latent_grid(labels.labels, cells, rule), labels.palette.table)
        say(cls, _summary(read, strength), warn=bool(read.absent))
        if not strength:
            return io.NodeOutput(conditioning)
        out, shared = list(conditioning), _shared(conditioning)
        for region in read.regions:
            masked = {
                "mask": region.mask.to(intermediate_device()),
                "set_area_to_bounds": False,
                "mask_strength": strength,
            }
            words = clip.encode_from_tokens_scheduled(clip.tokenize(region.words))
            out += [[encoded, {**shared, **options, **masked}] for encoded, options in words]
        return io.NodeOutput(out)


def _shared(conditioning: list) -> dict:
    """Options that every part of a conditioning has, the very same in each, and that are of the whole picture."""
    if not conditioning:
        return {}
    first, *others = (options for _, options in conditioning)
    return {
        key: value
        for key, value in first.items()
        if key not in _OF_THE_PART and all(other.get(key) is value for other in others)
    }


def _summary(read: RegionsRead, strength: float) -> str:
    lines = [f"{', '.join(region.names)} ({region.share:.1%}): {region.words}" for region in read.regions]
    if not strength:
        lines = ["strength 0: only the prompt for the whole picture"]
    elif not lines:
        lines = ["no class has words of its own: only the prompt for the whole picture"]
    if read.absent:
        lines.append(f"in no cell of the picture, left out: {', '.join(read.absent)}")
    return "\n".join(lines)
