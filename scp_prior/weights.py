"""A released training checkpoint -> the two files that ComfyUI's own loaders read."""

from __future__ import annotations

import hashlib
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import torch

from .casting import Caster
from .errors import SCPError
from .files import atomic_write, remove_leftovers
from .halves import find_halves, missing_parts
from .safetensors_file import SAFETENSORS, Planned, header_of, in_order, open_safetensors, write_block
from .stored import MappedFile, Stored
from .torch_file import PICKLES, open_torch_file

DTYPES = {"float16": torch.float16, "float32": torch.float32}
SOFTWARE = "scp-diff, scp_prior convert"
_ENDINGS = {"controlnet": "_controlnet", "checkpoint": "_checkpoint"}
# Beside its weights a file may hold this much that nobody needs, and still be called finished.
_SMALL = 1 << 20
# On a disk that is full to the last byte the system itself stumbles.
_RESERVE = 32 << 20
# Blocks that may wait to be hashed.
_BEHIND = 8
# Tensors may share bytes of the source; far more than it holds is a bomb for the disk.
_MOST_SHARED = 8 << 30
# Of <set>, in bytes: a file's name has 255, and a temporary one is the longest.
_LONGEST_NAME = 200

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Converted:
    """Where the two halves of a checkpoint now lie.

    Attributes:
        controlnet: for ControlNetLoader: written, or there already; None where the source holds no such half.
        checkpoint: for CheckpointLoaderSimple, likewise.
        message: one line for the user; says so when there was nothing to do.
    """

    controlnet: Path | None
    checkpoint: Path | None
    message: str


class _Source(NamedTuple):
    """What is converted. identity: changes with the content; empty where the file has no checksums of its own."""

    path: Path
    tensors: Mapping[str, Stored]
    size: int
    step: str
    identity: str


class _Job(NamedTuple):
    """One half: which tensors go where."""

    half: str
    target: Path
    tensors: Mapping[str, Stored]

    def planned(self, dtype: torch.dtype) -> list[Planned]:
        """What the file will hold, in the order it is written in: as it lies in the source, wide numbers first."""
        found = sorted(self.tensors.items(), key=lambda item: (item[1].start, item[0]))
        return in_order([Planned(name, _target_dtype(stored, dtype), stored.shape) for name, stored in found])

    @property
    def reads(self) -> int:
        return sum(stored.nbytes for stored in self.tensors.values())


def convert_weights(
    source: Path,
    controlnet_dir: Path,
    checkpoint_dir: Path,
    *,
    name: str | None = None,
    dtype: str = "float16",
    progress: Progress | None = None,
) -> Converted:
    """Split a training checkpoint into `<set>_controlnet.safetensors` and `<set>_checkpoint.safetensors`.

    The source is a torch file (.ckpt, .pt, .pth, .bin) or .safetensors whose state dict, at its top or under
    `state_dict`, holds `control_model.*` (the ControlNet) and `model.diffusion_model.*`, `first_stage_model.*`,
    `cond_stage_model.*` (U-Net, VAE, text encoder), or only some of them, or a ControlNet alone. Names stay as they
    are. Optimizer states are never read; running averages (`model_ema.*`) and schedule buffers are left out. No pickle
    is run. Tensors are mapped and written one after another, so memory does not grow with the file.

    A half that is there already, made from the same torch file at the same dtype, is not made again. A .safetensors
    that is one finished half at that dtype is left where it is, and named in the result.

    Args:
        source: the file.
        controlnet_dir, checkpoint_dir: folders of the two halves, made where they are missing.
        name: <set> in the names above; default: the source's name without its ending.
        dtype: float16 or float32, of every floating-point tensor; others keep theirs. Values are rounded to nearest. A
            value too large for float16 is an error, never infinity.
        progress: called with (bytes done, bytes to do), counted in bytes read of the source. What it raises ends the
            conversion; the half being written then is not there.

    Returns:
        Where the halves lie. Their metadata, texts all: `source_file`, `source_bytes`, `source_identity` (a digest of
        the source's pickle and its records' checksums; empty for .safetensors), `tensors_sha256` (the SHA-256 of the
        bytes read for this file: each tensor's elements in the source's own dtype, in the order of its indices,
        little-endian, tensor after tensor in the order of this file), `global_step`, `dtype`, `software`.

    Raises:
        SCPError: the source cannot be read, asks for something to be run, or holds neither half; a folder cannot be
            written or has too little space; a file of that name is there which this did not make; a value does not fit.
    """
    source = Path(source)
    if dtype not in DTYPES:
        raise SCPError(f"There is no dtype '{dtype}'. Choose one of: {', '.join(DTYPES)}.")
    stem = _stem(source, name)
    opened = _open(source)
    halves = find_halves(opened.tensors)
    if not halves.controlnet and not halves.checkpoint:
        raise SCPError(_neither(opened))
    folders = {"controlnet": Path(controlnet_dir), "checkpoint": Path(checkpoint_dir)}
    jobs = [
        _Job(half, folders[half] / f"{stem}{ending}.safetensors", {key: opened.tensors[key] for key in keys})
        for half, ending in _ENDINGS.items()
        if (keys := getattr(halves, half))
    ]
    if _is_finished_half(opened, jobs, DTYPES[dtype]):
        half = jobs[0].half
        return Converted(
            source if half == "controlnet" else None,
            source if half == "checkpoint" else None,
            f"Nothing to do: {source.name} already is what ComfyUI reads as a {_WORDS[half]}, in {dtype}.",
        )
    claimed = sum(job.reads for job in jobs)
    if claimed > 2 * opened.size + _MOST_SHARED:
        raise SCPError(
            f"{source.name} claims to hold {_gb(claimed)} of weights in {_gb(opened.size)}. It is damaged or made to "
            "fill a disk: get it from where it was released."
        )
    made = [job for job in jobs if not _is_made(job.target, opened, dtype)]
    _check_targets(made, source, DTYPES[dtype])
    _write_all(opened, made, dtype, progress)
    where = {job.half: job.target for job in jobs}
    words = _report(opened, jobs, made, dtype, len(halves.averages))
    return Converted(where.get("controlnet"), where.get("checkpoint"), words)


