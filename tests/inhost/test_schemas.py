"""Every node explains itself, and keeps the names that saved graphs rely on."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PACK = Path(__file__).resolve().parents[2]
# A contract with saved graphs: ids, inputs in order, outputs in order.
CONTRACT = {
    "SCPLoadStatistics": (["statistics"], ["statistics"]),
    "SCPLabelsFromImage": (["image", "palette", "tolerance", "max_unmatched"], ["labels", "unmatched"]),
    "SCPPreviewLabels": (["labels", "statistics"], ["legend"]),
    "SCPMaskFromLabels": (["labels", "class_name"], ["mask"]),
    "SCPPaintLabels": (["palette", "class_name", "width", "height", "labels", "mask"], ["labels"]),
    "SCPLabelsFromMasks": (["masks", "palette", "classes", "background"], ["labels"]),
    "SCPHintFromLabels": (["labels", "palette"], ["hint"]),
    "SCPRecolor": (["image", "from_palette", "to_palette", "tolerance"], ["image", "unmatched"]),
    "SCPPriorLatent": (
        [
            *("statistics", "labels", "method", "seed", "strength", "batch_size", "width", "height", "model"),
            *("scene_variation", "shrinkage"),
            *("vae", "view", "class_strength"),
        ],
        ["latent", "preview"],
    ),
    "SCPRegionPrompts": (
        ["conditioning", "clip", "labels", "prompts", "strength", "statistics", "width", "height"],
        ["conditioning"],
    ),
    "SCPInpaintLatent": (["latent", "image", "vae", "mask", "grow_mask_by"], ["latent"]),
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
    "SCPConvertStatistics": (["files", "dataset", "overwrite"], ["statistics"]),
    "SCPConvertCheckpoint": (["checkpoint", "dtype"], []),
}


@pytest.fixture(scope="module")
def schemas(host):
    """Of this pack's nodes; others of the process, the demonstration's among them, are none of its contract."""
    return {
        name: node.GET_SCHEMA()
        for name, node in host.nodes.items()
        if getattr(node, "RELATIVE_PYTHON_MODULE", "") == "custom_nodes.scp-diff"
    }


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


def sources() -> list[Path]:
    """Every Python file of the repository: the Manager's scanner looks at all of a clone, tests included."""
    return [
        path for path in PACK.rglob("*.py") if not any(part.startswith(".") for part in path.relative_to(PACK).parts)
    ]


def is_named(node: ast.expr, name: str) -> bool:
    return (isinstance(node, ast.Name) and node.id == name) or (isinstance(node, ast.Attribute) and node.attr == name)


def literal_id(item: ast.ClassDef) -> str | None:
    schemas = [
        call
        for method in item.body
        if isinstance(method, ast.FunctionDef) and method.name == "define_schema"
        for call in ast.walk(method)
        if isinstance(call, ast.Call) and is_named(call.func, "Schema")
    ]
    ids = [
        k.value.value for c in schemas for k in c.keywords if k.arg == "node_id" and isinstance(k.value, ast.Constant)
    ]
    return ids[0] if ids else None


def test_the_managers_rule_finds_every_node_and_nothing_that_could_be_taken_for_one():
    """scanner.py of ComfyUI-Manager: a class derived from ComfyNode; its id a literal in the Schema of define_schema.

    Without a literal it would take the class's name for the id. A node of the demonstration is in no saved graph of a
    user's, so it may be found as well.
    """
    found = [
        literal_id(item) or item.name
        for path in sources()
        for item in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(item, ast.ClassDef) and any(is_named(base, "ComfyNode") for base in item.bases)
    ]
    assert sorted(name for name in found if not name.startswith("SCPDemo")) == sorted(CONTRACT)


def test_nothing_looks_like_the_older_way_to_declare_nodes():
    """The same scanner collects by regular expression whatever is assigned to, or put into, ..._CLASS_MAPPINGS."""
    declares = re.compile(r"""_CLASS_MAPPINGS\s*(?::\s*\w+\s*)?=\s*{|^[^=\n]*_CLASS_MAPPINGS\[["']""", re.MULTILINE)
    assert [path.name for path in sources() if declares.search(path.read_text(encoding="utf-8"))] == []
