"""A training checkpoint becomes the two files the host's loaders read: same tensors, same names, nothing half done."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_checkpoint import NAMES, lightning, save_small, small_state

from scp_prior import weights
from scp_prior.cli import main
from scp_prior.errors import SCPError
from scp_prior.safetensors_file import CODES, Planned, header_of, in_order
from scp_prior.weights import Converted, convert_weights

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


@pytest.fixture
def source(tmp_path) -> Path:
    save_small(tmp_path / "ade20k.ckpt")
    return tmp_path / "ade20k.ckpt"


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "out"


def convert(source: Path, out: Path, **options) -> Converted:
    return convert_weights(source, out / "controlnet", out / "checkpoints", **options)


def halves(state: dict[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    """What each file is to hold, by names alone."""
    left_out = ("model_ema.", "betas", "first_stage_model.loss.")
    kept = {key: value.detach() for key, value in state.items() if not key.startswith(left_out)}
    own = {key: value for key, value in kept.items() if key.startswith("control_model.")}
    return {"controlnet": own, "checkpoint": {key: value for key, value in kept.items() if key not in own}}


def check(path: Path, expected: dict[str, torch.Tensor], dtype: torch.dtype) -> dict[str, str]:
    """The library's own reader finds the expected tensors at the dtype; the metadata."""
    found = load_file(path)
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        wanted = tensor.to(dtype) if tensor.dtype in FLOATS else tensor
        assert found[key].dtype == wanted.dtype, key
        assert torch.equal(found[key], wanted), key
    with safe_open(path, framework="pt") as file:
        return file.metadata()


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("wrap", [lightning, lambda state: state, lambda state: {"state_dict": state}])
def test_both_halves_hold_the_tensors_of_the_source(tmp_path, out, dtype, wrap):
    state = small_state()
    torch.save(wrap(state), tmp_path / "ade20k.ckpt")
    done = convert(tmp_path / "ade20k.ckpt", out, dtype=dtype)
    assert done.controlnet == out / "controlnet" / "ade20k_controlnet.safetensors"
    assert done.checkpoint == out / "checkpoints" / "ade20k_checkpoint.safetensors"
    for half, expected in halves(state).items():
        assert set(NAMES[half]) <= set(expected)
        check(getattr(done, half), expected, getattr(torch, dtype))
    assert len(listing(out)) == 2
    assert "2 averaged (EMA) weights" in done.message
    assert "\n" not in done.message


@pytest.mark.parametrize("given_as", FLOATS)
@pytest.mark.parametrize("kind", [".ckpt", ".safetensors"])
def test_sources_of_every_float(tmp_path, out, given_as, kind):
    state = {key: value.detach().contiguous().clone() for key, value in small_state(dtype=given_as).items()}
    source = tmp_path / f"set{kind}"
    torch.save(state, source) if kind == ".ckpt" else save_file(state, source, {"global_step": "5"})
    done = convert(source, out, dtype="float16")
    for half, expected in halves(state).items():
        metadata = check(getattr(done, half), expected, torch.float16)
    assert metadata["global_step"] == ("5" if kind == ".safetensors" else "")


def test_metadata_says_where_it_comes_from(source, out):
    done = convert(source, out)
    with safe_open(done.checkpoint, framework="pt") as file:
        metadata = file.metadata()
        header = json.loads(done.checkpoint.read_bytes()[8:].split(b"}}")[0] + b"}}")
        order = sorted(file.keys(), key=lambda key: header[key]["data_offsets"])
    assert metadata.pop("source_identity")
    digest = hashlib.sha256()
    # Each of the source's tensors, in the order in which this file has them.
    state = small_state()
    for key in order:
        digest.update(state[key].detach().contiguous().numpy().tobytes())
    assert metadata == {
        "format": "pt",
        "source_file": "ade20k.ckpt",
        "source_bytes": str(source.stat().st_size),
        "tensors_sha256": digest.hexdigest(),
        "global_step": "1234",
        "dtype": "float16",
        "software": "scp-diff, scp_prior convert",
    }


def test_equal_content_is_equal_bytes(source, out, tmp_path):
    one, other = convert(source, out), convert(source, tmp_path / "other")
    assert one.controlnet.read_bytes() == other.controlnet.read_bytes()
    assert one.checkpoint.read_bytes() == other.checkpoint.read_bytes()