_WORDS = {"controlnet": "ControlNet", "checkpoint": "checkpoint"}


def _stem(source: Path, name: str | None) -> str:
    if name is None:
        stem = source.stem
        for ending in _ENDINGS.values():
            stem = stem.removesuffix(ending) or stem
        if len(stem.encode(errors="replace")) > _LONGEST_NAME:
            raise SCPError(f"{source.name}: the name is too long for what is made of it. Rename the file first.")
        return stem
    if (
        not name.strip()
        or not name.isprintable()
        or set(name) & set('\\/:*?"<>|')
        or name.startswith(".")
        or len(name.encode()) > _LONGEST_NAME
    ):
        raise SCPError(f"'{name}' cannot be part of a file's name. Use letters, digits, - and _; no folders.")
    return name


def _open(source: Path) -> _Source:
    kind = source.suffix.lower()
    if not source.is_file():
        raise SCPError(f"There is no file {source}.")
    if kind in SAFETENSORS:
        file = open_safetensors(source)
        return _Source(source, file.tensors, file.size, str(file.metadata.get("global_step", "")), "")
    if kind in PICKLES:
        found = open_torch_file(source)
        step = "" if found.step is None else str(found.step)
        return _Source(source, found.tensors, found.size, step, found.identity)
    raise SCPError(f"{source.name}: expected a checkpoint as {', '.join((*PICKLES, *SAFETENSORS))}.")


def _neither(source: _Source) -> str:
    few = ", ".join(ascii(key[:60])[1:-1] for key in list(source.tensors)[:3])
    return (
        f"{source.path.name} holds neither a ControlNet (control_model.*) nor a checkpoint (model.diffusion_model.*, "
        f"first_stage_model.*, cond_stage_model.*): {len(source.tensors)} tensors{f', such as {few}' if few else ''}. "
        "Give the .ckpt of the SCP-Diff release, or one of a ControlNet training."
    )


# What is there already


def _target_dtype(stored: Stored, dtype: torch.dtype) -> torch.dtype:
    return dtype if stored.dtype.is_floating_point else stored.dtype


def _is_finished_half(source: _Source, jobs: Sequence[_Job], dtype: torch.dtype) -> bool:
    if source.path.suffix.lower() not in SAFETENSORS or len(jobs) != 1:
        return False
    others = sum(stored.nbytes for stored in source.tensors.values()) - jobs[0].reads
    return others < _SMALL and all(_target_dtype(stored, dtype) == stored.dtype for stored in jobs[0].tensors.values())


def _made_by_us(path: Path) -> Mapping[str, str] | None:
    """The metadata of a whole file that an earlier conversion wrote; None for any other."""
    try:
        metadata = open_safetensors(path).metadata
    except SCPError:
        return None
    return metadata if metadata.get("software") == SOFTWARE and "source_identity" in metadata else None


def _is_made(target: Path, source: _Source, dtype: str) -> bool:
    if not source.identity or not target.is_file():
        return False
    found = _made_by_us(target) or {}
    return found.get("source_identity") == source.identity and found.get("dtype") == dtype


