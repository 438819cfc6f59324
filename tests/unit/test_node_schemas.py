"""What breaks saved graphs, and what does not."""

from __future__ import annotations

import copy
import importlib.util
import sys
from pathlib import Path

import pytest

_SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
_SPEC = importlib.util.spec_from_file_location("scp_node_schemas", _SCRIPTS / "node_schemas.py")
node_schemas = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(node_schemas)

NODE = {
    "display_name": "SCP Node",
    "category": "SCP-Diff",
    "description": "A node.",
    "deprecated": False,
    "inputs": [
        {"id": "labels", "type": "SCP_LABELS", "optional": False, "tooltip": "Labels."},
        {"id": "mode", "type": "COMBO", "optional": False, "tooltip": "Mode.", "options": ["a", "b"], "default": "a"},
        {"id": "seed", "type": "INT", "optional": False, "tooltip": "Seed.", "min": 0, "max": 9},
        {"id": "width", "type": "INT", "optional": True, "tooltip": "Width.", "min": 0, "max": 64},
    ],
    "outputs": [{"name": "latent", "type": "LATENT", "tooltip": "Latent."}],
}
BEFORE = {"SCPNode": NODE, "SCPOther": {**copy.deepcopy(NODE), "inputs": []}}


def changed(change) -> dict:
    after = copy.deepcopy(BEFORE)
    change(after["SCPNode"])
    return after


def new(name: str, **more) -> dict:
    return {"id": name, "type": "INT", "optional": True, "tooltip": "New.", **more}


HARMLESS = {
    "nothing": lambda node: None,
    "texts": lambda node: node["inputs"][0].update(tooltip="Other words."),
    "an optional input at the end": lambda node: node["inputs"].append(new("height")),
    "an output at the end": lambda node: node["outputs"].append({"name": "preview", "type": "IMAGE", "tooltip": "x"}),
    "one more choice": lambda node: node["inputs"][1]["options"].insert(0, "auto"),
    "a wider range": lambda node: node["inputs"][2].update(min=-1, max=10),
    "marked deprecated": lambda node: node.update(deprecated=True),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_saved_graphs_survive(name):
    assert node_schemas.breaks(BEFORE, changed(HARMLESS[name])) == []


BREAKING = {
    "an input that is gone": (lambda node: node["inputs"].pop(2), "required inputs were labels, mode, seed"),
    "inputs in another order": (lambda node: node["inputs"].insert(0, node["inputs"].pop(1)), "in this order"),
    "a renamed input": (lambda node: node["inputs"][3].update(id="wide"), "optional inputs were width"),
    "an optional input before others": (lambda node: node["inputs"].insert(3, new("height")), "optional inputs were"),
    "a required input at the end": (
        lambda node: node["inputs"].append(new("height", optional=False)),
        "height is a new input",
    ),
    "an optional one made required": (lambda node: node["inputs"][3].update(optional=False), "optional inputs were"),
    "another kind": (lambda node: node["inputs"][2].update(type="FLOAT"), "another kind of widget"),
    "a value after the seed's": (
        lambda node: node["inputs"][2].update(control_after_generate=True),
        "another kind of widget",
    ),
    "a choice that is gone": (lambda node: node["inputs"][1].update(options=["b"]), "mode no longer offers a"),
    "a higher minimum": (lambda node: node["inputs"][2].update(min=1), "seed no longer takes 0"),
    "a lower maximum": (lambda node: node["inputs"][2].update(max=8), "seed no longer takes 9"),
    "a new minimum": (lambda node: node["inputs"][3].update(min=8), "width no longer takes 0"),
    "an output before others": (
        lambda node: node["outputs"].insert(0, {"name": "preview", "type": "IMAGE", "tooltip": "x"}),
        "outputs were LATENT",
    ),
    "an output that is gone": (lambda node: node["outputs"].clear(), "outputs were LATENT"),
}


@pytest.mark.parametrize("name", BREAKING)
def test_what_breaks_them_is_named(name):
    change, words = BREAKING[name]
    told = node_schemas.breaks(BEFORE, changed(change))
    assert all(line.startswith("SCPNode: ") for line in told)
    assert any(words in line for line in told), told


def test_a_node_that_is_gone_breaks_them_and_a_new_one_does_not():
    assert node_schemas.breaks(BEFORE, {"SCPNode": NODE}) == ["SCPOther is gone; keep it, and mark it deprecated."]
    assert node_schemas.breaks(BEFORE, {**BEFORE, "SCPNew": NODE}) == []


@pytest.fixture
def harness(monkeypatch):
    """The folder of the scripts on the path, for what they import late."""
    monkeypatch.syspath_prepend(str(_SCRIPTS))
    yield
    sys.modules.pop("layout", None)


def test_the_snapshot_holds_no_texts_and_is_written_only_where_nothing_breaks(tmp_path, harness):
    path = tmp_path / "schemas.json"
    node_schemas.write_snapshot(BEFORE, path)
    written = path.read_text(encoding="utf-8")
    assert "Seed." not in written
    assert "A node." not in written
    with pytest.raises(Exception, match="Saved graphs would break.*\n.*seed no longer takes 0"):
        node_schemas.write_snapshot(changed(BREAKING["a higher minimum"][0]), path)
    assert path.read_text(encoding="utf-8") == written
    node_schemas.write_snapshot(changed(HARMLESS["an optional input at the end"]), path)
    assert "height" in path.read_text(encoding="utf-8")
    node_schemas.write_snapshot(changed(BREAKING["a higher minimum"][0]), path, breaking=True)
    assert "height" not in path.read_text(encoding="utf-8")
