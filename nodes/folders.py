"""The `scp_statistics` model folder."""

from __future__ import annotations

import os

import folder_paths

from ..scp_prior.errors import SCPError

FOLDER = "scp_statistics"
EXTENSION = ".safetensors"


def register() -> None:
    """Add `models/scp_statistics` to the folders ComfyUI knows, keeping those of the user's extra_model_paths.yaml."""
    folder_paths.add_model_folder_path(FOLDER, os.path.join(folder_paths.models_dir, FOLDER))
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


def _missing(name: str) -> str:
    folders = " or ".join(folder_paths.get_folder_paths(FOLDER))
    files = statistics_files()
    if not files:
        return f"There is no statistics file yet. Put one ({EXTENSION}) into {folders}, then press R to refresh."
    return f"'{name}' is not in {folders}. Choose one of: {', '.join(files)}."
