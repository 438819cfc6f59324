"""The pack as users get it: out of the registry's archive, by ComfyUI-Manager, by comfy-cli, by git."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, build_opener

import demo_set
import graph_convert
import make_archive
import pytest
from comfy_server import Server
from layout import PACK_FOLDER, ROOT, host_python
from registry_server import serve
from setup_host import SETTINGS, host_environment, setup_host
from setup_tools import setup_tools

import demo

# None of a user's own: models and pictures may be many gigabytes.
NOT_HOST = ("models", "output", "input", "user", "temp", "custom_nodes", ".*", "venv", "__pycache__")
# The Manager downloads with torchvision, for which there may be a stand-in only.
DOWNLOADER = """
import os, urllib.request
def download_url(url, root, filename):
    urllib.request.urlretrieve(url, os.path.join(root, filename))
"""
# cm-cli itself, but for the address of the registry.
MANAGER = """
import os
import cm_cli.__main__ as manager
from comfyui_manager.common import cnr_utils
cnr_utils.base_url = os.environ["REGISTRY"]
manager.main()
"""
CONFIGURATION = """
import json
from comfy_cli.registry.config_parser import extract_node_configuration
print(json.dumps(extract_node_configuration("pyproject.toml"), default=vars))
"""
VERSION = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE).group(1)


@pytest.fixture(scope="module")
def tools() -> Path:
    return setup_tools()


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "node.zip"
    make_archive.make_archive(path)
    return path


def names_in(archive: Path) -> set[str]:
    with zipfile.ZipFile(archive) as opened:
        return set(opened.namelist())


def files_below(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and ".git" not in path.parts
    }


def node_ids() -> set[str]:
    """Every node there is, by the source."""
    return {
        keyword.value.value
        for path in (ROOT / "nodes").glob("*.py")
        for keyword in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(keyword, ast.keyword) and keyword.arg == "node_id"
    }


# The archive


def test_the_archive_holds_what_users_need_and_nothing_else(archive: Path) -> None:
    names = names_in(archive)
    assert {"__init__.py", "install.py", "pyproject.toml", "requirements.txt", "LICENSE", "README.md"} <= names
    tops = {name.split("/")[0] for name in names if "/" in name}
    assert tops <= {"nodes", "scp_prior", "web", "locales", "example_workflows", "subgraphs"}
    for folder in ("nodes", "scp_prior", "scp_prior/data", "web/docs", "example_workflows"):
        there = {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).iterdir() if path.is_file()}
        assert there <= names, folder
    assert archive.stat().st_size < 1_000_000


# A fresh host with what is in it


@pytest.fixture(scope="module")
def fresh(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, list[str]]]:
    """A server whose pack came out of the archive, and what install.py said there, twice."""
    base = tmp_path_factory.mktemp("fresh") / "base"
    pack = base / "custom_nodes" / PACK_FOLDER
    pack.mkdir(parents=True)
    (base / "models").mkdir()
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(pack)
        (pack / ".tracking").write_text("\n".join(opened.namelist()), encoding="utf-8")
    environment = {**host_environment(), "COMFYUI_PATH": str(setup_host(base))}
    said = [
        subprocess.run(
            [str(host_python()), "-s", "install.py"],
            cwd=pack,
            env=environment,
            check=True,
            capture_output=True,
            encoding="utf-8",
        ).stdout
        for _ in range(2)
    ]
    with Server(base) as server:
        yield server, said
        problems = server.log_problems()
    assert not problems, f"{problems}\n{server.log_text()[-8000:]}"


def test_install_py_ran_twice_and_made_the_folder(fresh: tuple[Server, list[str]]) -> None:
    server, said = fresh
    assert (server.base / "models" / "scp_statistics").is_dir()
    assert said[0] == said[1]
    assert f"[SCP-Diff] {VERSION}, " in said[0]
    assert "download cityscapes" in said[0]


def test_the_fresh_host_has_every_node_its_help_and_the_workflows(fresh: tuple[Server, list[str]]) -> None:
    server, _ = fresh
    pack = server.base / "custom_nodes" / PACK_FOLDER
    assert not pack.is_symlink()
    assert not (pack / "tests").exists()
    assert {name for name in server.object_info() if name.startswith("SCP")} == node_ids()
    opener = build_opener(ProxyHandler({}))
    for name in node_ids():
        with opener.open(f"{server.url}/extensions/{PACK_FOLDER}/docs/{name}.md") as page:
            assert page.read().startswith(b"# SCP ")
    assert "minimal" in server.get("/workflow_templates")[PACK_FOLDER]


def test_the_fresh_host_runs_the_minimal_workflow(fresh: tuple[Server, list[str]]) -> None:
    server, _ = fresh
    path = server.base / "custom_nodes" / PACK_FOLDER / "example_workflows" / "minimal.json"
    prompt = graph_convert.load(path, server.object_info())
    demo.change(prompt, "SCPPriorLatent", width=128, height=64)
    for node in prompt.values():
        if isinstance(node["inputs"].get("steps"), int):
            node["inputs"]["steps"] = 4
    demo.use_stand_ins(prompt)
    demo_set.prepare(prompt, server.base)
    made = [png for _, png in server.pictures(server.run(prompt, timeout=300))]
    assert made
    assert all(png.startswith(b"\x89PNG") for png in made)


# The tools


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of ComfyUI with folders of its own, for tools that write into it."""
    comfyui = tmp_path_factory.mktemp("scratch") / "ComfyUI"
    shutil.copytree(setup_host(), comfyui, ignore=shutil.ignore_patterns(*NOT_HOST))
    for folder in ("models", "custom_nodes", "input", "output", "user/__manager"):
        (comfyui / folder).mkdir(parents=True)
    (comfyui / "user" / "default").mkdir()
    (comfyui / "user" / "default" / "comfy.settings.json").write_text(json.dumps(SETTINGS), encoding="utf-8")
    # pip sees what the environment below has; uv would not, and would try to install it.
    (comfyui / "user" / "__manager" / "config.ini").write_text("[default]\nuse_uv = False\nnetwork_mode = offline\n")
    return comfyui


