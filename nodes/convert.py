"""A released checkpoint, made into the two files the host's loaders read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import comfy.model_management
import comfy.utils
import folder_paths
from comfy_api.latest import io

from ..scp_prior import SCPError
from .choices import check_choice
from .compat import search_aliases
from .say import say
from .wires import CATEGORY

_FOLDERS = ("checkpoints", "controlnet")
_ENDINGS = (".ckpt", ".pt", ".pth", ".bin")
_DTYPES = ("float16", "float32")
_STEPS = 1000


class SCPConvertCheckpoint(io.ComfyNode):
    """Splits a training checkpoint into a ControlNet and a checkpoint; nothing in it is executed."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCPConvertCheckpoint",
            display_name="SCP Convert Checkpoint",
            category=CATEGORY,
            description=(
                "Makes two files of a released .ckpt: a ControlNet for Load ControlNet Model, and the model trained "
                "with it for Load Checkpoint. Run it once; both are needed, and the .ckpt no more."
            ),
            inputs=[
                io.Combo.Input(
                    "checkpoint",
                    options=_sources(),
                    tooltip="A .ckpt (or .pt, .pth, .bin) in models/checkpoints or models/controlnet.",
                ),
                io.Combo.Input(
                    "dtype",
                    options=list(_DTYPES),
                    default=_DTYPES[0],
                    tooltip="float16: what most GPUs compute in. float32: every bit as trained, twice as large.",
                ),
            ],
            outputs=[],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
            **search_aliases("scp-diff", "ckpt to safetensors", "strip checkpoint", "prune", "split controlnet"),
        )

    @classmethod
    def validate_inputs(cls, checkpoint: str | None = None, dtype: str | None = None) -> bool | str:
        """Whether the file is there, before anything runs."""
        try:
            if checkpoint is not None:
                _source(checkpoint)
        except SCPError as error:
            return str(error)
        return check_choice("dtype", dtype, _DTYPES)

    @classmethod
    def fingerprint_inputs(cls, **_: object) -> float:
        """Never what it was: the files made before may be gone, and finding them in place takes no time."""
        return float("nan")

    @classmethod
    def execute(cls, checkpoint: str, dtype: str) -> io.NodeOutput:
        # Late: no start of ComfyUI needs it.
        from ..scp_prior.weights import convert_weights

        checkpoints, controlnets = (Path(folder_paths.get_folder_paths(folder)[0]) for folder in _FOLDERS)
        done = convert_weights(_source(checkpoint), controlnets, checkpoints, dtype=dtype, progress=_progress_bar())
        say(cls, f"{done.message} Press R, and the loaders have them.")
        return io.NodeOutput()


def _sources() -> list[str]:
    """Every torch file of both folders, with the folder before its name."""
    return [
        f"{folder}/{name}"
        for folder in _FOLDERS
        for name in folder_paths.get_filename_list(folder)
        if name.lower().endswith(_ENDINGS)
    ]


def _source(choice: str) -> Path:
    """Full path of a file the combo offers.

    Raises:
        SCPError: there is no such file. A name that leads out of the folders is never in them.
    """
    choices = _sources()
    if choice in choices:
        folder, _, name = choice.partition("/")
        return Path(folder_paths.get_full_path_or_raise(folder, name))
    if choices:
        raise SCPError(f"There is no checkpoint '{choice}'. Choose one of: {', '.join(choices)}.")
    raise SCPError(
        f"There is no .ckpt in {folder_paths.get_folder_paths('checkpoints')[0]}. Put the .ckpt of the SCP-Diff "
        "release there, then press R to refresh."
    )


def _progress_bar() -> Callable[[int, int], None]:
    bar = comfy.utils.ProgressBar(_STEPS)
    shown = 0

    def progress(done: int, total: int) -> None:
        nonlocal shown
        comfy.model_management.throw_exception_if_processing_interrupted()
        if done * _STEPS // total > shown:
            shown = done * _STEPS // total
            bar.update_absolute(shown)

    return progress
