"""The workflow converter of the harness, on graphs small enough to check by eye."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

_SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "graph_convert.py"
_SPEC = importlib.util.spec_from_file_location("scp_graph_convert", _SCRIPT)
graph_convert = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(graph_convert)
ConvertError, convert = graph_convert.ConvertError, graph_convert.convert

INFO: dict[str, Any] = {
    "Load": {
        "input": {"required": {"image": [["a.png", "b.png"], {"image_upload": True}]}},
        "input_order": {"required": ["image"]},
    },
    "Sampler": {
        # The order of the dictionary and input_order differ on purpose: the latter counts.
        "input": {
            "required": {
                "cfg": ["FLOAT", {"default": 8.0}],
                "model": ["MODEL"],
                "seed": ["INT", {"default": 0, "control_after_generate": True}],
                "sampler": [["euler", "ddim"]],
            },
            "optional": {"denoise": ["FLOAT", {"default": 1.0}], "extra": ["LATENT"]},
        },
        "input_order": {"required": ["model", "seed", "cfg", "sampler"], "optional": ["denoise", "extra"]},
    },
    "Plain": {
        "input": {"required": {"noise_seed": ["INT", {}], "steps": ["INT", {"default": 20}]}},
        "input_order": {"required": ["noise_seed", "steps"]},
    },
    "Quiet": {
        "input": {"required": {"seed": ["INT", {"control_after_generate": False}], "mode": ["COMBO", {"options": []}]}},
        "input_order": {"required": ["seed", "mode"]},
    },
    "Forced": {
        "input": {"required": {"value": ["INT", {"forceInput": True}], "name": ["STRING", {"default": ""}]}},
        "input_order": {"required": ["value", "name"]},
    },
    "Blend": {
        "input": {"required": {"x": ["LATENT"], "y": ["MODEL"]}},
        "input_order": {"required": ["x", "y"]},
    },
}


def node(number: int, kind: str, values: Any = (), links: Any = (), mode: int = 0, outputs: Any = ()) -> dict[str, Any]:
    slots = [{"name": name, "type": type_, "link": link} for name, type_, link in links]
    return {
        "id": number,
        "type": kind,
        "mode": mode,
        "inputs": slots,
        "outputs": [{"type": one} for one in outputs],
        "widgets_values": values if isinstance(values, dict) else list(values),
    }


def inputs(workflow: dict[str, Any], number: int) -> dict[str, Any]:
    return convert(workflow, INFO)[str(number)]["inputs"]


def alone(*arguments: Any, **more: Any) -> dict[str, Any]:
    return inputs({"nodes": [node(1, *arguments, **more)], "links": []}, 1)


def test_values_follow_input_order_and_skip_control_after_generate() -> None:
    found = alone("Sampler", [5, "randomize", 4.0, "ddim", 0.85])
    assert found == {"seed": 5, "cfg": 4.0, "sampler": "ddim", "denoise": 0.85}


def test_seed_by_name_has_the_entry_and_may_lack_it() -> None:
    assert alone("Plain", [7, "fixed", 17]) == {"noise_seed": 7, "steps": 17}
    assert alone("Plain", [7, 17]) == {"noise_seed": 7, "steps": 17}


def test_seed_that_declares_no_control_keeps_a_value_that_looks_like_one() -> None:
    assert alone("Quiet", [7, "fixed"]) == {"seed": 7, "mode": "fixed"}


def test_upload_entry_is_skipped() -> None:
    assert alone("Load", ["a.png", "image"]) == {"image": "a.png"}
    assert alone("Load", ["a.png"]) == {"image": "a.png"}


def test_short_list_takes_defaults_and_long_list_is_refused() -> None:
    assert alone("Sampler", [5, "fixed", 4.0, "ddim"])["denoise"] == 1.0
    with pytest.raises(ConvertError, match=r"node 1 \(Sampler\).*left over"):
        alone("Sampler", [5, "fixed", 4.0, "ddim", 1.0, 3])
    with pytest.raises(ConvertError, match="no value for 'sampler'"):
        alone("Sampler", [5, "fixed", 4.0])


def test_values_saved_by_name() -> None:
    assert alone("Plain", {"steps": 3, "noise_seed": 1, "else": 0}) == {"noise_seed": 1, "steps": 3}


def test_force_input_holds_no_place() -> None:
    assert alone("Forced", ["here"]) == {"name": "here"}


def test_linked_widget_still_holds_its_place() -> None:
    workflow = {
        "nodes": [
            node(2, "Plain", [9, "fixed", 4]),
            node(1, "Sampler", [5, "fixed", 4.0, "ddim"], [("cfg", "FLOAT", 1)]),
        ],
        "links": [[1, 2, 3, 1, 0, "FLOAT"]],
    }
    assert inputs(workflow, 1) == {"seed": 5, "cfg": ["2", 3], "sampler": "ddim", "denoise": 1.0}


def test_links_as_objects() -> None:
    link = {"id": 1, "origin_id": 2, "origin_slot": 1, "target_id": 1, "target_slot": 0, "type": "LATENT"}
    workflow = {"nodes": [node(2, "Plain", [9, 4]), node(1, "Blend", (), [("x", "LATENT", 1)])], "links": [link]}
    assert inputs(workflow, 1) == {"x": ["2", 1]}


def test_notes_vanish_and_reroutes_and_primitives_are_followed() -> None:
    workflow = {
        "nodes": [
            node(1, "Sampler", [5, "fixed", 4.0, "ddim"], [("model", "MODEL", 2), ("cfg", "FLOAT", 4)]),
            node(2, "Load", ["a.png"]),
            node(3, "Reroute", (), [("", "*", 1)]),
            node(4, "Reroute", (), [("", "*", 3)]),
            node(5, "PrimitiveNode", [2.5, "fixed"]),
            node(6, "Note", ["text"]),
            node(7, "MarkdownNote", ["# text"]),
        ],
        "links": [
            [1, 2, 0, 3, 0, "*"],
            [3, 3, 0, 4, 0, "*"],
            [2, 4, 0, 1, 0, "MODEL"],
            [4, 5, 0, 1, 1, "FLOAT"],
        ],
    }
    prompt = convert(workflow, INFO)
    assert set(prompt) == {"1", "2"}
    assert prompt["1"]["inputs"]["model"] == ["2", 0]
    assert prompt["1"]["inputs"]["cfg"] == 2.5


@pytest.mark.parametrize(("slot", "expected"), [(0, ["8", 0]), (1, ["9", 2])])
def test_bypassed_node_hands_on_the_input_of_the_same_type(slot: int, expected: list[Any]) -> None:
    between = node(2, "Blend", (), [("x", "LATENT", 1), ("y", "MODEL", 2)], mode=4, outputs=["LATENT", "MODEL"])
    workflow = {
        "nodes": [
            between,
            node(8, "Plain", [1, 2]),
            node(9, "Plain", [1, 2]),
            node(1, "Blend", (), [("x", "LATENT", 3)]),
        ],
        "links": [[1, 8, 0, 2, 0, "LATENT"], [2, 9, 2, 2, 1, "MODEL"], [3, 2, slot, 1, 0, "LATENT"]],
    }
    assert convert(workflow, INFO).keys() == {"8", "9", "1"}
    assert inputs(workflow, 1) == {"x": expected}


def test_muted_node_leaves_its_readers_without_the_link() -> None:
    workflow = {
        "nodes": [node(2, "Plain", [1, 2], mode=2), node(1, "Blend", (), [("x", "LATENT", 1)])],
        "links": [[1, 2, 0, 1, 0, "LATENT"]],
    }
    assert convert(workflow, INFO) == {"1": {"class_type": "Blend", "inputs": {}, "_meta": {"title": "Blend"}}}


@pytest.mark.parametrize(
    ("workflow", "message"),
    [
        ({"nodes": [node(1, "Nowhere")], "links": []}, "no node of type Nowhere"),
        ({"nodes": [node(1, "Blend", (), [("x", "LATENT", 7)])], "links": []}, "link 7"),
        ({"nodes": [node(1, "Blend", (), [("x", "LATENT", 7)])], "links": [[7, 3, 0, 1, 0, "LATENT"]]}, "node 3"),
        ({"nodes": [node(1, "Blend", (), [("z", "LATENT", 7)])], "links": [[7, 1, 0, 1, 0, "LATENT"]]}, "no input 'z'"),
        ({"nodes": [], "links": [], "definitions": {"subgraphs": [{}]}}, "subgraphs"),
    ],
)
def test_broken_workflows_are_refused_by_name(workflow: dict[str, Any], message: str) -> None:
    with pytest.raises(ConvertError, match=message):
        convert(workflow, INFO)
