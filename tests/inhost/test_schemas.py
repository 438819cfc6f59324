"""Every node explains itself, and keeps the names that saved graphs rely on."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACK = Path(__file__).resolve().parents[2]
# A contract with saved graphs: ids, inputs in order, outputs in order.
CONTRACT = {
    "SCPLoadStatistics": (["statistics"], ["statistics"]),
    "SCPLabelsFromImage": (["image", "palette", "tolerance", "max_unmatched"], ["labels", "unmatched"]),
    "SCPHintFromLabels": (["labels", "palette"], ["hint"]),
    "SCPPriorLatent": (
        ["statistics", "labels", "method", "seed", "strength", "batch_size", "width", "height", "model"],
        ["latent", "preview"],
    ),
    "SCPDenoiseStart": (
        ["model", "timestep", "steps", "scheduler"],
        ["denoise", "steps", "start_at_step", "sigmas"],
    ),
    "SCPNoisedLatent": (["model", "latent", "timestep", "seed", "steps", "scheduler"], ["latent"]),
    "SCPReduceStatistics": (
        ["vae", "images_folder", "labels_folder", "palette", "width", "height", "name", "on_error", "batch_size"],
        ["statistics"],
    ),
    "SCPMergeStatistics": (["statistics_a", "statistics_b"], ["statistics"]),
    "SCPSaveStatistics": (["statistics", "name", "overwrite"], ["statistics"]),
}


@pytest.fixture(scope="module")
def schemas(host):
    return {name: node.GET_SCHEMA() for name, node in host.nodes.items() if name.startswith("SCP")}


def test_ids_inputs_and_outputs_are_as_saved_graphs_know_them(schemas):
    found = {
        name: ([port.id for port in schema.inputs], [port.display_name for port in schema.outputs])
        for name, schema in schemas.items()
    }
    assert found == CONTRACT


def test_every_node_input_and_output_is_described(schemas):
    for name, schema in schemas.items():
        assert schema.description, name
        assert schema.category == "SCP-Diff"
        for port in (*schema.inputs, *schema.outputs):
            assert port.tooltip, f"{name}.{port.id}"


def test_every_node_has_a_help_page_that_names_its_inputs_and_outputs(schemas):
    for name, schema in schemas.items():
        page = (PACK / "web" / "docs" / f"{name}.md").read_text(encoding="utf-8")
        assert page.startswith(f"# {schema.display_name}\n")
        for port in (*schema.inputs, *schema.outputs):
            assert getattr(port, "display_name", None) or port.id
            assert (getattr(port, "display_name", None) or port.id) in page, f"{name}.{port.id}"


def test_the_managers_rule_finds_every_node():
    """It reads the source: a class that derives directly from io.ComfyNode, its node_id a literal in io.Schema(...)."""
    found = set()
    for path in (PACK / "nodes").glob("*.py"):
        for item in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(item, ast.ClassDef) and "io.ComfyNode" in map(ast.unparse, item.bases):
                calls = [c for c in ast.walk(item) if isinstance(c, ast.Call) and ast.unparse(c.func) == "io.Schema"]
                found |= {k.value.value for c in calls for k in c.keywords if k.arg == "node_id"}
    assert found == set(CONTRACT)
