"""What the Comfy Registry, ComfyUI-Manager and pip read: docs.comfy.org/registry/specifications."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no TOML reader")
PACK = Path(__file__).resolve().parents[2]
DATA = tomllib.loads((PACK / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT, COMFY = DATA["project"], DATA["tool"]["comfy"]
SHIPPED = [
    PACK / "__init__.py",
    PACK / "install.py",
    *(PACK / "nodes").glob("*.py"),
    *(PACK / "scp_prior").glob("*.py"),
]
ACCELERATORS = {
    "GPU :: NVIDIA CUDA",
    "GPU :: AMD ROCm",
    "GPU :: Intel Arc",
    "NPU :: Huawei Ascend",
    "GPU :: Apple Metal",
}


def test_the_name_is_one_the_registry_takes():
    name = PROJECT["name"]
    assert re.fullmatch(r"[a-z][a-z0-9]*([-_.][a-z0-9]+)*", name)
    assert len(name) < 100
    assert "comfy" not in name.lower()


def test_the_version_is_one_and_the_same_everywhere():
    version = PROJECT["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    log = (PACK / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## \[(.+?)\]", log, re.MULTILINE).group(1) == version
    claimed = [
        found
        for path in SHIPPED
        for found in re.findall(
            r"""__version__ = ["'](.+?)["']|scp-diff[ /](\d+\.\d+\.\d+)""", path.read_text(encoding="utf-8")
        )
    ]
    assert {number for pair in claimed for number in pair if number} <= {version}


def test_required_and_recommended_fields_are_there():
    assert PROJECT["license"] == {"file": "LICENSE"}
    for file in (PROJECT["license"]["file"], PROJECT["readme"]):
        assert (PACK / file).is_file()
    assert 20 < len(PROJECT["description"]) < 200
    assert PROJECT["requires-python"] == ">=3.10"
    assert {"Repository", "Documentation", "Bug Tracker"} <= set(PROJECT["urls"])
    assert "Operating System :: OS Independent" in PROJECT["classifiers"]
    environments = [c for c in PROJECT["classifiers"] if c.startswith("Environment :: ")]
    assert {c.removeprefix("Environment :: ") for c in environments} <= ACCELERATORS
    assert COMFY["DisplayName"] == "SCP-Diff"
    assert COMFY["requires-comfyui"] == ">=0.3.75"


def test_the_oldest_host_is_the_same_for_the_registry_and_for_install():
    text = (PACK / "install.py").read_text(encoding="utf-8")
    numbers = re.search(r"^OLDEST_HOST = \((.+)\)$", text, re.MULTILINE).group(1)
    assert COMFY["requires-comfyui"] == ">=" + numbers.replace(", ", ".")


def test_the_owner_is_a_placeholder_everywhere_or_nowhere():
    workflow = (PACK / ".github" / "workflows" / "publish.yml").read_text(encoding="utf-8")
    (guard,) = re.findall(r"if: github\.repository_owner == '(.+?)'", workflow)
    addresses = [*PROJECT["urls"].values(), COMFY["Icon"]]
    (owner,) = {re.match(r"https://[a-z.]+/([^/]+)/", address).group(1) for address in addresses}
    assert guard == owner
    assert (COMFY["PublisherId"] == "OWNER") == (owner == "OWNER")
    assert (PACK / "pyproject.toml").read_text(encoding="utf-8").startswith("# OWNER") == (owner == "OWNER")


def test_actions_are_pinned_to_commits():
    for path in (PACK / ".github" / "workflows").glob("*.yml"):
        used = re.findall(r"uses: (\S+)", path.read_text(encoding="utf-8"))
        assert used
        assert all(re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action) for action in used)


def test_the_icon_is_where_the_address_says_and_of_the_size_allowed():
    path = COMFY["Icon"].split("/main/", 1)[1]
    with Image.open(PACK / path) as icon:
        assert icon.width == icon.height <= 400
        assert icon.format == "PNG"
        drawn = np.asarray(icon)
    assert drawn[0, 0, 3] == 0
    assert drawn[200, 200, 3] == 255


def test_the_icon_is_what_its_script_draws(monkeypatch):
    monkeypatch.syspath_prepend(str(PACK / "scripts"))
    spec = importlib.util.spec_from_file_location("scp_make_icon", PACK / "scripts" / "make_icon.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules.pop("layout", None)
    with Image.open(module.ICON) as icon:
        # Resampling may round otherwise in another Pillow.
        assert np.abs(np.asarray(icon, np.int16) - np.asarray(module.icon(), np.int16)).max() <= 2


# Dependencies


def test_nothing_is_installed_with_the_pack():
    assert PROJECT["dependencies"] == []
    lines = (PACK / "requirements.txt").read_text(encoding="utf-8").splitlines()
    # ComfyUI-Manager skips a line only where "#" is its first character.
    assert all(not line or line.startswith("#") for line in lines)


def imported_at_once(body: list[ast.stmt]) -> Iterator[str]:
    """Packages a module imports when it is imported itself, `if TYPE_CHECKING` aside."""
    for item in body:
        if isinstance(item, ast.Import):
            yield from (alias.name.split(".")[0] for alias in item.names)
        elif isinstance(item, ast.ImportFrom) and not item.level:
            yield item.module.split(".")[0]
        elif isinstance(item, ast.ClassDef | ast.Try | ast.With):
            yield from imported_at_once(item.body)
        elif isinstance(item, ast.If):
            if ast.unparse(item.test) != "TYPE_CHECKING":
                yield from imported_at_once(item.body)
            yield from imported_at_once(item.orelse)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_is_optional_is_imported_late(path):
    host = {"comfy", "comfy_api", "folder_paths", "nodes", "server"}
    allowed = {"torch", "safetensors", "numpy", "PIL", *sys.stdlib_module_names} | (
        host if path.parent.name == "nodes" else set()
    )
    assert set(imported_at_once(ast.parse(path.read_text(encoding="utf-8")).body)) <= allowed


def test_the_tools_extras_name_what_the_tool_imports_late():
    packages = {"pillow": "PIL"}
    extras = {
        packages.get(name, name)
        for extra in PROJECT["optional-dependencies"].values()
        for name in (re.match(r"[\w-]+", line).group(0) for line in extra)
    }
    named = set()
    for path in (PACK / "scp_prior").glob("*.py"):
        for item in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(item, ast.Import):
                named |= {alias.name.split(".")[0] for alias in item.names}
            elif isinstance(item, ast.ImportFrom) and not item.level:
                named.add(item.module.split(".")[0])
    assert named - {"scp_prior", *sys.stdlib_module_names} <= extras