Run = Callable[..., str]


@pytest.fixture
def run(scratch: Path, tools: Path, tmp_path: Path) -> Run:
    """Run a command of the tools to its end, cut off from the network; return what it said."""
    (tmp_path / "torchvision" / "datasets").mkdir(parents=True)
    for name, text in (("__init__", ""), ("datasets/__init__", ""), ("datasets/utils", DOWNLOADER)):
        (tmp_path / "torchvision" / f"{name}.py").write_text(text)
    nowhere = "http://127.0.0.1:9"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "COMFY"))},
        **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), nowhere),
        "no_proxy": "127.0.0.1",
        "NO_PROXY": "127.0.0.1",
        "PIP_NO_INDEX": "1",
        "UV_OFFLINE": "1",
        "PYTHONPATH": str(tmp_path),
        "PYTHONUTF8": "1",
        "HOME": str(tmp_path / "home"),
        "XDG_CONFIG_HOME": str(tmp_path / "home" / ".config"),
        "COMFYUI_PATH": str(scratch),
        "VIRTUAL_ENV": str(tools.parent.parent),
        "GIT_CONFIG_GLOBAL": os.devnull,
    }
    (tmp_path / "home" / ".config").mkdir(parents=True)

    def run(*command: str, folder: Path = tmp_path, fails: bool = False, **more: str) -> str:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**environment, **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=120,
        )
        assert (done.returncode != 0) == fails, done.stdout[-4000:]
        return done.stdout

    return run


@pytest.fixture
def place(scratch: Path) -> Iterator[Path]:
    """Where the pack comes to lie; gone afterwards."""
    pack = scratch / "custom_nodes" / "scp-diff"
    yield pack
    shutil.rmtree(pack, ignore_errors=True)
    shutil.rmtree(scratch / "models" / "scp_statistics", ignore_errors=True)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bare git repository of the tree as it stands."""
    folder = tmp_path_factory.mktemp("git")
    make_archive.copy_tree(folder / "tree")
    author = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
    for words in (["init", "-q"], ["add", "--all"], [*author, "commit", "-qm", "tree"]):
        make_archive.run(["git", *words], folder / "tree")
    make_archive.run(["git", "clone", "-q", "--bare", "tree", "scp-diff.git"], folder)
    return folder


def redirected(folder: Path) -> dict[str, str]:
    """Settings by which git finds https://git.invalid/ in a folder."""
    return {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{folder.as_uri()}/.insteadOf",
        "GIT_CONFIG_VALUE_0": "https://git.invalid/",
    }


