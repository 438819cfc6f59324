"""A training checkpoint through SCPConvertCheckpoint into the host's own loaders and sampler."""

from __future__ import annotations

import logging
import re

import pytest
import torch
from safetensors import safe_open
from tiny_models import _prefixed, _text_strided, controlnet, unet, vae

# What the host's loaders say where names do not fit; some of it only at debug level.
_COMPLAINT = re.compile(r"missing|unexpected|left ?over|not a checkpoint|no CLIP|could not|error", re.IGNORECASE)
SIZE = (64, 128)


def training_state() -> dict[str, torch.Tensor]:
    """The names of a release around the smallest shapes the host recognises, float32."""
    return {
        "betas": torch.linspace(0, 1, 1000, dtype=torch.float64),
        "alphas_cumprod": torch.linspace(0, 1, 1000),
        "model_ema.num_updates": torch.tensor(7),
        **_prefixed("model.diffusion_model.", unet(0)),
        **_prefixed("first_stage_model.", vae()),
        **_prefixed("cond_stage_model.model.", wide_views(_text_strided(100))),
        **_prefixed("control_model.", controlnet(1)),
    }


def wide_views(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """In float32, and still overlapping views of short buffers: `.float()` would make whole tensors of them."""
    buffers: dict[int, torch.Tensor] = {}
    wide = {}
    for key, value in weights.items():
        storage = value.untyped_storage()
        whole = torch.empty(0, dtype=value.dtype).set_(storage).float()
        buffer = buffers.setdefault(storage.data_ptr(), whole)
        wide[key] = buffer.as_strided(value.shape, value.stride(), value.storage_offset())
    return wide


@pytest.fixture(scope="module")
def source(host):
    """`trained.ckpt` among the host's checkpoints, and its state dict."""
    state = training_state()
    adam = {0: {"step": torch.tensor(5.0), "exp_avg": torch.zeros(320, 320)}}
    content = {"state_dict": state, "global_step": 5, "optimizer_states": [{"state": adam, "param_groups": []}]}
    path = host.base / "models" / "checkpoints" / "trained.ckpt"
    torch.save(content, path)
    link = host.base / "models" / "controlnet" / "trained.ckpt"
    link.symlink_to(path)
    yield state
    for made in (link, path, *(host.base / "models").glob("*/trained_*.safetensors")):
        made.unlink(missing_ok=True)


def convert(host, dtype: str) -> None:
    host.run(host.nodes["SCPConvertCheckpoint"], checkpoint="checkpoints/trained.ckpt", dtype=dtype)


def check_tensors(host, state: dict[str, torch.Tensor], dtype: torch.dtype) -> None:
    """Both files hold the source's tensors, bit for bit at the dtype."""
    for half, starts in (
        ("controlnet", ("control_model.",)),
        ("checkpoint", ("model.diffusion_model.", "first_stage_model.", "cond_stage_model.")),
    ):
        folder = host.base / "models" / ("controlnet" if half == "controlnet" else "checkpoints")
        with safe_open(folder / f"trained_{half}.safetensors", framework="pt") as file:
            assert set(file.keys()) == {key for key in state if key.startswith(starts)}
            for key in file.keys():  # noqa: SIM118
                assert torch.equal(file.get_tensor(key), state[key].to(dtype)), key


class Loaded:
    """Model, text encoder, VAE and ControlNet of two files, and what the host complained of while it read them."""

    def __init__(self, host, caplog, checkpoint: str, net: str):
        caplog.clear()
        with caplog.at_level(logging.DEBUG):
            self.model, self.clip, self.vae = host.nodes["CheckpointLoaderSimple"]().load_checkpoint(checkpoint)
            (self.net,) = host.nodes["ControlNetLoader"]().load_controlnet(net)
        self.complaints = [record.message for record in caplog.records if _COMPLAINT.search(record.message)]

    def picture(self, host, words: list | None = None) -> torch.Tensor:
        """One graph: prompt, hint, two steps, decoded."""
        hint = torch.zeros(1, *SIZE, 3)
        hint[:, :, SIZE[1] // 2 :] = torch.tensor([0.8, 0.2, 0.4])
        if words is None:
            (words,) = host.nodes["CLIPTextEncode"]().encode(self.clip, "a road")
        positive, negative = host.nodes["ControlNetApplyAdvanced"]().apply_controlnet(
            words, words, self.net, hint, 1.0, 0.0, 1.0
        )
        latent = {"samples": torch.zeros(1, 4, SIZE[0] // 8, SIZE[1] // 8)}
        (latent,) = host.nodes["KSampler"]().sample(
            self.model, 3, 2, 4.0, "ddim", "ddim_uniform", positive, negative, latent, 1.0
        )
        (picture,) = host.nodes["VAEDecode"]().decode(self.vae, latent)
        return picture


def test_float32_halves_give_the_picture_of_the_ckpt(host, source, caplog):
    convert(host, "float32")
    check_tensors(host, source, torch.float32)
    ours = Loaded(host, caplog, "trained_checkpoint.safetensors", "trained_controlnet.safetensors")
    assert ours.complaints == []
    # Each loader reads the whole .ckpt, and says that it finds more than its own half.
    theirs = Loaded(host, caplog, "trained.ckpt", "trained.ckpt")
    picture = ours.picture(host)
    assert torch.equal(picture, theirs.picture(host))
    assert picture.std() > 0.01


def test_float16_halves_load_and_sample(host, source, caplog, conditioning):
    convert(host, "float16")
    check_tensors(host, source, torch.float16)
    ours = Loaded(host, caplog, "trained_checkpoint.safetensors", "trained_controlnet.safetensors")
    assert ours.complaints == []
    picture = ours.picture(host, conditioning)
    assert picture.isfinite().all()
    assert picture.std() > 0.01


def test_interrupting_leaves_nothing_and_the_next_run_finishes(host, source):
    """The host's own interrupt, asked for in the middle of a file."""
    import comfy.model_management
    import comfy.utils

    folder = host.base / "models" / "checkpoints"
    made = folder / "trained_checkpoint.safetensors"
    made.unlink(missing_ok=True)
    seen = []

    def hook(value, total, *_, **__):
        seen.append(value)
        if value > total // 2:
            comfy.model_management.interrupt_current_processing()

    comfy.utils.set_progress_bar_global_hook(hook)
    try:
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            convert(host, "float16")
    finally:
        comfy.utils.set_progress_bar_global_hook(None)
        comfy.model_management.interrupt_current_processing(False)
    assert seen == sorted(seen)
    assert not [path for path in folder.iterdir() if "trained_" in path.name]


def test_only_names_of_the_combo(host, source):
    node = host.nodes["SCPConvertCheckpoint"]
    options = next(port for port in node.GET_SCHEMA().inputs if port.id == "checkpoint").options
    assert {"checkpoints/trained.ckpt", "controlnet/trained.ckpt"} <= set(options)
    assert node.validate_inputs(checkpoint="checkpoints/trained.ckpt", dtype="float16") is True
    for name in ("trained.ckpt", "checkpoints/../checkpoints/trained.ckpt", "/etc/passwd", "loras/trained.ckpt", ""):
        assert "There is no checkpoint" in node.validate_inputs(checkpoint=name)
        with pytest.raises(host.library.SCPError, match="There is no checkpoint"):
            host.run(node, checkpoint=name, dtype="float16")
    assert "There is no dtype" in node.validate_inputs(dtype="int8")
