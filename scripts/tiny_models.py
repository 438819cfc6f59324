"""Write tiny stand-ins for Stable Diffusion 2.1, its ControlNet and its VAE, which the host's own loaders read.

They are NOT trained and cannot draw. The host recognises the family by shapes that cannot shrink (320 channels,
context 1024, OpenCLIP-H), so everything around those shapes is as small as it may be. With random weights alone the
picture would be noise whatever it started from; so a few channels are wired by hand, and the rest are random:

- ControlNet: hands the hint's colours on.
- U-Net: where the hint has one colour, one attention head averages the latent it is given, and what differs from that
  average is predicted to be noise. Sampling then keeps what the starting latent holds per area, which is just what a
  noise prior puts there: the picture shows the prior. Without a hint the whole picture is one area.
  The random channels (prompt, timestep, neighbours) are scaled down at the output: they matter, and do not take over.
- VAE: decodes with the linear latent-to-RGB factors that previews use, and encodes with their pseudo-inverse.

All is seeded: the same call writes the same weights. Run as a script: `tiny_models.py FOLDER` writes one of each.
"""

from __future__ import annotations

import json
import math
import struct
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from layout import replacing
from torch import Tensor

Shape = tuple[int, ...]
Weights = dict[str, Tensor]

SCALE_FACTOR = 0.18215
CHANNELS, EMBEDDING, CONTEXT = 320, 1280, 1024
# The linear map with which latent previews of SD 1 and 2 are drawn, from model units to RGB in -1..1.
RGB_FACTORS = torch.tensor(
    [[0.3512, 0.2297, 0.3227], [0.3250, 0.4974, 0.2350], [-0.2829, 0.1762, 0.2721], [-0.2120, -0.2616, -0.7177]]
)

# The wired channels. A signal travels as a pair (+a, -a), because silu(a) - silu(-a) = a exactly. The host normalises
# in groups of 10 neighbours; a pair of large constants in a group makes the divisor known, so that normalising is
# harmless.
LATENT, HINT, MEAN = 0, 10, 20  # where the pairs of the latent, of the hint's features and of the averages begin
CONSTANT = 20.0
LAYER_CONSTANTS, LAYER_CONSTANT = range(40, 160), 30.0  # the same trick for the layer norms inside the transformer
FREE = 160  # channels from here on are random
HEAD = 64

SHARPNESS = 40.0  # how unlike two hint colours must be to count as two areas
SMALL = 0.3  # small enough for silu(a) + silu(-a) to be a * a / 2
NOISE_GAIN = 1.7
RANDOM_GAIN = 0.1
PROMPT_GAIN = 25.0
WORD_SHARPNESS = 6.0


class _Spec(dict[str, Shape]):
    """Names and shapes of the weights, by the building blocks of the latent diffusion U-Net."""

    def linear(self, name: str, out: int, inner: int, bias: bool = True) -> None:
        self[f"{name}.weight"] = (out, inner)
        if bias:
            self[f"{name}.bias"] = (out,)

    def conv(self, name: str, out: int, inner: int, kernel: int = 3, bias: bool = True) -> None:
        self[f"{name}.weight"] = (out, inner, kernel, kernel)
        if bias:
            self[f"{name}.bias"] = (out,)

    def norm(self, name: str, channels: int) -> None:
        self[f"{name}.weight"] = self[f"{name}.bias"] = (channels,)

    def res_block(self, name: str, inner: int, out: int = CHANNELS) -> None:
        self.norm(f"{name}.in_layers.0", inner)
        self.conv(f"{name}.in_layers.2", out, inner)
        self.linear(f"{name}.emb_layers.1", out, EMBEDDING)
        self.norm(f"{name}.out_layers.0", out)
        self.conv(f"{name}.out_layers.3", out, out)
        if inner != out:
            self.conv(f"{name}.skip_connection", out, inner, 1)

    def transformer(self, name: str, channels: int = CHANNELS) -> None:
        self.norm(f"{name}.norm", channels)
        self.linear(f"{name}.proj_in", channels, channels)
        block = f"{name}.transformer_blocks.0"
        for attention, source in (("attn1", channels), ("attn2", CONTEXT)):
            self.linear(f"{block}.{attention}.to_q", channels, channels, False)
            self.linear(f"{block}.{attention}.to_k", channels, source, False)
            self.linear(f"{block}.{attention}.to_v", channels, source, False)
            self.linear(f"{block}.{attention}.to_out.0", channels, channels)
        self.linear(f"{block}.ff.net.0.proj", channels * 8, channels)
        self.linear(f"{block}.ff.net.2", channels, channels * 4)
        for k in (1, 2, 3):
            self.norm(f"{block}.norm{k}", channels)
        self.linear(f"{name}.proj_out", channels, channels)

    def encoder_half(self) -> None:
        self.linear("time_embed.0", EMBEDDING, CHANNELS)
        self.linear("time_embed.2", EMBEDDING, EMBEDDING)
        self.conv("input_blocks.0.0", CHANNELS, 4)
        self.res_block("input_blocks.1.0", CHANNELS)
        self.transformer("input_blocks.1.1")
        self.res_block("middle_block.0", CHANNELS)


