"""What ComfyUI-Manager runs after installing this pack: `python install.py`, in the pack's folder.

Makes the folder for statistics, checks what the pack needs, and says what to do next. Downloads nothing, imports
neither torch nor ComfyUI, and may be run again at any time. Exit code 1 only where the pack cannot work.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

# A portable ComfyUI runs this with an isolated Python, for which this folder is not on the path; and importing the
# library would import torch. So this file stands alone.
PACK = Path(os.path.abspath(__file__)).parent
OLDEST_HOST = (0, 3, 75)
OLDEST_PYTHON = (3, 10)
PACKAGES = {"torch": "torch", "numpy": "numpy", "safetensors": "safetensors", "PIL": "Pillow"}
FOLDER = "scp_statistics"
GB = 10**9
# The two model files made of a released .ckpt, in float32; half of that in float16.
KEPT = 6.7 * GB
# ComfyUI's own names of the folders it looks into, beside those of extra_model_paths.yaml.
OWN_FOLDERS = {FOLDER: [FOLDER], "checkpoints": ["checkpoints"], "controlnet": ["controlnet", "t2i_adapter"]}


class Problem(Exception):
    """Why the pack cannot work, and what to change."""


def main(argv: list[str] | None = None) -> int:
    """Prepare, check, report; return the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    parser = argparse.ArgumentParser(prog="install.py", description=__doc__.split("\n\n")[0])
    parser.add_argument("--comfyui", type=Path, metavar="DIR", help="the folder of ComfyUI (default: found by itself)")
    asked = parser.parse_args(argv).comfyui
    print(f"[SCP-Diff] {own_version()}, Python {sys.version.split()[0]}")
    try:
        check_python()
        prepare(asked)
    except Problem as problem:
        print(f"[SCP-Diff] The pack cannot work yet: {problem}", file=sys.stderr)
        return 1
    return 0


def prepare(asked: Path | None) -> None:
    """All that needs to know where ComfyUI is."""
    base, code = find_comfyui(asked)
    if base is None:
        say(f"{PACK} is not in the custom_nodes folder of a ComfyUI: nothing to prepare.")
        say("Install the pack there, or name your ComfyUI: python install.py --comfyui DIR")
        return
    check_host(code)
    released = read_released()
    extra, note = extra_folders(code)
    if note:
        say(note)
    places = {kind: folders_of(kind, base, extra) for kind in OWN_FOLDERS}
    ready = make_folders(places[FOLDER])
    report(released, places, ready)


def say(line: str) -> None:
    """One line to the installer's log."""
    print(f"[SCP-Diff] {line}")


def own_version() -> str:
    """The pack's version, out of pyproject.toml."""
    return version_in(PACK / "pyproject.toml") or "unknown version"


