"""Where the weights of an autoencoder lie: which file of a folder, under which names, and how they are read from it."""

from __future__ import annotations

import abc
import contextlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .errors import SCPError
from .safetensors_file import SAFETENSORS
from .stored import MappedFile, Stored
from .torch_file import PICKLES, open_torch_file

# What a diffusers folder may call its weights; full precision first.
FOLDER_FILES = tuple(
    f"diffusion_pytorch_model{variant}{kind}" for kind in (".safetensors", ".bin") for variant in ("", ".fp16")
)
# A bare autoencoder, a Stable Diffusion checkpoint, a checkpoint in one file made by newer tools.
PREFIXES = ("", "first_stage_model.", "vae.")

_EXPECTED = (
    "Expected an image VAE: SD 1/2, SDXL, SD3 or Flux, alone, in a full checkpoint, or as a diffusers folder; or the "
    "encoder of a TAESD."
)
_VIDEO = "this is a video VAE (its convolutions have three dimensions)."

_TINY_NAMES = re.compile(r"(?:taesd_encoder\.|encoder\.layers\.)?(\d+\..+)")
_RENAMES = tuple(
    (re.compile(old), new)
    for old, new in (
        # Latent diffusion's names, then those of old diffusers, to those of today's diffusers.
        (r"^encoder\.quant_conv\.", "quant_conv."),
        (r"^encoder\.norm_out\.", "encoder.conv_norm_out."),
        (r"^encoder\.down\.(\d+)\.block\.(\d+)\.", r"encoder.down_blocks.\1.resnets.\2."),
        (r"^encoder\.down\.(\d+)\.downsample\.", r"encoder.down_blocks.\1.downsamplers.0."),
        (r"^encoder\.mid\.block_1\.", "encoder.mid_block.resnets.0."),
        (r"^encoder\.mid\.block_2\.", "encoder.mid_block.resnets.1."),
        (r"^encoder\.mid\.attn_1\.", "encoder.mid_block.attentions.0."),
        (r"\.nin_shortcut\.", ".conv_shortcut."),
        (r"(attentions\.0)\.norm\.", r"\1.group_norm."),
        (r"(attentions\.0)\.(?:q|query)\.", r"\1.to_q."),
        (r"(attentions\.0)\.(?:k|key)\.", r"\1.to_k."),
        (r"(attentions\.0)\.(?:v|value)\.", r"\1.to_v."),
        (r"(attentions\.0)\.(?:proj_out|proj_attn)\.", r"\1.to_out.0."),
    )
)


class Found(NamedTuple):
    """A file of weights, what to call it, and the config.json beside it (empty where it stands alone)."""

    file: Path
    label: str
    config: Mapping[str, object]


class Layout(NamedTuple):
    """The encoder's tensors inside a file: `keys` and `shapes` by our names, `tiny` for a TAESD.

    Our names are those of diffusers' AutoencoderKL (`encoder.*`, `quant_conv.*`), or the bare ones of TAESD
    (`0.weight`) with `vae_scale` and `vae_shift` where the file has them.
    """

    keys: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]
    tiny: bool


class WeightsFile(abc.ABC):
    """Tensors of a file, with known shapes, read one by one."""

    name: str
    shapes: Mapping[str, tuple[int, ...]]

    @abc.abstractmethod
    def read(self, keys: Iterable[str]) -> Iterator[Tensor]:
        """These tensors, in this order, as float32 copies; nothing else of the file is read."""


class _SafetensorsFile(WeightsFile):
    def __init__(self, path: Path):
        self._path, self.name = path, path.name
        with self._opened() as file:
            self.shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118

    def read(self, keys: Iterable[str]) -> Iterator[Tensor]:
        with self._opened() as file:
            for key in keys:
                yield _as_float32(file.get_tensor(key), key, self.name)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[safe_open]:
        try:
            with safe_open(self._path, framework="pt") as file:
                yield file
        except (SafetensorError, OSError) as error:
            raise SCPError(
                f"{self.name} cannot be read as a safetensors file ({error}). It is of another kind, or its download "
                "or copy was cut short: get it again."
            ) from error


class _PickleFile(WeightsFile):
    def __init__(self, path: Path):
        self._path, self.name = path, path.name
        self._tensors = {key: stored for key, stored in open_torch_file(path).tensors.items() if self._usable(stored)}
        self.shapes = {key: stored.shape for key, stored in self._tensors.items()}

    def read(self, keys: Iterable[str]) -> Iterator[Tensor]:
        with MappedFile(self._path) as file:
            for key in keys:
                yield _as_float32(file.read(self._tensors[key]), key, self.name)

    @staticmethod
    def _usable(stored: Stored) -> bool:
        # A stride of zero lets a small file claim a tensor of any size, which a copy would then fill.
        return stored.nbytes <= stored.stored


