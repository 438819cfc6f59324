"""Encoders from every form of file, against diffusers' own encode and against the host's VAEEncode."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import socket
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from scp_prior import vae_formats
from scp_prior.errors import SCPError
from scp_prior.taesd import taesd_encoder
from scp_prior.vae import load_encoder

ROOT = Path(__file__).resolve().parents[2]
Weights = dict[str, Tensor]

needs_diffusers = pytest.mark.skipif(not importlib.util.find_spec("diffusers"), reason="diffusers is not installed")


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """Whatever asks for the network fails its test."""

    def refuse(*_):
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def photos(batch: int = 2, height: int = 32, width: int = 48) -> Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(7)) * 2 - 1


def make_vae(channels: int, widths=(32, 32, 64, 64), quant: bool = True, seed: int = 0):
    """A VAE of the real architecture whose posterior varies in mean and variance alike."""
    from diffusers import AutoencoderKL

    levels = len(widths)
    torch.manual_seed(seed)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=widths,
        layers_per_block=2,
        latent_channels=channels,
        use_quant_conv=quant,
        use_post_quant_conv=quant,
    )
    for name, tensor in vae.named_parameters():
        if "norm" in name:
            tensor.data += torch.randn_like(tensor) * 0.2
        if name == "encoder.conv_out.weight":
            tensor.data *= 4
    return vae.eval().requires_grad_(False)


def oracle(vae, pictures: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        posterior = vae.encode(pictures).latent_dist
    return posterior.mean, posterior.var


def to_ldm(weights: Weights) -> Weights:
    """Latent diffusion's names, written independently of the library: encoder, decoder and both quant convolutions."""
    levels = 1 + max(int(n.split(".")[2]) for n in weights if n.startswith("decoder.up_blocks."))
    out = {}
    for name, tensor in weights.items():
        name = re.sub(r"up_blocks\.(\d+)", lambda m: f"up.{levels - 1 - int(m[1])}", name)
        for new, old in (
            ("down_blocks.", "down."),
            ("resnets.", "block."),
            ("downsamplers.0", "downsample"),
            ("upsamplers.0", "upsample"),
            ("mid_block.block.0", "mid.block_1"),
            ("mid_block.block.1", "mid.block_2"),
            ("mid_block.attentions.0", "mid.attn_1"),
            ("conv_shortcut", "nin_shortcut"),
            ("conv_norm_out", "norm_out"),
        ):
            name = name.replace(new, old)
        if "attn_1" in name:
            name = name.replace("group_norm", "norm").replace("to_out.0", "proj_out")
            name = re.sub("to_([qkv])", r"\1", name)
            tensor = tensor[:, :, None, None] if tensor.ndim == 2 else tensor
        out[name] = tensor.contiguous()
    return out


def junk() -> Weights:
    return {
        "model.diffusion_model.input_blocks.0.0.weight": torch.randn(8, 4, 3, 3),
        "cond_stage_model.transformer.encoder.layers.0.weight": torch.randn(8, 8),
        "alphas_cumprod": torch.rand(10),
        "model_ema.num_updates": torch.tensor(3),
    }


def as_folder(vae, weights, path):
    vae.save_pretrained(path)
    return path


def as_pipeline(vae, weights, path):
    vae.save_pretrained(path / "vae")
    (path / "model_index.json").write_text("{}")
    return path


def as_old_folder(vae, weights, path):
    vae.save_pretrained(path, safe_serialization=False)
    assert [file.suffix for file in path.iterdir() if "model" in file.name] == [".bin"]
    old = {}
    for name, tensor in weights.items():
        for new, before in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
            name = name.replace(f"attentions.0.{new}", f"attentions.0.{before}")
        old[name] = tensor
    torch.save(old, path / "diffusion_pytorch_model.bin")
    return path