def _unet_spec() -> _Spec:
    spec = _Spec()
    spec.encoder_half()
    for k in (0, 1):
        spec.res_block(f"output_blocks.{k}.0", 2 * CHANNELS)
    spec.transformer("output_blocks.1.1")
    spec.norm("out.0", CHANNELS)
    spec.conv("out.2", 4, CHANNELS)
    return spec


# Widths of the hint block are fixed by the host; its third, fifth and seventh convolution have stride 2.
_HINT_WIDTHS = (3, 16, 16, 32, 32, 96, 96, 256, CHANNELS)


def _controlnet_spec() -> _Spec:
    spec = _Spec()
    spec.encoder_half()
    for k in range(8):
        spec.conv(f"input_hint_block.{2 * k}", _HINT_WIDTHS[k + 1], _HINT_WIDTHS[k])
    for name in ("zero_convs.0.0", "zero_convs.1.0", "middle_block_out.0"):
        spec.conv(name, CHANNELS, CHANNELS, 1)
    return spec


def _text_spec(layers: int = 24, words: int = 49408) -> _Spec:
    spec = _Spec()
    spec["positional_embedding"] = (77, CONTEXT)
    spec["text_projection"] = (CONTEXT, CONTEXT)
    spec["logit_scale"] = ()
    spec["token_embedding.weight"] = (words, CONTEXT)
    spec.norm("ln_final", CONTEXT)
    for k in range(layers):
        block = f"transformer.resblocks.{k}"
        spec[f"{block}.attn.in_proj_weight"] = (3 * CONTEXT, CONTEXT)
        spec[f"{block}.attn.in_proj_bias"] = (3 * CONTEXT,)
        spec.linear(f"{block}.attn.out_proj", CONTEXT, CONTEXT)
        spec.norm(f"{block}.ln_1", CONTEXT)
        spec.norm(f"{block}.ln_2", CONTEXT)
        spec.linear(f"{block}.mlp.c_fc", 4 * CONTEXT, CONTEXT)
        spec.linear(f"{block}.mlp.c_proj", CONTEXT, 4 * CONTEXT)
    return spec


def _trivial(name: str, shape: Shape) -> Tensor | None:
    """Return the fixed start of a small weight (norm, bias, scalar), or None where the weight is to be drawn."""
    if name.endswith("logit_scale"):
        return torch.tensor(4.6)
    if name.endswith("bias"):
        return torch.zeros(shape)
    return torch.ones(shape) if len(shape) == 1 else None


def _random(spec: Mapping[str, Shape], seed: int) -> Weights:
    generator = torch.Generator().manual_seed(seed)
    weights: Weights = {}
    for name, shape in spec.items():
        fixed = _trivial(name, shape)
        weights[name] = (
            torch.randn(shape, generator=generator) / math.sqrt(math.prod(shape[1:])) if fixed is None else fixed
        )
    return weights


