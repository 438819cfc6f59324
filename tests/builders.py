"""Small statistics for tests."""

from __future__ import annotations

import torch

from scp_prior import Statistics, save_statistics

METADATA = {"dataset": "toy", "label_rule": "nearest", "latent_downscale": "8"}


def make_statistics(
    ids=(0, 1, 3, 255), channels: int = 4, size=(4, 6), seed: int = 0, empty: float = 0.3, parts=None, **metadata: str
) -> Statistics:
    """Random but plausible statistics: a share `empty` of the joint cells has seen nothing, some were seen once."""
    g = torch.Generator().manual_seed(seed)
    k, (h, w) = len(ids), size
    count = torch.randint(1, 40, (k, h, w), generator=g)
    count[torch.rand(k, h, w, generator=g) < empty] = 0
    count[torch.rand(k, h, w, generator=g) < 0.1] = 1
    seen = (count > 0)[:, None]
    tensors = {
        "class_ids": torch.tensor(ids),
        "joint.count": count.to(torch.int32),
        "joint.mean": torch.where(seen, torch.randn(k, channels, h, w, generator=g) * 5, 0),
        "joint.std": torch.where((count > 1)[:, None], 0.5 + 4 * torch.rand(k, channels, h, w, generator=g), 0),
        "class.count": count.sum((1, 2)),
        "class.mean": torch.randn(k, channels, generator=g) * 5,
        "class.std": 1 + 4 * torch.rand(k, channels, generator=g),
        "spatial.mean": torch.randn(channels, h, w, generator=g) * 5,
        "spatial.std": 1 + 4 * torch.rand(channels, h, w, generator=g),
    }
    if parts is not None:
        tensors = {key: t for key, t in tensors.items() if key.split(".")[0] in (*parts, "class_ids")}
    return Statistics.from_tensors(tensors, {**METADATA, **metadata})


def save_toy_statistics(path, size, ids=(0, 1, 2), **metadata: str) -> None:
    """A statistics file of cityscapes trainIds, every cell seen."""
    path.parent.mkdir(parents=True, exist_ok=True)
    named = {"dataset": "cityscapes", "palette": "cityscapes"} | metadata
    save_statistics(make_statistics(ids, size=size, empty=0.0, **named), path)
