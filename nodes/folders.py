"""The `scp_statistics` model folder, what lies in it, and folders of pictures under the input folder."""

from __future__ import annotations

import contextlib
import functools
import os
import stat
from pathlib import Path

import folder_paths

from ..scp_prior.dropped import dataset_of, dropped_series
from ..scp_prior.errors import SCPError
from ..scp_prior.user_tables import may_be_table

FOLDER = "scp_statistics"
EXTENSION = ".safetensors"
TABLES = (".csv", ".json")
# Somebody may have linked a whole disk in there.
_MOST_FOLDERS = 2000
_LONGEST_NAME = 150
_DEVICES = {"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(1, 10))}


def register() -> None:
    """Make `models/scp_statistics` and add it to the folders ComfyUI knows, after those of extra_model_paths.yaml."""
    own = os.path.join(folder_paths.models_dir, FOLDER)
    # Whoever unpacked the pack by hand never ran install.py; and where nothing can be written, files may be elsewhere.
    with contextlib.suppress(OSError):
        os.makedirs(own, exist_ok=True)
    folder_paths.add_model_folder_path(FOLDER, own)
    folder_paths.folder_names_and_paths[FOLDER][1].add(EXTENSION)


def statistics_files() -> list[str]:
    """Names of the statistics files, as the combo shows them."""
    return folder_paths.get_filename_list(FOLDER)


def statistics_path(name: str) -> str:
    """Full path of a file the combo offers.

    Raises:
        SCPError: there is no such file in the folder. A name that leads out of the folder is never in it.
    """
    if name not in statistics_files():
        raise SCPError(_missing(name))
    return folder_paths.get_full_path_or_raise(FOLDER, name)


def statistics_folders() -> str:
    """The folders they may lie in, for a message."""
    return " or ".join(folder_paths.get_folder_paths(FOLDER))


def palette_files() -> dict[str, str]:
    """Class tables of the user's in the folder: {name in the combos: full path}; never a built-in palette's name.

    JSON of another kind is not among them. A broken table is, and costs nobody anything but its message.
    """
    found: dict[str, str] = {}
    for root in folder_paths.get_folder_paths(FOLDER):
        for seen, (folder, below, names) in enumerate(os.walk(root, followlinks=True)):
            below[:] = sorted(name for name in below if not name.startswith("."))
            for name in names:
                path = os.path.join(folder, name)
                if os.path.splitext(name)[1].lower() in TABLES and not name.startswith(".") and _may_be_table(path):
                    known_as = Path(path).relative_to(root).as_posix()
                    # A line break, or what is no UTF-8, can be neither a combo's entry nor part of a message.
                    if known_as.isprintable():
                        found.setdefault(known_as, path)
            if seen > _MOST_FOLDERS:
                break
    return dict(sorted(found.items()))


def _may_be_table(path: str) -> bool:
    try:
        status = os.stat(path)
    except OSError:
        return False
    if not stat.S_ISREG(status.st_mode):
        return False  # reading a pipe would wait for ever
    return _looked_into(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=4096)
def _looked_into(path: str, _changed: int, _size: int) -> bool:
    return may_be_table(path)


def palette_path(name: str) -> str:
    """Full path of a class table the combos offer.

    Raises:
        SCPError: there is no such file in the folder. A name that leads out of the folder is never in it.
    """
    files = palette_files()
    if name not in files:
        there = f"; there are: {', '.join(files)}" if files else ""
        raise SCPError(
            f"'{name}' is no built-in palette, and no class table (.csv, .json) in {statistics_folders()}{there}. "
            "Put it there and press R, or choose another palette."
        )
    return files[name]


def _missing(name: str) -> str:
    folders = statistics_folders()
    files = statistics_files()
    if not files:
        return unconverted_hint() or (
            f"There is no statistics file yet. Put one ({EXTENSION}) into {folders}, then press R to refresh."
        )
    return f"'{name}' is not in {folders}. Choose one of: {', '.join(files)}. {unconverted_hint()}".rstrip()


def released_series() -> dict[str, tuple[Path, list[Path]]]:
    """Released .npy files dropped into the folder: {name in the combo: (model folder, its files)}."""
    found: dict[str, tuple[Path, list[Path]]] = {}
    for root in map(Path, folder_paths.get_folder_paths(FOLDER)):
        for series, files in dropped_series(root).items():
            found.setdefault(series, (root, files))
    return found


def unconverted_hint() -> str:
    """What to do about .npy files in the folder that no statistics file was made of; empty where there are none."""
    done = {Path(name).stem for name in statistics_files()}
    left = [series for series in released_series() if dataset_of(series) not in done]
    if not left:
        return ""
    return f"Found as .npy: {', '.join(left)}. Run the node SCP Convert Statistics once, then press R to refresh."


def new_statistics_path(name: str) -> Path:
    """Where a statistics file of this name is written: in the folder itself, never elsewhere.

    Raises:
        SCPError: the name is empty, has a folder in it, or characters that are not for file names.
    """
    stem = name.strip()
    if stem.lower().endswith(EXTENSION):
        stem = stem[: -len(EXTENSION)]
    device = stem.split(".")[0].rstrip().upper()  # on Windows "nul.x" is no file
    if (
        not stem
        or len(stem.encode()) > _LONGEST_NAME
        or not stem.isprintable()
        or set(stem) & set('\\/:*?"<>|')
        or stem.startswith(".")
        or stem.endswith((" ", "."))
        or device in _DEVICES
    ):
        raise SCPError(f"'{name}' cannot be a file's name. Use letters, digits, spaces, - and _; no folders.")
    folder = Path(folder_paths.get_folder_paths(FOLDER)[0])
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SCPError(f"Cannot make the folder {folder}: {error.strerror or error}.") from error
    return folder / f"{stem}{EXTENSION}"


def input_folders() -> list[str]:
    """Folders under ComfyUI's input folder, as the combos show them."""
    root = Path(folder_paths.get_input_directory())
    found = []
    for folder, below, _ in os.walk(root):
        below[:] = sorted(name for name in below if not name.startswith("."))
        found += [Path(folder, name).relative_to(root).as_posix() for name in below]
        if len(found) > _MOST_FOLDERS:
            break
    return sorted(found)


def input_folder(name: str) -> Path:
    """Full path of a folder the combo offers.

    Raises:
        SCPError: there is no such folder under the input folder. A name that leads out of it is never there.
    """
    if name not in input_folders():
        root = folder_paths.get_input_directory()
        raise SCPError(f"'{name}' is not a folder in {root}. Put your pictures into folders there, then press R.")
    return Path(folder_paths.get_input_directory(), name)
