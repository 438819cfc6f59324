"""`python -m scp_prior evaluate-prior`: how well a statistics file's priors describe pictures it has not seen."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .cli_data import data_arguments, encoding_arguments, open_data
from .errors import SCPError
from .verbs import Verb

if TYPE_CHECKING:
    from .evaluate import Asked
    from .held_out import HeldOut
    from .reduce import PosteriorEncoder
    from .statistics import Statistics


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("statistics", metavar="STATS", help="a statistics file")

    data = parser.add_argument_group("what to judge by: pictures that are not in the statistics")
    data.add_argument(
        "--latents",
        type=Path,
        metavar="DIR",
        help="latents already encoded, in place of --dataset and --vae: a .safetensors file a picture with `latent` "
        "(C, h, w), raw VAE output, and `labels` (h, w), ids of the statistics",
    )
    data_arguments(data, required=False)

    how = parser.add_argument_group("how to encode it")
    encoding_arguments(how, required=False)

    what = parser.add_argument_group("what to measure")
    what.add_argument(
        "--methods", nargs="+", metavar="NAME", help="prior methods (default: all that the file can serve)"
    )
    what.add_argument(
        "--sigma",
        nargs="+",
        type=float,
        metavar="S",
        help="noise levels as the sampler counts them, on latents times --latent-scale; likelihoods are per value of "
        "these scaled latents (default: 0 0.3 1 2 5.13). A flow model's time t in 0..1 is sigma t / (1 - t)",
    )
    what.add_argument(
        "--timestep",
        nargs="+",
        type=int,
        default=[],
        metavar="T",
        help="more noise levels, as timesteps 0..999 of Stable Diffusion's training schedule",
    )
    what.add_argument(
        "--latent-scale",
        type=float,
        metavar="L",
        help="the model's own scale of latents (default: 0.18215, of SD 1 and 2, for 4 channels; SDXL 0.13025, Flux "
        "0.3611, SD3 1.5305; 1 for latents as they are)",
    )

    out = parser.add_argument_group("what to do with the result")
    out.add_argument("--out", type=Path, metavar="FILE.json", help="write every number as JSON")
    out.add_argument("--figure", type=Path, metavar="FILE.png", help="draw it; needs matplotlib")
    out.add_argument("--classes", action="store_true", help="print a table of classes for each method")


class _Source(NamedTuple):
    pictures: Iterator[HeldOut]
    total: int
    name: str
    notes: tuple[str, ...] = ()


def _evaluate(args: argparse.Namespace) -> None:
    from .evaluate import evaluate
    from .evaluation import as_text
    from .evaluation_figure import check_figure, save_figure
    from .statistics import load_statistics

    _check_source(args)
    asked = _asked(args)
    if args.figure is not None:
        check_figure(args.figure)
    statistics = load_statistics(args.statistics)
    source = _stored(args) if args.latents else _encoded(args, statistics)
    problems: list[str] = []
    with _bar(source.total) as report:
        found = evaluate(
            statistics,
            _keep_problems(source.pictures, problems),
            asked,
            dataset=source.name,
            notes=source.notes,
            report=report,
        )
    for problem in problems:
        print(f"left out: {problem}", file=sys.stderr)
    print(as_text(found, classes=args.classes))
    if args.out is not None:
        found.save(args.out)
    if args.figure is not None:
        save_figure(found, args.figure)


def _check_source(args: argparse.Namespace) -> None:
    """One source, whole: a second one that is silently left aside would be judged by mistake."""
    of_data = ("dataset", "root", "split", "images", "labels", "palette", "table", "vae", "size")
    given = [f"--{name}" for name in of_data if getattr(args, name) is not None]
    if args.latents is not None and given:
        args.usage_error(f"--latents and {given[0]} are two sources; give one")
    missing = [flag for flag in ("--dataset", "--vae") if flag not in given]
    if args.latents is None and missing:
        args.usage_error(f"{' and '.join(missing)} must be given, or --latents")


def _asked(args: argparse.Namespace) -> Asked:
    from .evaluate import SIGMAS, Asked

    asked = Asked(
        methods=None if args.methods is None else tuple(args.methods),
        sigmas=SIGMAS if args.sigma is None else tuple(args.sigma),
        timesteps=tuple(args.timestep),
        latent_scale=args.latent_scale,
    )
    try:
        asked.noise()
    except SCPError as error:
        args.usage_error(str(error))
    return asked


def _stored(args: argparse.Namespace) -> _Source:
    from .held_out import latent_files, stored
    from .reduce import Plan

    files = latent_files(args.latents)
    chosen = [files[i] for i in Plan((1, 1), limit=args.limit, seed=args.seed).indices(len(files))]
    return _Source(stored(chosen, args.batch_size), len(chosen), args.latents.name)


def _encoded(args: argparse.Namespace, statistics: Statistics) -> _Source:
    from .held_out import encoded
    from .loader import Loading
    from .reduce import Plan
    from .vae import load_encoder

    dataset = open_data(args)
    if dataset.problems and args.on_error == "stop":
        raise SCPError(f"{' '.join(dataset.problems[:3])} Mend that, or use --on-error skip.")
    encoder = load_encoder(args.vae, device=args.device, dtype=args.dtype)
    plan = Plan(args.size or _size_of(args, statistics), args.batch_size, args.limit, args.seed, args.on_error)
    try:
        plan.check(encoder)
    except SCPError as error:
        args.usage_error(str(error))
    name = f"{dataset.name} {args.split}" if args.split else dataset.name
    pictures = encoded(statistics, dataset, encoder, plan, Loading(args.workers))
    return _Source(pictures, len(plan.indices(len(dataset.pairs))), name, _notes(statistics, encoder))


def _size_of(args: argparse.Namespace, statistics: Statistics) -> tuple[int, int]:
    if statistics.latent_size is None:
        args.usage_error(f"{statistics.name} has no size of its own: give --size")
    height, width = statistics.latent_size
    return height * statistics.downscale, width * statistics.downscale


def _notes(statistics: Statistics, encoder: PosteriorEncoder) -> tuple[str, ...]:
    made_with = statistics.metadata.get("vae", "")
    if made_with and made_with != encoder.name:
        return (f"the statistics were made with the VAE {made_with}, the pictures encoded with {encoder.name}",)
    return ()


def _keep_problems(pictures: Iterator[HeldOut], problems: list[str]) -> Iterator[HeldOut]:
    for batch in pictures:
        problems += batch.problems
        yield batch


@contextmanager
def _bar(total: int) -> Iterator[Callable[[int], None] | None]:
    try:
        from tqdm import tqdm
    except ImportError:
        yield None
        return
    with tqdm(unit="picture", total=total, dynamic_ncols=True) as bar:
        yield lambda done: bar.update(done - bar.n)


VERBS: tuple[Verb, ...] = (
    Verb("evaluate-prior", "How well the priors of a statistics file describe pictures.", _arguments, _evaluate),
)