def _pairs(weight: Tensor, out: int, inner: int, kernel: Tensor | float) -> None:
    """Wire a pair of channels to a pair: out(+) takes kernel * (in(+) - in(-)), and out(-) its negative."""
    tap = torch.as_tensor(kernel, dtype=weight.dtype)
    for sign_out in (0, 1):
        for sign_in in (0, 1):
            sign = 1.0 if sign_out == sign_in else -1.0
            weight[out + sign_out, inner + sign_in] = sign * tap


def _tap(value: float = 1.0) -> Tensor:
    kernel = torch.zeros(3, 3)
    kernel[1, 1] = value
    return kernel


def _read(weight: Tensor, out: int, pair: int, gain: float) -> None:
    """Wire an output to half the difference of a pair: what a layer norm subtracts from both then cancels."""
    weight[out, pair], weight[out, pair + 1] = gain / 2, -gain / 2


def _clear_wired(weight: Tensor) -> None:
    """Free the wired rows, and let the random rows see random channels only."""
    weight[:FREE] = 0
    for start in range(0, weight.shape[1], CHANNELS):
        weight[:, start : start + FREE] = 0


def _clear_block(weights: Weights, name: str) -> None:
    for part in ("in_layers.2", "out_layers.3", "skip_connection"):
        if f"{name}.{part}.weight" in weights:
            _clear_wired(weights[f"{name}.{part}.weight"])
    weights[f"{name}.emb_layers.1.weight"][:FREE] = 0


def _wire_averaging(weights: Weights, name: str) -> None:
    """Wire a transformer: subtract from the latent its average over all places of about the same hint colour.

    Head 0 weighs place j for place i by exp(-SHARPNESS / 2 * |f_i - f_j|^2), f being the hint's colour; the softmax
    takes care of |f_i|^2, and |f_j|^2 comes with the features.
    """
    block = f"{name}.transformer_blocks.0"
    divisor = CONSTANT * math.sqrt(2 / 10)
    weight, bias = weights[f"{name}.proj_in.weight"], weights[f"{name}.proj_in.bias"]
    _clear_wired(weight)
    for channel in range(LATENT, MEAN):
        weight[channel, channel] = divisor
    bias[LAYER_CONSTANTS.start : LAYER_CONSTANTS.stop : 2] = LAYER_CONSTANT
    bias[LAYER_CONSTANTS.start + 1 : LAYER_CONSTANTS.stop : 2] = -LAYER_CONSTANT
    # The pairs of constants that came through the group norm, of CONSTANT each, count here as well.
    total = len(LAYER_CONSTANTS) * LAYER_CONSTANT**2 + 4 * CONSTANT**2
    divisor = math.sqrt(total / CHANNELS)

    for part in ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn2.to_q", "ff.net.0.proj"):
        weights[f"{block}.{part}.weight"][:, :FREE] = 0
    query, key, value = (weights[f"{block}.attn1.to_{part}.weight"] for part in "qkv")
    out = weights[f"{block}.attn1.to_out.0.weight"]
    for weight in (query, key, value):
        weight[:HEAD] = 0
    out[:, :HEAD] = 0
    scale = math.sqrt(SHARPNESS * math.sqrt(HEAD))
    for c in range(3):
        _read(query, c, HINT + 2 * c, scale * divisor)
        _read(key, c, HINT + 2 * c, scale * divisor)
    _read(query, 3, LAYER_CONSTANTS.start, divisor / LAYER_CONSTANT)
    _read(key, 3, HINT + 6, -0.5 * SHARPNESS * math.sqrt(HEAD) * divisor)
    for part in ("attn1.to_out.0", "attn2.to_out.0", "ff.net.2"):
        weights[f"{block}.{part}.weight"][:FREE] = 0
    for c in range(4):
        _read(value, c, LATENT + 2 * c, divisor)
        out[MEAN + c, c] = 1.0
    weights[f"{block}.attn2.to_out.0.weight"] *= PROMPT_GAIN
    # Sharper attention: else the padding, which all prompts share, drowns the words.
    weights[f"{block}.attn2.to_k.weight"] *= WORD_SHARPNESS

    weight = weights[f"{name}.proj_out.weight"]
    _clear_wired(weight)
    for c in range(4):
        weight[LATENT + 2 * c, MEAN + c], weight[LATENT + 2 * c + 1, MEAN + c] = -1.0, 1.0