def test_every_tensor_begins_at_a_multiple_of_its_width(source, out):
    data = convert(source, out).checkpoint.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    widths = {key: CODES[entry["dtype"]].itemsize for key, entry in header.items() if key != "__metadata__"}
    assert length % 8 == 0
    assert all(header[key]["data_offsets"][0] % width == 0 for key, width in widths.items())


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_headers_are_those_the_library_reads(tmp_path, data):
    shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)
    entry = st.tuples(st.text(st.characters(codec="utf-8"), min_size=1), st.sampled_from(list(CODES.values())), shapes)
    planned = in_order([Planned(*one) for one in data.draw(st.lists(entry, unique_by=lambda one: one[0]))])
    planned = [one for one in planned if one.name != "__metadata__"]
    metadata = data.draw(st.dictionaries(st.text(), st.text()))
    (tmp_path / "a.safetensors").write_bytes(header_of(planned, metadata) + bytes(sum(one.nbytes for one in planned)))
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        found = {key: (file.get_tensor(key).dtype, tuple(file.get_tensor(key).shape)) for key in file.keys()}  # noqa: SIM118
        assert (file.metadata() or {}) == metadata
    assert found == {one.name: (one.dtype, one.shape) for one in planned}


def test_progress_counts_bytes_to_the_end(source, out):
    seen: list[tuple[int, int]] = []
    convert(source, out, progress=lambda *both: seen.append(both))
    total = sum(t.numel() * t.element_size() for half in halves(small_state()).values() for t in half.values())
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert {all_ for _, all_ in seen} == {total}
    assert seen[-1] == (total, total)


@pytest.mark.parametrize("moment", [1, 2, 3, 11])
def test_raising_in_progress_leaves_no_half_file(source, out, moment):
    """Whatever is raised comes through; whole files stay, the one being written goes."""
    calls = 0

    def stop(done: int, total: int) -> None:
        nonlocal calls
        calls += 1
        if calls == moment:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(source, out, progress=stop)
    finished = ["controlnet/ade20k_controlnet.safetensors"] if moment > 2 else []
    assert listing(out) == finished
    done = convert(source, out)
    assert ("was there already" in done.message) is bool(finished)
    for half, expected in halves(small_state()).items():
        check(getattr(done, half), expected, torch.float16)


def test_leftovers_of_a_killed_run_are_cleared_and_no_loader_takes_them(source, out):
    done = convert(source, out)
    left = done.checkpoint.with_name(f".{done.checkpoint.name}.abc123.part")
    done.checkpoint.rename(left)
    assert left.suffix not in (".safetensors", ".sft", ".ckpt", ".pt", ".pt2", ".bin", ".pth", ".pkl")
    assert convert(source, out).checkpoint.is_file()
    assert not left.exists()


class TestNothingToDo:
    def test_made_before(self, source, out):
        first = convert(source, out)
        stamps = [path.stat().st_mtime_ns for path in (first.controlnet, first.checkpoint)]
        again = convert(source, out)
        assert again.message.startswith("Nothing to do")
        assert (again.controlnet, again.checkpoint) == (first.controlnet, first.checkpoint)
        assert stamps == [path.stat().st_mtime_ns for path in (first.controlnet, first.checkpoint)]

    def test_not_at_another_dtype_or_of_another_source(self, source, out):
        convert(source, out)
        assert convert(source, out, dtype="float32").message.startswith("Wrote")
        torch.save(lightning(small_state(seed=1)), source)
        done = convert(source, out, dtype="float32")
        assert done.message.startswith("Wrote")
        check(done.controlnet, halves(small_state(seed=1))["controlnet"], torch.float32)

    def test_not_when_one_was_cut_short_or_is_gone(self, source, out):
        done = convert(source, out)
        done.controlnet.unlink()
        assert "ade20k_checkpoint.safetensors was there already" in convert(source, out).message
        os.truncate(done.controlnet, done.controlnet.stat().st_size - 1)
        with pytest.raises(SCPError, match="was not made by a conversion"):
            convert(source, out)

    @pytest.mark.parametrize("half", ["controlnet", "checkpoint"])
    def test_our_own_output(self, source, out, half, tmp_path):
        own = getattr(convert(source, out), half)
        done = convert(own, tmp_path / "elsewhere")
        assert done.message.startswith("Nothing to do: ade20k_")
        assert (done.controlnet, done.checkpoint) == ((own, None) if half == "controlnet" else (None, own))
        assert not (tmp_path / "elsewhere").exists()
        wider = convert(own, tmp_path / "elsewhere", dtype="float32")
        assert getattr(wider, half).name == own.name
        with pytest.raises(SCPError, match="would be replaced"):
            convert(own, out, dtype="float32")


