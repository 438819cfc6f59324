"""Encoders: photos to the posterior of their latents, with whatever autoencoder a user has, offline."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .errors import SCPError
from .taesd import DOWNSCALE, FAMILIES, Scale, taesd_encoder
from .vae_formats import Found, Layout, WeightsFile, find_layout, find_weights, open_weights

DIFFUSERS = "diffusers>=0.31,<1"
DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
# File names that say nothing of the model; then the folders around them do.
_GENERIC = ("diffusion_pytorch_model", "model", "encoder", "vae")


class Encoded(NamedTuple):
    """Posterior of a batch: mean and variance (B, C, h, w) float32 on the CPU, LATENT units."""

    mean: Tensor
    variance: Tensor


class Encoder:
    """An autoencoder's encoder, on its device.

    Attributes:
        channels: latent channels C.
        downscale: image pixels per latent cell along one side.
        name: the file or folder, and `sha256:` with 12 digits of `digest`.
        digest: sha256 of the encoder's tensors (names, shapes, values in bfloat16). It is the same for the same weights
            in a bare file, in a full checkpoint and in a diffusers folder, in float32 and in bfloat16.
        device, dtype: where and in which precision it computes.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        channels: int,
        downscale: int,
        label: str,
        digest: str,
        device: torch.device,
        dtype: torch.dtype,
    ):
        self._network = network.to(device, dtype).eval().requires_grad_(False)
        self.channels, self.downscale = channels, downscale
        self.name, self.digest = f"{label} sha256:{digest[:12]}", digest
        self.device, self.dtype = device, dtype

    def encode(self, photos: Tensor) -> Encoded:
        """Mean and variance of the posterior of each photo's latent; nothing is drawn, so the same in every run.

        Args:
            photos: (B, 3, H, W) floating point, -1..1; H and W multiples of `downscale`.

        Raises:
            SCPError: another shape or range, memory ran out, or the result is not finite (float16 overflowed).
        """
        self._check(photos)
        try:
            with torch.inference_mode(), self._repeatable():
                mean, variance = self._network(photos.to(self.device, self.dtype))
        except torch.cuda.OutOfMemoryError as error:
            raise SCPError(
                f"{self.device} has no memory for {_size(photos)} photos in {_short(self.dtype)}. Use a smaller batch "
                "size, bfloat16, or the device cpu."
            ) from error
        # A copy made outside inference mode is a tensor like any other: the caller may change it in place.
        encoded = Encoded(*(part.to("cpu", torch.float32).clone() for part in (mean, variance)))
        if not all(part.isfinite().all() for part in encoded):
            raise SCPError(
                f"{self.name} gives values that are not finite in {_short(self.dtype)}. Many VAEs, SDXL's among them, "
                "overflow in float16: use float32 or bfloat16."
                if self.dtype is torch.float16
                else f"{self.name} gives values that are not finite: its weights or the photos are damaged."
            )
        return encoded

    def _repeatable(self) -> Any:
        # TF32 would make float32 no finer than float16, and cuDNN may pick algorithms whose sums vary from run to run.
        if self.device.type != "cuda":
            return nullcontext()
        return torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)

    def _check(self, photos: Tensor) -> None:
        if photos.ndim != 4 or photos.shape[1] != 3 or not photos.is_floating_point() or not photos.numel():
            raise SCPError(f"Expected photos (B, 3, H, W) in floating point, got {_size(photos)} {photos.dtype}.")
        height, width = photos.shape[2:]
        if height % self.downscale or width % self.downscale:
            raise SCPError(
                f"Photos of {height}x{width} do not divide into latent cells: height and width must be multiples of "
                f"{self.downscale} for {self.name}."
            )
        # Resampling overshoots a little; 0..255 is far off, and would make statistics that look like statistics.
        if photos.abs().amax() > 2:
            raise SCPError(f"Expected photos in -1..1, got values up to {float(photos.abs().amax()):.4g}.")


def load_encoder(path: str | Path, *, device: str = "auto", dtype: str = "auto") -> Encoder:
    """Load the encoder of an image autoencoder; of a full checkpoint, only the encoder's tensors are read.

    Args:
        path: a VAE alone (.safetensors; .ckpt, .pt, .pth, .bin as plain weights), a full checkpoint, a diffusers folder
            of a VAE or of a pipeline, for SD 1/2, SDXL, SD3, Flux and their like; or the encoder of a TAESD.
        device: "auto" (cuda, else mps, else cpu) or a torch device.
        dtype: "auto", "float32", "bfloat16" or "float16". "auto" is bfloat16 on cuda devices that compute in it, else
            float32: never float16, in which SDXL's VAE overflows and nothing in its weights says so.

    Raises:
        SCPError: no such file, not an image VAE, damaged, or diffusers is needed and not installed.
    """
    found = find_weights(Path(path).expanduser())
    file = open_weights(found.file)
    layout = find_layout(file)
    where = _device(device)
    build = _tiny if layout.tiny else _autoencoder
    network, downscale, channels, digest = build(found, file, layout)
    return Encoder(
        network,
        channels=channels,
        downscale=downscale,
        label=found.label,
        digest=digest,
        device=where,
        dtype=_dtype(dtype, where),
    )


