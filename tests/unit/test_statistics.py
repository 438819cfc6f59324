from __future__ import annotations

import json
import sys

import pytest
import torch
from builders import make_statistics
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from scp_prior import SCPError, Statistics, load_statistics, save_statistics
from scp_prior.layout import SHAPES
from scp_prior.statistics import LabelRule


def same(a: Statistics, b: Statistics) -> bool:
    left, right = a.tensors(), b.tensors()
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def test_round_trip(tmp_path):
    made = make_statistics(dataset="cityscapes", class_names=json.dumps({0: "road", 255: "unlabelled"}))
    save_statistics(made, tmp_path / "s.safetensors")
    read = load_statistics(tmp_path / "s.safetensors")
    assert same(made, read)
    assert read.metadata == made.metadata
    assert read.metadata["format"] == "scp-statistics"
    assert read.metadata["version"] == "1"
    assert read.class_names == {0: "road", 255: "unlabelled"}
    assert (read.channels, read.latent_size, read.downscale) == (4, (4, 6), 8)


def test_only_the_rows_asked_for_are_read(tmp_path, monkeypatch):
    made = make_statistics()
    save_statistics(made, tmp_path / "s.safetensors")
    read = load_statistics(tmp_path / "s.safetensors")
    monkeypatch.setattr(type(read._source), "read", lambda *_: pytest.fail("read a whole tensor"))
    cells = read.joint([2, 0])
    whole = made.tensors()
    assert torch.equal(cells.mean, whole["joint.mean"][[2, 0]])
    assert torch.equal(cells.count, whole["joint.count"][[2, 0]].float())


def test_half_precision_files_are_read_as_float32(tmp_path):
    tensors = make_statistics().tensors()
    for key in ("joint.mean", "joint.std"):
        tensors[key] = tensors[key].half()
    save_statistics(Statistics.from_tensors(tensors, {}), tmp_path / "s.safetensors")
    read = load_statistics(tmp_path / "s.safetensors")
    assert read.joint([0]).mean.dtype == torch.float32
    assert torch.equal(read.joint([0]).mean, tensors["joint.mean"][:1].float())
    assert read.tensors()["joint.mean"].dtype == torch.float16


@pytest.mark.parametrize("part", ["joint", "class", "spatial"])
def test_a_file_may_hold_any_part_alone(tmp_path, part):
    save_statistics(make_statistics(parts=[part]), tmp_path / "s.safetensors")
    read = load_statistics(tmp_path / "s.safetensors")
    assert [read.has_joint, read.has_categorical, read.has_spatial] == [
        p == part for p in ("joint", "class", "spatial")
    ]
    assert read.describe()["parts"] == [part]


def test_every_truncation_is_refused_with_a_message(tmp_path):
    save_statistics(make_statistics(size=(2, 2)), tmp_path / "whole.safetensors")
    whole = (tmp_path / "whole.safetensors").read_bytes()
    cut = tmp_path / "cut.safetensors"
    for length in range(0, len(whole), 7):
        cut.write_bytes(whole[:length])
        with pytest.raises(SCPError, match=r"cut\.safetensors"):
            load_statistics(cut)


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_arbitrary_bytes_are_refused_with_a_message(tmp_path, data):
    (tmp_path / "x.safetensors").write_bytes(data)
    with pytest.raises(SCPError):
        load_statistics(tmp_path / "x.safetensors")


def broken(**changes):
    tensors = make_statistics().tensors()
    for key, value in changes.items():
        key = key.replace("_", ".", 1) if key != "class_ids" else key
        if value is None:
            del tensors[key]
        else:
            tensors[key] = value(tensors[key])
    return tensors


def with_value(value):
    def change(tensor):
        tensor = tensor.clone()
        tensor.flatten()[3] = value
        return tensor

    return change


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_ids": None}, "class_ids"),
        ({"class_ids": lambda t: t.flip(0)}, "ascending"),
        ({"class_ids": lambda t: torch.zeros_like(t)}, "ascending"),
        ({"class_ids": lambda t: t - 1}, "0..65535"),
        ({"class_ids": lambda t: t + 70000}, "0..65535"),
        ({"joint_std": None}, r"joint.count but not joint.std"),
        ({"spatial_mean": None}, r"spatial.std but not spatial.mean"),
        ({"joint_mean": lambda t: t[:, :3]}, r"joint.std has shape \(4, 4, 4, 6\); expected \(K=4, C=3, h=4, w=6\)"),
        ({"spatial_mean": lambda t: t[None]}, r"spatial.mean has shape"),
        ({"joint_mean": with_value(float("nan"))}, "joint.mean.*finite"),
        ({"class_std": with_value(float("inf"))}, "class.std.*finite"),
        ({"class_std": with_value(-1.0)}, "class.std.*negative"),
        ({"joint_count": with_value(-1)}, "joint.count.*negative"),
        ({"class_mean": lambda t: t.double() * 1e300}, "class.mean.*finite"),
        ({"class_ids": lambda t: t + 0.5}, "class_ids is of dtype float32; expected one of uint8"),
        ({"class_ids": lambda t: t > 0}, "class_ids is of dtype bool"),
        ({"joint_mean": lambda t: t.to(torch.float8_e4m3fn)}, "joint.mean is of dtype float8_e4m3fn; expected one of"),
        ({"spatial_std": lambda t: t.to(torch.int32)}, "spatial.std is of dtype int32"),
        ({"class_count": lambda t: t > 0}, "class.count is of dtype bool"),
    ],
)
def test_impossible_statistics_are_refused(changes, message):
    with pytest.raises(SCPError, match=message):
        Statistics.from_tensors(broken(**changes), {})