def test_a_stripped_file_gives_its_half(tmp_path, out):
    state = small_state()
    torch.save(halves(state)["controlnet"], tmp_path / "control.pth")
    done = convert(tmp_path / "control.pth", out)
    assert done.checkpoint is None
    check(done.controlnet, halves(state)["controlnet"], torch.float16)
    torch.save({key: state[key] for key in NAMES["checkpoint"][:2]}, tmp_path / "unet.ckpt")
    done = convert(tmp_path / "unet.ckpt", out)
    assert done.controlnet is None
    assert "has no VAE and no text encoder" in done.message


@pytest.mark.parametrize(
    "names",
    [
        ("zero_convs.0.0.weight", "input_hint_block.0.weight", "middle_block_out.0.bias"),
        ("controlnet_cond_embedding.conv_in.weight", "down_blocks.0.x"),
    ],
)
def test_a_controlnet_that_stands_alone(tmp_path, out, names):
    state = {name: torch.randn(3) for name in names}
    torch.save({"state_dict": state}, tmp_path / "net.bin")
    done = convert(tmp_path / "net.bin", out, name="own")
    assert done.controlnet.name == "own_controlnet.safetensors"
    assert done.checkpoint is None
    check(done.controlnet, state, torch.float16)


class TestRefusals:
    def test_values_that_float16_does_not_hold(self, tmp_path, out):
        state = small_state()
        state["control_model.zero_convs.0.0.weight"][1, 1] = -70000.0
        torch.save(state, tmp_path / "a.ckpt")
        with pytest.raises(
            SCPError, match=r"zero_convs.0.0.weight holds the value 7e\+04, too large for float16, which ends at 65504"
        ):
            convert(tmp_path / "a.ckpt", out)
        assert listing(out) == []
        state["control_model.zero_convs.0.0.weight"][1, 1] = 70000.0
        torch.save(state, tmp_path / "a.ckpt")
        with pytest.raises(SCPError, match="Choose another dtype"):
            convert(tmp_path / "a.ckpt", out)
        check(convert(tmp_path / "a.ckpt", out, dtype="float32").controlnet, halves(state)["controlnet"], torch.float32)

    def test_values_that_float32_does_not_hold(self, tmp_path, out):
        torch.save({"control_model.a": torch.full((2,), 1e300, dtype=torch.float64)}, tmp_path / "a.ckpt")
        with pytest.raises(SCPError, match=r"holds the value 1e\+300, too large for float32"):
            convert(tmp_path / "a.ckpt", out, dtype="float32")

    def test_what_is_no_number_stays_so(self, tmp_path, out):
        state = small_state()
        state["control_model.zero_convs.0.0.weight"].view(-1)[:3] = torch.tensor([torch.inf, -torch.inf, torch.nan])
        torch.save(state, tmp_path / "a.ckpt")
        found = load_file(convert(tmp_path / "a.ckpt", out).controlnet)["control_model.zero_convs.0.0.weight"]
        assert found.view(-1)[:3].tolist()[:2] == [torch.inf, -torch.inf]
        assert found.view(-1)[2].isnan()

    def test_neither_half(self, tmp_path, out):
        for content in ({"a.weight": torch.zeros(2)}, {}):
            torch.save(content, tmp_path / "a.ckpt")
            with pytest.raises(SCPError, match=r"neither a ControlNet .* nor a checkpoint .*: \d tensors"):
                convert(tmp_path / "a.ckpt", out)
        assert not out.exists()

    def test_views_larger_than_any_weight(self, tmp_path, out):
        torch.save({"control_model.a": torch.zeros(1).expand(1 << 33)}, tmp_path / "a.ckpt")
        with pytest.raises(SCPError):
            convert(tmp_path / "a.ckpt", out)
        assert listing(out) == []

    def test_many_views_of_next_to_nothing(self, tmp_path, out):
        state = {f"control_model.{i}": torch.zeros(1).expand(1 << 28) for i in range(9)}
        torch.save(state, tmp_path / "a.ckpt")
        with pytest.raises(SCPError, match=r"claims to hold 9\.7 GB of weights in 0\.0 MB"):
            convert(tmp_path / "a.ckpt", out)
        assert not out.exists()

    def test_a_file_of_that_name_that_is_not_ours(self, source, out):
        (out / "checkpoints").mkdir(parents=True)
        precious = out / "checkpoints" / "ade20k_checkpoint.safetensors"
        save_file({"a": torch.zeros(1)}, precious)
        before = precious.read_bytes()
        with pytest.raises(SCPError, match="not made by a conversion"):
            convert(source, out)
        assert precious.read_bytes() == before
        assert listing(out) == ["checkpoints/ade20k_checkpoint.safetensors"]

    def test_too_little_space_is_said_before_anything_is_written(self, source, out, monkeypatch):
        free = SimpleNamespace(free=1500)
        monkeypatch.setattr(weights.shutil, "disk_usage", lambda folder: free)
        with pytest.raises(SCPError, match=r"needs 0.0 MB in .*controlnet and .*checkpoints, where 0.0 MB are free"):
            convert(source, out)
        assert listing(out) == []
        free.free = 1 << 20
        assert convert(source, out).controlnet.is_file()

    def test_a_tensor_named_as_the_metadata_is_left_out(self, tmp_path, out):
        alone = {name.removeprefix("control_model."): torch.ones(2) for name in NAMES["controlnet"]}
        torch.save({**alone, "__metadata__": torch.ones(1)}, tmp_path / "a.ckpt")
        check(convert(tmp_path / "a.ckpt", out).controlnet, alone, torch.float16)

    def test_a_hostile_name_is_one_line_without_control_characters(self, tmp_path, out):
        torch.save({"control_model.\x1b[2J\n" + "x" * 5000: torch.tensor([1e30])}, tmp_path / "a.ckpt")
        with pytest.raises(SCPError, match="too large for float16") as caught:
            convert(tmp_path / "a.ckpt", out)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 300

    def test_a_name_too_long_for_what_is_made_of_it(self, source, out, tmp_path):
        shutil.copy(source, tmp_path / f"{'x' * 240}.ckpt")
        with pytest.raises(SCPError, match="Rename the file"):
            convert(tmp_path / f"{'x' * 240}.ckpt", out)
        shutil.copy(source, tmp_path / f"{'x' * 200}.ckpt")
        assert convert(tmp_path / f"{'x' * 200}.ckpt", out).controlnet.is_file()

    @pytest.mark.parametrize("name", ["../x", "a/b", "a\\b", "", " ", ".hidden", "a\nb", "C:x", "x" * 240])
    def test_names_that_leave_the_folder(self, source, out, name):
        with pytest.raises(SCPError, match="cannot be part of a file's name"):
            convert(source, out, name=name)

    def test_words_and_paths_that_mean_nothing(self, source, out, tmp_path):
        with pytest.raises(SCPError, match="There is no dtype 'bfloat16'"):
            convert(source, out, dtype="bfloat16")
        with pytest.raises(SCPError, match="There is no file"):
            convert(tmp_path / "absent.ckpt", out)
        shutil.copy(source, tmp_path / "a.gguf")
        with pytest.raises(SCPError, match="expected a checkpoint as .ckpt"):
            convert(tmp_path / "a.gguf", out)
        (tmp_path / "a.safetensors").write_bytes(b"\xff" * 64)
        with pytest.raises(SCPError, match="safetensors file"):
            convert(tmp_path / "a.safetensors", out)
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(SCPError, match="Cannot make the folder"):
            convert(source, tmp_path / "file")


