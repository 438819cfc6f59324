"""The subgraph blueprints: what the generator writes, by the page's rules for them."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

_ROOT = Path(__file__).resolve().parents[2]
_FOLDER = _ROOT / "subgraphs"
PATHS = sorted(_FOLDER.glob("*.json"))
_INPUT, _OUTPUT = -10, -20


@pytest.fixture(scope="module")
def make_blueprints():
    sys.path.insert(0, str(_ROOT / "scripts"))
    try:
        spec = importlib.util.spec_from_file_location("scp_make_blueprints", _ROOT / "scripts" / "make_blueprints.py")
        module = importlib.util.module_from_spec(spec)
        # Found there by dataclasses and typing while it is made.
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(_ROOT / "scripts"))
        for name in ("scp_make_blueprints", "make_workflows"):
            sys.modules.pop(name, None)
    return module


@pytest.fixture(params=PATHS, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture
def saved(path: Path) -> dict[str, Any]:
    # The host reads these files in the machine's own encoding.
    return json.loads(path.read_bytes().decode("ascii"))


@pytest.fixture
def inside(saved: dict[str, Any]) -> dict[str, Any]:
    (definition,) = saved["definitions"]["subgraphs"]
    return definition


def test_files_are_what_the_generator_writes(make_blueprints, tmp_path: Path) -> None:
    make_blueprints.main(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [path.name for path in PATHS]
    for path in PATHS:
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), "run python scripts/make_blueprints.py"


def test_the_page_takes_it_for_a_blueprint(path: Path, saved: dict[str, Any], inside: dict[str, Any]) -> None:
    """The root holds one node and that is the subgraph; the page names both after the file."""
    (node,) = saved["nodes"]
    assert node["type"] == inside["id"]
    assert node["title"] == inside["name"] == path.stem
    assert saved["links"] == []
    assert saved["extra"]["BlueprintDescription"].endswith(".")


def test_sockets_outside_are_those_of_the_definition(saved: dict[str, Any], inside: dict[str, Any]) -> None:
    (node,) = saved["nodes"]
    for way in ("inputs", "outputs"):
        assert [(one["name"], one["type"]) for one in node[way]] == [(one["name"], one["type"]) for one in inside[way]]


def test_every_link_is_known_at_both_its_ends(inside: dict[str, Any]) -> None:
    nodes = {node["id"]: node for node in inside["nodes"]}
    for link in inside["links"]:
        if link["origin_id"] == _INPUT:
            origin = inside["inputs"][link["origin_slot"]]
            assert link["id"] in origin["linkIds"]
        else:
            origin = nodes[link["origin_id"]]["outputs"][link["origin_slot"]]
            assert link["id"] in origin["links"]
        if link["target_id"] == _OUTPUT:
            target = inside["outputs"][link["target_slot"]]
            assert link["id"] in target["linkIds"]
        else:
            target = nodes[link["target_id"]]["inputs"][link["target_slot"]]
            assert link["id"] == target["link"]
        assert origin["type"] == target["type"] == link["type"]
    numbers = [link["id"] for link in inside["links"]]
    assert len(set(numbers)) == len(numbers)
    assert inside["state"]["lastLinkId"] == max(numbers)
    named = [slot["link"] for node in nodes.values() for slot in node["inputs"] if slot["link"] is not None]
    named += [number for end in inside["outputs"] for number in end["linkIds"]]
    assert sorted(named) == sorted(numbers)


def test_every_widget_shown_is_one_inside_and_loose(saved: dict[str, Any], inside: dict[str, Any]) -> None:
    nodes = {str(node["id"]): node for node in inside["nodes"]}
    shown = saved["nodes"][0]["properties"]["proxyWidgets"]
    assert len({tuple(one) for one in shown}) == len(shown)
    for node, widget in shown:
        if widget == "control_after_generate":
            assert "fixed" in nodes[node]["widgets_values"]
            continue
        (slot,) = (slot for slot in nodes[node]["inputs"] if slot["name"] == widget)
        assert "widget" in slot
        assert slot["link"] is None
