"""The demo's autoencoder: narrow in training, 64 wide on disk, and the same function."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from scp_prior.taesd import taesd_encoder
from scp_prior.vae import load_encoder

DEMO = Path(__file__).resolve().parents[2] / "demo"


pytestmark = pytest.mark.usefixtures("demo_on_path")


@pytest.fixture(scope="module")
def network():
    from tiny_vae import TinyVAE

    torch.manual_seed(0)
    return TinyVAE().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def pictures():
    return torch.rand(2, 3, 32, 64, generator=torch.Generator().manual_seed(1))


def test_the_wide_encoder_computes_what_the_narrow_one_does(network, pictures):
    from tiny_vae import widen

    wide = taesd_encoder(4)
    weights = widen(network.state_dict())
    wide.load_state_dict({k.removeprefix("taesd_encoder."): v for k, v in weights.items() if "encoder" in k})
    torch.testing.assert_close(wide(pictures), network.encoder(pictures), rtol=1e-4, atol=1e-5)


def test_narrow_undoes_widen(network, pictures):
    from tiny_vae import narrow, widen

    back = narrow(widen(network.state_dict()))
    assert torch.equal(back.encoder(pictures), network.to(memory_format=torch.channels_last).encoder(pictures))
    latents = network.encoder(pictures)
    assert torch.equal(back.decoder(latents), network.decoder(latents))


def test_reduce_reads_the_exported_file(network, pictures, tmp_path):
    from tiny_vae import SCALE, widen

    save_file(widen(network.state_dict()), tmp_path / "vae.safetensors")
    encoded = load_encoder(tmp_path / "vae.safetensors", device="cpu", dtype="float32").encode(pictures * 2 - 1)
    torch.testing.assert_close(encoded.mean * SCALE, network.encoder(pictures), rtol=1e-4, atol=1e-4)


def test_the_decoder_gives_pictures_of_eight_times_the_size(network):
    assert network.decoder(torch.zeros(1, 4, 3, 5)).shape == (1, 3, 24, 40)


def test_weights_taesd_has_no_place_for_are_refused(network):
    from tiny_vae import widen

    with pytest.raises(ValueError, match="no place for"):
        widen({**network.state_dict(), "encoder.99.weight": torch.zeros(1)})


def test_the_committed_files_are_those_their_sums_name_and_small():
    import hashlib

    weights = DEMO / "weights"
    lines = (weights / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    named = dict(reversed(line.split("  ")) for line in lines)
    assert set(named) == {path.name for path in weights.glob("*.safetensors")}
    for name, digest in named.items():
        assert hashlib.sha256((weights / name).read_bytes()).hexdigest() == digest, name
    assert sum((weights / name).stat().st_size for name in named) <= 25e6


def test_the_committed_files_say_how_they_were_made():
    import json

    from safetensors import safe_open

    for name in ("scp-demo", "scp-demo-controlnet", "scp-demo-vae"):
        with safe_open(DEMO / "weights" / f"{name}.safetensors", framework="pt") as file:
            metadata = file.metadata()
        assert {"recipe", "commit", "data", "license", "losses", "torch"} <= metadata.keys()
        assert {"seed", "steps", "batch", "scenes"} <= json.loads(metadata["recipe"]).keys()