def as_bare(vae, weights, path):
    save_file(to_ldm(weights), path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


def as_bare_diffusers(vae, weights, path):
    save_file(weights, path.with_suffix(".sft"))
    return path.with_suffix(".sft")


def as_quant_inside(vae, weights, path):
    """Newer tools write the quant convolutions inside encoder and decoder."""
    names = {"quant_conv.": "encoder.quant_conv.", "post_quant_conv.": "decoder.post_quant_conv."}
    moved = {re.sub(r"^(post_)?quant_conv\.", lambda m: names[m[0]], n): t for n, t in to_ldm(weights).items()}
    save_file(moved, path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


def as_checkpoint(vae, weights, path):
    own = {f"first_stage_model.{name}": tensor for name, tensor in to_ldm(weights).items()}
    save_file({**junk(), **own}, path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


def as_vae_prefix(vae, weights, path):
    save_file({**junk(), **{f"vae.{n}": t for n, t in to_ldm(weights).items()}}, path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


def as_ckpt(vae, weights, path):
    """As Lightning writes them: the weights one level down, the trainer's own objects around."""
    import numpy as np

    own = {f"first_stage_model.{name}": tensor for name, tensor in to_ldm(weights).items()}
    loose = {"epoch": 3, "best_score": np.float64(0.5), "hparams": None}
    torch.save({"state_dict": {**junk(), **own}, **loose}, path.with_suffix(".ckpt"))
    return path.with_suffix(".ckpt")


FORMS = [
    as_folder,
    as_pipeline,
    as_old_folder,
    as_bare,
    as_bare_diffusers,
    as_quant_inside,
    as_checkpoint,
    as_vae_prefix,
    as_ckpt,
]


@pytest.fixture(scope="module", params=[4, 16])
def vae(request):
    pytest.importorskip("diffusers")
    return make_vae(request.param, quant=request.param == 4)


@pytest.fixture(scope="module")
def small() -> Weights:
    """A small VAE's weights under latent diffusion's names."""
    pytest.importorskip("diffusers")
    return to_ldm(make_vae(4).state_dict())


def weights_of(vae) -> Weights:
    return {name: tensor.contiguous() for name, tensor in vae.state_dict().items()}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_posterior_of_diffusers(vae, form, tmp_path):
    path = form(vae, weights_of(vae), tmp_path / "mine")
    encoder = load_encoder(path, device="cpu")
    pictures = photos()
    mean, variance = encoder.encode(pictures)
    expected_mean, expected_variance = oracle(vae, pictures)
    assert mean.shape == (2, vae.config.latent_channels, 4, 6)
    assert mean.std() > 0.1
    assert variance.std() / variance.mean() > 0.1
    torch.testing.assert_close(mean, expected_mean, rtol=0, atol=1e-6)
    torch.testing.assert_close(variance, expected_variance, rtol=1e-6, atol=1e-6)
    assert (encoder.channels, encoder.downscale) == (vae.config.latent_channels, 8)
    assert mean.dtype == variance.dtype == torch.float32
    assert encoder.name.startswith("mine/vae sha256:" if form is as_pipeline else f"{path.name} sha256:")


@needs_diffusers
def test_name_tells_weights_apart_and_nothing_else(tmp_path):
    one, other = make_vae(4), make_vae(4, seed=1)
    digests = {load_encoder(form(one, weights_of(one), tmp_path / form.__name__)).digest for form in FORMS}
    assert len(digests) == 1
    encoder = load_encoder(as_bare(other, weights_of(other), tmp_path / "other"))
    assert encoder.digest not in digests
    assert re.fullmatch(r"other\.safetensors sha256:[0-9a-f]{12}", encoder.name)


@needs_diffusers
def test_half_precision_files_load_as_float32(tmp_path):
    vae = make_vae(4).half().float()
    half = {name: tensor.half() for name, tensor in weights_of(vae).items()}
    encoder = load_encoder(as_bare(vae, half, tmp_path / "half"))
    full = load_encoder(as_bare(vae, weights_of(vae), tmp_path / "full"))
    assert encoder.digest == full.digest
    torch.testing.assert_close(encoder.encode(photos()).mean, oracle(vae, photos())[0], rtol=0, atol=1e-6)


@needs_diffusers
@pytest.mark.parametrize(("widths", "downscale"), [((32, 64, 64), 4), ((64, 64, 96, 32), 8), ((32, 32), 2)])
def test_other_widths_and_depths(widths, downscale, tmp_path):
    vae = make_vae(4, widths)
    encoder = load_encoder(as_bare(vae, weights_of(vae), tmp_path / "vae"))
    assert encoder.downscale == downscale
    torch.testing.assert_close(encoder.encode(photos()).mean, oracle(vae, photos())[0], rtol=0, atol=1e-6)


@needs_diffusers
def test_what_shapes_cannot_tell_comes_from_config(tmp_path):
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    vae = AutoencoderKL(block_out_channels=(20,), layers_per_block=1, norm_num_groups=5, mid_block_add_attention=False)
    vae.eval().save_pretrained(tmp_path / "own")
    encoder = load_encoder(tmp_path / "own")
    assert encoder.downscale == 1
    torch.testing.assert_close(encoder.encode(photos()).mean, oracle(vae, photos())[0], rtol=0, atol=1e-6)
    with pytest.raises(SCPError, match="32 groups"):
        load_encoder(tmp_path / "own" / "diffusion_pytorch_model.safetensors")


@needs_diffusers
def test_repeats_exactly_and_returns_ordinary_tensors(small, tmp_path):
    save_file(small, tmp_path / "vae.safetensors")
    first, again = (load_encoder(tmp_path / "vae.safetensors").encode(photos()) for _ in range(2))
    assert torch.equal(first.mean, again.mean)
    assert torch.equal(first.variance, again.variance)
    first.mean.add_(1)
    assert not first.mean.is_inference()
    # The file is not held: Windows must be able to replace it.
    os.replace(tmp_path / "vae.safetensors", tmp_path / "moved.safetensors")


@needs_diffusers
def test_only_the_encoder_is_read(small, tmp_path, monkeypatch):
    save_file({**junk(), **{f"first_stage_model.{n}": t for n, t in small.items()}}, tmp_path / "full.safetensors")
    read, real = [], vae_formats.safe_open

    class Recorder:
        def __init__(self, *args, **kwargs):
            self._opener = real(*args, **kwargs)

        def __enter__(self):
            self._file = self._opener.__enter__()
            return self

        def __exit__(self, *error):
            return self._opener.__exit__(*error)

        def __getattr__(self, name):
            return getattr(self._file, name)

        def get_tensor(self, key):
            read.append(key)
            return self._file.get_tensor(key)

    monkeypatch.setattr(vae_formats, "safe_open", Recorder)
    load_encoder(tmp_path / "full.safetensors")
    assert sorted(read) == sorted(f"first_stage_model.{n}" for n in small if n.startswith(("encoder.", "quant_conv.")))


@needs_diffusers
@pytest.mark.parametrize(("dtype", "bound"), [("bfloat16", 0.2), ("fp16", 0.02)])
def test_lower_precision_is_near_and_says_so(small, dtype, bound, tmp_path):
    save_file(small, tmp_path / "vae.safetensors")
    full = load_encoder(tmp_path / "vae.safetensors", dtype="float32").encode(photos(1, 16, 16))
    encoder = load_encoder(tmp_path / "vae.safetensors", device="cpu", dtype=dtype)
    mean, variance = encoder.encode(photos(1, 16, 16))
    assert encoder.dtype == {"bfloat16": torch.bfloat16, "fp16": torch.float16}[dtype]
    assert mean.dtype == variance.dtype == torch.float32
    assert 0 < (mean - full.mean).abs().max() < bound * full.mean.std()


@needs_diffusers
def test_float16_overflow_is_reported(small, tmp_path):
    loud = {**small, "encoder.conv_in.weight": small["encoder.conv_in.weight"] * 3e5}
    save_file(loud, tmp_path / "loud.safetensors")
    assert load_encoder(tmp_path / "loud.safetensors").encode(photos(1, 16, 16)).mean.isfinite().all()
    with pytest.raises(SCPError, match="float16: use float32 or bfloat16"):
        load_encoder(tmp_path / "loud.safetensors", dtype="float16").encode(photos(1, 16, 16))


@needs_diffusers
@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        (torch.zeros(1, 3, 32, 36), "32x36 .* multiples of 8"),
        (torch.zeros(1, 3, 4, 32), "4x32 .* multiples of 8"),
        (torch.zeros(3, 32, 32), r"\(B, 3, H, W\).*got 3x32x32"),
        (torch.zeros(1, 4, 32, 32), r"got 1x4x32x32"),
        (torch.zeros(0, 3, 32, 32), r"got 0x3x32x32"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), "floating point"),
        (torch.full((1, 3, 32, 32), 255.0), "-1..1, got values up to 255"),
        (torch.full((1, 3, 32, 32), float("nan")), "not finite"),
    ],
)
def test_photos_it_cannot_take(small, pictures, message, tmp_path):
    save_file(small, tmp_path / "vae.safetensors")
    with pytest.raises(SCPError, match=message):
        load_encoder(tmp_path / "vae.safetensors").encode(pictures)


def _without(weights: Weights, start: str) -> Weights:
    return {name: tensor for name, tensor in weights.items() if not name.startswith(start)}


BROKEN = {
    "decoder only": (lambda w: _without(_without(w, "encoder."), "quant_conv."), "decoder of a VAE only"),
    "U-Net only": (lambda w: junk(), "no VAE encoder is in it .4 tensors, such as"),
    "empty": (lambda w: {}, "no VAE encoder is in it .0 tensors.\\."),
    "part missing": (lambda w: _without(w, "encoder.mid.block_2"), r"incomplete: 8 of \d+ tensors"),
    "norm missing": (lambda w: _without(w, "encoder.norm_out.bias"), r"such as encoder.conv_norm_out.bias"),
    "only the first": (lambda w: {"encoder.conv_in.weight": w["encoder.conv_in.weight"]}, "incomplete"),
    "quant bias missing": (lambda w: _without(w, "quant_conv.bias"), "such as quant_conv.bias"),
    "no numbers": (lambda w: {**w, "encoder.norm_out.bias": torch.zeros(0)}, "incomplete"),
    "video": (lambda w: {n: t[:, :, None] if t.ndim == 4 else t for n, t in w.items()}, "video VAE"),
    "other video": (lambda w: {"encoder.conv1.weight": torch.zeros(4, 3, 3, 3, 3)}, "video VAE"),
    "grey": (lambda w: {**w, "encoder.conv_in.weight": torch.zeros(32, 1, 3, 3)}, "from 1 channels"),
    "vector-quantised": (lambda w: {**w, "quantize.embedding.weight": torch.zeros(8, 4)}, "vector-quantised"),
    "packed": (lambda w: {**w, "bn.running_mean": torch.zeros(16)}, "Flux 2"),
    "extra attention": (lambda w: {**w, "encoder.down.1.attn.0.q.weight": torch.zeros(8, 8, 1, 1)}, "no place there"),
    "other shape": (lambda w: {**w, "encoder.norm_out.bias": torch.zeros(7)}, r"\(7,\) should be \(64,\)"),
    "quantised": (lambda w: {**w, "encoder.norm_out.bias": torch.zeros(64, dtype=torch.int8)}, "torch.int8"),
}


@pytest.mark.parametrize("kind", [".safetensors", ".ckpt"])
@pytest.mark.parametrize("case", BROKEN)
def test_files_that_cannot_serve(small, case, kind, tmp_path):
    change, message = BROKEN[case]
    path = tmp_path / f"vae{kind}"
    changed = {name: tensor.contiguous() for name, tensor in change(small).items()}
    save_file(changed, path) if kind == ".safetensors" else torch.save(changed, path)
    with pytest.raises(SCPError, match=message) as caught:
        load_encoder(path)
    assert path.name in str(caught.value)


@pytest.mark.parametrize("kind", [".safetensors", ".ckpt"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_files(small, kind, share, tmp_path):
    path = tmp_path / f"vae{kind}"
    save_file(small, path) if kind == ".safetensors" else torch.save(small, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(SCPError, match="cut short|damaged"):
        load_encoder(path)


def test_trainers_own_objects_are_read_as_nothing(small, tmp_path, monkeypatch):
    """Early Stable Diffusion checkpoints carry a Lightning callback as a key; it is neither imported nor made."""
    module = "pytorch_lightning.callbacks.model_checkpoint"
    callback = type("ModelCheckpoint", (), {"__module__": module})
    for name in ("pytorch_lightning", "pytorch_lightning.callbacks", module):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules[module].ModelCheckpoint = callback
    content = {"state_dict": small, "callbacks": {callback: {"best_model_path": ""}, "made": callback()}}
    torch.save(content, tmp_path / "v1.ckpt")
    monkeypatch.undo()
    assert load_encoder(tmp_path / "v1.ckpt").channels == 4


class _Trap:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_pickles_are_never_run(small, tmp_path):
    torch.save({"state_dict": small, "extra": _Trap(tmp_path / "run")}, tmp_path / "evil.ckpt")
    with pytest.raises(SCPError, match="Nothing of it was run"):
        load_encoder(tmp_path / "evil.ckpt")
    assert not (tmp_path / "run").exists()


def test_tensor_that_claims_more_than_it_stores_is_left_out(small, tmp_path):
    huge = torch.zeros(1).expand(1 << 40)
    torch.save({**small, "encoder.norm_out.bias": huge}, tmp_path / "bomb.pt")
    with pytest.raises(SCPError, match="conv_norm_out.bias"):
        load_encoder(tmp_path / "bomb.pt")


@pytest.mark.parametrize("content", [[1, 2], 3, {"state_dict": 4}, {1: torch.zeros(2)}])
def test_pickles_without_weights(content, tmp_path):
    torch.save(content, tmp_path / "odd.pt")
    with pytest.raises(SCPError, match=r"odd\.pt"):
        load_encoder(tmp_path / "odd.pt")


def test_paths_that_name_no_vae(tmp_path):
    with pytest.raises(SCPError, match="There is no VAE"):
        load_encoder(tmp_path / "absent.safetensors")
    with pytest.raises(SCPError, match=r"config\.json and diffusion_pytorch_model\.safetensors"):
        load_encoder(tmp_path)
    (tmp_path / "vae.gguf").write_bytes(b"GGUF")
    with pytest.raises(SCPError, match="expected a VAE as .safetensors"):
        load_encoder(tmp_path / "vae.gguf")
    save_file({}, tmp_path / "diffusion_pytorch_model.safetensors")
    for text in ("[]", "{", ""):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(SCPError, match=r"config\.json"):
            load_encoder(tmp_path)


def test_devices_and_dtypes_it_does_not_have(tmp_path):
    write_taesd(tmp_path / "taesd_encoder.safetensors")
    with pytest.raises(SCPError, match="device 'abacus' is not usable"):
        load_encoder(tmp_path / "taesd_encoder.safetensors", device="abacus")
    with pytest.raises(SCPError, match="dtype 'int8' is unknown"):
        load_encoder(tmp_path / "taesd_encoder.safetensors", dtype="int8")
    if not torch.cuda.is_available():
        with pytest.raises(SCPError, match="device 'cuda' is not usable"):
            load_encoder(tmp_path / "taesd_encoder.safetensors", device="cuda")
        assert load_encoder(tmp_path / "taesd_encoder.safetensors").dtype == torch.float32


def test_without_diffusers_the_message_says_how_to_get_it(small, tmp_path, monkeypatch):
    save_file(small, tmp_path / "vae.safetensors")
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(SCPError, match=r"-m pip install \"diffusers>="):
        load_encoder(tmp_path / "vae.safetensors")
    write_taesd(tmp_path / "taesd_encoder.safetensors")
    assert load_encoder(tmp_path / "taesd_encoder.safetensors").channels == 4


def write_taesd(path: Path, channels: int = 4, stem: str = "", seed: int = 0, **extra: Tensor) -> Weights:
    torch.manual_seed(seed)
    weights = taesd_encoder(channels).state_dict()
    save_file({**{f"{stem}{name}": tensor for name, tensor in weights.items()}, **extra}, path)
    return weights


@pytest.mark.parametrize(
    ("name", "channels", "scale", "shift"),
    [
        ("taesd_encoder", 4, 0.18215, 0.0),
        ("TAESDXL_encoder", 4, 0.13025, 0.0),
        ("taesd3_encoder", 16, 1.5305, 0.0609),
        ("taef1_encoder", 16, 0.3611, 0.1159),
    ],
)
def test_taesd_in_latent_units(name, channels, scale, shift, tmp_path):
    weights = write_taesd(tmp_path / f"{name}.safetensors", channels)
    encoder = load_encoder(tmp_path / f"{name}.safetensors")
    mean, variance = encoder.encode(photos())
    network = taesd_encoder(channels)
    network.load_state_dict(weights)
    with torch.no_grad():
        expected = network((photos() + 1) / 2) / scale + shift
    torch.testing.assert_close(mean, expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(variance, torch.zeros_like(mean))
    assert (encoder.channels, encoder.downscale) == (channels, 8)


def test_taesd_scale_comes_from_the_file_before_its_name(tmp_path):
    own = {"vae_scale": torch.tensor(0.5), "vae_shift": torch.tensor(0.25)}
    write_taesd(tmp_path / "taesd_own.safetensors", stem="taesd_encoder.", **own)
    write_taesd(tmp_path / "taesd.safetensors")
    ours, named = (load_encoder(tmp_path / f"{name}.safetensors") for name in ("taesd_own", "taesd"))
    expected = named.encode(photos()).mean * 0.18215 / 0.5 + 0.25
    torch.testing.assert_close(ours.encode(photos()).mean, expected)
    assert ours.digest != named.digest


def test_taesd_of_an_unknown_model_is_refused(tmp_path):
    write_taesd(tmp_path / "tiny.safetensors")
    with pytest.raises(SCPError, match="put taesd or taesdxl into its name"):
        load_encoder(tmp_path / "tiny.safetensors")
    write_taesd(tmp_path / "taesd_16.safetensors", 16)
    with pytest.raises(SCPError, match="which taesd has not.*put taef1 or taesd3"):
        load_encoder(tmp_path / "taesd_16.safetensors")
    write_taesd(tmp_path / "taesd_8.safetensors", 8)
    with pytest.raises(SCPError, match="a known family"):
        load_encoder(tmp_path / "taesd_8.safetensors")


def test_taesd_that_is_not_whole(tmp_path):
    weights = write_taesd(tmp_path / "taesd.safetensors")
    for lost in ("14.weight", "12.conv.2.bias"):
        save_file(_without(weights, lost), tmp_path / "taesd.safetensors")
        with pytest.raises(SCPError, match=f"tensors are missing, such as {re.escape(lost)}"):
            load_encoder(tmp_path / "taesd.safetensors")
    save_file({**weights, "14.weight": torch.zeros(0, 64, 3, 3)}, tmp_path / "taesd.safetensors")
    with pytest.raises(SCPError, match="tensors are missing, such as 14"):
        load_encoder(tmp_path / "taesd.safetensors")
    decoder = {"1.weight": torch.zeros(64, 4, 3, 3), "3.conv.0.weight": torch.zeros(64, 64, 3, 3)}
    save_file(decoder, tmp_path / "taesd_decoder.safetensors")
    with pytest.raises(SCPError, match="decoder of a VAE only"):
        load_encoder(tmp_path / "taesd_decoder.safetensors")


@needs_diffusers
def test_taesd_as_diffusers_writes_it(tmp_path):
    from diffusers import AutoencoderTiny

    torch.manual_seed(0)
    tiny = AutoencoderTiny().eval()
    folder = tmp_path / "models--madebyollin--taesdxl" / "snapshots" / "0123"
    tiny.save_pretrained(folder)
    with torch.no_grad():
        expected = tiny.encode(photos()).latents / 0.13025
    torch.testing.assert_close(load_encoder(folder).encode(photos()).mean, expected, rtol=1e-5, atol=1e-5)


_IN_HOST = """
import json, sys
import torch
import comfy.sd, comfy.utils
from safetensors.torch import load_file, save_file
plan, out = json.loads(sys.argv[1]), {}
pixels = load_file(plan["pixels"])["pixels"]
for name, parts in plan["files"].items():
    sd = {}
    for path in parts:
        sd.update(comfy.utils.load_torch_file(path))
    vae = comfy.sd.VAE(sd=sd)
    vae.throw_exception_if_invalid()
    out[name] = vae.encode(pixels).contiguous()
    again = vae.encode(pixels)
    assert torch.equal(out[name], again), "the host drew a sample"
save_file(out, plan["out"])
print(json.dumps({"vaes": len(out)}))
"""


@needs_diffusers
def test_latents_are_those_of_the_host(tmp_path):
    """The host knows one width only, so these encoders are of the real size; their decoders are one tensor long."""
    named = os.environ.get("COMFYUI_DIR", ROOT / ".host" / "ComfyUI")
    if not (Path(named) / "comfy" / "sd.py").is_file():
        pytest.skip("no ComfyUI is here (make host, or set COMFYUI_DIR)")
    sys.path.append(str(ROOT / "scripts"))
    try:
        from in_host import run
    finally:
        sys.path.remove(str(ROOT / "scripts"))

    files = {}
    for channels, quant in ((4, True), (16, False)):
        vae = make_vae(channels, (128, 256, 512, 512), quant)
        weights = to_ldm({name: tensor.half() for name, tensor in vae.state_dict().items()})
        kept = {n: t for n, t in weights.items() if not n.startswith("decoder.") or n.startswith("decoder.conv_in.")}
        save_file(kept, tmp_path / f"kl{channels}.safetensors")
        files[f"kl{channels}"] = [f"kl{channels}.safetensors"]
    for family, channels in (("taesdxl", 4), ("taesd3", 16)):
        write_taesd(tmp_path / f"{family}.safetensors", channels, "taesd_encoder.")
        scale = {"taesdxl": (0.13025, 0.0), "taesd3": (1.5305, 0.0609)}[family]
        marks = {"vae_scale": torch.tensor(scale[0]), "vae_shift": torch.tensor(scale[1])}
        save_file({**marks, "taesd_decoder.1.weight": torch.zeros(64, channels, 3, 3)}, tmp_path / f"{family}.sft")
        files[family] = [f"{family}.safetensors", f"{family}.sft"]
    pictures = photos(1, 64, 96)
    save_file({"pixels": ((pictures + 1) / 2).movedim(1, -1).contiguous()}, tmp_path / "pixels.safetensors")
    plan = {
        "pixels": str(tmp_path / "pixels.safetensors"),
        "files": {name: [str(tmp_path / part) for part in parts] for name, parts in files.items()},
        "out": str(tmp_path / "out.safetensors"),
    }
    (tmp_path / "ask.py").write_text(_IN_HOST)
    assert run(tmp_path / "ask.py", [json.dumps(plan)], base=tmp_path / "base") == {"vaes": 4}
    theirs = load_file(tmp_path / "out.safetensors")
    for name, (first, *_) in files.items():
        ours = load_encoder(tmp_path / first, device="cpu", dtype="float32").encode(pictures).mean
        assert ours.std() > 0.01
        bound = 1e-4 if name.startswith("kl") else 1e-5
        assert (ours - theirs[name]).abs().max() < bound, name
