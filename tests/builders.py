"""Small statistics for tests."""

from __future__ import annotations

import json

import torch

from scp_prior import Statistics, save_statistics

SHRINKAGE = {"mean": 3.0, "variance": 20.0, "inflation": 1.15, "steps": {}}
METADATA = {"dataset": "toy", "label_rule": "nearest", "latent_downscale": "8"}


def make_statistics(
    ids=(0, 1, 3, 255),
    channels: int = 4,
    size=(4, 6),
    seed: int = 0,
    empty: float = 0.3,
    parts=None,
    learned: bool = False,
    **metadata: str,
) -> Statistics:
    """Random but plausible statistics: a share `empty` of the joint cells has seen nothing, some were seen once.

    With `learned`, also what `reduce` learns for the `joint` prior; the rest is the same to the last bit.
    """
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
    if learned:
        tensors |= learned_parts(k, channels, size, torch.Generator().manual_seed(seed + 1))
        metadata = {"shrinkage": json.dumps(SHRINKAGE)} | metadata
    if parts is not None:
        tensors = {key: t for key, t in tensors.items() if key.split(".")[0] in (*parts, "class_ids")}
    return Statistics.from_tensors(tensors, {**METADATA, **metadata})


def learned_parts(k: int, c: int, size: tuple[int, int], g: torch.Generator) -> dict[str, torch.Tensor]:
    """Random target.* and scene.*, each value within its bounds, covariances positive definite."""
    corners = (min(size[0], 3), min(size[1], 4))
    return {
        "target.mean": torch.randn(k, c, *corners, generator=g) * 5,
        "target.std": 0.5 + 4 * torch.rand(k, c, *corners, generator=g),
        "scene.share": 0.1 + 0.7 * torch.rand(k, c, generator=g),
        "scene.correlation": random_correlation(1, k * c, g)[0].reshape(k, c, k, c),
        "scene.within": random_correlation(k, c, g),
        "scene.count": torch.randint(1, 40, (k,), generator=g),
    }


def random_correlation(n: int, size: int, g: torch.Generator) -> torch.Tensor:
    """(n, size, size) float32, unit diagonals."""
    half = torch.randn(n, size, 2 * size, generator=g, dtype=torch.float64) + 0.7
    covariance = half @ half.mT
    scale = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    return (covariance / (scale.unsqueeze(-1) * scale.unsqueeze(-2))).float()


def save_toy_statistics(path, size, ids=(0, 1, 2), **metadata: str) -> None:
    """A statistics file of cityscapes trainIds, every cell seen."""
    path.parent.mkdir(parents=True, exist_ok=True)
    named = {"dataset": "cityscapes", "palette": "cityscapes"} | metadata
    save_statistics(make_statistics(ids, size=size, empty=0.0, **named), path)
