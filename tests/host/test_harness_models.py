"""The stand-in models and the demonstration set, as far as they need no host."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import demo_set
import numpy as np
import pytest
import tiny_models
import torch
from PIL import Image
from safetensors import safe_open

from scp_prior.classes import palette, table
from scp_prior.labels import labels_from_image
from scp_prior.preview import latent_to_rgb


def test_models_are_deterministic_and_follow_their_seed(tmp_path: Path) -> None:
    hashes = []
    for seed in (1, 1, 2):
        tiny_models.write_controlnet(tmp_path / "net.safetensors", seed)
        hashes.append(hashlib.sha256((tmp_path / "net.safetensors").read_bytes()).hexdigest())
    assert hashes[0] == hashes[1] != hashes[2]
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors"]


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_checkpoint_holds_all_three_models_in_little_room(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"tiny{suffix}"
    tiny_models.write_checkpoint(path)
    if suffix == ".ckpt":
        names = set(torch.load(path, weights_only=True)["state_dict"])
    else:
        with safe_open(path, "pt") as file:
            names = set(file.keys())
            words = file.get_slice("cond_stage_model.model.token_embedding.weight")
            assert words[320:321].abs().sum() > 0
            assert words[-1:].abs().sum() > 0
    for prefix in ("model.diffusion_model.", "first_stage_model.", "cond_stage_model.model."):
        assert any(name.startswith(prefix) for name in names)
    if hasattr(os.stat_result, "st_blocks") and os.name == "posix":
        assert path.stat().st_blocks * 512 < 100e6


def test_vae_decodes_as_the_preview_does_and_encodes_back() -> None:
    weights = tiny_models.vae()
    factors = tiny_models.RGB_FACTORS
    latent = torch.linspace(-1, 1, 4)
    into = weights["taesd_decoder.1.weight"][:, :, 1, 1] @ latent
    last = max((name for name in weights if name.startswith("taesd_decoder.") and name.count(".") == 2), key=_number)
    back = weights[last.replace(".bias", ".weight")][:, :, 1, 1] @ into.relu() + 0.5
    torch.testing.assert_close(back, 0.5 + 0.5 * latent @ factors)
    rgb = torch.tensor([0.1, 0.5, 0.9]) * 2 - 1
    torch.testing.assert_close(rgb @ torch.linalg.pinv(factors) @ factors, rgb)


def _number(name: str) -> int:
    return int(name.split(".")[1])


def test_encoded_scene_previews_in_its_own_colours() -> None:
    scene = demo_set.draw_scene(1, table("cityscapes"), size=(64, 128))
    picture = torch.from_numpy(scene.picture)
    shown = latent_to_rgb(demo_set.encode(picture)[None])[0]
    pooled = picture.reshape(8, 8, 16, 8, 3).mean(dim=(1, 3))
    torch.testing.assert_close(shown, pooled, atol=1e-4, rtol=0)


def test_accumulate_equals_a_slow_loop() -> None:
    rng = np.random.default_rng(0)
    pairs = [
        (rng.choice([0, 3, 255], (16, 32)), torch.from_numpy(rng.normal(5, 2, (4, 2, 4)).astype(np.float32)))
        for _ in range(6)
    ]
    found = demo_set.accumulate(iter(pairs), table("cityscapes"))
    assert found["class_ids"].tolist() == [0, 3, 255]
    for row, label in enumerate(found["class_ids"].tolist()):
        everything = []
        for y in range(2):
            for x in range(4):
                here = [latent[:, y, x] for labels, latent in pairs if labels[y * 8, x * 8] == label]
                everything += here
                assert found["joint.count"][row, y, x] == len(here)
                if here:
                    values = torch.stack(here).double()
                    _close(found["joint.mean"][row, :, y, x], values.mean(0))
                    _close(found["joint.std"][row, :, y, x], values.std(0, correction=0))
        values = torch.stack(everything).double()
        assert found["class.count"][row] == len(everything)
        _close(found["class.mean"][row], values.mean(0))
        _close(found["class.std"][row], values.std(0, correction=0))
    values = torch.stack([latent for _, latent in pairs]).double()
    _close(found["spatial.mean"], values.mean(0))
    _close(found["spatial.std"], values.std(0, correction=0))


def _close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected.float(), atol=2e-4, rtol=1e-5)


@pytest.mark.parametrize("name", ["cityscapes", "cityscapes-ids", "ade20k", "coco-stuff", "ade20k-controlnet"])
def test_segmentation_image_is_read_back_without_a_stray_pixel(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a map.png"
    demo_set.write_segmentation(path, name, size=(64, 128))
    with Image.open(path) as image:
        read = labels_from_image(torch.from_numpy(np.array(image))[None], palette(name), 0.0)
    assert not read.unmatched.any()
    assert len(read.labels.unique()) >= 5


def test_prepare_writes_what_a_prompt_names_and_keeps_the_users_picture(tmp_path: Path) -> None:
    prompt = {
        "1": {"class_type": "VAELoader", "inputs": {"vae_name": "some vae.safetensors"}},
        "2": {"class_type": "ControlNetLoader", "inputs": {"control_net_name": "sub/net.safetensors"}},
        "3": {"class_type": "LoadImage", "inputs": {"image": "mine.png"}},
        "4": {"class_type": "LoadImage", "inputs": {"image": "new.png"}},
        "5": {"class_type": "SCPLabelsFromImage", "inputs": {"palette": "ade20k", "image": ["4", 0]}},
    }
    mine = tmp_path / "base" / "input" / "mine.png"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    for _ in range(2):
        written = demo_set.prepare(prompt, tmp_path / "base", cache=tmp_path / "cache")
        assert [path.name for path in written] == ["some vae.safetensors", "net.safetensors", "mine.png", "new.png"]
        assert all(path.is_file() for path in written)
    assert mine.read_bytes() == b"mine"
    assert len(list((tmp_path / "cache").iterdir())) == 2
    assert not list(tmp_path.rglob("*.tmp"))
