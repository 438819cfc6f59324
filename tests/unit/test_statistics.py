from __future__ import annotations

import json

import pytest
import torch
from builders import make_statistics
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from scp_prior import SCPError, Statistics, load_statistics, save_statistics
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
    ],
)
def test_impossible_statistics_are_refused(changes, message):
    with pytest.raises(SCPError, match=message):
        Statistics.from_tensors(broken(**changes), {})


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
    bad.metadata["dataset"] = 5  # safetensors refuses metadata that are not strings
    with pytest.raises(TypeError):
        save_statistics(bad, tmp_path / "s.safetensors")
    assert (tmp_path / "s.safetensors").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


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
