"""What travels on this pack's own wires."""

from __future__ import annotations

from typing import NamedTuple

from comfy_api.latest import io
from torch import Tensor

from ..scp_prior.classes import Palette

CATEGORY = "SCP-Diff"

StatisticsWire = io.Custom("SCP_STATISTICS")
LabelsWire = io.Custom("SCP_LABELS")


class LabelMaps(NamedTuple):
    """What an SCP_LABELS wire carries: labels (B, H, W) int64, and the palette they were read with."""

    labels: Tensor
    palette: Palette
