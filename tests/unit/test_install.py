"""install.py, run as ComfyUI-Manager runs it, in folders laid out as users have them."""

from __future__ import annotations

import ast
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

PACK = Path(__file__).resolve().parents[2]
VERSION = '__version__ = "{}"\n'
MODELS = ("cityscapes_checkpoint.safetensors", "cityscapes_controlnet.safetensors")


class Done(NamedTuple):
    code: int
    said: str
    complaint: str


def install(pack: Path, *words: str, python: tuple[str, ...] = ("-s",), **environment: str) -> Done:
    """`python -s install.py` in the pack's folder; whatever else the machine has set is not there."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "SYSTEMROOT", "TMPDIR", "LANG")}
    command = [sys.executable, *python, "install.py", *words]
    done = subprocess.run(
        command, cwd=pack, env={**kept, **environment}, capture_output=True, encoding="utf-8", timeout=60
    )
    assert "Traceback" not in done.stderr
    return Done(done.returncode, done.stdout, done.stderr)


def make_host(folder: Path, version: str | None = "0.3.75") -> Path:
    """What install.py looks for in a ComfyUI; nothing of it may be imported."""
    (folder / "custom_nodes").mkdir(parents=True)
    for name in ("main.py", "folder_paths.py", "nodes.py"):
        (folder / name).write_text("raise SystemExit('the host was imported')\n")
    if version:
        (folder / "comfyui_version.py").write_text("# generated\n" + VERSION.format(version))
    return folder


def put_pack(host: Path, name: str = "scp-diff") -> Path:
    pack = host / "custom_nodes" / name
    for file in ("install.py", "pyproject.toml", "scp_prior/data/released.json"):
        (pack / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PACK / file, pack / file)
    return pack


def put(path: Path, content: bytes = b"") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.fixture
def host(tmp_path) -> Path:
    return make_host(tmp_path / "ComfyUI")


@pytest.fixture
def pack(host) -> Path:
    return put_pack(host)


def own_folder(host: Path) -> Path:
    return host / "models" / "scp_statistics"


# Layouts


def test_a_fresh_install_makes_the_folder_and_says_what_to_do(host, pack):
    done = install(pack)
    assert (done.code, done.complaint) == (0, "")
    assert own_folder(host).is_dir()
    assert list(own_folder(host).iterdir()) == []
    assert f"ComfyUI 0.3.75 in {host}" in done.said
    assert "Free space: " in done.said
    assert "scp_prior download cityscapes" in done.said
    assert sys.executable in done.said
    assert f"{host / 'models' / 'checkpoints'}" in done.said
    assert all(line.startswith("[SCP-Diff] ") for line in done.said.splitlines())


def test_a_second_run_says_and_changes_nothing_else(host, pack):
    kept = put(own_folder(host) / "own.safetensors", b"precious")
    first, second = (install(pack) for _ in range(2))
    assert first == second
    assert kept.read_bytes() == b"precious"
    assert [path.name for path in own_folder(host).iterdir()] == ["own.safetensors"]
    assert "1 file there now" in second.said


def test_the_portable_layout_with_an_isolated_python(tmp_path):
    """An isolated Python has neither the pack's folder nor the current one on its path."""
    host = make_host(tmp_path / "ComfyUI windows portable" / "ComfyUI")
    pack = put_pack(host)
    (tmp_path / "ComfyUI windows portable" / "python_embeded").mkdir()
    done = install(pack, python=("-I", "-s"))
    assert done.code == 0, done.complaint
    assert own_folder(host).is_dir()


def test_a_folder_that_is_linked_is_known_by_the_way_it_was_entered(host, tmp_path):
    elsewhere = put_pack(tmp_path / "elsewhere")
    link = host / "custom_nodes" / "scp-diff"
    link.symlink_to(elsewhere)
    done = install(link, PWD=str(link))
    assert done.code == 0
    assert own_folder(host).is_dir()
    assert not (tmp_path / "elsewhere" / "models").exists()


@pytest.mark.parametrize("name", ["COMFYUI_PATH", "COMFYUI_FOLDERS_BASE_PATH"])
def test_a_linked_folder_is_known_by_what_the_manager_says(host, tmp_path, name):
    elsewhere = put_pack(tmp_path / "elsewhere")
    (host / "custom_nodes" / "scp-diff").symlink_to(elsewhere)
    done = install(host / "custom_nodes" / "scp-diff", **{name: str(host)})
    assert done.code == 0
    assert own_folder(host).is_dir()


def test_a_pwd_of_another_folder_is_not_believed(host, pack, tmp_path):
    other = put_pack(make_host(tmp_path / "other"))
    assert install(pack, PWD=str(other)).code == 0
    assert own_folder(host).is_dir()
    assert not own_folder(tmp_path / "other").exists()


def test_a_base_directory_apart_from_comfyui(tmp_path, host):
    base = tmp_path / "base"
    (base / "models").mkdir(parents=True)
    done = install(put_pack(base), COMFYUI_PATH=str(host), COMFYUI_FOLDERS_BASE_PATH=str(host))
    assert done.code == 0
    assert own_folder(base).is_dir()
    assert not own_folder(host).exists()
    assert f"ComfyUI 0.3.75 in {host}" in done.said
    alone = install(base / "custom_nodes" / "scp-diff")
    assert alone.code == 0
    assert "version is unknown" in alone.said