def assert_installed(said: str, scratch: Path) -> None:
    assert "EXECUTE" in said
    assert re.search(rf"\[SCP-Diff\] ComfyUI [\d.]+ in {re.escape(str(scratch))}\n", said)
    assert "[SCP-Diff] Next: " in said
    assert (scratch / "models" / "scp_statistics").is_dir()


def test_the_manager_installs_from_the_registry(
    run: Run, tools: Path, scratch: Path, place: Path, archive: Path
) -> None:
    with serve("scp-diff", VERSION, archive) as (address, asked):
        command = [str(tools), "-c", MANAGER, "install", f"scp-diff@{VERSION}", "--mode", "local", "--exit-on-fail"]
        said = run(*command, REGISTRY=address)
    assert "/nodes/scp-diff/install" in asked
    assert asked[-1] == "/node.zip"
    assert "[INSTALLED] scp-diff" in said
    assert_installed(said, scratch)
    assert files_below(place) == names_in(archive) | {".tracking"}
    again = run(str(tools.parent / "cm-cli"), "post-install", str(place))
    assert_installed(again, scratch)


@pytest.mark.parametrize("tool", ["cm-cli", "comfy"])
def test_both_tools_install_from_a_git_address(
    run: Run, tools: Path, scratch: Path, place: Path, clone: Path, tool: str
) -> None:
    command = [str(tools.parent / tool)]
    if tool == "comfy":
        command += ["--skip-prompt", "--no-enable-telemetry", "--workspace", str(scratch), "node"]
    command += ["install", "https://git.invalid/scp-diff.git", "--mode", "local"]
    said = run(*command, **redirected(clone))
    assert "[INSTALLED] https://git.invalid/scp-diff.git" in said
    assert_installed(said, scratch)
    assert files_below(place) == files_below(clone / "tree")


def test_the_manager_tells_when_the_pack_cannot_work(run: Run, tools: Path, scratch: Path, place: Path) -> None:
    """And the tests above would notice: install.py's exit code reaches it."""
    version = scratch / "comfyui_version.py"
    before = version.read_text()
    make_archive.copy_tree(place)
    version.write_text('__version__ = "0.3.74"\n')
    try:
        said = run(str(tools.parent / "cm-cli"), "post-install", str(place), fails=True)
    finally:
        version.write_text(before)
    assert "needs ComfyUI 0.3.75 or newer, and this is 0.3.74" in said


def test_comfy_cli_finds_nothing_to_complain_about(run: Run, tools: Path, clone: Path) -> None:
    command = [str(tools.parent / "comfy"), "--skip-prompt", "--no-enable-telemetry", "node", "validate"]
    said = run(*command, folder=clone / "tree")
    assert "All validation checks passed" in said
    assert "arning" not in said


def test_comfy_cli_reads_every_field_of_pyproject(run: Run, tools: Path) -> None:
    said = run(str(tools), "-c", CONFIGURATION, folder=ROOT)
    (line,) = said.splitlines()  # any other is a warning
    read: dict[str, Any] = json.loads(line)
    project, comfy = read["project"], read["tool_comfy"]
    assert (project["name"], project["version"], project["dependencies"]) == ("scp-diff", VERSION, [])
    assert project["license"]["file"] == "LICENSE"
    assert project["supported_os"] == ["OS Independent"]
    assert "GPU :: NVIDIA CUDA" in project["supported_accelerators"]
    assert project["supported_comfyui_version"] == ">=0.3.75"
    assert project["urls"]["repository"]
    assert project["urls"]["issues"]
    assert (comfy["display_name"], comfy["includes"]) == ("SCP-Diff", [])
    assert comfy["publisher_id"]
    assert comfy["icon"].endswith(".png")
