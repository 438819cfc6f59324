"""The authors' algorithms, restated from their description for timing: what they read, and what they compute.

Source: SCP-Diff-Toolkit `noise_prior_inference.py` (`sample_spatial_class_prior` and what it calls) and the three
passes of `noise_prior.py`. Arrays, dtypes and the order of operations are theirs; the code is ours.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def write_release(folder: Path, size: tuple[int, int], classes: list[int], seed: int = 0) -> dict[str, Path]:
    """Random statistics in the three released files' form: pickled dicts, all 256 classes in the joint one."""
    rng = np.random.default_rng(seed)
    h, w = size
    mean, std, count = (np.zeros((256, c, h, w), np.float32) for c in (4, 4, 1))
    mean[classes] = rng.normal(size=(len(classes), 4, h, w))
    std[classes] = rng.uniform(0.2, 1, size=(len(classes), 4, h, w))
    count[classes] = rng.integers(0, 200, size=(len(classes), 1, h, w))
    parts = {
        "categorical": {
            k: {"mean": rng.normal(size=4).astype(np.float32), "std": rng.uniform(0.2, 1, size=4).astype(np.float32)}
            for k in classes
        },
        "spatial": {
            "mean": rng.normal(size=(4, h, w)).astype(np.float32),
            "std": rng.uniform(0.2, 1, size=(4, h, w)).astype(np.float32),
        },
        "spatial_class": {"mean": mean, "std": std, "count": count},
    }
    paths = {}
    for part, value in parts.items():
        paths[part] = folder / f"bench_{part}_mean_std.npy"
        np.save(paths[part], value)
    return paths


def load(paths: dict[str, Path]) -> dict[str, dict]:
    """All three files, whole."""
    # Their way, and the only pickles here that are ever run: this benchmark wrote them itself a moment ago.
    return {part: np.load(path, allow_pickle=True).item() for part, path in paths.items()}


def joint_maps(prior: dict[str, dict], label: np.ndarray) -> tuple[Tensor, Tensor]:
    """Mean and std maps of their default prior: the cell where it saw anything, else the position."""
    joint, spatial = prior["spatial_class"], prior["spatial"]
    size = joint["mean"].shape[-2:]
    small = F.interpolate(torch.tensor(label)[None, None], size=size, mode="nearest")[0, 0]
    present = torch.unique(small).tolist()
    masks = {k: (small == k).float()[None, None] for k in present}
    mean = sum(torch.tensor(joint["mean"][k]) * masks[k] for k in present)
    std = sum(torch.tensor(joint["std"][k]) * masks[k] for k in present)
    count = sum(torch.tensor(joint["count"][k]) * masks[k] for k in present)
    empty = (count == 0).float()
    if empty.sum() == 0:
        return mean, std
    mean = empty * torch.tensor(spatial["mean"]) + (1 - empty) * mean
    std = empty * torch.tensor(spatial["std"]) + (1 - empty) * std
    return mean, std


def sample(prior: dict[str, dict], label: np.ndarray, alpha_bar: float) -> Tensor:
    """One noised start: maps, a draw of x0, and q_sample's own draw."""
    mean, std = joint_maps(prior, label)
    x0 = torch.randn(1, *mean.shape[1:]) * std + mean
    noise = torch.randn_like(x0)
    return alpha_bar**0.5 * x0 + (1 - alpha_bar) ** 0.5 * noise


# Reduction: three passes, each of which reads a picture and asks for its latent anew.

Encode = Callable[[int], Tensor]  # index of a picture -> latent (1, 4, h, w)
ReadLabel = Callable[[int], Tensor]  # index of a picture -> label map (H, W)


def shrink(label: Tensor, size: tuple[int, int]) -> Tensor:
    """The label map at latent size."""
    return F.interpolate(label[None, None], size=size, mode="nearest")[0, 0]


def categorical_pass(indices: Sequence[int], encode: Encode, read: ReadLabel, size: tuple[int, int]) -> dict:
    """One random pixel per class and picture; the picture is encoded anew for every class in it."""
    values: dict[int, list[Tensor]] = {}
    for index in indices:
        small = shrink(read(index), size)
        for k in torch.unique(small).tolist():
            latent = encode(index)
            places = torch.nonzero(small == k)
            y, x = places[random.randint(0, len(places) - 1)]
            values.setdefault(k, []).append(latent[0, :, y, x])
    stacked = {k: torch.stack(v) for k, v in values.items()}
    return {k: {"mean": v.mean(0).numpy(), "std": v.std(0).numpy()} for k, v in stacked.items()}


def spatial_pass(indices: Sequence[int], encode: Encode) -> dict:
    """Every latent is kept until the end."""
    latents = torch.cat([encode(index) for index in indices]).numpy()
    return {"mean": latents.mean(axis=0), "std": latents.std(axis=0)}


def joint_pass(indices: Sequence[int], encode: Encode, read: ReadLabel, size: tuple[int, int]) -> dict:
    """A running mean and std of each class over the whole grid, updated for every class of every picture."""
    h, w = size
    epsilon = 1e-6
    mean, std, count = (np.zeros((256, c, h, w), np.float32) for c in (4, 4, 1))
    for index in indices:
        small = shrink(read(index), size)
        x = encode(index)[0].numpy()
        for k in torch.unique(small).tolist():
            here = (small == k).numpy().astype(np.float32)[None]
            seen = count[k]
            new = (x * here + seen * mean[k] * here) / (seen + here + epsilon) + (1 - here) * mean[k]
            spread = seen * std[k] ** 2 * here + seen * (mean[k] - new) ** 2 * here + (x - new) ** 2 * here
            std[k] = np.sqrt(spread / (seen + here + epsilon)) + (1 - here) * std[k]
            mean[k] = new
            count[k] += here
    return {"mean": mean, "std": std, "count": count}


def reduce_all(
    indices: Sequence[int], encode: Encode, read: ReadLabel, size: tuple[int, int]
) -> tuple[dict, dict, dict]:
    """All three passes."""
    return (
        categorical_pass(indices, encode, read, size),
        spatial_pass(indices, encode),
        joint_pass(indices, encode, read, size),
    )
