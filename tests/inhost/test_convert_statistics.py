"""Released .npy files dropped into the model folder: noticed, converted where they lie, and never executed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from shared_data import require

KINDS = ("categorical", "spatial", "spatial_class")


@pytest.fixture
def folder(host, tmp_path, monkeypatch) -> Path:
    """Two folders of statistics, as with an extra_model_paths.yaml; the first, where files are made."""
    endings = host.folder_paths.folder_names_and_paths["scp_statistics"][1]
    first, second = tmp_path / "models" / "scp_statistics", tmp_path / "shared"
    first.mkdir(parents=True)
    second.mkdir()
    places = ([str(first), str(second)], endings)
    monkeypatch.setitem(host.folder_paths.folder_names_and_paths, "scp_statistics", places)
    host.folder_paths.filename_list_cache.pop("scp_statistics", None)
    yield first
    host.folder_paths.filename_list_cache.pop("scp_statistics", None)


@pytest.fixture
def convert(host):
    node = host.nodes["SCPConvertStatistics"]
    return lambda files, **more: host.run(node, files=files, **more)[0]


def drop(folder: Path, series: str = "cityscapes_hr_10000", kinds=KINDS, seed: int = 0) -> list[Path]:
    """A small release of our own, model units, classes 0 and 3."""
    random = np.random.default_rng(seed)
    count = np.zeros((256, 1, 4, 8), np.float32)
    count[[0, 3]] = 5
    content = {
        "categorical": {k: {"mean": random.normal(size=4).astype("f4"), "std": np.ones(4, "f4")} for k in (0, 3)},
        "spatial": {"mean": random.normal(size=(4, 4, 8)).astype("f4"), "std": np.ones((4, 4, 8), "f4")},
        "spatial_class": {
            "mean": random.normal(size=(256, 4, 4, 8)).astype("f4"),
            "std": np.ones((256, 4, 4, 8), "f4"),
            "count": count,
        },
    }
    paths = [folder / f"{series}_{kind}_mean_std.npy" for kind in kinds]
    for kind, path in zip(kinds, paths, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, content[kind], allow_pickle=True)
    return paths


def options(host, name: str, widget: str) -> list[str]:
    schema = host.nodes[name].GET_SCHEMA()
    return next(port for port in schema.inputs if port.id == widget).options


def validate(host, **inputs) -> bool | str:
    return host.nodes["SCPConvertStatistics"].validate_inputs(**inputs)


def test_dropped_files_are_noticed_and_only_safetensors_are_offered_for_loading(host, folder):
    load = host.nodes["SCPLoadStatistics"]
    assert "Put one (.safetensors) into" in load.validate_inputs("cityscapes.safetensors")
    drop(folder)
    told = load.validate_inputs("cityscapes.safetensors")
    assert "cityscapes_hr_10000" in told
    assert "SCP Convert Statistics" in told
    assert options(host, "SCPLoadStatistics", "statistics") == []
    assert "Found as .npy: cityscapes_hr_10000" in load.GET_SCHEMA().inputs[0].tooltip
    assert options(host, "SCPConvertStatistics", "files") == ["cityscapes_hr_10000"]


def test_they_are_converted_into_the_same_folder_and_loaded(host, folder, convert):
    paths = drop(folder)
    assert validate(host, files="cityscapes_hr_10000", dataset="auto") is True
    statistics = convert("cityscapes_hr_10000")
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["cityscapes.safetensors", *(p.name for p in paths)]
    )
    assert options(host, "SCPLoadStatistics", "statistics") == ["cityscapes.safetensors"]
    loaded = host.run(host.nodes["SCPLoadStatistics"], statistics="cityscapes.safetensors")[0]
    theirs = np.load(paths[1], allow_pickle=True).item()["mean"] / 0.18215
    for one in (statistics, loaded):
        torch.testing.assert_close(one.tensors()["spatial.mean"], torch.from_numpy(theirs), rtol=1e-6, atol=0)
    assert "npy" not in host.nodes["SCPLoadStatistics"].GET_SCHEMA().inputs[0].tooltip


def test_the_recorded_release_goes_through(host, folder, convert):
    for path in require("parity/ref_stats/cityscapes").glob("*.npy"):
        shutil.copy(path, folder)
    assert "begin with the name of a data set" in validate(host, files="cs_mini", dataset="auto")
    assert validate(host, files="cs_mini", dataset="cityscapes") is True
    statistics = convert("cs_mini", dataset="cityscapes")
    labels = host.nodes["SCPLabelsFromImage"]
    grey = torch.full((1, 64, 128, 3), 7 / 255)
    read, _ = host.run(labels, image=grey, palette="cityscapes-grey", tolerance=0.0)
    inputs = {"method": "joint", "seed": 1, "strength": 1.0, "batch_size": 1, "width": 128, "height": 64}
    latent, _ = host.run(host.nodes["SCPPriorLatent"], statistics=statistics, labels=read, **inputs)
    assert torch.isfinite(latent["samples"]).all()


def test_a_folder_below_and_another_model_folder(host, folder, convert):
    drop(folder / "ade", "ade20k_10000")
    shared = folder.parents[1] / "shared"
    drop(shared, "coco-stuff_10000", kinds=KINDS[:1])
    assert options(host, "SCPConvertStatistics", "files") == ["ade/ade20k_10000", "coco-stuff_10000"]
    convert("ade/ade20k_10000")
    convert("coco-stuff_10000")
    assert (folder / "ade20k.safetensors").is_file()
    assert (shared / "coco-stuff.safetensors").is_file()
    assert options(host, "SCPLoadStatistics", "statistics") == ["ade20k.safetensors", "coco-stuff.safetensors"]


def test_running_it_again_makes_nothing_unless_a_file_is_newer(folder, convert):
    paths = drop(folder)
    convert("cityscapes_hr_10000")
    out = folder / "cityscapes.safetensors"
    before = out.stat().st_ino
    convert("cityscapes_hr_10000")
    assert out.stat().st_ino == before
    drop(folder, seed=1)
    later = out.stat().st_mtime_ns + 10**9
    os.utime(paths[0], ns=(later, later))
    changed = convert("cityscapes_hr_10000")
    theirs = np.load(paths[1], allow_pickle=True).item()["mean"] / 0.18215
    torch.testing.assert_close(changed.tensors()["spatial.mean"], torch.from_numpy(theirs), rtol=1e-6, atol=0)


def test_a_file_made_of_something_else_is_kept_unless_asked(host, folder, convert):
    drop(folder)
    drop(folder, "cityscapes_10000", kinds=KINDS[:2])
    convert("cityscapes_hr_10000")
    out = folder / "cityscapes.safetensors"
    before = out.read_bytes()
    with pytest.raises(host.library.SCPError, match="made of something else"):
        convert("cityscapes_10000")
    assert out.read_bytes() == before
    convert("cityscapes_10000", overwrite=True)
    assert out.read_bytes() != before


def test_the_cache_notices_a_changed_file(host, folder):
    paths = drop(folder)
    fingerprint = host.nodes["SCPConvertStatistics"].fingerprint_inputs
    first = fingerprint(files="cityscapes_hr_10000")
    assert fingerprint(files="cityscapes_hr_10000") == first
    os.utime(paths[2], (1, 1))
    assert fingerprint(files="cityscapes_hr_10000") != first
    assert fingerprint(files="absent") == ("absent",)


def test_the_cache_notices_that_what_was_made_is_gone(folder, host, convert):
    drop(folder)
    convert("cityscapes_hr_10000")
    fingerprint = host.nodes["SCPConvertStatistics"].fingerprint_inputs
    made = fingerprint(files="cityscapes_hr_10000", dataset="auto")
    assert fingerprint(files="cityscapes_hr_10000", dataset="auto") == made
    (folder / "cityscapes.safetensors").unlink()
    assert fingerprint(files="cityscapes_hr_10000", dataset="auto") != made


@pytest.mark.parametrize("name", ["", "absent", "../models/scp_statistics/x", "/etc/passwd", "..", "cityscapes_hr"])
def test_a_name_that_is_not_offered_is_refused(host, folder, name):
    assert "Put the three of one data set there" in validate(host, files=name, dataset="auto")
    drop(folder)
    assert "Choose one of: cityscapes_hr_10000" in validate(host, files=name, dataset="auto")
    assert "Choose one of: auto" in validate(host, files="cityscapes_hr_10000", dataset="pascal")


class Attack:
    """Pickles as a call of `eval`."""

    def __init__(self, canary: Path):
        self.code = f"open({str(canary)!r}, 'w')"

    def __reduce__(self):
        return eval, (self.code,)


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_hostile_files_run_nothing_leave_nothing_and_give_one_line(host, folder, convert, tmp_path, kind, direct):
    paths = dict(zip(KINDS, drop(folder), strict=True))
    canary = tmp_path / "canary"
    if direct:
        np.save(paths[kind], {"mean": Attack(canary)}, allow_pickle=True)
        np.load(paths[kind], allow_pickle=True)
        assert canary.exists(), "the attack is no attack"
        canary.unlink()
    else:
        program = b"cbuiltins\ngetattr\n(cbuiltins\nobject\nX\x0f\x00\x00\x00__subclasses__tR."
        np.save(paths[kind], {}, allow_pickle=True)
        paths[kind].write_bytes(paths[kind].read_bytes()[:128] + b"\x80\x03" + program)
    with pytest.raises(host.library.SCPError, match=r"Nothing of it was run") as error:
        convert("cityscapes_hr_10000")
    assert "\n" not in str(error.value)
    assert paths[kind].name in str(error.value)
    assert not canary.exists()
    assert sorted(folder.iterdir()) == sorted(paths.values())


def test_a_file_cut_short_is_told_and_leaves_nothing(host, folder, convert):
    paths = drop(folder)
    os.truncate(paths[2], paths[2].stat().st_size - 1000)
    with pytest.raises(host.library.SCPError, match="download it again"):
        convert("cityscapes_hr_10000")
    assert sorted(folder.iterdir()) == sorted(paths)
