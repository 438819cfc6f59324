"""The command line: `python -m scp_prior convert | inspect | preview | reduce | merge | evaluate-prior | download`.

Each verb is a pair of functions, one for its arguments and one for its work, and a row of `VERBS`. What is slow to
import is imported by the verb that needs it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from .cli_download import VERBS as DOWNLOAD_VERBS
from .cli_evaluate import VERBS as EVALUATE_VERBS
from .cli_reduce import VERBS as REDUCE_VERBS
from .cli_weights import asks_for_weights, convert_checkpoints, weights_arguments
from .errors import SCPError
from .verbs import Verb, size

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from .classes import Palette
    from .statistics import Statistics

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
_GAP = 8
# Fewer matched pixels than this, and the picture is in another palette.
_LEAST_MATCH = 0.5


def main(argv: Sequence[str] | None = None, *, prog: str = "python -m scp_prior") -> int:
    """Run one verb and return the exit code: 0, 1 after an error the user can mend, 130 after Ctrl-C.

    Args:
        argv: the words after the program's name (default: the process's).
        prog: how this was called, for usage messages.

    Raises:
        SystemExit: with code 2 on bad arguments, with 0 after --help, as argparse does.
    """
    _print_anything()
    args = _parser(prog).parse_args(argv)
    try:
        return args.run(args) or 0
    except SCPError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Whoever read us has read enough (`... | head`); Python would complain again while closing stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


def _print_anything() -> None:
    """Let a console that cannot show some character show a question mark instead of ending the program."""
    for stream in (sys.stdout, sys.stderr):
        # stderr escapes such characters by itself, which tells more.
        if hasattr(stream, "reconfigure") and stream.errors != "backslashreplace":
            stream.reconfigure(errors="replace")


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=prog, description="SCP-Diff prior statistics.")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for verb in VERBS:
        sub = verbs.add_parser(verb.name, help=verb.summary, description=verb.summary)
        verb.add_arguments(sub)
        sub.set_defaults(run=verb.run, usage_error=sub.error)
    return parser


# convert


def _convert_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "paths", nargs="+", metavar="DIR_OR_FILES", help="a folder with the released .npy files, or they; or a .ckpt"
    )
    statistics = parser.add_argument_group("for statistics (.npy)")
    statistics.add_argument("--dataset", metavar="NAME", help="cityscapes, ade20k or coco-stuff")
    statistics.add_argument("--out", type=Path, metavar="F", help="the .safetensors file to write")
    statistics.add_argument(
        "--scale-factor", type=float, default=0.18215, help="of the model's latents (default: 0.18215)"
    )
    weights_arguments(parser)


def _convert(args: argparse.Namespace) -> None:
    if asks_for_weights(args):
        convert_checkpoints(args)
        return
    missing = [flag for flag, value in (("--dataset", args.dataset), ("--out", args.out)) if value is None]
    if missing:
        args.usage_error(f"{' and '.join(missing)} must be given for statistics")
    from .release import convert_release, find_release_files
    from .statistics import save_statistics

    if args.out.suffix != ".safetensors":
        raise SCPError(f"--out {args.out} does not end in .safetensors; ComfyUI would not list it. Add the ending.")
    files = find_release_files(args.paths)
    statistics = convert_release(**files, dataset=args.dataset, scale_factor=args.scale_factor)
    save_statistics(statistics, args.out)
    used = ", ".join(path.name for path in files.values() if path)
    print(f"{args.out}: {_summary(statistics)}, from {used}")


# inspect


def _inspect_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="F", help="a statistics file")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _inspect(args: argparse.Namespace) -> None:
    from .statistics import load_statistics

    statistics = load_statistics(args.file)
    description = statistics.describe()
    if args.json:
        # Escaped: a console that lacks a character would change the data.
        print(json.dumps(description, indent=2))
        return
    print(f"{statistics.name}: {_summary(statistics)}")
    for key, value in sorted(description["metadata"].items()):
        if key != "class_names":
            print(f"  {key:16} {_clean(value)}")
    print(f"\n{'id':>5}  {'name':28} {'count':>12} {'cells':>7}")
    for row in description["classes"]:
        count = row["count"] or "-"  # 0: not known
        cells = "-" if row["cells"] is None else f"{row['cells']:.1%}"
        print(f"{row['id']:>5}  {_clean(row['name']):28} {count:>12} {cells:>7}")


def _summary(statistics: Statistics) -> str:
    parts = {
        "joint": statistics.has_joint,
        "class": statistics.has_categorical,
        "spatial": statistics.has_spatial,
        "target": statistics.has_target,
        "scene effects": statistics.has_scene,
    }
    size = statistics.latent_size
    grid = f", {size[0]}x{size[1]} latent cells (h x w)" if size else ""
    held = " + ".join(part for part, here in parts.items() if here)
    return f"{held}, {len(statistics.class_ids)} classes, {statistics.channels} channels{grid}"


def _clean(text: str) -> str:
    # A file's strings are another's: no control characters to the terminal.
    return "".join(character if character.isprintable() else " " for character in text)


# preview


def _preview_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="F", help="a statistics file")
    parser.add_argument("--labels", required=True, type=Path, metavar="MAP.png", help="a segmentation picture")
    parser.add_argument("--out", required=True, type=Path, metavar="P.png", help="the picture to write")
    classes = parser.add_mutually_exclusive_group()
    classes.add_argument(
        "--palette",
        metavar="NAME",
        help="palette of the picture (default: the grey value or index is the id; for colour pictures, the file's own)",
    )
    classes.add_argument(
        "--table", type=Path, metavar="FILE", help="your own class table (.csv or .json), whose ids or colours it holds"
    )
    parser.add_argument("--method", default="joint", help="prior method (default: joint)")
    parser.add_argument("--size", type=size, metavar="HxW", help="image size (default: that of the statistics)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample (default: 0)")


def _preview(args: argparse.Namespace) -> None:
    from .labels import hint_from_labels
    from .preview import latent_to_rgb
    from .prior import prior_maps, sample_prior
    from .report import report
    from .statistics import load_statistics

    if args.out.suffix.lower() not in _FORMATS:
        raise SCPError(f"--out {args.out} is no picture file; end it in one of: {', '.join(_FORMATS)}.")
    statistics = load_statistics(args.file)
    if args.table is not None:
        labels, palette = _read_own_labels(args.labels, args.table, statistics)
    else:
        labels, palette = _read_labels(args.labels, args.palette, statistics)
    height, width = _picture_size(args.size, statistics, tuple(labels.shape[-2:]))
    latent_size = height // statistics.downscale, width // statistics.downscale
    maps = prior_maps(statistics, labels, args.method, latent_size=latent_size)
    sample = sample_prior(maps, args.seed)
    panels = [hint_from_labels(labels, palette), latent_to_rgb(maps.mean), latent_to_rgb(sample)]
    _save_side_by_side(panels, (height, width), args.out)
    print(f"{args.out}: label map | prior mean | prior sample (seed {args.seed})")
    print(report(statistics, labels, maps, args.method)[0])


def _picture_size(asked: tuple[int, int] | None, statistics: Statistics, of_map: tuple[int, int]) -> tuple[int, int]:
    step, grid = statistics.downscale, statistics.latent_size
    if asked is None:
        stored = (grid[0] * step, grid[1] * step) if grid else None
        return stored or tuple(max(side // step, 1) * step for side in of_map)
    if min(asked) < step or any(side % step for side in asked):
        lower = [max(side // step, 1) * step for side in asked]
        raise SCPError(
            f"--size {asked[0]}x{asked[1]}: both sides must be multiples of {step}. "
            f"Try {lower[0]}x{lower[1]} or {lower[0] + step}x{lower[1] + step}."
        )
    return asked


def _read_labels(path: Path, name: str | None, statistics: Statistics) -> tuple[Tensor, Palette]:
    """The label map (1, H, W) in the ids of the statistics, and a palette to paint it in."""
    from .classes import palette, palettes
    from .matching import labels_for, table_of

    own = statistics.metadata.get("palette", "")
    own = palette(own) if own in palettes() else None
    asked = palette(name) if name else None
    picture = _open_picture(path)
    # An indexed picture is an id map whatever its colours are, unless a palette of colours is asked for.
    if (picture.mode in ("P", "L") or picture.mode.startswith("I")) and (asked is None or asked.grey):
        labels, read_in = _labels_from_ids(picture), asked
    else:
        read_in = asked or own
        if read_in is None:
            raise SCPError(
                f"{path.name} is a colour picture, and {statistics.name} does not say in which palette: "
                f"give --palette, one of {', '.join(palettes())}."
            )
        labels = _labels_from_colours(picture, read_in, path)
    if read_in is not None:
        labels = labels_for(statistics, labels, read_in.table)
        if not read_in.grey and read_in.table.name == table_of(statistics):
            return labels, read_in
    # Colours of a user's own classes are not known here; any table of many distinct colours tells ids apart.
    return labels, own or palette("coco-stuff")


def _read_own_labels(path: Path, table: Path, statistics: Statistics) -> tuple[Tensor, Palette]:
    """The label map (1, H, W) in the ids of the user's table, as `reduce --table` reads it, and the table's colours."""
    import torch

    from .classes import load_table
    from .datasets import MapReader
    from .matching import labels_for

    own, colours = load_table(table)
    labels = torch.from_numpy(MapReader(colours, either=True)(path)).unsqueeze(0)
    # Called after the whole file: "cityscapes.csv" of somebody's own classes must not pass for Cityscapes.
    return labels_for(statistics, labels, replace(own, name=table.name)), colours


def _labels_from_ids(picture: Image.Image) -> Tensor:
    import numpy as np
    import torch

    return torch.from_numpy(np.array(picture).astype(np.int64)).unsqueeze(0)


def _open_picture(path: Path) -> Image.Image:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            picture.load()
    except UnidentifiedImageError as error:
        raise SCPError(f"{path} is not a picture that can be read; expected a PNG of the label map.") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise SCPError(f"Cannot read {path}: {getattr(error, 'strerror', None) or error}.") from error
    return picture


def _labels_from_colours(picture: Image.Image, palette: Palette, path: Path) -> Tensor:
    import numpy as np
    import torch

    from .detection import palette_fits
    from .labels import labels_from_image

    image = torch.from_numpy(np.array(picture.convert("RGB"))).unsqueeze(0)
    read = labels_from_image(image, palette)
    matched = 1 - float(read.unmatched.float().mean())
    if matched < _LEAST_MATCH:
        best, share = palette_fits(image)[0]
        better = f" Palette {best} matches {share:.0%}: give --palette {best}." if share > matched else ""
        raise SCPError(f"Only {matched:.0%} of {path.name} is in colours of palette {palette.name}.{better}")
    return read.labels


def _save_side_by_side(panels: Sequence[Tensor], size: tuple[int, int], out: Path) -> None:
    import torch
    from PIL import Image
    from torch.nn.functional import interpolate

    from .files import atomic_write

    pictures = [interpolate(panel.movedim(-1, 1).float(), size=size, mode="nearest") for panel in panels]
    gap = torch.ones(1, 3, size[0], _GAP)
    row = torch.cat([pictures[0], *(part for picture in pictures[1:] for part in (gap, picture))], dim=-1)
    pixels = (row[0].movedim(0, -1).clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    with atomic_write(out) as temporary:
        Image.fromarray(pixels).save(temporary, format=_FORMATS[out.suffix.lower()])


VERBS: tuple[Verb, ...] = (
    Verb("convert", "The authors' released files -> what ComfyUI reads.", _convert_arguments, _convert),
    Verb("inspect", "What a statistics file holds.", _inspect_arguments, _inspect),
    Verb("preview", "Picture of a label map, its prior mean and one sample.", _preview_arguments, _preview),
    *REDUCE_VERBS,
    *EVALUATE_VERBS,
    *DOWNLOAD_VERBS,
)