def _check_targets(jobs: Iterable[_Job], source: Path, dtype: torch.dtype) -> None:
    needed: dict[Path, int] = {}
    for job in jobs:
        _make_folder(job.target.parent)
        remove_leftovers(job.target)
        if job.target.exists():
            if job.target.samefile(source):
                raise SCPError(f"{source} would be replaced by what is made of it. Give another name or folder.")
            if _made_by_us(job.target) is None:
                raise SCPError(
                    f"{job.target} is there already, and was not made by a conversion. Move it away, or give another "
                    "name or folder."
                )
        size = sum(planned.nbytes for planned in job.planned(dtype))
        needed[job.target.parent] = needed.get(job.target.parent, 0) + size
    _check_space(needed)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SCPError(f"Cannot make the folder {folder}: {error.strerror or error}.") from error


def _check_space(needed: Mapping[Path, int]) -> None:
    """Folders of one disk share its space."""
    disks: dict[int, list[Path]] = {}
    for folder in needed:
        disks.setdefault(folder.stat().st_dev, []).append(folder)
    for folders in disks.values():
        size, free = sum(needed[folder] for folder in folders), shutil.disk_usage(folders[0]).free
        if size + min(size, _RESERVE) > free:
            raise SCPError(
                f"Converting needs {_gb(size)} in {' and '.join(map(str, folders))}, where {_gb(free)} are free. "
                "Make room there, choose another folder, or choose float16."
            )


# Writing


def _write_all(source: _Source, jobs: Sequence[_Job], dtype: str, progress: Progress | None) -> None:
    total, done = sum(job.reads for job in jobs), 0

    def advance(size: int) -> None:
        nonlocal done
        done += size
        if progress is not None:
            progress(done, total)

    with MappedFile(source.path) as file:
        for job in jobs:
            _write(job, source, file, dtype, advance)


def _write(job: _Job, source: _Source, file: MappedFile, dtype: str, advance: Callable[[int], None]) -> None:
    planned, metadata = job.planned(DTYPES[dtype]), _metadata(source, dtype)
    with atomic_write(job.target) as temporary, temporary.open("wb") as out:
        out.write(header_of(planned, metadata))
        digest = _copy(job, planned, file, out, advance)
        # It stands before the tensors but is known only after them: the first header kept its place.
        out.seek(0)
        out.write(header_of(planned, {**metadata, "tensors_sha256": digest}))


def _copy(
    job: _Job, planned: Sequence[Planned], file: MappedFile, out: BinaryIO, advance: Callable[[int], None]
) -> str:
    """Write the tensors; the SHA-256 of what was read for them."""
    digest, caster = hashlib.sha256(), Caster(file.name)
    # Hashing takes as long as all the rest: beside it, and some blocks behind so that neither waits for the other.
    behind: deque[Future[None]] = deque()
    with ThreadPoolExecutor(1) as beside:
        for tensor in planned:
            for block in file.blocks(job.tensors[tensor.name]):
                behind.append(beside.submit(digest.update, memoryview(block.view(torch.uint8).numpy())))
                write_block(out, caster.cast(block, tensor.dtype, tensor.name))
                if len(behind) > _BEHIND:
                    behind.popleft().result()
                advance(block.nbytes)
        for hashed in behind:
            hashed.result()
    return digest.hexdigest()


def _metadata(source: _Source, dtype: str) -> dict[str, str]:
    return {
        "format": "pt",
        "source_file": source.path.name,
        "source_bytes": str(source.size),
        "source_identity": source.identity,
        "tensors_sha256": "0" * 64,
        "global_step": source.step,
        "dtype": dtype,
        "software": SOFTWARE,
    }


# Words


def _report(source: _Source, jobs: Sequence[_Job], made: Sequence[_Job], dtype: str, averages: int) -> str:
    there = [job.target.name for job in jobs if job not in made]
    if not made:
        return f"Nothing to do: {' and '.join(there)} were made from {source.path.name} already, in {dtype}."
    wrote = " and ".join(f"{job.target.name} ({_gb(job.target.stat().st_size)})" for job in made)
    sentences = [f"Wrote {wrote} in {dtype} from {source.path.name}."]
    if there:
        sentences.append(f"{there[0]} was there already.")
    left = [f"{averages} averaged (EMA) weights"] if averages else []
    rest = source.size - sum(job.reads for job in jobs)
    if rest > _SMALL:
        left.insert(0, f"{_gb(rest)} of training state")
    if left:
        sentences.append(f"Left out: {', '.join(left)}.")
    for job in jobs:
        missing = missing_parts(job.tensors) if job.half == "checkpoint" else []
        if missing:
            sentences.append(f"{job.target.name} has no {' and no '.join(missing)}: the source holds none.")
    return " ".join(sentences)


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
