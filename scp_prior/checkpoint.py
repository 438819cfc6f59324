"""A reduction's progress on disk: exact sums, how far it got, and what it was doing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError, safe_open

from .collector import Collector
from .errors import SCPError
from .files import write_safetensors

FORMAT = "scp-reduce-checkpoint"
SUFFIX = ".checkpoint"


class Progress(NamedTuple):
    """How far a reduction got.

    collected: sums and notes of the batches done. batches: how many of this process's batches that is. skipped: (pair,
    why) of every pair left out. created: when the run began, as the finished file will say it. seen: a digest of the
    files counted so far.
    """

    collected: Collector
    batches: int
    skipped: tuple[tuple[str, str], ...]
    created: str
    seen: str = ""


def checkpoint_path(out: Path, rank: int = 0, world: int = 1) -> Path:
    """Where the checkpoint of a reduction into `out` lies, for each of `world` processes."""
    return out.with_name(f"{out.name}{f'.{rank + 1}of{world}' if world > 1 else ''}{SUFFIX}")


def save_checkpoint(path: Path, progress: Progress, plan: Mapping[str, str]) -> None:
    """Write a checkpoint whole or not at all.

    Args:
        plan: what decides the result; a run with another plan will refuse this checkpoint.

    Raises:
        SCPError: it cannot be written; an earlier checkpoint still stands.
    """
    metadata = {
        "format": FORMAT,
        "plan": json.dumps(dict(plan), sort_keys=True),
        "batches": str(progress.batches),
        "skipped": json.dumps(progress.skipped),
        "created": progress.created,
        "seen": progress.seen,
    }
    write_safetensors(path, progress.collected.state(), metadata)


def load_checkpoint(path: Path, plan: Mapping[str, str]) -> Progress:
    """Read a checkpoint of the same plan.

    Raises:
        SCPError: it is damaged, or was made by a run with other settings; the message says which.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise SCPError(f"{path} is not a checkpoint of a reduction. Give another --out, or move it away.")
            state = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
        made_by = json.loads(metadata["plan"])
        skipped = tuple((str(pair), str(why)) for pair, why in json.loads(metadata["skipped"]))
        batches, created, seen = int(metadata["batches"]), metadata["created"], metadata["seen"]
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise SCPError(f"The checkpoint {path} cannot be read ({error}). Remove it and start again.") from error
    differ = [
        f"{key}: {made_by.get(key, 'nothing')} then, {plan.get(key, 'nothing')} now"
        for key in sorted({*made_by, *plan})
        if made_by.get(key) != plan.get(key)
    ]
    if differ:
        raise SCPError(
            f"The checkpoint {path} belongs to another run. {'; '.join(differ)}. "
            "Use the same settings, or remove the checkpoint and start again."
        )
    return Progress(Collector.from_state(state), batches, skipped, created, seen)