NAMED = {"format": "scp-statistics", "version": "1"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_ids": lambda t: torch.tensor([0, 1.5, 3, 255])}, "class_ids is of dtype float32"),
        ({"joint_mean": lambda t: t.to(torch.float8_e4m3fn)}, "joint.mean is of dtype F8_E4M3"),
        ({"joint_count": lambda t: t.float()}, "joint.count is of dtype float32; expected one of uint8.* int64.$"),
        ({"class_std": lambda t: t.long()}, "class.std is of dtype int64"),
    ],
)
def test_a_file_of_another_dtype_is_refused_when_it_is_opened(tmp_path, changes, message):
    save_file(broken(**changes), tmp_path / "s.safetensors", metadata=NAMED)
    with pytest.raises(SCPError, match=rf"s\.safetensors: {message}"):
        load_statistics(tmp_path / "s.safetensors")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_dtype_of_the_format_is_read(tmp_path, dtype):
    tensors = make_statistics().tensors()
    for key, tensor in tensors.items():
        tensors[key] = tensor.to(dtype if tensor.is_floating_point() else torch.int16)
    save_file(tensors, tmp_path / "s.safetensors", metadata=NAMED)
    read = load_statistics(tmp_path / "s.safetensors")
    assert torch.equal(read.joint([1]).std, tensors["joint.std"][[1]].float())
    assert read.class_ids.tolist() == [0, 1, 3, 255]


@pytest.mark.parametrize("size", ["K", "C", "h", "w", "gh", "gw"])
def test_a_file_with_nothing_along_one_side_is_refused(tmp_path, size):
    dims = {"K": 2, "C": 4, "h": 3, "w": 5, "gh": 2, "gw": 3} | {size: 0}
    tensors = {
        key: torch.zeros(
            [dims[d] for d in shape], dtype=torch.int64 if key.endswith(("count", "ids")) else torch.float32
        )
        for key, shape in SHAPES.items()
    }
    save_file(tensors, tmp_path / "s.safetensors", metadata=NAMED)
    with pytest.raises(SCPError, match=r"s\.safetensors: .* has shape \(.*0.*\); expected every size to be 1 or more"):
        load_statistics(tmp_path / "s.safetensors")


@pytest.mark.parametrize(
    ("key", "text"),
    [
        *(("latent_downscale", text) for text in ("x", "", "0", "-8", "8.0", "65", "9" * 5000)),
        *(("label_rule", f"nearest; {rule}") for rule in ("900000000000->1", "1->65536", "-1->1", "1->-1", "1->2->3")),
        *(("class_names", text) for text in ("", "[]", "{", '{"a": "x"}', '{"-1": "x"}', '{"65536": "x"}', '{"1": 2}')),
        ("class_names", "[" * 100_000),
    ],
)
def test_metadata_that_cannot_be_are_refused_when_the_file_is_opened(tmp_path, key, text):
    save_file(make_statistics().tensors(), tmp_path / "s.safetensors", metadata={**NAMED, key: text})
    with pytest.raises(SCPError, match=rf"s\.safetensors: its {key} (is|are) .*expected") as error:
        load_statistics(tmp_path / "s.safetensors")
    assert repr(text[:70])[:-1] in str(error.value)
    assert len(str(error.value)) < 300


def test_metadata_at_their_limits_are_read(tmp_path):
    limits = {"latent_downscale": "64", "label_rule": "majority; 65535->0", "class_names": '{"65535": "", "0": "é"}'}
    save_file(make_statistics().tensors(), tmp_path / "s.safetensors", metadata={**NAMED, **limits})
    read = load_statistics(tmp_path / "s.safetensors")
    assert (read.downscale, read.label_rule.replace, read.class_names) == (64, ((65535, 0),), {65535: "", 0: "é"})