def find_weights(path: Path) -> Found:
    """The weights which a user means by a file, by a diffusers autoencoder folder, or by a diffusers pipeline folder.

    Raises:
        SCPError: there is no such file or folder, or the folder holds no autoencoder.
    """
    if path.is_file():
        return Found(path, path.name, {})
    if not path.is_dir():
        raise SCPError(f"There is no VAE {path}. Name a file (.safetensors, .ckpt, ...) or a diffusers folder.")
    folder = path / "vae" if (path / "vae").is_dir() and not (path / "config.json").is_file() else path
    config = folder / "config.json"
    file = next((folder / name for name in FOLDER_FILES if (folder / name).is_file()), None)
    if file is None or not config.is_file():
        raise SCPError(
            f"{folder} is not the folder of a diffusers VAE: expected config.json and {FOLDER_FILES[0]} in it or in a "
            "folder vae/ of it. Name that folder, or a .safetensors file."
        )
    label = f"{folder.absolute().parent.name}/{folder.name}" if folder.name == "vae" else folder.absolute().name
    return Found(file, label, _read_config(config))


def open_weights(path: Path) -> WeightsFile:
    """Open a file of weights without reading them. A pickle is never run.

    Raises:
        SCPError: the file is of another kind, damaged, or would have to be run to be read.
    """
    kind = path.suffix.lower()
    if kind in SAFETENSORS:
        return _SafetensorsFile(path)
    if kind in PICKLES:
        return _PickleFile(path)
    raise SCPError(f"{path.name}: expected a VAE as {', '.join((*SAFETENSORS, *PICKLES))}, or a diffusers folder.")


def find_layout(file: WeightsFile) -> Layout:
    """Find the encoder among a file's tensors.

    Raises:
        SCPError: there is none, or one of a kind that cannot serve (video, vector-quantised, packed); says which.
    """
    for prefix in PREFIXES:
        local = {key[len(prefix) :]: key for key in file.shapes if key.startswith(prefix)}
        if "encoder.conv_in.weight" in local:
            _refuse_kinds(file, local)
            return _layout(file, {_rename(n): k for n, k in local.items() if _of_encoder(n)}, tiny=False)
        for first in ("taesd_encoder.0.weight", "encoder.layers.0.weight", "0.weight"):
            if first in local and first.replace("0.weight", "1.conv.0.weight") in local:
                stem = first.removesuffix("0.weight")
                own = {n: k for n, k in local.items() if n.startswith(stem) or n in ("vae_scale", "vae_shift")}
                return _layout(file, {_tiny_name(n): k for n, k in own.items()}, tiny=True)
    raise SCPError(f"{file.name}: {_what_it_is(file)} {_EXPECTED}")


def _layout(file: WeightsFile, keys: dict[str, str], tiny: bool) -> Layout:
    # A tensor without numbers may claim any width, and is as good as missing.
    keys = {name: key for name, key in keys.items() if 0 not in file.shapes[key]}
    return Layout(keys, {name: _flat(name, file.shapes[key]) for name, key in keys.items()}, tiny)


def _of_encoder(name: str) -> bool:
    return name.startswith(("encoder.", "quant_conv."))


def _rename(name: str) -> str:
    for old, new in _RENAMES:
        name = old.sub(new, name)
    return name


def _tiny_name(name: str) -> str:
    match = _TINY_NAMES.fullmatch(name)
    return match[1] if match else name


def _flat(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    # Latent diffusion's attention is made of 1x1 convolutions, diffusers' of the same numbers as matrices.
    return shape[:2] if ".attentions." in name and shape[2:] == (1, 1) else shape


def _refuse_kinds(file: WeightsFile, local: Mapping[str, str]) -> None:
    if any(len(file.shapes[key]) == 5 for name, key in local.items() if _of_encoder(name)):
        raise SCPError(f"{file.name}: {_VIDEO} {_EXPECTED}")
    if any(name.startswith("quantize.") for name in local):
        raise SCPError(f"{file.name}: this is a vector-quantised autoencoder, which has no posterior. {_EXPECTED}")
    if "bn.running_mean" in local:
        raise SCPError(f"{file.name}: this is a Flux 2 VAE, whose latents are packed 2x2 and normalised. {_EXPECTED}")


def _what_it_is(file: WeightsFile) -> str:
    names = list(file.shapes)
    if any(len(shape) == 5 for shape in file.shapes.values()):
        return _VIDEO
    decoder = re.compile(r"(first_stage_model\.|vae\.)?(taesd_)?decoder\.")
    # The decoder of a TAESD begins with two layers that have no weights, around one that has.
    if any(decoder.match(name) for name in names) or {"1.weight", "3.conv.0.weight"} <= set(names):
        return "this holds the decoder of a VAE only; statistics need its encoder."
    few = ", ".join(ascii(name[:60])[1:-1] for name in names[:3])
    return f"no VAE encoder is in it ({len(names)} tensors{f', such as {few}' if few else ''})."


def _read_config(path: Path) -> Mapping[str, object]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SCPError(f"{path} cannot be read as JSON ({error}). Get the folder again.") from error
    if not isinstance(config, dict):
        raise SCPError(f"{path} is not a JSON object. Get the folder again.")
    return config


def _as_float32(tensor: Tensor, key: str, name: str) -> Tensor:
    if not tensor.is_floating_point():
        raise SCPError(f"{name}: {key} is {tensor.dtype}; expected plain floating-point weights, not quantised ones.")
    return tensor.to(torch.float32, copy=True).contiguous()
