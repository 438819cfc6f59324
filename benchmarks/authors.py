"""The authors' inference-time algorithm, restated from its description for timing: what it loads, and what it computes.

Source: SCP-Diff-Toolkit `noise_prior_inference.py` (`sample_spatial_class_prior` and what it calls). Arrays, dtypes and
the order of operations are theirs; the code is ours.
"""

from __future__ import annotations

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
