"""`reduce` and `merge` on the command line; all four readers on real photos with a VAE of the real architecture."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from reducing import SIZE, StubEncoder, arguments, check, make_pair, make_pairs, open_pairs, save_run, two_pass
from shared_data import require
from small_vae import write_small_vae

import scp_prior.vae
from scp_prior import cli_reduce, load_statistics, prior_maps
from scp_prior.classes import table
from scp_prior.cli import main
from scp_prior.reduce import Plan

needs_diffusers = pytest.mark.skipif(not importlib.util.find_spec("diffusers"), reason="diffusers is not installed")
CAMVID_TO_TRAIN_ID = (10, 2, 5, 0, 1, 8, 7, 4, 13, 11, 18, 255)


@pytest.fixture(autouse=True)
def one_time(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return make_pairs(tmp_path_factory.mktemp("pairs"), 12)


@pytest.fixture
def stub(monkeypatch) -> StubEncoder:
    encoder = StubEncoder()
    monkeypatch.setattr(scp_prior.vae, "load_encoder", lambda *_, **__: encoder)
    return encoder


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "out" / "own.safetensors"


@pytest.fixture(autouse=True)
def folder_for(out):
    out.parent.mkdir()


def listed(out: Path) -> list[str]:
    return sorted(path.name for path in out.parent.iterdir())


def reduce(root: Path, out: Path, *more: object) -> int:
    return main(arguments(root, out, "--workers", "0", *more))


# --- the whole way --------------------------------------------------------------------------------------------------


def test_reduce_writes_the_file_and_nothing_else(root, out, stub, capsys):
    assert reduce(root, out) == 0
    assert listed(out) == [out.name]
    assert capsys.readouterr().out == f"{out}: 12 images, 11 classes\n"
    check(load_statistics(out), two_pass(root, [f"{n:04}" for n in range(12)]))
    assert stub.seen == list(range(12))


def test_every_flag_reaches_the_run(root, out, monkeypatch, tmp_path):
    asked = {}
    encoder = StubEncoder()

    def load(path, *, device, dtype):
        asked.update(path=path, device=device, dtype=dtype)
        return encoder

    monkeypatch.setattr(scp_prior.vae, "load_encoder", load)
    flags = ["--batch-size", 5, "--device", "cuda:1", "--dtype", "bfloat16", "--limit", 7, "--seed", 3]
    assert reduce(root, out, *flags, "--on-error", "skip", "--save-every", 2) == 0
    assert asked == {"path": "stub", "device": "cuda:1", "dtype": "bfloat16"}
    assert encoder.batches == 2
    wanted = Plan(SIZE, 5, 7, 3)
    assert encoder.seen == wanted.indices(12)
    assert out.read_bytes() == save_run(tmp_path / "s", open_pairs(root), wanted)


def test_a_palette_and_a_class_table(tmp_path, out, stub):
    root = make_pairs(tmp_path / "colours", 3, ids=(1, 2))
    rows = [(1, "wall", (255, 0, 0)), (2, "floor", (0, 0, 255))]
    rows += [(100 + n, f"thing {n}", (0, 255, n)) for n in range(7)]
    for path in (root / "labels").iterdir():
        ids = np.array(Image.open(path))
        picture = np.zeros((*ids.shape, 3), np.uint8)
        for class_id, _, colour in rows:
            picture[ids == class_id] = colour
        Image.fromarray(picture).save(path)
    own = tmp_path / "own.csv"
    own.write_text("id,name,r,g,b\n" + "\n".join(f"{k},{name},{r},{g},{b}" for k, name, (r, g, b) in rows))
    assert reduce(root, out, "--table", own) == 0
    made = load_statistics(out)
    assert made.class_ids.tolist() == [1, 2, 100, 101, 102]
    assert made.class_names == {k: name for k, name, _ in rows}


# --- exit codes -----------------------------------------------------------------------------------------------------


def usage(capsys, *words: object) -> str:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_bad_arguments(root, out, stub, capsys, tmp_path):
    whole = arguments(root, out)

    def changed(flag: str, value: object = None) -> list[object]:
        at = whole.index(flag)
        return [*whole[:at], *([] if value is None else [flag, value]), *whole[at + 2 :]]

    assert "--vae" in usage(capsys, *changed("--vae"))
    assert "--out" in usage(capsys, *changed("--out"))
    assert "--size" in usage(capsys, *changed("--size"))
    assert "HxW" in usage(capsys, *changed("--size", "512"))
    assert "32x48 or 40x48" in usage(capsys, *changed("--size", "33x48"))
    assert ".safetensors" in usage(capsys, *changed("--out", tmp_path / "s.npy"))
    assert "--dataset" in usage(capsys, *changed("--dataset", "imagenet"))
    assert "--dtype" in usage(capsys, *whole, "--dtype", "float15")
    assert "0 to 61" in usage(capsys, *whole, "--workers", "-3")
    assert "root or split" in usage(capsys, *whole, "--split", "train")
    assert "missing" in usage(capsys, *changed("--images", tmp_path / "missing"))
    assert "train, val" in usage(
        capsys, "reduce", "--dataset", "cityscapes", "--root", root, "--split", "test", "--size", "8x8"
    )
    for flag in ("--limit", "--batch-size", "--save-every", "--timeout"):
        for value in ("0", "-1", "many"):
            assert flag in usage(capsys, *whole, flag, value)
    assert "skip" in usage(capsys, *whole, "--on-error", "ignore")
    assert listed(out) == []


def failure(capsys, code: int) -> str:
    assert code == 1
    lines = [line for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if "photo/s" not in line]
    assert [line for line in lines if line] == [lines[-1]]
    assert lines[-1].startswith("error: ")
    return lines[-1]


@pytest.fixture
def spoilt(tmp_path) -> Path:
    root = make_pairs(tmp_path / "spoilt", 6)
    (root / "images" / "0003.png").write_bytes(b"not a picture")
    return root


def test_an_unreadable_photo_stops_the_run(spoilt, out, stub, capsys):
    words = failure(capsys, reduce(spoilt, out, "--batch-size", 2))
    assert "images/0003.png" in words
    assert "labels/0003.png" in words
    assert listed(out) == [f"{out.name}.checkpoint"]


def test_a_missing_partner_stops_the_run_before_it_begins(root, tmp_path, out, stub, capsys):
    spoilt = make_pairs(tmp_path / "pairs", 3)
    (spoilt / "labels" / "0001.png").unlink()
    words = failure(capsys, reduce(spoilt, out))
    assert "0001" in words
    assert "--on-error skip" in words
    assert listed(out) == []
    assert not stub.seen


def test_what_is_left_out_is_listed(spoilt, out, stub, capsys):
    make_pair(spoilt, 6)
    (spoilt / "labels" / "0006.png").unlink()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(spoilt / "labels" / "0001.png")
    assert reduce(spoilt, out, "--batch-size", 2, "--on-error", "skip") == 0
    captured = capsys.readouterr()
    lines = captured.err[captured.err.index("left out:") :].splitlines()
    assert lines[0] == "left out: 3"
    assert [re.search(r"000\d", line)[0] for line in lines[1:]] == ["0001", "0003", "0006"]
    assert captured.out.endswith("4 images, 8 classes\n")
    made = load_statistics(out)
    check(made, two_pass(spoilt, ["0000", "0002", "0004", "0005"]))
    assert made.metadata["source"] == "all 6 pairs; 2 skipped"


def test_nothing_readable_is_an_error_and_nothing_is_written(tmp_path, out, stub, capsys):
    root = make_pairs(tmp_path / "none", 3)
    for path in (root / "images").iterdir():
        path.write_bytes(b"")
    code = reduce(root, out, "--on-error", "skip")
    assert code == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: Not one of the 3 pairs")
    assert out.name not in listed(out)


def test_what_was_there_stands_after_an_error(spoilt, out, stub, capsys):
    out.write_bytes(b"precious")
    failure(capsys, reduce(spoilt, out))
    assert out.read_bytes() == b"precious"


def test_a_folder_that_is_not_there(root, out, stub, capsys):
    words = failure(capsys, reduce(root, out.parent / "nowhere" / "s.safetensors"))
    assert "nowhere" in words
    assert not stub.seen


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(root, out, stub, capsys):
    out.parent.chmod(0o555)
    try:
        assert "Cannot write" in failure(capsys, reduce(root, out))
    finally:
        out.parent.chmod(0o755)


# --- interruptions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_keeps_its_checkpoint_and_can_be_resumed(root, out, stub, capsys, number):
    assert reduce(root, out, "--batch-size", 2) == 0
    whole, before = out.read_bytes(), (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
    out.unlink()
    stub.seen.clear()
    stub.batches = 0
    stub.before = lambda batches: signal.raise_signal(number) if batches == 2 else None
    assert reduce(root, out, "--batch-size", 2) == 130
    assert stub.seen == list(range(6))
    assert listed(out) == [f"{out.name}.checkpoint"]
    words = capsys.readouterr().err.splitlines()[-1]
    assert "--resume" in words
    assert f"{out.name}.checkpoint" in words
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert reduce(root, out, "--batch-size", 2, "--resume") == 0
    assert stub.seen == list(range(12))
    assert out.read_bytes() == whole
    assert listed(out) == [out.name]


def test_a_second_interrupt_ends_at_once(root, out, stub, capsys):
    def interrupt(batches: int) -> None:
        if batches == 2:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    stub.before = interrupt
    assert reduce(root, out, "--batch-size", 2, "--save-every", 1) == 130
    assert stub.seen == [0, 1, 2, 3]
    assert listed(out) == [f"{out.name}.checkpoint"]
    stub.before = lambda batches: None
    assert reduce(root, out, "--batch-size", 2, "--resume") == 0
    assert stub.seen == list(range(12))


def test_an_interrupt_during_the_last_batch_still_finishes(root, out, stub):
    stub.before = lambda batches: signal.raise_signal(signal.SIGINT) if batches == 5 else None
    assert reduce(root, out, "--batch-size", 2) == 0
    assert listed(out) == [out.name]


def test_resume_with_other_settings_is_refused(root, out, stub, capsys):
    stub.before = lambda batches: signal.raise_signal(signal.SIGINT) if batches == 1 else None
    assert reduce(root, out, "--batch-size", 2) == 130
    capsys.readouterr()
    words = failure(capsys, reduce(root, out, "--batch-size", 3, "--resume"))
    assert "batch size: 2 then, 3 now" in words
    assert listed(out) == [f"{out.name}.checkpoint"]


# --- looking first --------------------------------------------------------------------------------------------------


def test_dry_run(root, out, capsys, monkeypatch):
    monkeypatch.setattr(scp_prior.vae, "load_encoder", None)
    words = arguments(root, out, "--dry-run", "--limit", "5", "--seed", "2")
    at = words.index("--vae")
    assert main([*words[:at], *words[at + 4 :]]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "5 of 12 pairs, at 32x48"
    chosen = Plan(SIZE, limit=5, seed=2).indices(12)
    maps = [np.asarray(Image.open(root / "labels" / f"{n:04}.png")) for n in chosen]
    expected = {
        int(k): (sum(bool((m == k).any()) for m in maps), 100 * np.mean([(m == k).mean() for m in maps]))
        for k in np.unique(np.stack(maps))
    }
    rows = {int(line.split()[0]): line.split()[1:] for line in lines[3:]}
    assert rows.keys() == expected.keys()
    for class_id, (images, share) in expected.items():
        assert int(rows[class_id][0]) == images
        assert float(rows[class_id][1].rstrip("%")) == pytest.approx(share, abs=0.0051)
    shares = [float(row[1].rstrip("%")) for row in rows.values()]
    assert shares == sorted(shares, reverse=True)
    assert listed(out) == []


def test_dry_run_tells_of_problems_and_counts_what_it_could_read(spoilt, out, capsys):
    make_pair(spoilt, 6)
    (spoilt / "labels" / "0006.png").unlink()
    (spoilt / "labels" / "0002.png").write_bytes(b"")
    assert main(arguments(spoilt, out, "--dry-run")) == 0
    words = capsys.readouterr().out
    assert re.search(r"not used: .*0006", words)
    assert re.search(r"cannot be read: .*0002.png", words)
    rows = [line.split() for line in words.split("of the area\n")[1].splitlines()]
    assert sum(float(row[-1].rstrip("%")) for row in rows) == pytest.approx(100, abs=0.1)


def test_dry_run_names_classes(tmp_path, capsys):
    root = make_pairs(tmp_path / "named", 2, ids=(1, 2))
    for path in (root / "labels").iterdir():
        Image.fromarray(np.full(SIZE, 3, np.uint8)).save(path)
    words = ["reduce", "--dataset", "folder", "--images", root / "images", "--labels", root / "labels"]
    assert main([str(word) for word in [*words, "--palette", "ade20k-grey", "--size", "8x8", "--dry-run"]]) == 0
    assert re.search(rf"3  {table('ade20k').name_of(3)} +2 +100.00%", capsys.readouterr().out)


def test_a_list_of_many_problems_is_cut(tmp_path, out, stub, capsys):
    root = make_pairs(tmp_path / "many", 30)
    for path in sorted((root / "labels").iterdir())[1:]:
        path.unlink()
    assert "(and 9 more)" in failure(capsys, reduce(root, out))


# --- the bar --------------------------------------------------------------------------------------------------------


def test_the_bar_shows_progress_classes_and_skipped(spoilt, out, stub, capsys):
    pytest.importorskip("tqdm")
    assert reduce(spoilt, out, "--batch-size", 1, "--on-error", "skip") == 0
    last = [line for line in re.split(r"[\r\n]", capsys.readouterr().err) if "photo/s" in line][-1]
    assert "6/6" in last
    assert "photo/s" in last
    assert "classes=" in last
    assert "skipped=1" in last


def test_without_tqdm_there_is_no_bar(root, out, stub, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tqdm", None)
    assert reduce(root, out) == 0
    assert capsys.readouterr().err == ""


# --- torchrun -------------------------------------------------------------------------------------------------------


def test_each_process_gets_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [cli_reduce._device(asked) for asked in ("auto", "cuda", "cuda:1", "cpu")] == [
        "cuda:3",
        "cuda:3",
        "cuda:1",
        "cpu",
    ]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cli_reduce._device("auto") == "auto"


# --- merge ----------------------------------------------------------------------------------------------------------


def test_merge(root, tmp_path, out, stub, capsys):
    parts = []
    for number, numbers in enumerate((range(5), range(5, 12))):
        part = make_pairs(tmp_path / f"part{number}", 0)
        for n in numbers:
            make_pair(part, n)
        parts.append(tmp_path / f"part{number}.safetensors")
        assert reduce(part, parts[-1]) == 0
    capsys.readouterr()
    assert main(["merge", *map(str, parts), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}: 12 images, 11 classes\n"
    check(load_statistics(out), two_pass(root, [f"{n:04}" for n in range(12)]), 5e-6)


def test_merge_refuses_files_that_do_not_belong_together(root, tmp_path, out, stub, capsys):
    out.write_bytes(b"precious")
    one, other = tmp_path / "one.safetensors", tmp_path / "other.safetensors"
    assert reduce(root, one) == 0
    stub.name = "another.safetensors sha256:ffffffffffff"
    assert reduce(root, other) == 0
    capsys.readouterr()
    words = failure(capsys, main(["merge", str(one), str(other), "--out", str(out)]))
    assert "vae is '0123456789ab' in one.safetensors and 'ffffffffffff' in other.safetensors" in words
    assert out.read_bytes() == b"precious"
    assert "at least two" in usage(capsys, "merge", one, "--out", out)
    assert "gone.safetensors" in failure(capsys, main(["merge", str(one), "gone.safetensors", "--out", str(out)]))
    assert ".safetensors" in usage(capsys, "merge", one, one, "--out", tmp_path / "m.bin")


# --- real photos ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vae(tmp_path_factory) -> Path:
    return write_small_vae(tmp_path_factory.mktemp("vae") / "small")


def as_cityscapes(camvid: Path, root: Path, count: int) -> Path:
    for number, line in enumerate((camvid / "train.txt").read_text().splitlines()[:count]):
        photo, label = (camvid / part for part in line.split())
        city = f"city{number % 2}"
        stem = f"{city}_{number:06d}_000019"
        photos, maps = root / "leftImg8bit" / "train" / city, root / "gtFine" / "train" / city
        for folder in (photos, maps):
            folder.mkdir(parents=True, exist_ok=True)
        (photos / f"{stem}_leftImg8bit.png").symlink_to(photo)
        ids = np.array(CAMVID_TO_TRAIN_ID, np.uint8)[np.asarray(Image.open(label))]
        Image.fromarray(ids).save(maps / f"{stem}_gtFine_labelTrainIds.png")
    return root


def nearest(path: Path, grid: tuple[int, int]) -> np.ndarray:
    ids = np.asarray(Image.open(path))
    return ids[np.ix_(*(np.arange(n) * full // n for n, full in zip(grid, ids.shape, strict=True)))]


@needs_diffusers
@pytest.mark.parametrize("kind", ["ade20k", "coco-stuff", "folder", "cityscapes"])
def test_real_photos_become_a_prior(tmp_path, out, vae, kind):
    flags = ["--dataset", kind]
    if kind == "ade20k":
        root = require("data/ade20k_mini")
        flags += ["--root", root, "--split", "training"]
        maps = sorted((root / "annotations" / "training").iterdir())
    elif kind == "coco-stuff":
        root = require("data/coco_stuff_mini")
        flags += ["--root", root, "--split", "train2017"]
        maps = sorted((root / "annotations" / "train2017").iterdir())
    elif kind == "folder":
        root = require("data/camvid_mini")
        flags += ["--images", root / "val", "--labels", root / "valannot", "--limit", 12]
        every = sorted((root / "valannot").iterdir())
        maps = [every[n] for n in Plan((96, 128), limit=12).indices(len(every))]
    else:
        root = as_cityscapes(require("data/camvid_mini"), tmp_path / "cityscapes", 8)
        flags += ["--root", root, "--split", "train"]
        maps = sorted((root / "gtFine" / "train").rglob("*.png"))
    words = ["reduce", *flags, "--vae", vae, "--size", "96x128", "--workers", 0, "--out", out]
    assert main([str(word) for word in words]) == 0

    made, grid = load_statistics(out), (12, 16)
    small = np.stack([nearest(path, grid) for path in maps])
    count = {int(k): (small == k).sum(0) for k in np.unique(small)}
    assert made.latent_size == grid
    assert made.metadata["images"] == str(len(maps))
    assert made.metadata["dataset"] == kind
    assert made.class_ids.tolist() == sorted(count)
    found = made.tensors()["joint.count"].numpy()
    for row, class_id in enumerate(made.class_ids.tolist()):
        assert np.array_equal(found[row], count[class_id]), class_id
    if kind != "folder":
        assert made.metadata["palette"] == kind
        assert all(made.class_names[k] for k in made.class_ids.tolist() if k != 255)
    labels = torch.from_numpy(np.asarray(Image.open(maps[0])).astype(np.int64))[None]
    for method in ("joint", "mixture", "class", "spatial"):
        maps_of = prior_maps(made, labels, method, latent_size=grid)
        assert maps_of.mean.shape == (1, 4, *grid)
        assert bool(maps_of.mean.isfinite().all())
        assert bool(maps_of.std.isfinite().all())
        assert float(maps_of.std.min()) > 0, method


@needs_diffusers
def test_a_vae_that_cannot_be_read_is_an_error(root, out, tmp_path, capsys):
    words = arguments(root, out)
    words[words.index("--vae") + 1] = str(tmp_path / "missing.safetensors")
    assert "missing.safetensors" in usage(capsys, *words)
    assert listed(out) == []
