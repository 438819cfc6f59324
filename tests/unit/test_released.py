"""The list of released files, which of a repository's files they are, their checksums, and where ComfyUI is."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections import namedtuple

import pytest

from scp_prior import gather
from scp_prior.checksum import Expected
from scp_prior.errors import SCPError
from scp_prior.gather import Watch
from scp_prior.host_folders import find_comfyui, too_full, words_of
from scp_prior.hub import Listing
from scp_prior.originals import Original
from scp_prior.release import DATASETS, find_release_files
from scp_prior.released import STATISTICS, WEIGHTS, datasets, licence, released_files, released_names, repository

KINDS = (*STATISTICS, WEIGHTS)
ENDINGS = {"categorical": "_categorical", "spatial": "_spatial", "joint": "_spatial_class"}


def listed(folder: str, stem: str, *, weights: str | None = None) -> list[str]:
    """Paths as the hub lists them."""
    names = [f"{folder}/{stem}{ending}_mean_std.npy" for ending in ENDINGS.values()]
    return ["README.md", ".gitattributes", *names, weights or f"{folder}/{folder}.ckpt"]


# The list


def test_the_list_is_of_the_data_sets_that_can_be_converted():
    assert datasets() == DATASETS
    assert (repository(), licence()) == ("c7w/SCP-Diff", "Apache-2.0")


@pytest.mark.parametrize("dataset", DATASETS)
def test_every_entry_is_complete(dataset, tmp_path):
    files = released_files(dataset)
    assert tuple(files) == KINDS
    for kind, file in files.items():
        assert file.kind == kind
        assert file.page.startswith("https://huggingface.co/c7w/SCP-Diff/")
        assert file.sha256 is None or re.fullmatch("[0-9a-f]{64}", file.sha256)
        assert file.bytes is None or file.bytes > 0
        assert all(path.startswith(f"{dataset}/") and path.endswith(file.ending) for path in file.paths)
    made = [name for file in files.values() for name in file.becomes]
    assert list(dict.fromkeys(made)) == [
        f"scp_statistics/{dataset}.safetensors",
        f"controlnet/{dataset}_controlnet.safetensors",
        f"checkpoints/{dataset}_checkpoint.safetensors",
    ]
    # The converter tells the kinds apart by the same names.
    paths = {kind: tmp_path / files[kind].paths[0].rpartition("/")[2] for kind in STATISTICS}
    for path in paths.values():
        path.touch()
    assert find_release_files(tmp_path) == paths


def test_a_page_is_the_files_own_where_its_name_is_certain():
    assert released_files("ade20k")["joint"].page.endswith("/blob/main/ade20k/ade20k_10000_spatial_class_mean_std.npy")
    assert released_files("cityscapes")["joint"].page.endswith("/tree/main/cityscapes")


def test_an_unknown_data_set():
    with pytest.raises(SCPError, match="cityscapes, ade20k, coco-stuff"):
        released_files("ade")


# Which files they are


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("stem", ["{}_10000", "{}_hr", "{}_hr_10000", "something_else"])
def test_a_single_series_is_found_whatever_it_is_called(dataset, stem):
    stem = stem.format(dataset)
    others = [path for other in DATASETS if other != dataset for path in listed(other, f"{other}_10000")]
    names = released_names(dataset, [*others, *listed(dataset, stem)], KINDS)
    expected = {kind: f"{dataset}/{stem}{ending}_mean_std.npy" for kind, ending in ENDINGS.items()}
    assert names == {**expected, WEIGHTS: f"{dataset}/{dataset}.ckpt"}


def test_of_several_series_the_known_one_is_taken():
    listing = [*listed("cityscapes", "cityscapes_10000"), *listed("cityscapes", "cityscapes_hr_10000")]
    names = released_names("cityscapes", [*listing, *listed("cityscapes", "test")], STATISTICS)
    assert names["joint"] == "cityscapes/cityscapes_hr_10000_spatial_class_mean_std.npy"
    assert WEIGHTS not in names


@pytest.mark.parametrize(
    "listing",
    [
        [],
        [*listed("ade20k", "a"), *listed("ade20k", "b")],
        [path for path in listed("ade20k", "ade20k_10000") if "_categorical" not in path],
        listed("coco-stuff", "coco-stuff_10000"),
        [f"old/{path}" for path in listed("ade20k", "ade20k_10000")],
    ],
)
def test_no_series_or_too_many(listing):
    with pytest.raises(SCPError, match=r"has no ade20k/ade20k_10000_categorical_mean_std\.npy"):
        released_names("ade20k", listing, STATISTICS)


def test_weights_of_another_name():
    listing = listed("ade20k", "ade20k_10000", weights="ade20k/last.ckpt")
    assert released_names("ade20k", listing, [WEIGHTS]) == {WEIGHTS: "ade20k/last.ckpt"}
    assert released_names("ade20k", [*listing, "ade20k/ade20k.ckpt"], [WEIGHTS]) == {WEIGHTS: "ade20k/ade20k.ckpt"}
    with pytest.raises(SCPError, match=r"ade20k\.ckpt; it has the files ade20k/first\.ckpt, ade20k/last\.ckpt"):
        released_names("ade20k", [*listing, "ade20k/first.ckpt"], [WEIGHTS])


# Checksums


@pytest.fixture
def hello(tmp_path):
    path = tmp_path / "hello"
    path.write_bytes(b"hello\n")
    return path


@pytest.mark.parametrize(
    "expected",
    [
        Expected(),
        Expected(6),
        Expected(6, sha256=hashlib.sha256(b"hello\n").hexdigest()),
        # `echo hello | git hash-object --stdin`
        Expected(6, git="ce013625030ba8dba906f756967f9e9ca394464a"),
        Expected(git="ce013625030ba8dba906f756967f9e9ca394464a"),
    ],
)
def test_a_file_as_expected(hello, expected):
    told = []
    assert expected.problem(hello, lambda *step: told.append(step)) is None
    assert told in ([(6, 6)], [])


@pytest.mark.parametrize(
    ("expected", "words"),
    [
        (Expected(5), "it has 6 bytes and should have 5"),
        (
            Expected(6, sha256="0" * 64),
            "its sha256 is 5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
        ),
        (Expected(6, git="0" * 40), "its git hash is ce013625030ba8dba906f756967f9e9ca394464a"),
    ],
)
def test_a_file_not_as_expected(hello, expected, words):
    assert words in expected.problem(hello)


@pytest.mark.parametrize("known", [{"sha256": "a" * 64}, {"bytes": 8}])
def test_the_hub_may_not_contradict_what_is_known(monkeypatch, known):
    """Where the list knows a checksum, a mirror cannot bring another file."""
    file = released_files("ade20k")["joint"]
    monkeypatch.setattr(gather, "released_files", lambda dataset: {"joint": file._replace(**known)})
    names = {"joint": file.paths[0]}
    same = Expected(known.get("bytes", 7), known.get("sha256", "b" * 64))
    assert gather._expected("ade20k", names, Listing("0", {file.paths[0]: same})) == {"joint": same}
    with pytest.raises(SCPError, match="is not the file this version of the pack knows"):
        gather._expected("ade20k", names, Listing("0", {file.paths[0]: Expected(7, "b" * 64)}))


# Originals


def test_a_note_holds_for_the_file_it_was_made_of_only(hello):
    original = Original(hello)
    assert (original.downloaded, original.kept) == (False, True)
    original.note(hello, "0", keep=False)
    assert (original.downloaded, original.kept) == (True, False)
    original.keep()
    assert original.kept
    hello.write_bytes(b"another")
    assert (original.downloaded, original.kept) == (False, True)


@pytest.mark.parametrize("note", ["", "{", "[]", "null", '{"is": null}', json.dumps({"is": [6]})])
def test_a_broken_note_is_none(hello, note):
    hello.with_name("hello.downloaded.json").write_text(note)
    assert (Original(hello).downloaded, Original(hello).kept) == (False, True)


def test_nobody_has_to_watch():
    watch = Watch()
    watch.say("anything")
    assert watch.progress("a step") is None


# Where ComfyUI is


@pytest.mark.parametrize("sign", ["models", "custom_nodes", "main.py"])
def test_a_named_comfyui(tmp_path, sign):
    (tmp_path / sign).mkdir()
    assert find_comfyui(tmp_path) == tmp_path


def test_the_comfyui_the_pack_lies_in(tmp_path):
    pack = tmp_path / "ComfyUI" / "custom_nodes" / "scp-diff"
    pack.mkdir(parents=True)
    with pytest.raises(SCPError, match="--comfyui"):
        find_comfyui(None, pack)
    (tmp_path / "ComfyUI" / "models").mkdir()
    assert find_comfyui(None, pack) == tmp_path / "ComfyUI"
    with pytest.raises(SCPError, match="--comfyui"):
        find_comfyui(None, tmp_path / "somewhere" / "scp-diff")


def test_what_is_no_comfyui(tmp_path):
    with pytest.raises(SCPError, match="there is no such folder"):
        find_comfyui(tmp_path / "nothing")
    with pytest.raises(SCPError, match="does not look like a ComfyUI") as error:
        find_comfyui(tmp_path)
    assert "Did you mean" not in str(error.value)
    inner = tmp_path / "ComfyUI"
    (inner / "models").mkdir(parents=True)
    with pytest.raises(SCPError, match=f"Did you mean {re.escape(str(inner))}"):
        find_comfyui(tmp_path)


def test_what_one_disk_takes_is_added_up(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(100, 0, 10))
    missing = tmp_path / "not" / "there"
    assert too_full([(tmp_path, 4), (missing, 6)]) == []
    assert too_full([(tmp_path, 4), (missing, 7)]) == [(tmp_path, 11, 10)]


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0 bytes"), (999, "999 bytes"), (39_100, "39.1 kB"), (37_700_000, "37.7 MB"), (13_700_000_000, "13.7 GB")],
)
def test_bytes_in_words(size, words):
    assert words_of(size) == words
