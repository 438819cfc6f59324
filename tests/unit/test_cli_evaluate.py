"""`evaluate-prior` on the command line: from encoded latents, and from photos all the way."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import make_statistics
from PIL import Image
from reducing import SIZE, StubEncoder, arguments, make_pairs
from safetensors.torch import save_file
from small_vae import write_small_vae

import scp_prior.vae
from benchmarks.quality_data import draw
from scp_prior import load_statistics, prior_maps, save_statistics
from scp_prior.cli import main
from scp_prior.evaluate import Asked, evaluate
from scp_prior.held_out import HeldOut

needs_diffusers = pytest.mark.skipif(not importlib.util.find_spec("diffusers"), reason="diffusers is not installed")
GRID = (4, 6)


@pytest.fixture
def statistics(tmp_path) -> Path:
    path = tmp_path / "toy.safetensors"
    save_statistics(make_statistics((0, 1, 2, 3, 4), size=GRID), path)
    return path


@pytest.fixture
def latents(tmp_path) -> Path:
    folder = tmp_path / "latents"
    folder.mkdir()
    pictures = draw("flat", 9, seed=3, size=GRID, classes=5)
    for i, (latent, labels) in enumerate(zip(*pictures, strict=True)):
        save_file({"latent": latent.contiguous(), "labels": labels.to(torch.uint8)}, folder / f"{i:02}.safetensors")
    return folder


def run(*words: object) -> int:
    return main(["evaluate-prior", *(str(word) for word in words)])


def usage(capsys, *words: object) -> str:
    with pytest.raises(SystemExit) as ended:
        run(*words)
    assert ended.value.code == 2
    return " ".join(capsys.readouterr().err.split())


def failure(capsys, *words: object) -> str:
    assert run(*words) == 1
    lines = capsys.readouterr().err.replace("\r", "\n").splitlines()
    assert lines[-1].startswith("error: ")
    return lines[-1]


# --- latents --------------------------------------------------------------------------------------------------------


def test_latents_of_a_folder(statistics, latents, tmp_path, capsys):
    out = tmp_path / "found.json"
    words = ["--methods", "class", "spatial", "--sigma", "0", "1.5", "--timestep", "500", "--latent-scale", "1"]
    assert run(statistics, "--latents", latents, *words, "--out", out, "--classes") == 0
    found = json.loads(out.read_text(encoding="utf-8"))
    pictures = HeldOut(*draw("flat", 9, seed=3, size=GRID, classes=5))
    asked = Asked(("class", "spatial"), (0.0, 1.5), (500,), 1.0)
    wanted = evaluate(load_statistics(statistics), [pictures], asked, dataset="latents")
    assert found["pictures"] == 9
    assert [m["method"] for m in found["methods"]] == ["class", "spatial"]
    for mine, theirs in zip(found["methods"], wanted.methods, strict=True):
        assert mine["nll"] == pytest.approx(theirs.nll)
        assert mine["frechet_cell"] == pytest.approx(theirs.frechet_cell)
    text = capsys.readouterr().out
    assert "toy.safetensors: 9 pictures of latents" in text
    assert f"{wanted.methods[0].nll[0]:.4f}" in text
    assert "classes, class" in text


def test_a_limit_is_that_many_drawn_without_replacement(statistics, latents, tmp_path):
    made = []
    for seed in (0, 0, 1):
        assert run(statistics, "--latents", latents, "--limit", 4, "--seed", seed, "--out", tmp_path / "a.json") == 0
        made.append(json.loads((tmp_path / "a.json").read_text(encoding="utf-8")))
    assert made[0]["pictures"] == 4
    assert made[0] == made[1] != made[2]


def test_files_that_are_not_what_they_should_be(statistics, latents, tmp_path, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "`latent` (C, h, w) and `labels` (h, w)" in failure(capsys, statistics, "--latents", empty)
    assert "no .safetensors" in failure(capsys, statistics, "--latents", tmp_path / "nowhere")
    bad = latents / "03.safetensors"
    good = {"latent": torch.zeros(4, *GRID), "labels": torch.zeros(GRID, dtype=torch.int64)}
    for tensors, message in (
        ({"latent": good["latent"]}, "no labels"),
        ({**good, "latent": torch.zeros(1, 4, *GRID)}, "(1, 4, 4, 6); expected floats of shape (C, h, w)"),
        ({**good, "latent": torch.zeros(4, *GRID, dtype=torch.int32)}, "int32"),
        ({**good, "labels": torch.zeros(GRID)}, "expected integers"),
        ({**good, "latent": torch.zeros(4, 8, 12)}, "pictures of one size"),
        ({**good, "latent": torch.full((4, *GRID), math.nan)}, "NaN"),
    ):
        save_file(tensors, bad)
        assert message in failure(capsys, statistics, "--latents", latents, "--out", tmp_path / "a.json")
    bad.write_bytes(b"not that")
    assert "03.safetensors cannot be read" in failure(capsys, statistics, "--latents", latents)
    assert not (tmp_path / "a.json").exists()


# --- photos ---------------------------------------------------------------------------------------------------------


class Certain(StubEncoder):
    """A stub without variance: its latents can be foretold."""

    def encode(self, photos):
        mean, variance = super().encode(photos)
        return mean, torch.zeros_like(variance)


@pytest.fixture
def stub(monkeypatch) -> StubEncoder:
    encoder = Certain()
    monkeypatch.setattr(scp_prior.vae, "load_encoder", lambda *_, **__: encoder)
    return encoder


@pytest.fixture
def reduced(tmp_path, stub) -> Path:
    out = tmp_path / "own.safetensors"
    assert main(arguments(make_pairs(tmp_path / "train", 8), out, "--workers", "0")) == 0
    stub.seen.clear()
    return out


def of_folder(root: Path) -> list[object]:
    return ["--dataset", "folder", "--images", root / "images", "--labels", root / "labels", "--vae", "stub"]


def test_photos_to_numbers(reduced, stub, tmp_path, capsys):
    root, out = make_pairs(tmp_path / "val", 11), tmp_path / "found.json"
    assert run(reduced, *of_folder(root), "--workers", 0, "--sigma", 0, "--latent-scale", 1, "--out", out) == 0
    assert stub.seen == list(range(11))
    found = {m["method"]: m for m in json.loads(out.read_text(encoding="utf-8"))["methods"]}
    assert {"joint", "joint-spatial", "joint-class", "class", "spatial", "mixture"} == set(found)

    statistics, nll = load_statistics(reduced), []
    for number in range(11):
        photo = np.asarray(Image.open(root / "images" / f"{number:04}.png")).copy()
        label = torch.from_numpy(np.asarray(Image.open(root / "labels" / f"{number:04}.png")).astype(np.int64))
        z, _ = Certain().encode(torch.from_numpy(photo).permute(2, 0, 1)[None] / 127.5 - 1)
        maps = prior_maps(statistics, label[None, ::8, ::8], "class")
        law = torch.distributions.Normal(maps.mean.double(), maps.std.double())
        nll.append(-float(law.log_prob(z.double()).mean()))
    assert found["class"]["nll"][0] == pytest.approx(np.mean(nll), rel=1e-6)
    assert "11 pictures of folder" in capsys.readouterr().out


def test_a_latent_is_a_draw_of_what_the_encoder_says(reduced, tmp_path, monkeypatch):
    """Its variance counts, and the same photos give the same numbers."""
    root, out, found = make_pairs(tmp_path / "val", 6), tmp_path / "a.json", []
    for encoder in (Certain(), StubEncoder(), StubEncoder()):
        monkeypatch.setattr(scp_prior.vae, "load_encoder", lambda *_, e=encoder, **__: e)
        words = ["--methods", "class", "--workers", 0, "--batch-size", 1 + len(found), "--out", out]
        assert run(reduced, *of_folder(root), *words) == 0
        found.append(json.loads(out.read_text(encoding="utf-8"))["methods"][0]["nll"])
    assert found[1] == pytest.approx(found[2], rel=1e-6)
    assert found[1][0] > found[0][0]


def test_what_cannot_be_read_stops_or_is_listed(reduced, tmp_path, capsys):
    root = make_pairs(tmp_path / "val", 5)
    (root / "images" / "0003.png").write_bytes(b"not a picture")
    words = [reduced, *of_folder(root), "--workers", 0, "--batch-size", 1, "--methods", "class"]
    assert "images/0003.png" in failure(capsys, *words)
    assert run(*words, "--on-error", "skip") == 0
    captured = capsys.readouterr()
    assert "4 pictures" in captured.out
    assert captured.err.count("left out: ") == 1
    assert "0003.png" in captured.err
    (root / "labels" / "0001.png").unlink()
    assert "--on-error skip" in failure(capsys, *words)


def test_another_vae_is_noted(reduced, stub, tmp_path, capsys):
    root = make_pairs(tmp_path / "val", 2)
    words = [reduced, *of_folder(root), "--workers", 0, "--methods", "class"]
    assert run(*words) == 0
    assert "note:" not in capsys.readouterr().out
    stub.name = "other.safetensors sha256:ba9876543210"
    assert run(*words) == 0
    assert "encoded with other.safetensors" in capsys.readouterr().out


def test_the_size_is_that_of_the_statistics_or_the_one_asked_for(reduced, stub, tmp_path, capsys):
    root, out = make_pairs(tmp_path / "val", 2), tmp_path / "a.json"
    words = [reduced, *of_folder(root), "--workers", 0, "--methods", "spatial", "--out", out]
    sizes = []
    for more in ([], ["--size", "64x64"]):
        assert run(*words, *more) == 0
        sizes.append(json.loads(out.read_text(encoding="utf-8"))["latent_size"])
    assert sizes == [[SIZE[0] // 8, SIZE[1] // 8], [8, 8]]
    assert "no multiple of 8" in usage(capsys, *words, "--size", "60x64")
    save_statistics(make_statistics(parts=("class",)), tmp_path / "class.safetensors")
    assert "give --size" in usage(capsys, tmp_path / "class.safetensors", *of_folder(root))


@needs_diffusers
def test_all_the_way_with_a_vae_of_the_real_architecture(tmp_path):
    vae, out = write_small_vae(tmp_path / "vae"), tmp_path / "found.json"
    train, val = make_pairs(tmp_path / "train", 6), make_pairs(tmp_path / "val", 4)
    made = tmp_path / "own.safetensors"
    words = [word if word != "stub" else str(vae) for word in arguments(train, made, "--workers", "0")]
    assert main(words) == 0
    words = [word if word != "stub" else vae for word in of_folder(val)]
    assert run(made, *words, "--workers", 0, "--timestep", 801, "--out", out) == 0
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["pictures"] == 4
    assert all(math.isfinite(number) for m in found["methods"] for number in m["nll"])


# --- words ----------------------------------------------------------------------------------------------------------


def test_words_that_do_not_fit_together(statistics, latents, capsys):
    assert "--dataset and --vae must be given, or --latents" in usage(capsys, statistics)
    assert "--vae must be given" in usage(capsys, statistics, "--dataset", "cityscapes")
    assert "two sources" in usage(capsys, statistics, "--latents", latents, "--dataset", "folder")
    assert "two sources" in usage(capsys, statistics, "--latents", latents, "--size", "64x64")
    assert "not negative" in usage(capsys, statistics, "--latents", latents, "--sigma", "-1")
    assert "0..999" in usage(capsys, statistics, "--latents", latents, "--timestep", 1000)
    assert "root" in usage(capsys, statistics, "--dataset", "cityscapes", "--vae", "x")


def test_a_method_nobody_knows(statistics, latents, capsys):
    assert "Did you mean 'joint'" in failure(capsys, statistics, "--latents", latents, "--methods", "jiont")


def test_a_figure_that_cannot_be_drawn_is_known_before_the_work(statistics, latents, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    words = [statistics, "--latents", latents, "--out", tmp_path / "a.json", "--figure", tmp_path / "a.png"]
    assert "pip install matplotlib" in failure(capsys, *words)
    assert not (tmp_path / "a.json").exists()
