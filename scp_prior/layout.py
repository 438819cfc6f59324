"""The shapes and dtypes a statistics file must have: one table, and one check for files and tensors in memory alike."""

from __future__ import annotations

from .errors import SCPError
from .sources import TensorSource

# K classes, C latent channels, h x w latent cells, gh x gw corners of a coarser grid over them.
SHAPES: dict[str, tuple[str, ...]] = {
    "class_ids": ("K",),
    "joint.count": ("K", "h", "w"),
    "joint.mean": ("K", "C", "h", "w"),
    "joint.std": ("K", "C", "h", "w"),
    "class.count": ("K",),
    "class.mean": ("K", "C"),
    "class.std": ("K", "C"),
    "class.covariance": ("K", "C", "C"),
    "spatial.mean": ("C", "h", "w"),
    "spatial.std": ("C", "h", "w"),
    "target.mean": ("K", "C", "gh", "gw"),
    "target.std": ("K", "C", "gh", "gw"),
    "scene.share": ("K", "C"),
    "scene.correlation": ("K", "C", "K", "C"),
    "scene.within": ("K", "C", "C"),
    "scene.count": ("K",),
}
PARTS: tuple[tuple[str, ...], ...] = (
    ("joint.count", "joint.mean", "joint.std"),
    ("class.count", "class.mean", "class.std"),
    ("spatial.mean", "spatial.std"),
    ("target.mean", "target.std"),
    ("scene.share", "scene.correlation", "scene.within", "scene.count"),
)
FLOATS = ("float16", "bfloat16", "float32", "float64")
INTEGERS = ("uint8", "int8", "int16", "int32", "int64")


def check_layout(source: TensorSource) -> dict[str, int]:
    """Sizes of K, C, h and w, after checking that every part is complete, all shapes agree and no dtype is strange.

    Keys this version does not know are left alone, so that newer files with optional parts still open.

    Raises:
        SCPError: naming the key, its shape or dtype, and what was expected.
    """
    if "class_ids" not in source.shapes:
        raise SCPError(f"{source.name} has no class_ids: it is not a statistics file, or an incomplete one.")
    sizes: dict[str, int] = {}
    for key, dims in SHAPES.items():
        if key in source.shapes:
            _bind(source, key, dims, sizes)
            _check_dtype(source, key)
    for part in PARTS:
        here = [key for key in part if key in source.shapes]
        if here and len(here) < len(part):
            missing = ", ".join(key for key in part if key not in source.shapes)
            raise SCPError(f"{source.name} has {here[0]} but not {missing}: the file is incomplete.")
    if "C" not in sizes:
        raise SCPError(f"{source.name} holds no statistics: neither joint, nor class, nor spatial.")
    return sizes


def _bind(source: TensorSource, key: str, dims: tuple[str, ...], sizes: dict[str, int]) -> None:
    shape = source.shapes[key]
    if 0 in shape:
        raise SCPError(f"{source.name}: {key} has shape {tuple(shape)}; expected every size to be 1 or more.")
    if len(shape) == len(dims) and all(sizes.setdefault(d, n) == n for d, n in zip(dims, shape, strict=True)):
        return
    expected = ", ".join(f"{d}={sizes[d]}" if d in sizes else d for d in dims)
    raise SCPError(f"{source.name}: {key} has shape {tuple(shape)}; expected ({expected}).")


def _check_dtype(source: TensorSource, key: str) -> None:
    allowed = INTEGERS if key == "class_ids" or key.endswith(".count") else FLOATS
    if key.endswith(".count") and source.fractional_counts:
        allowed += FLOATS
    if source.dtypes[key] not in allowed:
        raise SCPError(f"{source.name}: {key} is of dtype {source.dtypes[key]}; expected one of {', '.join(allowed)}.")