def digest_of(weights: Mapping[str, Tensor], name: str = "the VAE") -> str:
    """What `Encoder.digest` is for these weights, of a whole autoencoder held in memory under any of the known names.

    Raises:
        SCPError: there is no encoder among them.
    """
    layout = find_layout(_Memory(name, {key: tuple(tensor.shape) for key, tensor in weights.items()}))
    own = {new: weights[old].reshape(layout.shapes[new]) for new, old in layout.keys.items()}
    if layout.tiny:
        own["scale"] = torch.stack([own.pop("vae_scale"), own.pop("vae_shift")]).flatten()
    return _digest(own)


class _Memory(NamedTuple):
    """As much of a `WeightsFile` as finding the encoder takes."""

    name: str
    shapes: Mapping[str, tuple[int, ...]]


class _Built(NamedTuple):
    network: nn.Module
    downscale: int
    channels: int
    digest: str


class _KLNetwork(nn.Module):
    """diffusers' AutoencoderKL without its decoder, from pictures to the posterior's mean and variance."""

    def __init__(self, vae: nn.Module):
        super().__init__()
        self.vae = vae

    def forward(self, photos: Tensor) -> tuple[Tensor, Tensor]:
        posterior = self.vae.encode(photos).latent_dist
        return posterior.mean.float(), posterior.logvar.float().exp()


