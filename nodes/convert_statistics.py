"""The authors' released statistics, made usable where they lie."""

from __future__ import annotations

import os
from pathlib import Path

from comfy_api.latest import io, ui

from ..scp_prior import SCPError, Statistics, load_statistics, save_statistics
from ..scp_prior.dropped import dataset_of
from ..scp_prior.released import datasets, repository
from . import folders
from .choices import check_choice
from .compat import search_aliases
from .say import say
from .wires import CATEGORY, StatisticsWire

_AUTO = "auto"


class SCPConvertStatistics(io.ComfyNode):
    """Makes a statistics file of the released .npy files in the model folder; nothing in them is executed."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCPConvertStatistics",
            display_name="SCP Convert Statistics",
            category=CATEGORY,
            description=(
                "Makes a statistics file of the .npy files of the SCP-Diff release that lie in models/scp_statistics, "
                "in the same folder. Run it once; afterwards SCP Load Statistics has the file."
            ),
            inputs=[
                io.Combo.Input(
                    "files",
                    options=list(folders.released_series()),
                    tooltip="Released .npy files in models/scp_statistics, by what their names begin with.",
                ),
                io.Combo.Input(
                    "dataset",
                    options=[_AUTO, *datasets()],
                    default=_AUTO,
                    optional=True,
                    tooltip="The data set they are of. auto: as their name says.",
                ),
                io.Boolean.Input(
                    "overwrite",
                    default=False,
                    optional=True,
                    tooltip="Replace a file of that name that was made of something else; off: stop with a message.",
                ),
            ],
            outputs=[
                StatisticsWire.Output(
                    "STATISTICS", display_name="statistics", tooltip="For the statistics input of SCP Prior Latent."
                )
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
            **search_aliases("scp-diff", "npy", "released statistics", "import statistics"),
        )

    @classmethod
    def validate_inputs(cls, files: str | None = None, dataset: str | None = None) -> bool | str:
        """Whether the files are there and can be told apart, before anything runs."""
        told = check_choice("dataset", dataset, (_AUTO, *datasets()))
        if told is not True or files is None:
            return told
        try:
            _series(files)
            _dataset(files, dataset or _AUTO)
        except SCPError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, files: str, dataset: str = _AUTO, **_: object) -> tuple:
        """Changes when one of the files does, or what was made of them."""
        try:
            root, paths = _series(files)
            made = root / f"{_dataset(files, dataset)}{folders.EXTENSION}"
            return tuple((str(path), *_stamp(path)) for path in [*paths, *([made] if made.exists() else [])])
        except (SCPError, OSError):
            return (files,)

    @classmethod
    def execute(cls, files: str, dataset: str = _AUTO, overwrite: bool = False) -> io.NodeOutput:
        # Late: what reads pickles is not for every start of ComfyUI to import.
        from ..scp_prior.coverage import coverage
        from ..scp_prior.release import convert_release, find_release_files

        root, paths = _series(files)
        dataset = _dataset(files, dataset)
        out = root / f"{dataset}{folders.EXTENSION}"
        done = None if overwrite else _made_before(out, paths)
        if done is None:
            save_statistics(convert_release(**find_release_files(paths), dataset=dataset), out)
        statistics = done or load_statistics(out)
        say(cls, f"{out.name}: {'made before' if done else 'made'} of {', '.join(path.name for path in paths)}")
        return io.NodeOutput(statistics, ui=ui.PreviewImage(coverage(statistics)) if statistics.has_joint else None)


def _series(name: str) -> tuple[Path, list[Path]]:
    """Model folder and files of a series the combo offers.

    Raises:
        SCPError: there is none of that name. A name that leads out of the folder is never there.
    """
    found = folders.released_series()
    if name in found:
        return found[name]
    if found:
        raise SCPError(f"There are no released .npy files '{name}'. Choose one of: {', '.join(found)}.")
    raise SCPError(
        f"There are no released .npy files in {folders.statistics_folders()}. Put the three of one data set there, "
        f"from https://huggingface.co/{repository()}, then press R to refresh."
    )


def _dataset(files: str, asked: str) -> str:
    """The data set asked for, or the one the files' name begins with.

    Raises:
        SCPError: the name tells of none.
    """
    found = dataset_of(files) if asked == _AUTO else asked
    if found is None:
        raise SCPError(f"'{files}' does not begin with the name of a data set. Choose one at dataset.")
    return found


def _made_before(out: Path, paths: list[Path]) -> Statistics | None:
    """The statistics at `out` where they are of these very files; None where they are to be made.

    Raises:
        SCPError: something else stands there.
    """
    if not out.exists():
        return None
    there = load_statistics(out)
    names = {name.strip() for name in there.metadata.get("source", "").split(";")[0].split(",")}
    if names != {path.name for path in paths}:
        raise SCPError(f"{out} is already there, made of something else. Move it away, or turn overwrite on.")
    newest = max(path.stat().st_mtime_ns for path in paths)
    return there if out.stat().st_mtime_ns >= newest else None


def _stamp(path: Path) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_mtime_ns, status.st_size