def unet(seed: int = 0) -> Weights:
    """Return the U-Net's weights: float32, wired as the head of this file says, the rest random."""
    weights = _random(_unet_spec(), seed)
    first = weights["input_blocks.0.0.weight"]
    first[:FREE] = 0
    for c in range(4):
        first[LATENT + 2 * c, c], first[LATENT + 2 * c + 1, c] = _tap(), _tap(-1.0)
    for name in ("input_blocks.1.0", "middle_block.0", "output_blocks.0.0", "output_blocks.1.0"):
        _clear_block(weights, name)
    _clear_wired(weights["input_blocks.1.1.proj_out.weight"])
    # The skip connection of the last block leads from the very first convolution (and what the ControlNet adds there)
    # past all normalising.
    skip, bias = (weights[f"output_blocks.1.0.skip_connection.{kind}"] for kind in ("weight", "bias"))
    for channel in range(LATENT, MEAN):
        skip[channel, CHANNELS + channel] = 1.0
    for group in (LATENT, HINT):
        bias[group + 8], bias[group + 9] = CONSTANT, -CONSTANT
    _wire_averaging(weights, "output_blocks.1.1")
    out = weights["out.2.weight"]
    out *= RANDOM_GAIN
    out[:, :FREE] = 0
    gain = NOISE_GAIN * CONSTANT * math.sqrt(2 / 10)
    for c in range(4):
        out[c, LATENT + 2 * c], out[c, LATENT + 2 * c + 1] = _tap(gain), _tap(-gain)
    return weights


def controlnet(seed: int = 1) -> Weights:
    """Return the ControlNet's weights: float32, the hint's colours on a wired path, the rest random."""
    weights = _random(_controlnet_spec(), seed)
    hint = [weights[f"input_hint_block.{2 * k}.weight"] for k in range(8)]
    half = torch.zeros(3, 3)
    half[1:, 1:] = 0.25  # stride 2: the mean of the four pixels of a cell
    for weight in hint:
        weight.zero_()
    for c in range(3):
        hint[0][2 * c, c], hint[0][2 * c + 1, c] = _tap(2.0), _tap(-2.0)
        weights["input_hint_block.0.bias"][2 * c : 2 * c + 2] = torch.tensor([-1.0, 1.0])
        for k in range(1, 7):
            _pairs(hint[k], 2 * c, 2 * c, half if k in (2, 4, 6) else _tap())
        _pairs(hint[6], 6 + 2 * c, 2 * c, SMALL * half)
        _pairs(hint[7], HINT + 2 * c, 2 * c, _tap())
        square = _tap(2 / SMALL**2)  # |colour|^2, from silu(a) + silu(-a)
        hint[7][HINT + 6, 6 + 2 * c : 8 + 2 * c], hint[7][HINT + 7, 6 + 2 * c : 8 + 2 * c] = square, -square
    weights["input_blocks.0.0.weight"][:FREE] = 0
    for name in ("input_blocks.1.0", "middle_block.0"):
        _clear_block(weights, name)
    for name in ("zero_convs.0.0.weight", "zero_convs.1.0.weight", "middle_block_out.0.weight"):
        weights[name] *= RANDOM_GAIN
        _clear_wired(weights[name])
    for channel in range(HINT, HINT + 8):
        weights["zero_convs.0.0.weight"][channel, channel] = 1.0
    return weights


def _vae_block(weights: Weights, name: str) -> None:
    for k in (0, 2, 4):  # zeros: the block then hands on what it got
        weights[f"{name}.conv.{k}.weight"], weights[f"{name}.conv.{k}.bias"] = (
            torch.zeros(64, 64, 3, 3),
            torch.zeros(64),
        )