def read_released() -> dict:
    """What the authors released, as the library knows it."""
    try:
        return json.loads((PACK / "scp_prior" / "data" / "released.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Problem(f"files of the pack are missing or damaged ({error}): install it again.") from error


# What the pack needs


def check_python() -> None:
    """Raise Problem where the interpreter or a package will not do."""
    if sys.version_info < OLDEST_PYTHON:
        raise Problem(f"it needs Python {dotted(OLDEST_PYTHON)} or newer, and this is {sys.version.split()[0]}.")
    missing = [name for module, name in PACKAGES.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise Problem(
            f"{sys.executable} has no {', '.join(missing)}, which every ComfyUI has. Run this with the Python of your "
            "ComfyUI, or install ComfyUI's requirements.txt first."
        )


def check_host(code: Path | None) -> None:
    """Raise Problem where ComfyUI is too old; say so where its version cannot be told."""
    version = code and (version_in(code / "comfyui_version.py") or version_in(code / "pyproject.toml"))
    if not version:
        say(f"ComfyUI's version is unknown; {dotted(OLDEST_HOST)} or newer is needed.")
        return
    say(f"ComfyUI {version} in {code}")
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:3])
    if numbers < OLDEST_HOST:
        raise Problem(f"it needs ComfyUI {dotted(OLDEST_HOST)} or newer, and this is {version}. Update ComfyUI.")


def version_in(path: Path) -> str | None:
    """The version a comfyui_version.py or pyproject.toml states; None where it does not."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    found = re.search(r"""^(?:__version__|version)\s*=\s*["']([0-9][^"']*)["']""", text, re.MULTILINE)
    return found.group(1) if found else None


def dotted(version: tuple[int, ...]) -> str:
    """(0, 3, 75) -> "0.3.75"."""
    return ".".join(map(str, version))


# Where things are


def find_comfyui(asked: Path | None) -> tuple[Path | None, Path | None]:
    """The folder that holds models and custom_nodes, and the one that holds main.py; None for what is not found.

    They are two where ComfyUI was started with --base-directory, and in its desktop version.
    """
    known = os.environ.get("COMFYUI_PATH")  # set by ComfyUI-Manager
    code = Path(known) if known and is_code(Path(known)) else None
    if asked is not None:
        base = Path(os.path.abspath(asked))
        if not (is_code(base) or (base / "models").is_dir()):
            raise Problem(f"{base} is no ComfyUI: expected main.py, or a folder models, in it.")
    else:
        named = os.environ.get("COMFYUI_FOLDERS_BASE_PATH")
        near = [place.parent.parent for place in own_places() if place.parent.name == "custom_nodes"]
        found = [folder for folder in near if is_code(folder) or (folder / "models").is_dir()]
        base = next(iter(found), Path(named) if named and Path(named).is_dir() else code)
    if base is not None and is_code(base):
        code = base
    return base, code


def own_places() -> list[Path]:
    """This folder as it was entered, where that was through a link, and as it is."""
    entered = os.environ.get("PWD", "")
    with contextlib.suppress(OSError):
        if os.path.isabs(entered) and os.path.samefile(entered, PACK):
            return [Path(entered), PACK]
    return [PACK]


def is_code(folder: Path) -> bool:
    """Whether ComfyUI itself is in there."""
    return (folder / "main.py").is_file() and (folder / "folder_paths.py").is_file()


def extra_folders(code: Path | None) -> tuple[dict[str, list[Path]], str | None]:
    """Folders by kind, in the order of ComfyUI's extra_model_paths.yaml, and a remark on that file."""
    path = code and code / "extra_model_paths.yaml"
    if not path or not path.is_file():
        return {}, None
    try:
        import yaml
    except ImportError:
        return {}, f"{path} is not read, as this Python has no PyYAML."
    try:
        sections = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        return read_sections(sections, path.parent), None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError, TypeError):
        return {}, f"{path} cannot be read; ComfyUI would not start with it either."


def read_sections(sections: dict, beside: Path) -> dict[str, list[Path]]:
    """As ComfyUI's utils/extra_config.py does: base_path, one folder a line, is_default before the others."""
    found: dict[str, list[Path]] = {}
    for section in filter(None, sections.values()):
        base = os.path.expandvars(os.path.expanduser(section.get("base_path") or ""))
        for kind in OWN_FOLDERS:
            lines = [line for line in section.get(kind, "").split("\n") if line]
            # A further absolute path replaces what stands before it.
            folders = [Path(os.path.normpath(os.path.join(beside, base, line))) for line in lines]
            known = found.setdefault(kind, [])
            for folder in folders:
                known.insert(0 if section.get("is_default") else len(known), folder)
    return found


def folders_of(kind: str, base: Path, extra: dict[str, list[Path]]) -> list[Path]:
    """All folders ComfyUI looks into for this kind of file; statistics are written into the first."""
    own = [base / "models" / name for name in OWN_FOLDERS[kind]]
    return list(dict.fromkeys(extra.get(kind, []) + own))


def make_folders(folders: list[Path]) -> list[Path]:
    """Make the folders for statistics; return those that can be written to.

    Raises Problem where none can.
    """
    ready, failed = [], []
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                ready.append(folder)
        except OSError as error:
            failed.append(f"{folder} cannot be written to: {error.strerror or error}.")
    if not ready:
        raise Problem(f"{' '.join(failed)} Statistics go there: make it a folder of your own.")
    for line in failed:
        say(line)
    return ready


# What there is, and what to do next