def test_outside_a_comfyui_nothing_is_made(tmp_path):
    pack = put_pack(tmp_path)
    done = install(pack)
    assert done.code == 0
    assert "--comfyui DIR" in done.said
    assert not (tmp_path / "models").exists()


def test_comfyui_can_be_named(tmp_path, host):
    pack = put_pack(tmp_path / "elsewhere")
    assert install(pack, "--comfyui", str(host)).code == 0
    assert own_folder(host).is_dir()
    wrong = install(pack, "--comfyui", str(tmp_path / "nowhere"))
    assert wrong.code == 1
    assert "expected main.py" in wrong.complaint


# extra_model_paths.yaml


def test_extra_paths_of_several_lines_come_first(host, pack, tmp_path):
    (host / "extra_model_paths.yaml").write_text(
        f"comfyui:\n    base_path: {tmp_path / 'shared'}\n    checkpoints: |\n        ckpt\n        more\n"
        "    scp_statistics: |\n        priors\n        models/other\n"
    )
    done = install(pack)
    assert done.code == 0
    shared = tmp_path / "shared"
    assert f"Statistics go into {shared / 'priors'};" in done.said
    assert (shared / "models" / "other").is_dir()
    assert own_folder(host).is_dir()
    assert str(shared / "ckpt") in done.said


def test_extra_paths_of_one_line_relative_home_and_default(host, pack, tmp_path):
    (host / "extra_model_paths.yaml").write_text(
        "one:\n    scp_statistics: beside\n"
        "two:\n    base_path: ~/mine\n    is_default: true\n    scp_statistics: stats\n"
        "three:\n    base_path: $WHERE/vars\n    scp_statistics: stats\nfour:\n"
    )
    done = install(pack, HOME=str(tmp_path / "home"), WHERE=str(tmp_path))
    assert f"Statistics go into {tmp_path / 'home' / 'mine' / 'stats'};" in done.said
    for folder in (host / "beside", tmp_path / "vars" / "stats", own_folder(host)):
        assert folder.is_dir()


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "a: [", "a:\n    checkpoints: 3\n", "a: text\n"])
def test_a_broken_file_of_extra_paths_is_no_reason_to_fail(host, pack, text):
    (host / "extra_model_paths.yaml").write_text(text)
    done = install(pack)
    assert done.code == 0
    assert own_folder(host).is_dir()
    assert ("cannot be read" in done.said) == bool(text)


def test_without_a_yaml_library_it_says_so_and_goes_on(host, pack, tmp_path):
    (host / "extra_model_paths.yaml").write_text("a:\n    scp_statistics: x\n")
    put(tmp_path / "hide" / "yaml.py", b"raise ImportError")
    done = install(pack, PYTHONPATH=str(tmp_path / "hide"))
    assert done.code == 0
    assert "no PyYAML" in done.said
    assert own_folder(host).is_dir()


def test_an_extra_path_that_cannot_be_made_is_told_and_left(host, pack):
    put(host / "a file")
    (host / "extra_model_paths.yaml").write_text("a:\n    scp_statistics: a file\n")
    done = install(pack)
    assert done.code == 0
    assert f"{host / 'a file'} cannot be written to" in done.said
    assert f"Statistics go into {own_folder(host)}" in done.said


# What stops the pack


@pytest.mark.parametrize("version", ["0.3.74", "0.3.9", "0.2.99", "0.3"])
def test_a_host_too_old_is_an_error_with_both_versions(host, pack, version):
    (host / "comfyui_version.py").write_text(VERSION.format(version))
    done = install(pack)
    assert done.code == 1
    assert f"0.3.75 or newer, and this is {version}" in done.complaint
    assert not own_folder(host).exists()


@pytest.mark.parametrize("version", ["0.3.75", "0.3.100", "0.12.1", "1.0.0", "0.4.0-rc1"])
def test_newer_hosts_will_do(host, pack, version):
    (host / "comfyui_version.py").write_text(VERSION.format(version))
    assert install(pack).code == 0


def test_the_version_is_read_from_pyproject_where_there_is_no_other(tmp_path):
    host = make_host(tmp_path / "ComfyUI", version=None)
    (host / "pyproject.toml").write_text('[project]\nname = "ComfyUI"\nversion = "0.3.60"\n')
    assert install(put_pack(host)).code == 1


def test_a_folder_that_cannot_be_made_is_an_error(host, pack):
    put(host / "models" / "scp_statistics")
    done = install(pack)
    assert done.code == 1
    assert str(own_folder(host)) in done.complaint


def test_a_disk_that_is_read_only_is_an_error(host, pack):
    """For root as well, whom permissions do not hold."""
    own_folder(host).mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "ro,size=100k", "tmpfs", str(own_folder(host))], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("a disk can only be mounted by root")
    try:
        done = install(pack)
    finally:
        subprocess.run(["umount", "-l", str(own_folder(host))], check=True)
    assert done.code == 1
    assert "Read-only" in done.complaint


