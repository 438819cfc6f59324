"""Arguments of every verb that reads photos and encodes them, and what is made of these arguments."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from .errors import SCPError
from .verbs import positive, size, workers

if TYPE_CHECKING:
    from .datasets import Dataset


def data_arguments(data: argparse._ArgumentGroup, *, required: bool = True) -> None:
    """Which photos and label maps; `open_data` opens what they say."""
    data.add_argument("--dataset", required=required, choices=("cityscapes", "ade20k", "coco-stuff", "folder"))
    data.add_argument("--root", metavar="DIR", help="the data set's folder, as it was downloaded")
    data.add_argument("--split", metavar="NAME", help="train or val; training or validation; train2017 or val2017")
    data.add_argument("--images", metavar="DIR", help="for folder: photos")
    data.add_argument("--labels", metavar="DIR", help="for folder: label maps of the same names")
    data.add_argument("--palette", metavar="NAME", help="for folder: colours of the maps (default: they hold ids)")
    data.add_argument("--table", metavar="FILE", help="for folder: your own class table (.csv or .json)")
    data.add_argument("--limit", type=positive, metavar="N", help="only N pairs, drawn without replacement")
    data.add_argument("--seed", type=int, default=0, help="of that draw (default: 0)")
    data.add_argument("--on-error", choices=("stop", "skip"), default="stop", help="at a pair that cannot be read")


def encoding_arguments(how: argparse._ArgumentGroup, *, required: bool = True) -> None:
    """How photos become latents; where `required` is False, --size has another default."""
    how.add_argument("--vae", metavar="FILE_OR_DIR", help="a VAE, a checkpoint that holds one, or a diffusers folder")
    default = "" if required else " (default: that of the statistics)"
    how.add_argument(
        "--size", type=size, required=required, metavar="HxW", help=f"size every photo is brought to{default}"
    )
    how.add_argument("--batch-size", type=positive, default=4, metavar="N")
    how.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    how.add_argument("--dtype", default="auto", choices=("auto", "float32", "bfloat16", "float16"))
    how.add_argument("--workers", type=workers, default=_workers(), metavar="N", help="processes that decode photos")


def _workers() -> int:
    return max(1, min(8, (os.cpu_count() or 2) // 2))


def open_data(args: argparse.Namespace) -> Dataset:
    """The data set these arguments name; ends the program with a usage message where they do not fit together."""
    from .datasets import open_dataset

    chosen = {key: getattr(args, key) for key in ("root", "split", "images", "labels", "palette", "table")}
    try:
        return open_dataset(args.dataset, **chosen)
    except SCPError as error:
        args.usage_error(str(error))
        raise