def report(released: dict, places: dict[str, list[Path]], ready: list[Path]) -> None:
    """Say what was found and the next step."""
    statistics = files_in(places[FOLDER], (".safetensors",))
    say(f"Statistics go into {ready[0]}; {count(len(statistics), 'file')} there now.")
    missing = {name: missing_models(name, places) for name in released["sets"]}
    for name, lacking in missing.items():
        say(f"Model {name}: {'missing: ' + ', '.join(lacking) if lacking else 'its two model files are there'}.")
    has_model = not all(missing.values())
    if not has_model:
        report_space(released, places["checkpoints"][0])
    left = unconverted(statistics, missing, places)
    for line in left or next_step(released, bool(statistics), has_model, places):
        say(line)


def report_space(released: dict, folder: Path) -> None:
    """Say whether a released set fits."""
    # The folder itself may be still to be made.
    there = next((place for place in (folder, *folder.parents) if place.is_dir()), PACK)
    free = shutil.disk_usage(there).free
    listed = next(iter(released["sets"].values()))["files"]["weights"]["listed"]
    say(
        f"Free space: {free / GB:.1f} GB. One released set is {listed} to download; its two model files take "
        f"{KEPT / 2 / GB:.1f} GB (float16) or {KEPT / GB:.1f} GB (float32), statistics under 0.1 GB."
    )
    if free < float(listed.split()[0]) * GB + KEPT:
        say("That is not enough for a whole set: make room first, or fetch the statistics only.")


def files_in(folders: list[Path], endings: tuple[str, ...]) -> list[Path]:
    """Files in the folders, and in folders directly below, that end so."""
    found = []
    for folder in folders:
        for pattern in ("*", "*/*"):
            with contextlib.suppress(OSError):
                found += [path for path in folder.glob(pattern) if path.suffix.lower() in endings]
    return sorted(set(found))


def missing_models(name: str, places: dict[str, list[Path]]) -> list[str]:
    """Which of a released set's two model files are in no folder ComfyUI looks into."""
    halves = {f"{name}_checkpoint.safetensors": "checkpoints", f"{name}_controlnet.safetensors": "controlnet"}
    return [
        half
        for half, kind in halves.items()
        if half not in {path.name for path in files_in(places[kind], (".safetensors",))}
    ]


def unconverted(statistics: list[Path], missing: dict[str, list[str]], places: dict[str, list[Path]]) -> list[str]:
    """Released files that lie in ComfyUI's folders as they were downloaded, and what makes them usable."""
    done = {path.stem for path in statistics}
    arrays = files_in(places[FOLDER], (".npy",))
    lines = []
    for name in missing:
        # As the node reads it off the name.
        found = [path for path in arrays if path.name.lower().replace("_", "-").startswith(name) and name not in done]
        if found:
            lines.append(f"{found[0].name} found: run the node SCP Convert Statistics once in ComfyUI.")
    for path in files_in([*places["checkpoints"], *places["controlnet"]], (".ckpt",)):
        if missing.get(path.stem):
            lines.append(f"{path.name} found: run the node SCP Convert Checkpoint once in ComfyUI.")
    return [f"Next: {line}" for line in lines]


def next_step(released: dict, has_statistics: bool, has_model: bool, places: dict[str, list[Path]]) -> list[str]:
    """What to do next, in plain words."""
    if has_statistics and has_model:
        return ["Next: restart ComfyUI and open an SCP-Diff workflow from Templates."]
    wanted = " and ".join(["the statistics"] * (not has_statistics) + ["the model"] * (not has_model))
    names = list(released["sets"])
    return [
        f"Next: get {wanted} of one released set ({', '.join(names)}). In a terminal, in {PACK}:",
        f'    "{sys.executable}" scp_prior download {names[0]}',
        f"Without a terminal: from {released['page']} put the set's .npy files into {places[FOLDER][0]}",
        f"    and its .ckpt into {places['checkpoints'][0]}; then run the nodes SCP Convert Statistics and",
        "    SCP Convert Checkpoint once in ComfyUI.",
    ]


def count(number: int, what: str) -> str:
    """3, "file" -> "3 files"."""
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"


if __name__ == "__main__":
    sys.exit(main())
