"""The reducer, with an encoder that takes no time, against statistics made the slow way."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import re
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from reducing import GRID, SIZE, StubEncoder, check, make_pair, make_pairs, open_pairs, run, save_run, two_pass
from safetensors.torch import load_file, save_file

from scp_prior import SCPError, load_statistics
from scp_prior import reduce as reduce_module
from scp_prior.checkpoint import checkpoint_path, load_checkpoint
from scp_prior.collector import Collector
from scp_prior.datasets import Dataset
from scp_prior.loader import Loading, WorkersLostError, load_batches
from scp_prior.reduce import Plan, Saving, Share, Step, can_resume, describe_plan, finish, finished, my_batches, reduce

COUNT = 20
WAYS = {"here": Loading(0), "processes": Loading(2), "threads": Loading(2, threads=True)}
# Processes take seconds to start, so only where they could matter.
IN_PROCESS = ("here", "threads")


@pytest.fixture(autouse=True)
def one_time(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return make_pairs(tmp_path_factory.mktemp("pairs"), COUNT)


@pytest.fixture
def dataset(root) -> Dataset:
    return open_pairs(root)


def names(dataset: Dataset) -> list[str]:
    return [pair.name for pair in dataset.pairs]


def same_sums(one: Collector, other: Collector, tolerance: float = 0.0) -> None:
    a, b = one.state(), other.state()
    assert a.keys() == b.keys()
    for key in a:
        assert a[key].shape == b[key].shape, key
        if a[key].numel():  # a fold may have no picture
            assert float((a[key] - b[key]).abs().max()) <= tolerance * max(1.0, float(a[key].abs().max())), key


# --- the numbers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 3, 20, 50])
def test_equals_two_pass_statistics(root, dataset, batch_size):
    made = run(dataset, Plan(SIZE, batch_size))
    check(made, two_pass(root, names(dataset)))
    assert made.class_ids.tolist() == [0, 4, 9, *range(100, 107), 255]
    assert made.metadata["images"] == str(COUNT)
    assert made.metadata["source"] == f"all {COUNT} pairs"


def test_a_photo_of_another_size_is_brought_to_the_plan(root, dataset):
    """Half the size: latents of cells twice as large, but for what the filter takes from their neighbours."""
    made = run(dataset, Plan((16, 24), 4))
    wanted = two_pass(root, names(dataset), (2, 3))
    assert made.latent_size == (2, 3)
    assert np.array_equal(made.tensors()["joint.count"].numpy(), wanted["joint.count"])
    assert np.abs(made.tensors()["spatial.mean"].numpy() - wanted["spatial.mean"]).max() < 0.3


def test_workers_threads_and_none_give_the_same_file(tmp_path, dataset):
    files = {
        way: save_run(tmp_path / way, dataset, Plan(SIZE, 3, limit=17), loading=loading)
        for way, loading in WAYS.items()
    }
    assert files["here"] == files["processes"] == files["threads"]


def test_batch_size_changes_nothing(dataset):
    whole = [reduce(dataset, StubEncoder(), Plan(SIZE, size)).collected for size in (1, 4, 7, 20)]
    for other in whole[1:]:
        same_sums(whole[0], other)


def test_what_the_file_says_of_itself(dataset):
    metadata = run(dataset, Plan(SIZE)).metadata
    expected = {
        "dataset": "folder",
        "palette": "",
        "label_rule": "nearest",
        "latent_channels": "4",
        "latent_downscale": "8",
        "vae": StubEncoder().name,
        "image_size": "32x48",
        "created": "2023-11-14T22:13:20+00:00",
        "class_names": "{}",
    }
    assert {key: metadata[key] for key in expected} == expected


# --- which pairs ----------------------------------------------------------------------------------------------------


def test_every_photo_is_encoded_once_and_in_order(dataset):
    encoder = StubEncoder()
    reduce(dataset, encoder, Plan(SIZE, 3))
    assert encoder.seen == list(range(COUNT))


def test_a_limit_draws_without_replacement_and_the_file_says_so(root, dataset):
    draws = {}
    for seed in range(6):
        encoder = StubEncoder()
        made = run(dataset, Plan(SIZE, 3, limit=7, seed=seed), encoder)
        draws[seed] = encoder.seen
        assert len(set(encoder.seen)) == len(encoder.seen) == 7
        assert made.metadata["images"] == "7"
        assert made.metadata["source"] == f"7 of 20 pairs, drawn without replacement with seed {seed}"
        check(made, two_pass(root, [f"{number:04}" for number in encoder.seen]))
    assert len({tuple(seen) for seen in draws.values()}) == 6
    again = StubEncoder()
    run(dataset, Plan(SIZE, 5, limit=7, seed=3), again)
    assert again.seen == draws[3]


def test_a_limit_beyond_the_data_is_all_of_it(dataset):
    assert run(dataset, Plan(SIZE, limit=1000, seed=9)).metadata["source"] == "all 20 pairs"


@given(st.integers(0, 60), st.integers(1, 9), st.none() | st.integers(1, 70), st.integers(1, 7))
@settings(max_examples=200, deadline=None)
def test_processes_share_the_batches_of_one(pairs, batch_size, limit, world):
    plan = Plan(SIZE, batch_size, limit, 5)
    alone = my_batches(plan, pairs, Share())
    shares = [my_batches(plan, pairs, Share(rank, world)) for rank in range(world)]
    dealt = [batch for turn in itertools.zip_longest(*shares) for batch in turn if batch is not None]
    assert dealt == alone
    flat = list(itertools.chain.from_iterable(alone))
    assert sorted(flat) == flat == plan.indices(pairs)
    assert len(set(flat)) == min(pairs, pairs if limit is None else limit)


def test_shares_merged_are_the_whole(dataset):
    plan = Plan(SIZE, 3)
    parts = [reduce(dataset, StubEncoder(), plan, share=Share(rank, 3)) for rank in range(3)]
    total = parts[2].collected
    total.merge(parts[0].collected)
    total.merge(parts[1].collected)
    same_sums(reduce(dataset, StubEncoder(), plan).collected, total, 1e-12)


# --- what cannot be read --------------------------------------------------------------------------------------------


@pytest.fixture
def spoilt(tmp_path) -> Path:
    """A photo that is no picture, a map cut short, a map of another size (two of them one batch of 2), one partner."""
    root = make_pairs(tmp_path / "spoilt", 10)
    (root / "images" / "0003.png").write_bytes(b"not a picture")
    whole = (root / "labels" / "0006.png").read_bytes()
    (root / "labels" / "0006.png").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(root / "labels" / "0007.png")
    make_pair(root, 10)
    (root / "labels" / "0010.png").unlink()
    return root


@pytest.mark.parametrize("way", WAYS)
def test_what_cannot_be_read_is_skipped_and_listed(tmp_path, spoilt, way):
    dataset = open_pairs(spoilt)
    assert len(dataset.pairs) == 10
    assert len(dataset.problems) == 1
    assert "0010" in dataset.problems[0]
    encoder, steps = StubEncoder(), []
    plan = Plan(SIZE, 2, on_error="skip")
    progress = reduce(dataset, encoder, plan, loading=WAYS[way], report=steps.append)
    assert encoder.seen == [0, 1, 2, 4, 5, 8, 9]
    assert [name for name, _ in progress.skipped] == ["0003", "0006", "0007"]
    for (name, why), words in zip(progress.skipped, ("0003", "0006", "8x8"), strict=True):
        assert f"images/{name}.png" in why
        assert f"labels/{name}.png" in why
        assert words in why
    made = finish(progress, dataset, encoder, plan)
    check(made, two_pass(spoilt, ["0000", "0001", "0002", "0004", "0005", "0008", "0009"]))
    assert made.metadata["images"] == "7"
    assert made.metadata["source"] == "all 10 pairs; 3 skipped"
    assert [(step.done, step.skipped) for step in steps] == [(2, 0), (4, 1), (6, 1), (8, 3), (10, 3)]


@pytest.mark.parametrize("way", IN_PROCESS)
def test_what_cannot_be_read_stops_the_run(spoilt, way):
    encoder, before = StubEncoder(), threading.active_count()
    with pytest.raises(SCPError, match=r"images/0003.png.*labels/0003.png.*'skip'"):
        reduce(open_pairs(spoilt), encoder, Plan(SIZE, 2), loading=WAYS[way])
    assert encoder.seen == [0, 1]
    assert threading.active_count() == before


def test_who_was_stopped_may_go_on_by_skipping(tmp_path, spoilt):
    dataset, saving = open_pairs(spoilt), Saving(tmp_path / "c", 1)
    with pytest.raises(SCPError):
        reduce(dataset, StubEncoder(), Plan(SIZE, 2), saving=saving)
    encoder, plan = StubEncoder(), Plan(SIZE, 2, on_error="skip")
    resumed = save_run(tmp_path / "r", dataset, plan, encoder, saving=saving, resume=True)
    assert encoder.seen == [2, 4, 5, 8, 9]
    assert resumed == save_run(tmp_path / "w", dataset, plan)


def test_every_pair_skipped_is_an_error_and_can_be_resumed(tmp_path, root):
    dataset = open_pairs(root)
    missing = tuple(pair._replace(photo=pair.photo.with_name("gone.png")) for pair in dataset.pairs)
    dataset = dataclasses.replace(dataset, pairs=missing)
    plan, saving = Plan(SIZE, 3, on_error="skip"), Saving(tmp_path / "c", 1)
    for resume in (False, True):
        progress = reduce(dataset, StubEncoder(), plan, saving=saving, resume=resume)
        assert len(progress.skipped) == COUNT
        assert finished(progress, dataset, plan)
        with pytest.raises(SCPError, match="Not one of the 20 pairs.*gone.png"):
            finish(progress, dataset, StubEncoder(), plan)


@pytest.mark.parametrize("way", WAYS)
def test_an_empty_data_set_is_an_error(dataset, way):
    empty = dataclasses.replace(dataset, pairs=())
    plan = Plan(SIZE)
    progress = reduce(empty, StubEncoder(), plan, loading=WAYS[way])
    with pytest.raises(SCPError, match="No image"):
        finish(progress, empty, StubEncoder(), plan)


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (Plan((32, 50)), "32x48 or 32x56"),
        (Plan((4, 48)), "8x48"),
        (Plan((0, 0)), "8x8"),
        (Plan(SIZE, 0), "at least 1"),
        (Plan(SIZE, limit=0), "at least 1"),
        (Plan(SIZE, on_error="ignore"), "'ignore'"),
    ],
)
def test_a_plan_that_cannot_be_carried_out_is_refused(dataset, plan, words):
    encoder = StubEncoder()
    with pytest.raises(SCPError, match=re.escape(words)):
        reduce(dataset, encoder, plan)
    assert not encoder.seen


def test_an_encoder_that_gives_nan_stops_the_run_and_what_was_saved_stands(tmp_path, dataset):
    class Spoilt(StubEncoder):
        def encode(self, photos):
            mean, variance = super().encode(photos)
            if self.batches == 4:
                mean[0, 0, 0, 0] = float("nan")
            return mean, variance

    saving = Saving(tmp_path / "c", 1)
    with pytest.raises(SCPError, match="NaN"):
        reduce(dataset, Spoilt(), Plan(SIZE, 2), saving=saving)
    encoder = StubEncoder()
    resumed = save_run(tmp_path / "r", dataset, Plan(SIZE, 2), encoder, saving=saving, resume=True)
    assert encoder.seen == list(range(6, COUNT))
    assert resumed == save_run(tmp_path / "w", dataset, Plan(SIZE, 2))


# --- stopping and going on ------------------------------------------------------------------------------------------


def stop_after(batches: int):
    asked = itertools.count(1)
    return lambda: next(asked) >= batches


def test_stopped_anywhere_and_resumed_gives_the_same_file(tmp_path, dataset):
    plan = Plan(SIZE, 3, limit=19, seed=4)
    whole = save_run(tmp_path / "whole", dataset, plan)
    for batches in range(1, 8):
        saving = Saving(tmp_path / f"c{batches}")
        first, second = StubEncoder(), StubEncoder()
        progress = reduce(dataset, first, plan, saving=saving, stop=stop_after(batches), loading=WAYS["threads"])
        assert progress.batches == batches == first.batches
        assert finished(progress, dataset, plan) is (batches == 7)
        resumed = save_run(tmp_path / "r", dataset, plan, second, saving=saving, resume=True)
        assert resumed == whole, batches
        assert sorted(first.seen + second.seen) == plan.indices(COUNT)


def test_stopped_after_every_batch(tmp_path, dataset):
    plan, saving, runs = Plan(SIZE, 2), Saving(tmp_path / "c"), 0
    progress = None
    while progress is None or not finished(progress, dataset, plan):
        encoder = StubEncoder()
        progress = reduce(dataset, encoder, plan, saving=saving, resume=True, stop=lambda: True)
        assert encoder.batches == 1
        runs += 1
    assert runs == 10
    assert save_run(tmp_path / "r", dataset, plan, saving=saving, resume=True) == save_run(
        tmp_path / "w", dataset, plan
    )


def test_skipped_pairs_are_remembered(tmp_path, spoilt):
    dataset, plan = open_pairs(spoilt), Plan(SIZE, 2, on_error="skip")
    saving = Saving(tmp_path / "c")
    reduce(dataset, StubEncoder(), plan, saving=saving, stop=stop_after(4))
    progress = reduce(dataset, StubEncoder(), plan, saving=saving, resume=True)
    assert [name for name, _ in progress.skipped] == ["0003", "0006", "0007"]
    assert finish(progress, dataset, StubEncoder(), plan).metadata["source"] == "all 10 pairs; 3 skipped"


def test_the_time_in_the_file_is_that_of_the_start(tmp_path, dataset, monkeypatch):
    saving = Saving(tmp_path / "c")
    reduce(dataset, StubEncoder(), Plan(SIZE), saving=saving, stop=lambda: True)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1800000000")
    made = run(dataset, Plan(SIZE), saving=saving, resume=True)
    assert made.metadata["created"] == "2023-11-14T22:13:20+00:00"


def test_without_resume_a_run_starts_at_the_beginning(tmp_path, dataset):
    saving, encoder = Saving(tmp_path / "c"), StubEncoder()
    reduce(dataset, StubEncoder(), Plan(SIZE), saving=saving, stop=lambda: True)
    reduce(dataset, encoder, Plan(SIZE), saving=saving)
    assert encoder.seen == list(range(COUNT))


def test_resume_without_a_checkpoint_starts_at_the_beginning(tmp_path, dataset):
    encoder = StubEncoder()
    reduce(dataset, encoder, Plan(SIZE), saving=Saving(tmp_path / "c"), resume=True)
    assert encoder.seen == list(range(COUNT))


def test_progress_is_saved_every_so_many_images_or_seconds(tmp_path, dataset, monkeypatch):
    saved = []

    def save(path, progress, plan):
        saved.append(progress.batches)

    monkeypatch.setattr(reduce_module, "save_checkpoint", save)
    reduce(dataset, StubEncoder(), Plan(SIZE, 2), saving=Saving(tmp_path / "c", 5, 1e9))
    assert saved == [0, 3, 6, 9]
    saved.clear()
    now = iter(range(0, 10**6, 10))
    monkeypatch.setattr(reduce_module.time, "monotonic", lambda: next(now))
    reduce(dataset, StubEncoder(), Plan(SIZE, 2), saving=Saving(tmp_path / "c", 10**9, 20.0))
    assert saved[0] == 0
    assert len(saved) > 3
    saved.clear()
    reduce(dataset, StubEncoder(), Plan(SIZE, 2), saving=Saving(tmp_path / "c"), share=Share(0, 2))
    assert saved == [0, 5], "while it waits for others, all a process has done is saved"


def test_steps_are_reported(dataset):
    steps = []
    reduce(dataset, StubEncoder(), Plan(SIZE, 3), report=steps.append)
    assert [step.done for step in steps] == [3, 6, 9, 12, 15, 18, 20]
    assert {step.total for step in steps} == {COUNT}
    assert [step.classes for step in steps] == sorted(step.classes for step in steps)
    steps.clear()
    reduce(dataset, StubEncoder(), Plan(SIZE, 3), report=steps.append, share=Share(1, 2))
    assert steps == [Step(n, 9, steps[i].classes, 0) for i, n in enumerate((3, 6, 9))]


def test_steps_of_a_resumed_run_go_on(tmp_path, dataset):
    saving, steps = Saving(tmp_path / "c"), []
    reduce(dataset, StubEncoder(), Plan(SIZE, 3), saving=saving, stop=stop_after(2))
    reduce(dataset, StubEncoder(), Plan(SIZE, 3), saving=saving, resume=True, report=steps.append)
    assert [step.done for step in steps] == [9, 12, 15, 18, 20]
    assert steps[0].classes > 0


@pytest.mark.parametrize("way", IN_PROCESS)
def test_a_stop_takes_effect_within_a_batch(dataset, way):
    encoder, asked = StubEncoder(), []

    def ask(batches: int) -> None:
        if batches == 2:
            asked.append(True)

    encoder.before = ask
    progress = reduce(dataset, encoder, Plan(SIZE, 1), loading=WAYS[way], stop=lambda: bool(asked))
    assert progress.batches == 3 == encoder.batches


@pytest.mark.parametrize("asked", [False, True])
def test_lost_workers_are_an_error_unless_the_run_was_to_end_anyway(tmp_path, dataset, monkeypatch, asked):
    """What ends a run (a closed session, a job's time) may end its workers first."""
    lost, saving, plan = [], Saving(tmp_path / "c"), Plan(SIZE, 2)
    whole = save_run(tmp_path / "w", dataset, plan)

    def batches(*given):
        yield from itertools.islice(load_batches(*given), 3)
        lost.append(True)
        raise WorkersLostError("A process was killed.")

    with monkeypatch.context() as patched:
        patched.setattr(reduce_module, "load_batches", batches)
        if asked:
            progress = reduce(dataset, StubEncoder(), plan, saving=saving, stop=lambda: bool(lost))
            assert progress.batches == 3
        else:
            with pytest.raises(WorkersLostError):
                reduce(dataset, StubEncoder(), plan, saving=saving, stop=lambda: False)
    encoder = StubEncoder()
    assert save_run(tmp_path / "r", dataset, plan, encoder, saving=saving, resume=True) == whole
    assert encoder.seen == list(range(6, COUNT))


# --- checkpoints of others ------------------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(tmp_path, dataset) -> Path:
    path = tmp_path / "c"
    reduce(dataset, StubEncoder(), Plan(SIZE, 2, limit=12), saving=Saving(path), stop=stop_after(2))
    return path


OTHERS = {
    "size: 32x48 then, 16x24 now": {"plan": Plan((16, 24), 2, limit=12)},
    "batch size: 2 then, 3 now": {"plan": Plan(SIZE, 3, limit=12)},
    "limit: 12 with seed 0 then, none now": {"plan": Plan(SIZE, 2)},
    "limit: 12 with seed 0 then, 12 with seed 1 now": {"plan": Plan(SIZE, 2, limit=12, seed=1)},
    "VAE: stub.safetensors sha256:0123456789ab then, other now": {"encoder": StubEncoder(name="other")},
    "process: 1 of 1 then, 2 of 2 now": {"share": Share(1, 2)},
    "precision: torch.float32 on cpu then, torch.bfloat16 on cpu now": {"dtype": torch.bfloat16},
    "data set: folder, 20 pairs": {"drop": True},
    "palette:  then, ade20k now": {"dataset": {"palette": "ade20k"}},
    "data set: folder, 20": {"dataset": {"name": "ade20k"}},
}


@pytest.mark.parametrize("words", OTHERS)
def test_a_checkpoint_of_other_settings_is_refused(checkpoint, dataset, words):
    other = OTHERS[words]
    encoder = other.get("encoder", StubEncoder())
    encoder.dtype = other.get("dtype", torch.float32)
    dataset = dataclasses.replace(dataset, **other.get("dataset", {}))
    if "drop" in other:
        dataset = dataclasses.replace(dataset, pairs=dataset.pairs[1:])
    plan, before = other.get("plan", Plan(SIZE, 2, limit=12)), checkpoint.read_bytes()
    with pytest.raises(SCPError) as refused:
        reduce(dataset, encoder, plan, saving=Saving(checkpoint), resume=True, share=other.get("share"))
    assert words in str(refused.value)
    assert str(refused.value).count(" then, ") == 1, "only what differs"
    assert str(checkpoint) in str(refused.value)
    assert checkpoint.read_bytes() == before
    assert not encoder.seen


def test_a_checkpoint_of_another_class_table_is_refused(tmp_path, root):
    ids = [0, 4, 9, *range(100, 107), 255]
    table, saving = tmp_path / "own.csv", Saving(tmp_path / "c")

    def opened(change: str = "") -> Dataset:
        rows = [f"{k},class {k},#{k:02x}{k:02x}{k:02x}" for k in ids]
        table.write_text("id,name,rgb\n" + "\n".join(rows).replace("class 4,#040404", change or "class 4,#040404"))
        return open_pairs(root, table=table)

    reduce(opened(), StubEncoder(), Plan(SIZE), saving=saving, stop=lambda: True)
    for change in ("class four,#040404", "class 4,#050604"):
        with pytest.raises(SCPError, match="classes: own "):
            reduce(opened(change), StubEncoder(), Plan(SIZE), saving=saving, resume=True)
    made = run(opened(), Plan(SIZE), saving=saving, resume=True)
    assert made.class_names == {k: f"class {k}" for k in ids}


def damage(path: Path, kind: str) -> None:
    whole = path.read_bytes()
    if kind == "statistics":
        save_file({"a": torch.zeros(1)}, path, metadata={"format": "scp-statistics"})
    elif kind == "a sum is not finite":
        state = load_file(path)
        sums = next(state[f"{fold}.sums"] for fold in range(5) if state[f"{fold}.sums"].numel())
        sums[0, 0, 0, 0] = float("inf")
        length = int.from_bytes(whole[:8], "little")
        save_file(state, path, metadata=json.loads(whole[8 : 8 + length])["__metadata__"])
    else:
        path.write_bytes({"empty": b"", "cut short": whole[:-9], "garbage": b"\xff" * 200, "short": whole[:5]}[kind])


@pytest.mark.parametrize("kind", ["empty", "cut short", "garbage", "short", "statistics", "a sum is not finite"])
def test_a_damaged_checkpoint_is_refused_and_left_alone(checkpoint, dataset, kind):
    damage(checkpoint, kind)
    before, encoder, plan = checkpoint.read_bytes(), StubEncoder(), Plan(SIZE, 2, limit=12)
    words = "is not a checkpoint of a reduction" if kind == "statistics" else "checkpoint"
    with pytest.raises(SCPError, match=words):
        reduce(dataset, encoder, plan, saving=Saving(checkpoint), resume=True)
    assert checkpoint.read_bytes() == before
    assert not encoder.seen
    assert not can_resume(checkpoint, dataset, encoder, plan)


def test_a_checkpoint_holds_the_sums_exactly(checkpoint, dataset):
    plan = Plan(SIZE, 2, limit=12)
    described = describe_plan(dataset, StubEncoder(), plan, Share())
    assert can_resume(checkpoint, dataset, StubEncoder(), plan)
    loaded = load_checkpoint(checkpoint, described)
    again = reduce(dataset, StubEncoder(), plan, stop=stop_after(2))
    same_sums(loaded.collected, again.collected)
    assert (loaded.batches, loaded.skipped, loaded.created) == (again.batches, again.skipped, again.created)


def test_where_checkpoints_lie():
    out = Path("folder/a.safetensors")
    assert checkpoint_path(out) == Path("folder/a.safetensors.checkpoint")
    assert checkpoint_path(out, 1, 3) == Path("folder/a.safetensors.2of3.checkpoint")


def test_a_folder_that_is_not_there_is_found_before_anything_is_encoded(tmp_path, dataset):
    encoder = StubEncoder()
    with pytest.raises(SCPError, match=r"Cannot write .*nowhere"):
        reduce(dataset, encoder, Plan(SIZE), saving=Saving(tmp_path / "nowhere" / "c"))
    assert not encoder.seen


# --- the loader -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", IN_PROCESS)
def test_batches_come_in_order_and_whole(dataset, way):
    order = [[5, 3], [19], [0, 1, 2]]
    got = list(load_batches(dataset, order, SIZE, GRID, WAYS[way]))
    assert [len(batch.labels) for batch in got] == [2, 1, 3]
    numbers = [(b.photos[:, 1, 0, 0] * 127.5 + 127.5).round().int().tolist() for b in got]
    assert numbers == order
    for batch, of in zip(got, order, strict=True):
        assert batch.photos.dtype == torch.float32
        assert batch.labels.dtype == torch.int64
        for photo, label, index in zip(batch.photos, batch.labels, of, strict=True):
            pair = dataset.pairs[index]
            pixels = torch.from_numpy(np.asarray(Image.open(pair.photo)).copy()).permute(2, 0, 1)
            assert torch.equal(((photo + 1) * 127.5).round().byte(), pixels)
            assert np.array_equal(label.numpy(), np.asarray(Image.open(pair.label))[::8, ::8])


def test_ids_of_sixteen_bits_arrive(tmp_path):
    root = make_pairs(tmp_path / "wide", 1)
    ids = np.full(SIZE, 65535, np.uint16)
    ids[:16] = 300
    Image.fromarray(ids).save(root / "labels" / "0000.png")
    batch = next(load_batches(open_pairs(root), [[0]], SIZE, GRID, WAYS["here"]))
    assert batch.labels.unique().tolist() == [300, 65535]


def test_closing_early_ends_the_threads(dataset):
    before = threading.active_count()
    stream = load_batches(dataset, [[n] for n in range(COUNT)], SIZE, GRID, WAYS["threads"])
    next(stream)
    assert threading.active_count() > before
    stream.close()
    assert threading.active_count() == before


def test_files_load_and_serve(tmp_path, dataset):
    save_run(tmp_path / "s.safetensors", dataset, Plan(SIZE))
    loaded = load_statistics(tmp_path / "s.safetensors")
    assert loaded.latent_size == GRID
    assert loaded.metadata["images"] == str(COUNT)


def test_what_killed_runs_left_is_removed(tmp_path, dataset):
    out = tmp_path / "own.safetensors"
    path = checkpoint_path(out)
    ours = tmp_path / f".{path.name}.abcd1234.part"
    others = [
        tmp_path / name
        for name in (
            ".own.safetensors.abcd1234.part",
            f".{checkpoint_path(out, 1, 2).name}.abcd1234.part",
            ".other.safetensors.checkpoint.abcd1234.part",
            "own.safetensors.checkpoint.abcd1234.part",
        )
    ]
    for file in (ours, *others):
        file.write_bytes(b"half")
    reduce(dataset, StubEncoder(), Plan(SIZE), saving=Saving(path))
    assert not ours.exists()
    assert all(file.exists() for file in others)


def test_a_checkpoint_of_files_changed_since_is_refused(tmp_path):
    """By content, not by name: other photos of the same names, or a map repainted after it was counted."""
    root = make_pairs(tmp_path / "pairs", 6)
    dataset, plan, saving = open_pairs(root), Plan(SIZE, 1), Saving(tmp_path / "c", 1)
    reduce(dataset, StubEncoder(), plan, saving=saving, stop=stop_after(3))
    assert can_resume(saving.path, dataset, StubEncoder(), plan)
    counted, to_come = dataset.pairs[1].label, dataset.pairs[5].label
    later = to_come.stat().st_mtime_ns + 10**9
    os.utime(to_come, ns=(later, later))
    assert can_resume(saving.path, dataset, StubEncoder(), plan)  # mended before its turn: that is what resume is for
    os.utime(counted, ns=(later, later))
    assert not can_resume(saving.path, dataset, StubEncoder(), plan)
    with pytest.raises(SCPError, match="changed since"):
        reduce(dataset, StubEncoder(), plan, saving=saving, resume=True)


def test_what_was_skipped_is_not_resumed_by_a_run_that_would_stop(tmp_path):
    root = make_pairs(tmp_path / "pairs", 6)
    (root / "images" / "0001.png").write_bytes(b"no picture")
    dataset, saving = open_pairs(root), Saving(tmp_path / "c", 1)
    reduce(dataset, StubEncoder(), Plan(SIZE, 1, on_error="skip"), saving=saving, stop=stop_after(3))
    assert can_resume(saving.path, dataset, StubEncoder(), Plan(SIZE, 1, on_error="skip"))
    with pytest.raises(SCPError, match="left out 1 pairs.*0001"):
        reduce(dataset, StubEncoder(), Plan(SIZE, 1), saving=saving, resume=True)


def test_a_latent_that_is_no_number_names_its_photos_and_keeps_the_rest(tmp_path):
    class Overflows(StubEncoder):
        def encode(self, photos):
            mean, variance = super().encode(photos)
            return (mean * float("nan") if len(self.seen) > 4 else mean), variance

    root = make_pairs(tmp_path / "pairs", 6)
    dataset, plan, saving = open_pairs(root), Plan(SIZE, 2), Saving(tmp_path / "c", 1000)
    with pytest.raises(SCPError, match="NaN.*0004, 0005"):
        reduce(dataset, Overflows(), plan, saving=saving)
    resumed = reduce(dataset, StubEncoder(), plan, saving=saving, resume=True)
    same_sums(resumed.collected, reduce(dataset, StubEncoder(), plan).collected)
