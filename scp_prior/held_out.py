"""Latents and label maps that a prior is judged by, in batches, from wherever they come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from .errors import SCPError
from .matching import labels_for
from .noise import item_generator
from .statistics import Statistics

if TYPE_CHECKING:
    from .datasets import Dataset
    from .loader import Loading
    from .reduce import Plan, PosteriorEncoder


class HeldOut(NamedTuple):
    """latents (B, C, h, w) in LATENT units, labels (B, H, W) int64 in the ids of the statistics.

    Labels are at latent size, or at image size. problems: a sentence for each pair of the batch that was left out.
    """

    latents: Tensor
    labels: Tensor
    problems: tuple[str, ...] = ()


def encoded(
    statistics: Statistics, dataset: Dataset, encoder: PosteriorEncoder, plan: Plan, loading: Loading
) -> Iterator[HeldOut]:
    """Photos encoded as they are asked for; a latent is one draw from what the encoder says of the photo.

    Raises:
        SCPError: a pair cannot be read (and `plan.on_error` is "stop"), the encoder refuses, or the labels are of
            another data set than the statistics.
    """
    from .loader import load_batches
    from .reduce import Share, my_batches

    plan.check(encoder)
    grid = (plan.size[0] // encoder.downscale, plan.size[1] // encoder.downscale)
    # Straight from the full map where that is the rule; a majority needs the pixels.
    label_size = grid if statistics.label_rule.grid == "nearest" else plan.size
    batches = my_batches(plan, len(dataset.pairs), Share())
    number = 0
    with closing(load_batches(dataset, batches, plan.size, label_size, loading)) as stream:
        for batch in stream:
            problems = tuple(why for _, why in batch.problems)
            if problems and plan.on_error == "stop":
                raise SCPError(f"{problems[0]} (--on-error skip would leave such pairs out and list them at the end.)")
            if not len(batch.labels):
                yield HeldOut(torch.empty(0, encoder.channels, *grid), batch.labels, problems)
                continue
            mean, variance = (part.float().cpu() for part in encoder.encode(batch.photos))
            noise = [torch.randn(mean.shape[1:], generator=item_generator(0, number + i)) for i in range(len(mean))]
            number += len(mean)
            labels = batch.labels if dataset.table is None else labels_for(statistics, batch.labels, dataset.table)
            yield HeldOut(torch.addcmul(mean, variance.sqrt(), torch.stack(noise)), labels, problems)


def latent_files(folder: Path) -> list[Path]:
    """The .safetensors files of a folder, by name.

    Raises:
        SCPError: there is none.
    """
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    if not files:
        raise SCPError(
            f"There is no .safetensors file in {folder}. --latents expects a folder of them, one a picture, each with "
            "`latent` (C, h, w) and `labels` (h, w)."
        )
    return files


def stored(files: Sequence[Path], batch_size: int = 4) -> Iterator[HeldOut]:
    """Latents already encoded: a .safetensors file a picture.

    Each holds `latent` (C, h, w), floats in LATENT units (raw VAE output, before the model's scale factor), and
    `labels` (h, w) or (H, W), integers in the ids of the statistics.

    Raises:
        SCPError: a file that cannot be read or holds something else, or pictures of several sizes in one folder.
    """
    first: tuple[Path, tuple[int, ...], tuple[int, ...]] | None = None
    for start in range(0, len(files), batch_size):
        latents, labels = [], []
        for path in files[start : start + batch_size]:
            latent, label = _read(path)
            first = first or (path, tuple(latent.shape), tuple(label.shape))
            if (tuple(latent.shape), tuple(label.shape)) != first[1:]:
                raise SCPError(
                    f"{path.name} has a latent of shape {tuple(latent.shape)} and labels of {tuple(label.shape)}, but "
                    f"{first[0].name} has {first[1]} and {first[2]}. One evaluation takes pictures of one size."
                )
            latents.append(latent)
            labels.append(label)
        yield HeldOut(torch.stack(latents), torch.stack(labels))


def _read(path: Path) -> tuple[Tensor, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise SCPError(f"{path} cannot be read as a safetensors file ({error}). Make or get it again.") from error
    missing = [key for key in ("latent", "labels") if key not in tensors]
    if missing:
        raise SCPError(
            f"{path} holds {', '.join(sorted(tensors)) or 'nothing'}, but no {' and no '.join(missing)}. Expected "
            "`latent` (C, h, w), floats, and `labels` (h, w), integers."
        )
    latent, labels = tensors["latent"], tensors["labels"]
    if latent.ndim != 3 or not latent.is_floating_point():
        raise SCPError(f"{path}: `latent` is {_of(latent)}; expected floats of shape (C, h, w).")
    if labels.ndim != 2 or labels.is_floating_point():
        raise SCPError(f"{path}: `labels` is {_of(labels)}; expected integers of shape (h, w).")
    return latent, labels.to(torch.int64)


def _of(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"
