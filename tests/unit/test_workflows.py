"""The example workflows: what the generator writes, held against the nodes' own schemas and the page's rules."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import json
import re
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from PIL import Image

_ROOT = Path(__file__).resolve().parents[2]
_FOLDER = _ROOT / "example_workflows"
_SPEC = importlib.util.spec_from_file_location("scp_make_workflows", _ROOT / "scripts" / "make_workflows.py")
make_workflows = importlib.util.module_from_spec(_SPEC)
with mock.patch.object(sys, "path", [str(_ROOT / "scripts"), *sys.path]):
    _SPEC.loader.exec_module(make_workflows)

STREETS = ("minimal", "cityscapes", "ade20k", "coco-stuff")  # of one layout: a segmentation picture, an image
NAMES = (*STREETS, "paint", "regions", "inpaint", "recolor", "own-statistics")
DEMO = ("minimal", "paint", "regions", "inpaint")  # drawn by the demo's trained model
RELEASED = {  # prompt, CFG, (width, height), as the authors' inference script has them
    "cityscapes": ("Realistic city road scenes", 4.0, (1024, 512)),
    "ade20k": ("diverse images depicting various scenes", 7.5, (512, 512)),
    "coco-stuff": ("Realistic image", 7.5, (512, 384)),
}
BEGINNINGS = {"minimal": "scp_demo", **{name: name for name in RELEASED}}
LOADERS = {
    "CheckpointLoaderSimple": "_checkpoint.safetensors",
    "ControlNetLoader": "_controlnet.safetensors",
    "SCPLoadStatistics": ".safetensors",
    "LoadImage": "_labels.png",
}
TITLE = 30
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "IMAGEUPLOAD")

# The host's own nodes: inputs in the host's order ("name:TYPE", a question mark where optional), outputs.
_HOST = {
    "LoadImage": ("image:COMBO upload:IMAGEUPLOAD", "IMAGE MASK"),
    "ImageScale": ("image:IMAGE upscale_method:COMBO width:INT height:INT crop:COMBO", "IMAGE"),
    "CheckpointLoaderSimple": ("ckpt_name:COMBO", "MODEL CLIP VAE"),
    "CLIPTextEncode": ("text:STRING clip:CLIP", "CONDITIONING"),
    "ControlNetLoader": ("control_net_name:COMBO", "CONTROL_NET"),
    "ControlNetApplyAdvanced": (
        "positive:CONDITIONING negative:CONDITIONING control_net:CONTROL_NET image:IMAGE strength:FLOAT "
        "start_percent:FLOAT end_percent:FLOAT vae:VAE?",
        "CONDITIONING CONDITIONING",
    ),
    "KSampler": (
        "model:MODEL seed:INT steps:INT cfg:FLOAT sampler_name:COMBO scheduler:COMBO positive:CONDITIONING "
        "negative:CONDITIONING latent_image:LATENT denoise:FLOAT",
        "LATENT",
    ),
    "KSamplerAdvanced": (
        "model:MODEL add_noise:COMBO noise_seed:INT steps:INT cfg:FLOAT sampler_name:COMBO scheduler:COMBO "
        "positive:CONDITIONING negative:CONDITIONING latent_image:LATENT start_at_step:INT end_at_step:INT "
        "return_with_leftover_noise:COMBO",
        "LATENT",
    ),
    "VAEDecode": ("samples:LATENT vae:VAE", "IMAGE"),
    "SaveImage": ("images:IMAGE filename_prefix:STRING", ""),
    "PreviewImage": ("images:IMAGE", ""),
    "MarkdownNote": ("", ""),
}


@dataclasses.dataclass
class Shape:
    """A node type: inputs {name: (type, optional, options)} in schema order, outputs' types and names."""

    inputs: dict[str, tuple[str, bool, dict[str, Any]]]
    outputs: list[str]
    output_names: list[str] | None = None

    def ordered(self) -> list[str]:
        """Names as the page saves them: sockets first, widgets after."""
        return sorted(self.inputs, key=lambda name: self.inputs[name][0] in WIDGETS)


def _host_shape(inputs: str, outputs: str) -> Shape:
    found = {}
    for word in inputs.split():
        name, kind = word.split(":")
        found[name] = (kind.rstrip("?"), kind.endswith("?"), {})
    return Shape(found, outputs.split())