def _pass_on(kernel: Tensor) -> Tensor:
    return torch.einsum("oi,hw->oihw", torch.eye(64), kernel)


def vae() -> Weights:
    """Return the VAE's weights (TAESD's layout): decodes by the preview's linear map, encodes by its pseudo-inverse."""
    weights: Weights = {"vae_scale": torch.tensor(SCALE_FACTOR), "vae_shift": torch.tensor(0.0)}
    soft = torch.outer(torch.tensor([0.25, 0.5, 0.25]), torch.tensor([0.25, 0.5, 0.25]))
    half = torch.zeros(3, 3)
    half[1:, 1:] = 0.25
    into, back = torch.zeros(64, 3, 3, 3), torch.zeros(4, 64, 3, 3)
    to_latent = torch.linalg.pinv(RGB_FACTORS)
    for c in range(3):
        into[2 * c, c], into[2 * c + 1, c] = _tap(2.0), _tap(-2.0)
        for latent in range(4):
            value = float(to_latent[c, latent])
            back[latent, 2 * c], back[latent, 2 * c + 1] = _tap(value), _tap(-value)
    name, i = "taesd_encoder", 2
    weights[f"{name}.0.weight"], weights[f"{name}.0.bias"] = into, torch.tensor([-1.0, 1.0] * 3 + [0.0] * 58)
    _vae_block(weights, f"{name}.1")
    for _ in range(3):
        weights[f"{name}.{i}.weight"] = _pass_on(half)
        for k in range(1, 4):
            _vae_block(weights, f"{name}.{i + k}")
        i += 4
    weights[f"{name}.{i}.weight"], weights[f"{name}.{i}.bias"] = back, torch.zeros(4)
    name, i = "taesd_decoder", 3
    into, back = torch.zeros(64, 4, 3, 3), torch.zeros(3, 64, 3, 3)
    for latent in range(4):
        into[2 * latent, latent], into[2 * latent + 1, latent] = _tap(), _tap(-1.0)
        for c in range(3):
            value = 0.5 * float(RGB_FACTORS[latent, c])
            back[c, 2 * latent], back[c, 2 * latent + 1] = _tap(value), _tap(-value)
    weights[f"{name}.1.weight"], weights[f"{name}.1.bias"] = into, torch.zeros(64)
    for _ in range(3):
        for k in range(3):
            _vae_block(weights, f"{name}.{i + k}")
        weights[f"{name}.{i + 4}.weight"] = _pass_on(soft)
        i += 5
    _vae_block(weights, f"{name}.{i}")
    weights[f"{name}.{i + 1}.weight"], weights[f"{name}.{i + 1}.bias"] = back, torch.full((3,), 0.5)
    return weights


# Rows of the token table that get values where the file is sparse: the commonest words of the tokeniser come first,
# and the start and end marks last. A word beyond them counts as an empty one.
COMMON_WORDS = 8192


def _text_strided(seed: int) -> Weights:
    """Return an OpenCLIP-H whose big weights are overlapping views of short buffers: 3 MB in a .ckpt, not 700."""
    generator = torch.Generator().manual_seed(seed)
    weights: Weights = {}
    buffers: dict[tuple[float, int], Tensor] = {}
    for name, shape in _text_spec().items():
        fixed = _trivial(name, shape)
        if fixed is not None:
            weights[name] = fixed.half()
            continue
        rows, columns, step = shape[0], shape[1], 17
        deviation = 0.02 if "embedding" in name else 1 / math.sqrt(columns)
        key = (deviation, rows * step + columns)
        if key not in buffers:
            buffers[key] = (torch.randn(key[1], generator=generator) * deviation).half()
        weights[name] = buffers[key].as_strided(shape, (step, 1))
    return weights