class TestCommandLine:
    def test_converts_and_says_so(self, source, out, capsys):
        assert main(["convert", str(source), "--out-dir", str(out), "--dtype", "float32"]) == 0
        told = capsys.readouterr()
        assert told.out.startswith("Wrote ade20k_controlnet.safetensors")
        assert "100%" in told.err
        check(out / "ade20k_controlnet.safetensors", halves(small_state())["controlnet"], torch.float32)
        assert main(["convert", str(source), "--out-dir", str(out), "--dtype", "float32"]) == 0
        told = capsys.readouterr()
        assert told.out.startswith("Nothing to do")
        assert told.err == ""

    def test_errors_are_one_line(self, tmp_path, out, capsys):
        (tmp_path / "a.ckpt").write_bytes(b"<html>")
        assert main(["convert", str(tmp_path / "a.ckpt"), "--out-dir", str(out)]) == 1
        assert capsys.readouterr().err.startswith("error: a.ckpt is not a torch checkpoint")

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["a.ckpt"], "give --out-dir"),
            (["a_controlnet.safetensors"], "give --out-dir"),
            (["a.ckpt", "--out", "b.safetensors", "--out-dir", "c"], "needs --out-dir only"),
            (["a.ckpt", "--dataset", "ade20k", "--out-dir", "c"], "needs --out-dir only"),
            (["folder"], "--dataset and --out must be given"),
            (["a.ckpt", "--out-dir", "c", "--dtype", "int8"], "--dtype"),
        ],
    )
    def test_words_that_do_not_go_together(self, words, message, capsys):
        with pytest.raises(SystemExit) as caught:
            main(["convert", *words])
        assert caught.value.code == 2
        assert message in capsys.readouterr().err
