"""Painting by class name through the host's API: what is refused before the queue, and what only a run can tell."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from comfy_server import ExecutionFailed, PromptRejected, Server
from PIL import Image

WIDTH, HEIGHT = 128, 64


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def graph(first: str = "road", second: str = "Traffic-LIGHT", palette: str = "cityscapes") -> dict[str, Any]:
    """A map of one class, a smaller mask painted into its right half by another, and the hint of it."""
    size = {"width": WIDTH, "height": HEIGHT}
    return {
        "base": node("SCPPaintLabels", palette=palette, class_name=first, **size),
        "black": node("SolidMask", value=0.0, width=32, height=16),
        "white": node("SolidMask", value=1.0, width=16, height=16),
        "right": node("MaskComposite", destination=["black", 0], source=["white", 0], x=16, y=0, operation="add"),
        "painted": node(
            "SCPPaintLabels", palette="ade20k", class_name=second, labels=["base", 0], mask=["right", 0], **size
        ),
        "look": node("SCPPreviewLabels", labels=["painted", 0]),
        "hint": node("SCPHintFromLabels", labels=["painted", 0], palette="auto"),
        "save": node("PreviewImage", images=["hint", 0]),
    }


def test_a_chain_of_strokes_with_names_no_menu_spells_so(server: Server):
    pictures = dict(server.pictures(server.run(graph())))
    hint = np.asarray(Image.open(io.BytesIO(pictures["save"])).convert("RGB"))
    assert hint.shape == (HEIGHT, WIDTH, 3)
    # The colours of road and traffic light in gtFine.
    assert (hint[:, : WIDTH // 2] == (128, 64, 128)).all()
    assert (hint[:, WIDTH // 2 :] == (250, 170, 30)).all()
    assert Image.open(io.BytesIO(pictures["look"])).width == 640


def test_a_class_the_palette_has_not_is_refused_with_close_ones(server: Server):
    with pytest.raises(PromptRejected, match="node base .*No class 'rode'.*'road'"):
        server.post(graph(first="rode"))


def test_what_only_the_labels_wired_in_can_tell_is_told_by_the_run(server: Server):
    # Both names are ADE20K's, whose palette the second node shows but does not use.
    with pytest.raises(ExecutionFailed, match=r"node painted \(SCPPaintLabels\): No class 'chandelier'") as failed:
        server.run(graph(second="chandelier"))
    assert "'cityscapes'" in failed.value.reason
