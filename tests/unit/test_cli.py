"""The command line, called as a function and once as a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import make_statistics
from PIL import Image
from shared_data import require

from scp_prior import Statistics, cli, load_statistics, save_statistics
from scp_prior.classes import palette
from scp_prior.cli import main
from scp_prior.labels import hint_from_labels, to_latent_grid
from scp_prior.preview import latent_to_rgb
from scp_prior.prior import prior_maps, sample_prior

ROOT = Path(__file__).resolve().parents[2]
H, W = 6, 10


@pytest.fixture
def file(tmp_path) -> Path:
    """A statistics file of Cityscapes, classes 0, 8 and 10, for pictures of 48x80 pixels."""
    generator = torch.Generator().manual_seed(3)
    k = 3
    tensors = {
        "class_ids": torch.tensor([0, 8, 10]),
        "joint.count": torch.randint(0, 5, (k, H, W), generator=generator, dtype=torch.int32),
        "joint.mean": torch.randn(k, 4, H, W, generator=generator) * 5,
        "joint.std": torch.rand(k, 4, H, W, generator=generator),
        "class.count": torch.tensor([5, 6, 7]),
        "class.mean": torch.randn(k, 4, generator=generator) * 5,
        "class.std": torch.rand(k, 4, generator=generator) + 0.1,
        "spatial.mean": torch.randn(4, H, W, generator=generator) * 5,
        "spatial.std": torch.rand(4, H, W, generator=generator) + 0.1,
    }
    metadata = {
        "dataset": "cityscapes",
        "palette": "cityscapes",
        "class_names": '{"0": "road", "8": "vege\\u001btation"}',
    }
    path = tmp_path / "s.safetensors"
    save_statistics(Statistics.from_tensors(tensors, metadata), path)
    return path


@pytest.fixture
def ids() -> np.ndarray:
    """A label map (48, 80) of road, vegetation and sky in bands."""
    return np.repeat([10, 8, 0], 16)[:, None].repeat(80, axis=1).astype(np.uint8)


def failure(capsys, *argv: object) -> str:
    """Run a command that must fail, and return its one line."""
    assert main([str(word) for word in argv]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return captured.err


# convert


def test_convert_writes_a_file_that_loads(tmp_path, capsys):
    folder = require("parity/ref_stats/cityscapes")
    out = tmp_path / "c.safetensors"
    assert main(["convert", str(folder), "--dataset", "cityscapes", "--out", str(out)]) == 0
    assert "20 classes, 4 channels, 12x24 latent cells" in capsys.readouterr().out
    whole = load_statistics(out)
    assert whole.latent_size == (12, 24)
    files = sorted(str(path) for path in folder.iterdir())
    other = tmp_path / "d.safetensors"
    assert main(["convert", *files, "--dataset", "cityscapes", "--out", str(other), "--scale-factor", "1"]) == 0
    model_units = load_statistics(other).tensors()["joint.mean"]
    assert torch.allclose(model_units, whole.tensors()["joint.mean"] * 0.18215, rtol=1e-5)


def test_convert_of_one_file_keeps_only_its_part(tmp_path):
    spatial = require("parity/ref_stats/cityscapes/cs_mini_spatial_mean_std.npy")
    out = tmp_path / "c.safetensors"
    assert main(["convert", str(spatial), "--dataset", "cityscapes", "--out", str(out)]) == 0
    statistics = load_statistics(out)
    assert (statistics.has_spatial, statistics.has_joint, statistics.has_categorical) == (True, False, False)


def test_convert_errors_are_one_line_and_leave_no_file(tmp_path, capsys):
    evil = tmp_path / "x_spatial_mean_std.npy"
    out = tmp_path / "o.safetensors"
    evil.write_bytes(
        b"\x93NUMPY\x01\x00\x39\x00{'descr': '|O', 'fortran_order': False, 'shape': (), }  \n\x80\x03cos\nsystem\n"
    )
    assert "os.system" in failure(capsys, "convert", tmp_path, "--dataset", "cityscapes", "--out", out)
    assert ".safetensors" in failure(
        capsys, "convert", tmp_path, "--dataset", "cityscapes", "--out", tmp_path / "o.npy"
    )
    assert "'pascal'" in failure(capsys, "convert", tmp_path, "--dataset", "pascal", "--out", out)
    missing = tmp_path / "missing"
    assert "missing" in failure(capsys, "convert", missing, "--dataset", "cityscapes", "--out", out)
    assert [path.name for path in tmp_path.iterdir()] == [evil.name]


# inspect


def test_inspect_prints_what_is_held(file, capsys):
    assert main(["inspect", str(file)]) == 0
    text = capsys.readouterr().out
    assert "joint + class + spatial, 3 classes, 4 channels, 6x10 latent cells" in text
    rows = [line.split() for line in text.splitlines()]
    assert ["0", "road", "5"] in [row[:3] for row in rows]
    assert "\x1b" not in text
    assert "class_names" not in text


def test_inspect_json_is_the_description(file, capsys):
    assert main(["inspect", "--json", str(file)]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(load_statistics(file).describe()))


def test_inspect_in_a_process_of_its_own(file):
    run = [sys.executable, "-m", "scp_prior", "inspect", "--json"]
    done = subprocess.run([*run, str(file)], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert [row["id"] for row in json.loads(done.stdout)["classes"]] == [0, 8, 10]
    done = subprocess.run([*run, "absent"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


PACKAGE = ROOT / "scp_prior"


def isolated(*words: object, cwd: Path, **options) -> subprocess.CompletedProcess[str]:
    """Run Python as portable ComfyUI's is set up: no current folder on its path, no variables."""
    command = [sys.executable, "-I", *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False, **options)