def test_a_pack_with_a_file_missing_is_an_error(host, pack):
    (pack / "scp_prior" / "data" / "released.json").unlink()
    done = install(pack)
    assert done.code == 1
    assert "install it again" in done.complaint


def test_a_python_without_torch_is_an_error_that_names_it(host, pack, tmp_path):
    put(tmp_path / "hide.py", b"import sys; sys.modules['torch'] = None; sys.modules['safetensors'] = None\n")
    code = "import hide, runpy, sys; sys.argv = ['install.py']; runpy.run_path('install.py', run_name='__main__')"
    kept = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-s", "-c", code]
    done = subprocess.run(command, cwd=pack, env=kept, capture_output=True, text=True)
    assert done.returncode == 1
    assert "has no torch, safetensors" in done.stderr
    assert not own_folder(host).exists()


def test_a_python_too_old_is_an_error_and_can_read_the_file(host, pack):
    text = (pack / "install.py").read_text(encoding="utf-8")
    ast.parse(text, feature_version=(3, 7))
    code = "import runpy, sys; sys.version_info = (3, 9, 1); sys.argv = ['install.py']; "
    code += "runpy.run_path('install.py', run_name='__main__')"
    done = subprocess.run([sys.executable, "-s", "-c", code], cwd=pack, capture_output=True, text=True)
    assert done.returncode == 1
    assert "needs Python 3.10 or newer" in done.stderr
    assert not own_folder(host).exists()


# What it finds


def test_everything_there_sends_to_the_templates(host, pack):
    put(own_folder(host) / "cityscapes.safetensors")
    put(host / "models" / "checkpoints" / MODELS[0])
    put(host / "models" / "controlnet" / "sub" / MODELS[1])
    done = install(pack)
    assert "Model cityscapes: its two model files are there." in done.said
    assert "Model ade20k: missing: ade20k_checkpoint.safetensors" in done.said
    assert "Next: restart ComfyUI and open an SCP-Diff workflow from Templates." in done.said


def test_half_a_model_is_named(host, pack):
    put(host / "models" / "checkpoints" / MODELS[0])
    assert f"Model cityscapes: missing: {MODELS[1]}." in install(pack).said


def test_released_files_dropped_in_are_noticed(host, pack):
    name = "ade20k_10000_spatial_mean_std.npy"
    put(own_folder(host) / "ade20k" / name)
    put(host / "models" / "checkpoints" / "ade20k.ckpt")
    said = install(pack).said
    assert f"Next: {name} found: run the node SCP Convert Statistics once in ComfyUI." in said
    assert "ade20k.ckpt found: run the node SCP Convert Checkpoint once in ComfyUI." in said
    put(own_folder(host) / "ade20k.safetensors")
    assert name not in install(pack).said


def test_a_second_set_is_noticed_where_a_first_is_complete(host, pack):
    for name, folder in zip(MODELS, ("checkpoints", "controlnet"), strict=True):
        put(host / "models" / folder / name)
    put(host / "models" / "controlnet" / "ade20k.ckpt")
    put(host / "models" / "checkpoints" / "cityscapes.ckpt")
    put(own_folder(host) / "Coco_Stuff_10000_spatial_mean_std.npy")
    said = install(pack).said
    assert "ade20k.ckpt found: run" in said
    assert "cityscapes.ckpt" not in said
    assert "Coco_Stuff_10000_spatial_mean_std.npy found: run" in said


@pytest.mark.parametrize("elsewhere", [False, True])
def test_too_little_space_is_told(host, pack, tmp_path, elsewhere):
    """A disk of its own, which only root can mount; it is that of the checkpoints which counts."""
    models = tmp_path / "shared" if elsewhere else host / "models"
    models.mkdir()
    if elsewhere:
        (host / "extra_model_paths.yaml").write_text(f"a:\n    checkpoints: {models / 'checkpoints'}\n")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(models)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small disk can only be mounted by root")
    try:
        said = install(pack).said
    finally:
        subprocess.run(["umount", "-l", str(models)], check=True)
    assert "Free space: 0.0 GB. One released set is 13.7 GB to download" in said
    assert "not enough for a whole set" in said


# What it costs


def test_it_costs_no_time_and_touches_neither_torch_nor_the_network(host, pack):
    (host / "extra_model_paths.yaml").write_text("a:\n    scp_statistics: x\n")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert install(pack).code == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime) < 2
    heavy = "{'torch', 'numpy', 'safetensors', 'PIL', 'socket', 'urllib.request', 'asyncio', 'comfy', 'nodes'}"
    code = "import runpy, sys; sys.argv = ['install.py']; runpy.run_path('install.py')['main'](); "
    code += f"sys.exit(str(sorted(set(sys.modules) & {heavy})))"
    done = subprocess.run([sys.executable, "-s", "-c", code], cwd=pack, capture_output=True, text=True)
    assert done.stderr.strip() == "[]"
