"""Every node explains itself, and keeps the names that saved graphs rely on."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import node_schemas

PACK = Path(__file__).resolve().parents[2]


def test_schemas_are_as_saved_graphs_know_them(host):
    """Meant to change? `python scripts/node_schemas.py --snapshot` writes them anew, where no saved graph breaks."""
    before = json.loads(node_schemas.SNAPSHOT.read_text(encoding="utf-8"))
    now = node_schemas.contract(host.described)
    assert node_schemas.breaks(before, now) == []
    assert now == before


def test_every_node_is_in_the_packs_own_menu(host):
    assert {node["category"] for node in host.described.values()} == {"SCP-Diff"}


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


def test_the_managers_rule_finds_every_node_and_nothing_that_could_be_taken_for_one(host):
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
    assert sorted(name for name in found if not name.startswith("SCPDemo")) == sorted(host.described)


def test_nothing_looks_like_the_older_way_to_declare_nodes():
    """The same scanner collects by regular expression whatever is assigned to, or put into, ..._CLASS_MAPPINGS."""
    declares = re.compile(r"""_CLASS_MAPPINGS\s*(?::\s*\w+\s*)?=\s*{|^[^=\n]*_CLASS_MAPPINGS\[["']""", re.MULTILINE)
    assert [path.name for path in sources() if declares.search(path.read_text(encoding="utf-8"))] == []
