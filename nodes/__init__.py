"""ComfyUI nodes: thin adapters between the host and `scp_prior`."""

from comfy_api.latest import ComfyExtension, io

from . import folders
from .convert import SCPConvertCheckpoint
from .convert_statistics import SCPConvertStatistics
from .inpaint import SCPInpaintLatent
from .labels import SCPHintFromLabels, SCPLabelsFromImage
from .legend import SCPPreviewLabels
from .painting import SCPLabelsFromMasks, SCPMaskFromLabels, SCPPaintLabels
from .prior import SCPPriorLatent
from .recolour import SCPRecolor
from .reduce import SCPMergeStatistics, SCPReduceStatistics, SCPSaveStatistics
from .regions import SCPRegionPrompts
from .start import SCPDenoiseStart, SCPNoisedLatent
from .statistics import SCPLoadStatistics

folders.register()


class SCPDiffExtension(ComfyExtension):
    """Tells ComfyUI which nodes this pack has."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Every node, in the order a graph is wired."""
        return [
            SCPLoadStatistics,
            SCPLabelsFromImage,
            SCPPreviewLabels,
            SCPMaskFromLabels,
            SCPPaintLabels,
            SCPLabelsFromMasks,
            SCPHintFromLabels,
            SCPRecolor,
            SCPPriorLatent,
            SCPRegionPrompts,
            SCPInpaintLatent,
            SCPDenoiseStart,
            SCPNoisedLatent,
            SCPReduceStatistics,
            SCPMergeStatistics,
            SCPSaveStatistics,
            SCPConvertStatistics,
            SCPConvertCheckpoint,
        ]


async def comfy_entrypoint() -> SCPDiffExtension:
    """What ComfyUI calls to load the pack."""
    return SCPDiffExtension()