def _text_sparse(seed: int) -> tuple[Weights, dict[str, Shape]]:
    """Return an OpenCLIP-H in two parts: the weights with values, and the shapes of those that stay zero.

    With zeros for its matrices every layer hands on what it got, so what is left is the sum of token and position.
    """
    generator = torch.Generator().manual_seed(seed)
    weights: Weights = {}
    holes: dict[str, Shape] = {}
    for name, shape in _text_spec().items():
        fixed = _trivial(name, shape)
        if fixed is not None:
            weights[name] = fixed.half()
        elif name == "positional_embedding":
            weights[name] = (torch.randn(shape, generator=generator) * 0.02).half()
        elif name == "text_projection":
            weights[name] = torch.eye(CONTEXT).half()
        else:
            holes[name] = shape
    return weights, holes


def _write_safetensors(path: Path, weights: Weights, holes: Mapping[str, Shape], common: str | None = None) -> None:
    """Write a safetensors file (fp16) whose zeros are holes of the file system, so that they take no room on the disk.

    Safetensors allows no overlapping views, and the host accepts no smaller text encoder; so its zeros are never
    written: seeking over them leaves a hole on any usual file system. `common` names a table of which the first and
    last rows are written nevertheless.
    """
    entries: dict[str, dict[str, object]] = {"__metadata__": {"source": "random stand-in, not trained"}}
    position = 0
    for name, shape in {**{name: tuple(value.shape) for name, value in weights.items()}, **holes}.items():
        length = 2 * math.prod(shape)
        entries[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [position, position + length]}
        position += length
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    start = 8 + len(header)
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for value in weights.values():
            file.write(value.half().contiguous().numpy().tobytes())
        if common is not None:
            rows, columns = holes[common]
            table = torch.randn(COMMON_WORDS + 2, columns, generator=torch.Generator().manual_seed(7)).mul(0.02).half()
            offset = start + entries[common]["data_offsets"][0]
            file.seek(offset)
            file.write(table[:-2].numpy().tobytes())
            file.seek(offset + 2 * columns * (rows - 2))
            file.write(table[-2:].numpy().tobytes())
        file.truncate(start + position)


def _write(path: Path, weights: Weights) -> None:
    if path.suffix == ".safetensors":
        _write_safetensors(path, weights, {})
        return
    with replacing(path) as temporary:
        torch.save({name: value.half() for name, value in weights.items()}, temporary)


def _prefixed(prefix: str, weights: Mapping[str, Tensor]) -> Weights:
    return {prefix + name: value for name, value in weights.items()}


def write_checkpoint(path: str | Path, seed: int = 0) -> None:
    """Write a checkpoint (U-Net, VAE and OpenCLIP-H) for CheckpointLoaderSimple; the name's ending decides its format.

    `.safetensors`: 58 MB on a file system with holes, 760 MB where there are none. Anything else: a torch file of 42
    MB.
    """
    path = Path(path)
    small = {**_prefixed("model.diffusion_model.", unet(seed)), **_prefixed("first_stage_model.", vae())}
    text = "cond_stage_model.model."
    if path.suffix != ".safetensors":
        weights = {name: value.half() for name, value in small.items()}
        with replacing(path) as temporary:
            torch.save({"state_dict": {**weights, **_prefixed(text, _text_strided(seed + 100))}}, temporary)
        return
    weights, holes = _text_sparse(seed + 100)
    missing = {text + name: shape for name, shape in holes.items()}
    _write_safetensors(path, {**small, **_prefixed(text, weights)}, missing, text + "token_embedding.weight")


def write_controlnet(path: str | Path, seed: int = 1) -> None:
    """Write a ControlNet for ControlNetLoader (21 MB)."""
    _write(Path(path), controlnet(seed))


def write_vae(path: str | Path) -> None:
    """Write a VAE for VAELoader (3 MB)."""
    _write(Path(path), vae())


def main(folder: Path) -> None:
    started = time.monotonic()
    for write, name in (
        (write_checkpoint, "tiny_checkpoint.ckpt"),
        (write_checkpoint, "tiny_checkpoint.safetensors"),
        (write_controlnet, "tiny_controlnet.safetensors"),
        (write_vae, "tiny_vae.safetensors"),
    ):
        write(folder / name)
        print(folder / name)
    print(f"{time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: tiny_models.py FOLDER")
    main(Path(sys.argv[1]))
