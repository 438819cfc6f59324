"""The saved graphs an artist opens, run by the real host through its API, on our street and on real label maps."""

from __future__ import annotations

import io
from pathlib import Path

import demo_set
import graph_convert
import numpy as np
import pytest
from comfy_server import ExecutionFailed, PromptRejected
from layout import ROOT
from PIL import Image
from shared_data import require

import demo

WORKFLOWS = sorted((ROOT / "example_workflows").glob("*.json"))
SIZES = {"cityscapes": (1024, 512), "ade20k": (512, 512), "coco-stuff": (512, 384)}
# Steps and sides of the tests: the graphs stay as saved in all else. 128x64 keeps a step at a tenth of a second.
STEPS = 4


def small(prompt: demo.Prompt, width: int, height: int) -> demo.Prompt:
    """The graph at a size and number of steps a CPU runs in seconds."""
    for node in prompt.values():
        inputs = node["inputs"]
        if node["class_type"] in ("SCPPriorLatent", "SCPReduceStatistics"):
            inputs.update(width=width, height=height)
        if isinstance(inputs.get("steps"), int):
            inputs["steps"] = STEPS
    return prompt


def pictures(server, prompt) -> list[np.ndarray]:
    """RGB arrays of what the graph saves, other than previews inside nodes."""
    outputs = server.run(prompt, timeout=300)
    saved = [n for n, node in prompt.items() if node["class_type"] in ("SaveImage", "PreviewImage")]
    found = [
        np.asarray(Image.open(io.BytesIO(png)).convert("RGB")) for n, png in server.pictures(outputs) if n in saved
    ]
    assert found, "the graph gave no picture"
    return found


def test_there_are_graphs_for_every_data_set():
    uses = {"paint", "regions", "inpaint", "recolor", "own-statistics"}
    assert {path.stem for path in WORKFLOWS} >= {"cityscapes", "ade20k", "coco-stuff", "minimal"} | uses
    for path in WORKFLOWS:
        assert path.with_suffix(".jpg").is_file()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_example_workflow_gives_a_picture(server, object_info, base, path: Path):
    prompt = small(graph_convert.load(path, object_info), 256, 128)
    demo_set.prepare(prompt, base)
    made = any(node["class_type"] == "SCPPriorLatent" for node in prompt.values())
    for picture in pictures(server, prompt):
        assert picture.shape == ((128, 256, 3) if made else (demo_set.HEIGHT, demo_set.WIDTH, 3))
        assert picture.std() > 5


@pytest.mark.parametrize("name", sorted(SIZES))
def test_the_authors_settings_are_in_the_graph(object_info, name):
    prompt = graph_convert.load(ROOT / "example_workflows" / f"{name}.json", object_info)
    of = {node["class_type"]: node["inputs"] for node in prompt.values()}
    assert (of["SCPPriorLatent"]["width"], of["SCPPriorLatent"]["height"]) == SIZES[name]
    sampler = of.get("KSampler") or of["KSamplerAdvanced"]
    assert sampler["cfg"] == (4.0 if name == "cityscapes" else 7.5)
    assert (sampler["sampler_name"], sampler["scheduler"]) == ("ddim", "ddim_uniform")
    start = of["SCPDenoiseStart"]
    assert (start["timestep"], start["steps"], start["scheduler"]) == (799, 20, "ddim_uniform")


def test_prior_and_sampler_seeds_both_change_the_picture(server, object_info, base):
    prompt = small(graph_convert.load(ROOT / "example_workflows" / "minimal.json", object_info), 128, 64)
    demo_set.prepare(prompt, base)
    made = {}
    for kind in ("as saved", "SCPPriorLatent", "KSampler"):
        if kind != "as saved":
            demo.change(prompt, kind, seed=12345)
        made[kind] = pictures(server, prompt)[0].astype(int)
    assert abs(made["SCPPriorLatent"] - made["as saved"]).mean() > 1
    assert abs(made["KSampler"] - made["SCPPriorLatent"]).mean() > 1


REAL_MAPS = {
    "ade20k official colours": ("data/ade20k_mini/annotations_color/validation/ADE_val_00000001.png", "ade20k"),
    "ade20k preprocessor screen": (
        "data/ade20k_mini/preprocessor_screens/ADE_val_00000001_uniformer_ade20k_1.png",
        "ade20k",
    ),
    "ade20k grey ids": ("data/ade20k_mini/annotations/validation/ADE_val_00001349.png", "ade20k-grey"),
    "coco-stuff grey ids": ("data/coco_stuff_mini/annotations/val2017/000000000139.png", "coco-stuff-grey"),
}


@pytest.mark.parametrize("name", REAL_MAPS)
def test_real_label_maps(server, object_info, base, name):
    relative, palette = REAL_MAPS[name]
    prompt = graph_convert.load(ROOT / "example_workflows" / "minimal.json", object_info)
    demo.take_palette(prompt, palette)
    more = demo.take_segmentation(prompt, require(relative), palette, base)
    demo_set.prepare(prompt, base, more=more)
    width, height = 256, 128
    made = pictures(server, small(prompt, width, height))
    assert made[0].shape == (height, width, 3)
    assert made[0].std() > 5


def test_a_mistake_is_told_at_its_node(server, object_info, base):
    """Before the run where it can be known, at the node otherwise; and the server goes on."""
    prompt = small(graph_convert.load(ROOT / "example_workflows" / "minimal.json", object_info), 128, 64)
    demo_set.prepare(prompt, base)

    def changed(kind, **values):
        copy = {number: {**node, "inputs": dict(node["inputs"])} for number, node in prompt.items()}
        demo.change(copy, kind, **values)
        return copy

    for kind, values, words in (
        ("SCPLoadStatistics", {"statistics": "../../escape.safetensors"}, "is not in"),
        ("SCPLabelsFromImage", {"palette": "rainbow"}, "Choose one of"),
        ("SCPPriorLatent", {"method": "best"}, "Choose one of"),
        ("SCPDenoiseStart", {"scheduler": "none"}, "Choose one of"),
    ):
        with pytest.raises(PromptRejected) as refused:
            server.post(changed(kind, **values))
        (errors,) = [e for e in refused.value.node_errors.values() if e["class_type"] == kind]
        assert words in str(errors["errors"])

    for kind, values, words in (
        ("SCPPriorLatent", {"width": 100}, "The width could be 96 or 104"),
        ("SCPLabelsFromImage", {"palette": "ade20k-grey"}, "fits it better"),
        ("SCPLabelsFromImage", {"palette": "cityscapes-grey", "max_unmatched": 1.0}, ""),
    ):
        if not words:
            assert pictures(server, changed(kind, **values))
            continue
        with pytest.raises(ExecutionFailed) as failed:
            server.run(changed(kind, **values))
        assert failed.value.node_type == kind
        assert words in failed.value.reason
    assert pictures(server, prompt)
