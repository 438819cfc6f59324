"""Statistics made apart, put together as if they had been made in one run."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence

import torch
from torch import Tensor

from .errors import SCPError
from .merge_learned import with_learned_parts
from .moments import Accumulator, channel_pairs
from .reduce import timestamp
from .statistics import Statistics

# What must be the same for two files to be of one data set. The encoder's weights decide, not what its file is called.
_SAME = ("dataset", "palette", "label_rule", "vae", "image_size", "latent_channels", "latent_downscale")


def merge_statistics(parts: Sequence[Statistics]) -> Statistics:
    """Moments of all photos of all parts, each weighted by its counts.

    Every photo is expected in one part only. From files as `reduce` writes them the result is that of one run, but for
    the files' float32; what `joint` has learned beyond moments is averaged, and left out where a part has none.

    Raises:
        SCPError: fewer than two parts, parts that do not belong together (naming what differs), or a part without
            joint statistics.
    """
    if len(parts) < 2:
        raise SCPError("Merging needs at least two statistics files.")
    for one, other in itertools.combinations(parts, 2):
        _require_same(one, other)
    total = _sums_of(parts[0])
    for part in parts[1:]:
        total.merge(_sums_of(part))
    first = parts[0].metadata
    names = {k: v for part in parts for k, v in part.class_names.items()}
    kept = {key: first[key] for key in _SAME if key in first}
    whole = total.statistics(
        **kept,
        class_names=json.dumps({str(k): names[k] for k in sorted(names)}, ensure_ascii=False),
        created=timestamp(),
        software="scp-diff, scp_prior merge",
        source="; ".join(f"{part.name} ({part.metadata.get('source', 'source unknown')})" for part in parts),
    )
    return with_learned_parts(whole, parts)


def _require_same(one: Statistics, other: Statistics) -> None:
    pairs = [(key, _value(one, key), _value(other, key)) for key in _SAME]
    pairs.append(("latent grid", str(one.latent_size), str(other.latent_size)))
    differ = [f"{key} is {a!r} in {one.name} and {b!r} in {other.name}" for key, a, b in pairs if a != b]
    named = [
        f"class {k} is {one.class_names[k]!r} in {one.name} and {name!r} in {other.name}"
        for k, name in other.class_names.items()
        if one.class_names.get(k, name) != name
    ]
    # A name may stand for several ids of a table; what no table has is a name whose ids are all others.
    ids, others = _ids_by_name(one), _ids_by_name(other)
    named += [
        f"class {name!r} is {ids[name][0]} in {one.name} and {others[name][0]} in {other.name}"
        for name in sorted(ids.keys() & others.keys())
        if not set(ids[name]) & set(others[name])
    ]
    if differ or named:
        raise SCPError(f"These files do not belong together: {'; '.join((differ + named)[:6])}.")


def _ids_by_name(statistics: Statistics) -> dict[str, list[int]]:
    ids: dict[str, list[int]] = {}
    for class_id, name in statistics.class_names.items():
        ids.setdefault(name, []).append(class_id)
    return ids


def _value(statistics: Statistics, key: str) -> str:
    value = statistics.metadata.get(key, "")
    return value.rsplit("sha256:", 1)[-1] if key == "vae" else value


def _sums_of(statistics: Statistics) -> Accumulator:
    """The accumulator whose statistics these are."""
    for part in ("joint", "class"):
        if not getattr(statistics, "has_joint" if part == "joint" else "has_categorical"):
            raise SCPError(f"{statistics.name} holds no {part} statistics, so it cannot be merged.")
    stored = statistics.tensors()
    tensors = {key: tensor.double() for key, tensor in stored.items()}
    images = statistics.metadata.get("images", "")
    if not images.isdigit():
        raise SCPError(f"{statistics.name} does not say how many images it was made from, so it cannot be merged.")
    count = tensors["joint.count"].unsqueeze(-1)  # (K, h, w, 1)
    mean, std = (tensors[f"joint.{part}"].permute(0, 2, 3, 1) for part in ("mean", "std"))
    sums = torch.cat([count * mean, count * (std**2 + mean**2)], dim=-1)
    return Accumulator.from_state(
        {
            "class_ids": statistics.class_ids,
            "images": torch.tensor([int(images)]),
            "count": stored["joint.count"].to(torch.int32),
            "sums": sums,
            "products": _products(tensors),
        }
    )


def _products(tensors: dict[str, Tensor]) -> Tensor:
    """(K, C (C - 1) / 2) sums of products of two channels, of the classes' covariance (0 where there is none)."""
    count, mean = tensors["class.count"].view(-1, 1, 1), tensors["class.mean"]
    covariance = tensors.get("class.covariance", torch.diag_embed(tensors["class.std"] ** 2))
    products = count * (covariance + mean.unsqueeze(2) * mean.unsqueeze(1))
    pairs = channel_pairs(mean.shape[1])
    return torch.stack([products[:, a, b] for a, b in pairs], dim=1) if pairs else products.flatten(1)[:, :0]