@pytest.mark.parametrize("metadata", [{"images": 5}, {5: "images"}, {"source": None}, {"source": "\udc80"}])
def test_metadata_that_are_no_text_are_refused(metadata):
    with pytest.raises(SCPError, match="metadata"):
        Statistics.from_tensors(make_statistics().tensors(), metadata)


def test_an_impossible_value_in_a_file_is_refused_when_it_is_read(tmp_path):
    tensors = broken(joint_mean=with_value(float("nan")))
    save_file(tensors, tmp_path / "s.safetensors", metadata={"format": "scp-statistics", "version": "1"})
    read = load_statistics(tmp_path / "s.safetensors")
    read.joint([1])
    with pytest.raises(SCPError, match="joint.mean"):
        read.joint([0])


def test_other_safetensors_files_are_refused_by_name(tmp_path):
    save_file({"class_ids": torch.arange(3)}, tmp_path / "lora.safetensors", metadata={"format": "pt"})
    with pytest.raises(SCPError, match=r"lora\.safetensors.*not a statistics file.*'pt'"):
        load_statistics(tmp_path / "lora.safetensors")
    save_file(
        {"class_ids": torch.arange(3)},
        tmp_path / "x.safetensors",
        metadata={"format": "scp-statistics", "version": "9"},
    )
    with pytest.raises(SCPError, match="version '9'.*Update"):
        load_statistics(tmp_path / "x.safetensors")
    with pytest.raises(SCPError, match="no statistics file"):
        load_statistics(tmp_path / "none.safetensors")
    with pytest.raises(SCPError, match="folder"):
        load_statistics(tmp_path)


def test_a_file_replaced_while_in_use_is_noticed(tmp_path):
    save_statistics(make_statistics(), tmp_path / "s.safetensors")
    read = load_statistics(tmp_path / "s.safetensors")
    save_statistics(make_statistics(size=(8, 8)), tmp_path / "s.safetensors")
    with pytest.raises(SCPError, match="replaced"):
        read.joint([0])


def test_a_failed_save_keeps_the_old_file(tmp_path):
    save_statistics(make_statistics(), tmp_path / "s.safetensors")
    before = (tmp_path / "s.safetensors").read_bytes()
    bad = make_statistics(seed=1)
    bad.metadata["dataset"] = 5
    with pytest.raises(SCPError, match="expected metadata of strings; came 'dataset': 5"):
        save_statistics(bad, tmp_path / "s.safetensors")
    assert (tmp_path / "s.safetensors").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of file sizes")
def test_a_disk_that_is_full_keeps_the_old_file(tmp_path):
    import resource

    target = tmp_path / "s.safetensors"
    save_statistics(make_statistics(), target)
    before = target.read_bytes()
    larger = make_statistics(size=(16, 16))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(SCPError, match=r"Cannot write .*s\.safetensors: .*too large") as error:
            save_statistics(larger, target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(error.value)
    assert target.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_tensors_that_share_memory_are_saved_apart(tmp_path):
    tensors = make_statistics().tensors()
    tensors["spatial.mean"] = tensors["spatial.std"]
    tensors["class.std"] = tensors["class.std"].T.contiguous().T
    made = Statistics.from_tensors(tensors, {})
    save_statistics(made, tmp_path / "s.safetensors")
    assert same(made, load_statistics(tmp_path / "s.safetensors"))


def test_resampled_statistics_can_be_saved(tmp_path):
    small = make_statistics().resample((8, 9))
    save_statistics(small, tmp_path / "s.safetensors")
    read = load_statistics(tmp_path / "s.safetensors")
    assert read.latent_size == (8, 9)
    counts = small.tensors()["joint.count"]
    assert ((read.tensors()["joint.count"] > 0) == (counts > 0)).all()
    assert torch.equal(read.joint([1]).mean, small.joint([1]).mean)


def test_describe_counts_what_is_there():
    made = make_statistics(class_names='{"0": "road"}')
    summary = json.loads(json.dumps(made.describe()))
    assert summary["latent_size"] == [4, 6]
    first = summary["classes"][0]
    count = made.tensors()["joint.count"][0]
    assert first == {
        "id": 0,
        "name": "road",
        "count": int(count.sum()),
        "cells": pytest.approx((count > 0).float().mean()),
    }


def test_label_rule():
    assert LabelRule.parse("nearest", "f") == LabelRule("nearest")
    assert LabelRule.parse("majority; 255->150; 3 -> 4", "f") == LabelRule("majority", ((255, 150), (3, 4)))
    for text in ("", "bilinear", "nearest; 255", "nearest; a->b", "nearest; 1->2->3"):
        with pytest.raises(SCPError, match="label_rule"):
            LabelRule.parse(text, "f")