class _TinyNetwork(nn.Module):
    """TAESD's encoder, from pictures in -1..1 to latents in LATENT units and a variance of zero."""

    def __init__(self, layers: nn.Module, scale: Scale):
        super().__init__()
        self.layers, self.scale = layers, scale

    def forward(self, photos: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.layers(photos * 0.5 + 0.5).float() / self.scale.scale + self.scale.shift
        return mean, torch.zeros_like(mean)


def _autoencoder(found: Found, file: WeightsFile, layout: Layout) -> _Built:
    config = _config(file.name, layout.shapes, found.config)
    kind = _diffusers()
    try:
        with torch.device("meta"):
            vae = kind(**config)
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        raise SCPError(f"{found.label}: diffusers cannot build this VAE ({error}). Use another one.") from error
    # Never given weights: statistics do not decode, and the decoder is the larger half.
    del vae.decoder
    weights = _read(file, layout, {name: tuple(tensor.shape) for name, tensor in vae.state_dict().items()})
    vae.load_state_dict(weights, assign=True)
    downscale = 2 ** (len(config["block_out_channels"]) - 1)
    return _Built(_KLNetwork(vae), downscale, config["latent_channels"], _digest(weights))


def _config(name: str, shapes: Mapping[str, tuple[int, ...]], given: Mapping[str, object]) -> dict[str, Any]:
    """AutoencoderKL's arguments, from the shapes of the tensors; a config.json adds what shapes cannot tell."""
    widths, layers = [], 0
    while width := _kernel(shapes, f"encoder.down_blocks.{len(widths)}.resnets.0.conv1.weight")[0]:
        widths.append(width)
    while _kernel(shapes, f"encoder.down_blocks.0.resnets.{layers}.conv1.weight")[0]:
        layers += 1
    groups = given.get("norm_num_groups", 32)
    outputs = _kernel(shapes, "encoder.conv_out.weight")[0]
    inputs = _kernel(shapes, "encoder.conv_in.weight")[1]
    if not widths or not outputs:
        raise SCPError(f"{name}: the encoder in it is incomplete ({len(shapes)} tensors). Get the file again.")
    if outputs % 2 or inputs != 3:
        raise SCPError(
            f"{name}: expected an encoder from 3 colours to the mean and variance of each latent channel, got one from "
            f"{inputs} channels to {outputs}. Use an image VAE of SD, SDXL, SD3 or Flux."
        )
    if not isinstance(groups, int) or groups < 1 or any(width % groups for width in widths):
        raise SCPError(f"{name}: its widths {widths} do not divide into {groups} groups, so its norms cannot be built.")
    return {
        "down_block_types": ("DownEncoderBlock2D",) * len(widths),
        "up_block_types": ("UpDecoderBlock2D",) * len(widths),
        "block_out_channels": tuple(widths),
        "layers_per_block": layers,
        "latent_channels": outputs // 2,
        "norm_num_groups": groups,
        "act_fn": given.get("act_fn", "silu"),
        "use_quant_conv": "quant_conv.weight" in shapes,
        "use_post_quant_conv": False,
        "mid_block_add_attention": any(key.startswith("encoder.mid_block.attentions.") for key in shapes),
    }


def _kernel(shapes: Mapping[str, tuple[int, ...]], name: str) -> tuple[int, ...]:
    shape = shapes.get(name, ())
    return shape if len(shape) == 4 else (0, 0, 0, 0)


def _diffusers() -> type[nn.Module]:
    try:
        from diffusers import AutoencoderKL
    except (ImportError, RuntimeError) as error:
        raise SCPError(
            f"Reading this VAE needs the diffusers library, which does not import here ({error}). Install it: "
            f'"{sys.executable}" -m pip install "{DIFFUSERS}"'
        ) from error
    return AutoencoderKL


def _tiny(found: Found, file: WeightsFile, layout: Layout) -> _Built:
    # Where one of the two is missing or odd, _read says so.
    channels, width = _kernel(layout.shapes, "14.weight")[0] or 4, _kernel(layout.shapes, "0.weight")[0] or 64
    with torch.device("meta"):
        layers = taesd_encoder(channels, width)
    expected = {name: tuple(tensor.shape) for name, tensor in layers.state_dict().items()}
    own = {name: key for name, key in layout.keys.items() if name not in ("vae_scale", "vae_shift")}
    weights = _read(file, layout._replace(keys=own), expected)
    scale = _scale(found, file, layout, channels)
    layers.load_state_dict(weights, assign=True)
    return _Built(_TinyNetwork(layers, scale), DOWNSCALE, channels, _digest({**weights, "scale": torch.tensor(scale)}))


def _scale(found: Found, file: WeightsFile, layout: Layout, channels: int) -> Scale:
    """Scale and shift of a TAESD: what the file says, else what its name says (taesd, taesdxl, taesd3, taef1)."""
    if {"vae_scale", "vae_shift"} <= layout.keys.keys():
        scale, shift = (float(t) for t in file.read(layout.keys[name] for name in ("vae_scale", "vae_shift")))
        return Scale(scale, shift)
    family = next((family for name in _names(found) for family in FAMILIES if family in name), None)
    if family is None or FAMILIES[family][0] != channels:
        fitting = " or ".join(sorted(name for name, (count, _) in FAMILIES.items() if count == channels))
        raise SCPError(
            f"{found.label} is a TAESD with {channels} channels"
            + (f", which {family} has not" if family else ", and nothing in its name says of which model")
            + f". Its latents have another scale for each: put {fitting or 'a known family'} into its name, "
            "such as taesd_encoder.safetensors."
        )
    return FAMILIES[family][1]


def _names(found: Found) -> list[str]:
    stem = found.file.stem.lower().removesuffix(".fp16")
    if stem not in _GENERIC:
        return [stem]
    # A model cache keeps the name three folders up: models--madebyollin--taesdxl/snapshots/<revision>/<file>.
    around = [folder.name.lower() for folder in found.file.absolute().parents[:4]]
    return [*around, str(found.config.get("_name_or_path", "")).lower()]


def _read(file: WeightsFile, layout: Layout, expected: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """The encoder's tensors, when they are exactly those of the architecture."""
    missing = sorted(expected.keys() - layout.keys.keys())
    if missing:
        raise SCPError(
            f"{file.name}: the encoder in it is incomplete: {len(missing)} of {len(expected)} tensors are missing, "
            f"such as {missing[0]}. Get the file again."
        )
    surplus = sorted(layout.keys.keys() - expected.keys())
    wrong = [name for name in expected if layout.shapes[name] != expected[name]]
    if surplus or wrong:
        odd = layout.keys[(surplus or wrong)[0]]
        raise SCPError(
            f"{file.name}: the encoder in it is of another architecture than the VAEs of SD, SDXL, SD3 and Flux: {odd} "
            f"{file.shapes[odd]}" + (" has no place there." if surplus else f" should be {expected[wrong[0]]}.")
        )
    names = sorted(expected)
    tensors = file.read(layout.keys[name] for name in names)
    return {name: tensor.view(expected[name]) for name, tensor in zip(names, tensors, strict=True)}


def _digest(weights: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(f"{name} {tuple(weights[name].shape)}\n".encode())
        # In bfloat16, as ComfyUI holds a VAE on most GPUs: the same model must have the same name there and here.
        digest.update(weights[name].detach().to("cpu", torch.bfloat16).contiguous().view(torch.int16).numpy())
    return digest.hexdigest()


def _device(device: str) -> torch.device:
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen).add_(1)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise SCPError(f"The device {device!r} is not usable here ({first}). Use auto, cuda, mps or cpu.") from error
    return chosen


def _dtype(dtype: str, device: torch.device) -> torch.dtype:
    if dtype == "auto":
        # Emulated bfloat16 is slower than float32.
        native = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
        return torch.bfloat16 if native else torch.float32
    if dtype not in DTYPES:
        raise SCPError(f"The dtype {dtype!r} is unknown. Use auto, float32, bfloat16 or float16.")
    return DTYPES[dtype]


def _size(tensor: Tensor) -> str:
    return "x".join(str(side) for side in tensor.shape)


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
