"""Whoever meets a node is told what it is for: in tooltips, on a help page, by searching, in three languages."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import make_locales
import pytest

PACK = Path(__file__).resolve().parents[2]
CJK = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]")


def table_rows(page: str) -> list[str]:
    """The first cells of all tables' rows; several names in one cell count as several."""
    cells = [line.split("|")[1].strip() for line in page.splitlines() if line.startswith("|")]
    return [name.strip("` ") for cell in cells for name in cell.split(",")]


def lead(page: str) -> str:
    """What stands between a page's title and its first table."""
    return page.split("\n", 1)[1].split("\n|", 1)[0].strip()


def test_every_node_input_and_output_is_described(host):
    for name, node in host.described.items():
        assert node["description"].endswith("."), name
        assert len(node["description"].split()) >= 8, name
        for port in (*node["inputs"], *node["outputs"]):
            assert port["tooltip"], f"{name}: {port}"
            assert port["tooltip"].strip() == port["tooltip"]
            assert port["tooltip"].endswith("."), f"{name}: {port['tooltip']}"


def test_every_help_page_has_a_table_of_all_inputs_and_outputs_and_says_where_the_node_belongs(host):
    for name, node in host.described.items():
        page = (PACK / "web" / "docs" / f"{name}.md").read_text(encoding="utf-8")
        assert page.startswith(f"# {node['display_name']}\n")
        told = table_rows(page)
        for port in (*(one["id"] for one in node["inputs"]), *(one["name"] for one in node["outputs"])):
            assert port in told, f"{name}.{port}"
        beginning = lead(page)
        assert len(re.findall(r"[.;:](?:\s|$)", beginning)) >= 2, f"{name}: two sentences on what it does and where"
        assert re.search(r"\b[Pp]ut\b|\b[Ww]ire\b", beginning), f"{name}: where it belongs"


def test_no_help_page_is_of_a_node_that_is_not_there(host):
    assert {path.stem for path in (PACK / "web" / "docs").glob("*.md")} == set(host.described)


def test_every_picture_of_a_help_page_is_there():
    for page in (PACK / "web" / "docs").glob("*.md"):
        for target in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).is_file(), f"{page.name}: {target}"


def aliases_of(schema: ast.Call) -> list[str]:
    """The strings of `**search_aliases(...)` in a call of Schema; the schema of an older host has none."""
    return [
        word.value
        for keyword in schema.keywords
        if keyword.arg is None and isinstance(keyword.value, ast.Call)
        for word in keyword.value.args
        if getattr(keyword.value.func, "id", "") == "search_aliases" and isinstance(word, ast.Constant)
    ]


def test_every_node_is_found_under_other_words(host):
    found = {}
    for path in (PACK / "nodes").glob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "Schema":
                node = next(k.value.value for k in call.keywords if k.arg == "node_id")
                found[node] = aliases_of(call)
    assert set(found) == set(host.described)
    assert {name: words for name, words in found.items() if len(words) < 2} == {}


def test_locales_say_what_the_schemas_say(host):
    """Where this fails: `python scripts/make_locales.py` says what to translate, and writes the files."""
    for language, text in make_locales.contents(host.described).items():
        path = PACK / "locales" / language / "nodeDefs.json"
        assert path.read_text(encoding="utf-8") == text, f"run scripts/make_locales.py: {path} is not what it writes"


@pytest.mark.parametrize("language", make_locales.LANGUAGES)
def test_nothing_was_left_in_english(language):
    words = json.loads((PACK / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))
    for name, node in words.items():
        ports = [*node.get("inputs", {}).values(), *node.get("outputs", {}).values()]
        for text in (node["display_name"], node["description"], *(port["tooltip"] for port in ports)):
            assert CJK.search(text), f"{name}: {text}"