@pytest.mark.parametrize(
    ("folder", "cwd"), [("scp_prior", ROOT), (".", PACKAGE), (PACKAGE, PACKAGE), (PACKAGE / "__main__.py", PACKAGE)]
)
def test_an_isolated_python_runs_the_folder(file, folder, cwd):
    done = isolated(folder, "inspect", "--json", file, cwd=cwd)
    assert (done.returncode, done.stderr) == (0, "")
    assert [row["id"] for row in json.loads(done.stdout)["classes"]] == [0, 8, 10]


def test_the_folder_runs_from_anywhere_and_hides_no_module_of_pythons(file, tmp_path):
    asked = "import statistics, scp_prior.statistics; print(statistics.median([1, 2, 6]), scp_prior.statistics.FORMAT)"
    done = isolated("-i", PACKAGE, "inspect", file, cwd=tmp_path, input=f"{asked}\n")
    assert "3 classes" in done.stdout
    assert done.stdout.endswith("2 scp-statistics\n"), done.stderr


def test_usage_says_how_it_was_called(tmp_path):
    done = isolated(PACKAGE, cwd=tmp_path)
    assert done.returncode == 2
    assert " ".join(done.stderr.split()).startswith(f"usage: python {PACKAGE}")


def test_a_console_without_the_characters_of_a_name_shows_others(tmp_path):
    names = {"0": "道路", "1": "façade", "3": "ζῷον \U0001f600"}
    path = tmp_path / "s.safetensors"
    save_statistics(make_statistics(class_names=json.dumps(names)), path)
    run = [sys.executable, "-m", "scp_prior", "inspect", str(path)]
    options = {"cwd": ROOT, "env": os.environ | {"PYTHONIOENCODING": "cp1252"}, "capture_output": True}
    done = subprocess.run(run, **options, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    rows = [line.split() for line in done.stdout.decode("cp1252").splitlines()]
    assert ["0", "??"] in [row[:2] for row in rows]
    assert ["1", "façade"] in [row[:2] for row in rows]
    done = subprocess.run([*run, "--json"], **options, timeout=120, check=False)
    assert [row["name"] for row in json.loads(done.stdout)["classes"]] == [*names.values(), ""]


def test_inspect_shows_an_unknown_count_as_such(tmp_path, capsys):
    tensors = {"class_ids": torch.tensor([3, 4]), "class.count": torch.tensor([0, 7])}
    tensors |= {"class.mean": torch.ones(2, 4), "class.std": torch.ones(2, 4)}
    path = tmp_path / "k.safetensors"
    save_statistics(Statistics.from_tensors(tensors, {}), path)
    assert main(["inspect", str(path)]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[-2:] == [["3", "-", "-"], ["4", "7", "-"]]


# preview


def preview(file: Path, picture: Image.Image, *options: object) -> np.ndarray:
    source, out = file.parent / "map.png", file.parent / "out.png"
    picture.save(source)
    assert main(["preview", str(file), "--labels", str(source), "--out", str(out), *map(str, options)]) == 0
    return np.array(Image.open(out))


def panels(pixels: np.ndarray, size: tuple[int, int]) -> list[np.ndarray]:
    height, width = size
    assert pixels.shape == (height, 3 * width + 2 * 8, 3)
    return [pixels[:, i * (width + 8) : i * (width + 8) + width] for i in range(3)]


def as_bytes(picture: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
    height, width = size
    rows = np.arange(height) * picture.shape[1] // height
    columns = np.arange(width) * picture.shape[2] // width
    return (picture[0].numpy()[rows][:, columns] * 255).round().astype(np.uint8)


@pytest.mark.parametrize(("method", "seed"), [("joint", 0), ("class", 7), ("spatial", 2**40)])
def test_preview_shows_labels_mean_and_sample(file, ids, method, seed):
    shown = panels(preview(file, Image.fromarray(ids), "--method", method, "--seed", seed), (48, 80))
    labels = torch.from_numpy(ids.astype(np.int64)).unsqueeze(0)
    maps = prior_maps(load_statistics(file), to_latent_grid(labels, (H, W)), method)
    expected = [
        hint_from_labels(labels, palette("cityscapes")),
        latent_to_rgb(maps.mean),
        latent_to_rgb(sample_prior(maps, seed)),
    ]
    for ours, theirs in zip(shown, expected, strict=True):
        assert np.abs(ours.astype(int) - as_bytes(theirs, (48, 80))).max() <= 1


def colour_picture(ids: np.ndarray, name: str) -> Image.Image:
    labels = torch.from_numpy(ids.astype(np.int64)).unsqueeze(0)
    return Image.fromarray((hint_from_labels(labels, palette(name))[0] * 255).round().to(torch.uint8).numpy())


def indexed_picture(ids: np.ndarray) -> Image.Image:
    picture = Image.fromarray(ids, mode="L").copy()
    picture.putpalette([value for i in range(256) for value in ((i * 37) % 256, (i * 91) % 256, (i * 53) % 256)])
    assert picture.mode == "P"
    assert not np.array_equal(np.array(picture.convert("L")), ids)
    return picture


def test_every_kind_of_map_means_the_same_labels(file, ids):
    train_to_id = palette("cityscapes").table.convert_to["cityscapes-ids"]
    full_ids = np.vectorize(train_to_id.__getitem__)(ids).astype(np.uint8)
    expected = preview(file, Image.fromarray(ids))
    rgb = colour_picture(ids, "cityscapes")
    quantised = rgb.quantize(8)
    assert quantised.mode == "P"
    for picture, options in (
        (indexed_picture(ids), ()),
        (Image.fromarray(ids.astype(np.uint16)), ()),
        (rgb, ()),
        (rgb.convert("RGBA"), ("--palette", "cityscapes")),
        (quantised, ("--palette", "cityscapes")),
        (Image.fromarray(ids), ("--palette", "cityscapes-grey")),
        (Image.fromarray(full_ids), ("--palette", "cityscapes-ids-grey")),
        (colour_picture(full_ids, "cityscapes-ids"), ("--palette", "cityscapes-ids")),
    ):
        assert np.array_equal(preview(file, picture, *options), expected), (picture.mode, options)


def test_preview_size_is_the_users(file, ids):
    assert panels(preview(file, Image.fromarray(ids), "--size", "96x64"), (96, 64))


def test_preview_says_which_ids_are_unknown(file, ids, capsys):
    ids[:8] = 17
    preview(file, Image.fromarray(ids))
    assert "class 17 (16.7%)" in capsys.readouterr().out


def test_preview_of_class_statistics_takes_the_size_of_the_map(tmp_path, ids):
    tensors = {"class_ids": torch.tensor([0]), "class.count": torch.tensor([1])}
    tensors |= {"class.mean": torch.ones(1, 4), "class.std": torch.ones(1, 4)}
    path = tmp_path / "k.safetensors"
    save_statistics(Statistics.from_tensors(tensors, {}), path)
    assert panels(preview(path, Image.fromarray(ids[:45, :79]), "--method", "class"), (40, 72))


def test_preview_errors_name_the_way_out(file, ids, tmp_path, capsys):
    source, out = tmp_path / "m.png", tmp_path / "p.png"
    Image.fromarray(ids).save(source)
    call = ["preview", file, "--labels", source, "--out", out]
    assert "48x72 or 56x80" in failure(capsys, *call, "--size", "50x75")
    assert "ade20k" in failure(capsys, *call, "--palette", "ade20k-grey")
    assert "no-such" in failure(capsys, *call, "--palette", "no-such")
    assert "joint-class" in failure(capsys, *call, "--method", "joints")
    assert ".png" in failure(capsys, *call[:-1], tmp_path / "p.txt")
    assert "No such file" in failure(capsys, "preview", file, "--labels", tmp_path / "n.png", "--out", out)
    assert "not a picture" in failure(capsys, "preview", file, "--labels", file, "--out", out)
    source.write_bytes(source.read_bytes()[:60])
    assert "Cannot read" in failure(capsys, *call)
    assert not out.exists()


def test_preview_names_the_palette_a_picture_is_in(file, tmp_path, capsys):
    source = tmp_path / "m.png"
    colour_picture(np.arange(1, 151, dtype=np.uint8).reshape(10, 15), "ade20k-controlnet").save(source)
    line = failure(capsys, "preview", file, "--labels", source, "--out", tmp_path / "p.png")
    assert "--palette ade20k-controlnet" in line


def test_a_colour_picture_needs_a_palette_where_the_file_names_none(tmp_path, ids, capsys):
    tensors = {"class_ids": torch.tensor([0]), "class.count": torch.tensor([1])}
    tensors |= {"class.mean": torch.ones(1, 4), "class.std": torch.ones(1, 4)}
    path, source = tmp_path / "k.safetensors", tmp_path / "m.png"
    save_statistics(Statistics.from_tensors(tensors, {"palette": "my-own"}), path)
    colour_picture(ids, "cityscapes").save(source)
    assert "give --palette" in failure(capsys, "preview", path, "--labels", source, "--out", tmp_path / "p.png")


OWN_COLOURS = {0: (200, 30, 30), 1: (10, 220, 90), 3: (40, 50, 250)}


@pytest.fixture
def own(tmp_path) -> tuple[Path, Path]:
    """Statistics of somebody's own classes 0, 1, 3 and 255, and their class table."""
    file, table = tmp_path / "own.safetensors", tmp_path / "cityscapes.csv"
    save_statistics(make_statistics(size=(H, W), dataset="", class_names='{"0": "sea", "1": "sand"}'), file)
    rows = (f"{k},{name},{','.join(map(str, OWN_COLOURS[k]))}" for k, name in ((0, "sea"), (1, "sand"), (3, "boat")))
    table.write_text("\n".join(["id,name,r,g,b", *rows]), encoding="utf-8")
    return file, table


@pytest.mark.parametrize("holds", ["ids", "colours", "indexed colours"])
def test_preview_reads_and_paints_the_users_own_table(own, holds):
    file, table = own
    ids = np.repeat([3, 1, 0], 16)[:, None].repeat(80, axis=1).astype(np.uint8)
    colours = np.array([OWN_COLOURS.get(k, (0, 0, 0)) for k in range(4)], dtype=np.uint8)[ids]
    picture = Image.fromarray(ids if holds == "ids" else colours)
    picture = picture.quantize(3) if holds == "indexed colours" else picture
    shown = panels(preview(file, picture, "--table", table), (48, 80))
    assert np.array_equal(shown[0], colours)
    labels = torch.from_numpy(ids.astype(np.int64)).unsqueeze(0)
    maps = prior_maps(load_statistics(file), to_latent_grid(labels, (H, W)), "joint")
    assert np.abs(shown[1].astype(int) - as_bytes(latent_to_rgb(maps.mean), (48, 80))).max() <= 1


def test_preview_refuses_a_table_of_other_classes(own, file, ids, tmp_path, capsys):
    mine, table = own
    source, out = tmp_path / "m.png", tmp_path / "p.png"
    Image.fromarray(np.zeros_like(ids)).save(source)
    call = ["--labels", source, "--out", out, "--table"]
    assert "holds statistics of cityscapes" in failure(capsys, "preview", file, *call, table)
    table.write_text(table.read_text().replace("sea", "sky"))
    assert "0 is 'sky' in the label map and 'sea'" in failure(capsys, "preview", mine, *call, table)
    assert "gone.csv" in failure(capsys, "preview", mine, *call, tmp_path / "gone.csv")
    assert not out.exists()


def test_real_label_maps_are_read_as_ids(file, tmp_path):
    for folder in ("data/ade20k_labels_only", "data/coco_stuff_labels_only"):
        path = sorted(require(folder).rglob("*.png"))[0]
        with Image.open(path) as picture:
            labels = cli._read_labels(path, None, load_statistics(file))[0]
            assert labels.shape[1:] == picture.size[::-1]
            assert np.array_equal(labels[0].numpy(), np.array(picture))


# Exit codes


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["nonsense"],
        ["inspect"],
        ["convert", "x", "--out", "y"],
        ["convert", "--dataset", "cityscapes", "--out", "y"],
        ["preview", "f", "--labels", "m", "--out", "p", "--size", "48"],
        ["preview", "f", "--labels", "m", "--out", "p", "--seed", "x"],
        ["preview", "f", "--labels", "m", "--out", "p", "--palette", "ade20k", "--table", "t.csv"],
        ["convert", "x", "--dataset", "d", "--out", "y", "--scale-factor", "x"],
    ],
)
def test_bad_arguments_exit_with_2(argv, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(argv)
    assert exit_.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["--help"], *([verb.name, "--help"] for verb in cli.VERBS)])
def test_help_names_every_verb(argv, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(argv)
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    assert all(verb.name in text for verb in cli.VERBS) or len(argv) == 2


def test_ctrl_c_exits_with_130(file, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Statistics, "describe", interrupt)
    assert main(["inspect", str(file)]) == 130
    assert "Traceback" not in capsys.readouterr().err