def _our_shapes() -> dict[str, Shape]:
    """The pack's nodes, as tests/inhost hold their schemas to be."""
    shapes = {}
    for node, schema in json.loads((_ROOT / "tests" / "inhost" / "schemas.json").read_text(encoding="utf-8")).items():
        inputs = {port["id"]: (port["type"], port["optional"], port) for port in schema["inputs"]}
        outputs = [port["type"] for port in schema["outputs"]]
        shapes[node] = Shape(inputs, outputs, [port["name"] for port in schema["outputs"]])
    return shapes


@pytest.fixture(scope="module")
def shapes() -> dict[str, Shape]:
    return {**{name: _host_shape(*shape) for name, shape in _HOST.items()}, **_our_shapes()}


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=STREETS)
def street(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def street_graph(street: str) -> dict[str, Any]:
    return json.loads((_FOLDER / f"{street}.json").read_text(encoding="utf-8"))


@pytest.fixture
def graph(name: str) -> dict[str, Any]:
    return json.loads((_FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def nodes_of(graph: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [node for node in graph["nodes"] if node["type"] == kind]


def one(graph: dict[str, Any], kind: str) -> dict[str, Any]:
    (node,) = nodes_of(graph, kind)
    return node


def saved_values(node: dict[str, Any], shape: Shape) -> dict[str, Any]:
    """{widget: value} of a node; fails when the list is longer or shorter than the page would write it."""
    values, found = list(node["widgets_values"]), {}
    for widget, (kind, _, options) in shape.inputs.items():
        if kind in WIDGETS:
            found[widget] = values.pop(0)
            if widget in ("seed", "noise_seed") or options.get("control_after_generate"):
                assert values.pop(0) == "fixed"
    assert not values
    return found


def source(graph: dict[str, Any], node: dict[str, Any], name: str) -> tuple[str, str]:
    """(node type, output name) that feeds an input."""
    (slot,) = (slot for slot in node["inputs"] if slot["name"] == name)
    (link,) = (link for link in graph["links"] if link[0] == slot["link"])
    (origin,) = (node for node in graph["nodes"] if node["id"] == link[1])
    return origin["type"], origin["outputs"][link[2]]["name"]


def box(node: dict[str, Any]) -> tuple[float, float, float, float]:
    """Left, top, right, bottom, title included."""
    (left, top), (width, height) = node["pos"], node["size"]
    return left, top - TITLE, left + width, top + height


def test_files_are_what_the_generator_writes(tmp_path: Path) -> None:
    make_workflows.main(tmp_path)
    assert sorted(path.stem for path in tmp_path.iterdir()) == sorted(NAMES)
    for path in tmp_path.iterdir():
        assert (_FOLDER / path.name).read_bytes() == path.read_bytes(), "run python scripts/make_workflows.py"


def test_every_workflow_has_a_small_thumbnail(name: str) -> None:
    path = _FOLDER / f"{name}.jpg"
    assert path.stat().st_size < 100_000
    with Image.open(path) as image:
        assert image.format == "JPEG"
        assert 400 <= image.width <= 640


def test_slots_and_values_fit_the_nodes(graph: dict[str, Any], shapes: dict[str, Shape]) -> None:
    for node in graph["nodes"]:
        if node["type"] == "MarkdownNote":
            assert len(node["widgets_values"]) == 1
            continue
        shape = shapes[node["type"]]
        assert [slot["name"] for slot in node["inputs"]] == shape.ordered(), node["type"]
        for slot in node["inputs"]:
            kind, optional, _ = shape.inputs[slot["name"]]
            assert slot["type"] == kind
            assert (slot.get("shape") == 7) == optional
            assert ("widget" in slot) == (kind in WIDGETS)
            assert slot["link"] is not None or optional or kind in WIDGETS, f"{node['type']}: {slot['name']} is loose"
        assert [slot["type"] for slot in node["outputs"]] == shape.outputs
        if shape.output_names:
            assert [slot["name"] for slot in node["outputs"]] == shape.output_names
        saved_values(node, shape)


def test_values_are_ones_the_nodes_accept(graph: dict[str, Any], shapes: dict[str, Shape]) -> None:
    for node in graph["nodes"]:
        if not node["type"].startswith("SCP"):
            continue
        shape = shapes[node["type"]]
        for widget, value in saved_values(node, shape).items():
            kind, _, options = shape.inputs[widget]
            if kind == "COMBO" and "options" in options:
                assert value in options["options"]
            elif kind in ("INT", "FLOAT"):
                assert options["min"] <= value <= options["max"]


def test_links_join_slots_of_one_type(graph: dict[str, Any], shapes: dict[str, Shape]) -> None:
    nodes = {node["id"]: node for node in graph["nodes"]}
    assert len(nodes) == len(graph["nodes"])
    assert graph["last_node_id"] == max(nodes)
    assert graph["last_link_id"] == max(link[0] for link in graph["links"])
    assert len({link[0] for link in graph["links"]}) == len(graph["links"])
    for number, origin, out, target, into, kind in graph["links"]:
        assert number in nodes[origin]["outputs"][out]["links"]
        assert nodes[target]["inputs"][into]["link"] == number
        assert kind == shapes[nodes[origin]["type"]].outputs[out]
        name = nodes[target]["inputs"][into]["name"]
        assert kind == shapes[nodes[target]["type"]].inputs[name][0]
    named = [link for node in nodes.values() for slot in node["outputs"] for link in slot["links"] or ()]
    named += [slot["link"] for node in nodes.values() for slot in node["inputs"] if slot["link"] is not None]
    assert sorted(named) == sorted([link[0] for link in graph["links"]] * 2)


def test_order_runs_sources_first(graph: dict[str, Any]) -> None:
    order = {node["id"]: node["order"] for node in graph["nodes"]}
    assert sorted(order.values()) == list(range(len(order)))
    for _, origin, _, target, *_ in graph["links"]:
        assert order[origin] < order[target]


def test_bends_belong_to_links_of_one_output(graph: dict[str, Any]) -> None:
    links = {link[0]: link for link in graph["links"]}
    bends = {bend["id"]: bend for bend in graph["extra"].get("reroutes", ())}
    for bend in bends.values():
        assert len({tuple(links[number][1:3]) for number in bend["linkIds"]}) == 1
        assert set(bend["linkIds"]) <= set(bends[bend.get("parentId", bend["id"])]["linkIds"])
    for bent in graph["extra"].get("linkExtensions", ()):
        assert bent["id"] in bends[bent["parentId"]]["linkIds"]


def test_nodes_do_not_overlap_and_lie_in_groups(graph: dict[str, Any]) -> None:
    boxes = {node["id"]: box(node) for node in graph["nodes"]}
    for (left, first), (right, second) in itertools.combinations(boxes.items(), 2):
        apart = first[2] <= second[0] or second[2] <= first[0] or first[3] <= second[1] or second[3] <= first[1]
        assert apart, f"nodes {left} and {right} overlap"
    groups = [(x, y, x + width, y + height) for x, y, width, height in (one["bounding"] for one in graph["groups"])]
    for node in graph["nodes"]:
        left, top, right, bottom = boxes[node["id"]]
        inside = [g for g in groups if g[0] <= left and g[1] <= top and right <= g[2] and bottom <= g[3]]
        touched = [g for g in groups if left < g[2] and g[0] < right and top < g[3] and g[1] < bottom]
        assert len(inside) == len(touched) == (node["type"] != "MarkdownNote"), f"{node['type']} at {node['pos']}"


def test_every_wire_leads_to_the_right(graph: dict[str, Any]) -> None:
    nodes = {node["id"]: node for node in graph["nodes"]}
    for _, origin, _, target, *_ in graph["links"]:
        kinds = nodes[origin]["type"], nodes[target]["type"]
        # One above the other, on purpose: they are a pair.
        if kinds not in (("LoadImage", "ImageScale"), ("VAEDecode", "SaveImage")):
            assert box(nodes[origin])[2] <= box(nodes[target])[0], kinds


def test_the_page_opens_at_the_left_end_and_near_enough_to_write_words(graph: dict[str, Any]) -> None:
    (across, _), scale = graph["extra"]["ds"]["offset"], graph["extra"]["ds"]["scale"]
    # Smaller than 8 pixels the page leaves text of 14 out.
    assert 14 * scale >= 8
    left = min(box(node)[0] for node in graph["nodes"])
    assert -20 <= left <= 0
    assert 60 <= (left + across) * scale <= 80


def test_groups_are_numbered(graph: dict[str, Any]) -> None:
    titles = [group["title"] for group in graph["groups"]]
    assert [int(title.split()[0]) for title in titles] == list(range(1, len(titles) + 1))


def test_every_group_of_a_street_says_what_it_is_for(street_graph: dict[str, Any]) -> None:
    titles = [group["title"] for group in street_graph["groups"]]
    assert titles == ["1 Segmentation", "2 ControlNet", "3 Start", "4 Sample"]


def test_files_have_the_names_agreed_and_the_note_names_them(street: str, street_graph: dict[str, Any]) -> None:
    (note,) = one(street_graph, "MarkdownNote")["widgets_values"]
    for kind, ending in LOADERS.items():
        file = one(street_graph, kind)["widgets_values"][0]
        assert file == BEGINNINGS[street] + ending
        assert f"**{file}**" in note
    for folder in ("models/checkpoints", "models/scp_statistics", "input"):
        assert folder in note
    if street in RELEASED:
        for needed in (
            f"{street}/{street}.ckpt",
            f"{street}/{street}_10000_..._mean_std.npy",
            "huggingface.co/c7w/SCP-Diff",
        ):
            assert needed in note
        assert "U-Net was trained too" in note


def test_note_names_only_nodes_and_widgets_that_exist(graph: dict[str, Any], shapes: dict[str, Shape]) -> None:
    (note,) = one(graph, "MarkdownNote")["widgets_values"]
    ours = {re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind.replace("SCP", "SCP ", 1)) for kind in shapes}
    for title in re.findall(r"\bSCP [A-Z]\w+(?: [A-Z]\w+)*", note):
        assert title in ours
    widgets = {name for node in graph["nodes"] for name in shapes[node["type"]].inputs}
    files = {value for node in graph["nodes"] for value in node["widgets_values"] if isinstance(value, str)}
    for word in re.findall(r"\*\*([a-z_]+)\*\*", note):
        # Values that stand in the graph are told in bold as well.
        assert word in widgets | {"disable", "labels", "input", *NAMES} or word in files, word


def test_notes_have_no_code_marks(graph: dict[str, Any]) -> None:
    """Nodes 2.0 shows them blue on blue."""
    assert "`" not in one(graph, "MarkdownNote")["widgets_values"][0]


def test_settings_are_the_authors(street: str, street_graph: dict[str, Any], shapes: dict[str, Shape]) -> None:
    prompt, cfg, size = RELEASED.get(street, ("Realistic city road scenes", 3.0, (0, 0)))
    texts = [node["widgets_values"][0] for node in nodes_of(street_graph, "CLIPTextEncode")]
    assert texts[0] == prompt + ", best quality, extremely detailed"
    assert texts[1] == (
        "longbody, lowres, bad anatomy, bad hands, missing fingers, extra digit, fewer digits, cropped, worst quality, "
        "low quality"
    )
    alone = [kind for kind in shapes if kind != "MarkdownNote" and len(nodes_of(street_graph, kind)) == 1]
    values = {kind: saved_values(one(street_graph, kind), shapes[kind]) for kind in alone}
    sampler = values.get("KSampler") or values["KSamplerAdvanced"]
    assert (sampler["cfg"], sampler["sampler_name"], sampler["scheduler"]) == (cfg, "ddim", "ddim_uniform")
    assert values["SCPDenoiseStart"] == {"timestep": 799, "steps": 20, "scheduler": "ddim_uniform"}
    prior = values["SCPPriorLatent"]
    assert (prior["width"], prior["height"], prior["method"], prior["strength"]) == (*size, "joint", 1)
    assert values["SCPLabelsFromImage"]["palette"] == (street if street in RELEASED else "cityscapes")
    assert values["SCPHintFromLabels"]["palette"] == "auto"
    assert values["ControlNetApplyAdvanced"] == {"strength": 1, "start_percent": 0, "end_percent": 1}
    if street in RELEASED:
        fit = values["ImageScale"]
        assert (fit["width"], fit["height"], fit["upscale_method"]) == (*size, "nearest-exact")
        assert source(street_graph, one(street_graph, "SCPPriorLatent"), "model") == ("CheckpointLoaderSimple", "MODEL")


def test_samplers_are_wired_as_the_readme_says(
    street: str, street_graph: dict[str, Any], shapes: dict[str, Shape]
) -> None:
    advanced = street == "ade20k"
    sampler = one(street_graph, "KSamplerAdvanced" if advanced else "KSampler")
    assert source(street_graph, sampler, "positive") == ("ControlNetApplyAdvanced", "positive")
    if street in RELEASED:
        assert source(street_graph, sampler, "negative") == ("ControlNetApplyAdvanced", "negative")
    assert source(street_graph, one(street_graph, "ControlNetApplyAdvanced"), "image") == ("SCPHintFromLabels", "hint")
    if not advanced:
        assert source(street_graph, sampler, "latent_image") == ("SCPPriorLatent", "latent")
        for wire in ("denoise", "steps"):
            assert source(street_graph, sampler, wire) == ("SCPDenoiseStart", wire)
        return
    assert source(street_graph, sampler, "latent_image") == ("SCPNoisedLatent", "latent")
    assert source(street_graph, sampler, "start_at_step") == ("SCPDenoiseStart", "start_at_step")
    values = saved_values(sampler, shapes["KSamplerAdvanced"])
    assert (values["add_noise"], values["steps"], values["end_at_step"]) == ("disable", 20, 10000)
    noised = saved_values(one(street_graph, "SCPNoisedLatent"), shapes["SCPNoisedLatent"])
    assert {key: noised[key] for key in ("timestep", "steps", "scheduler")} == saved_values(
        one(street_graph, "SCPDenoiseStart"), shapes["SCPDenoiseStart"]
    )


@pytest.fixture(params=DEMO)
def demo_graph(request: pytest.FixtureRequest) -> dict[str, Any]:
    return json.loads((_FOLDER / f"{request.param}.json").read_text(encoding="utf-8"))


def test_the_demos_model_is_used_as_it_was_trained(demo_graph: dict[str, Any], shapes: dict[str, Shape]) -> None:
    for kind, ending in list(LOADERS.items())[:3]:
        assert one(demo_graph, kind)["widgets_values"] == [f"scp_demo{ending}"]
    sampler = one(demo_graph, "KSampler")
    assert source(demo_graph, sampler, "positive") == ("ControlNetApplyAdvanced", "positive")
    # Past the ControlNet: guidance then strengthens the label map.
    assert source(demo_graph, sampler, "negative") == ("CLIPTextEncode", "CONDITIONING")
    values = saved_values(sampler, shapes["KSampler"])
    assert (values["cfg"], values["sampler_name"], values["scheduler"]) == (3, "ddim", "ddim_uniform")
    assert source(demo_graph, one(demo_graph, "SCPPriorLatent"), "vae") == ("CheckpointLoaderSimple", "VAE")
    (note,) = one(demo_graph, "MarkdownNote")["widgets_values"]
    assert "256 x 128 only" in note
    assert "both sides" in note


def test_inpainting_takes_the_mask_before_and_the_map_after_painting(shapes: dict[str, Shape]) -> None:
    graph = json.loads((_FOLDER / "inpaint.json").read_text(encoding="utf-8"))
    inpaint, paint = one(graph, "SCPInpaintLatent"), one(graph, "SCPPaintLabels")
    assert source(graph, inpaint, "mask") == source(graph, paint, "mask") == ("SCPMaskFromLabels", "mask")
    assert source(graph, inpaint, "latent") == ("SCPPriorLatent", "latent")
    assert source(graph, inpaint, "vae") == ("CheckpointLoaderSimple", "VAE")
    assert source(graph, one(graph, "KSampler"), "latent_image") == ("SCPInpaintLatent", "latent")
    for kind in ("SCPPriorLatent", "SCPHintFromLabels"):
        assert source(graph, one(graph, kind), "labels") == ("SCPPaintLabels", "labels")


def test_regions_have_words_before_the_controlnet_and_strengths() -> None:
    graph = json.loads((_FOLDER / "regions.json").read_text(encoding="utf-8"))
    apply, regions = one(graph, "ControlNetApplyAdvanced"), one(graph, "SCPRegionPrompts")
    assert source(graph, apply, "positive") == ("SCPRegionPrompts", "conditioning")
    assert source(graph, regions, "labels") == source(graph, one(graph, "SCPPriorLatent"), "labels")
    assert regions["widgets_values"][0].startswith("sky: ")
    assert one(graph, "SCPPriorLatent")["widgets_values"][-1] == "car: 0.5"


def test_format_is_the_pages(name: str, graph: dict[str, Any]) -> None:
    assert graph["version"] == 0.4
    assert {node["mode"] for node in graph["nodes"]} == {0}
    assert {"links", "groups", "config", "extra", "revision"} <= set(graph)
    others = [json.loads((_FOLDER / f"{other}.json").read_text(encoding="utf-8")) for other in NAMES if other != name]
    assert graph["id"] not in {other["id"] for other in others}
