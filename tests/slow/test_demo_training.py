"""The demo's training: repeatable, interruptible, and still what the committed weights were made by.

Everything runs in a process of its own, since it brings the host's classes along.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).resolve().parents[2] / "demo"
# On one machine the losses are equal to the bit, whatever else it does and however many cores it has. Another processor
# rounds bfloat16 otherwise: the first losses, before the runs can drift apart, agree far better than this.
TOLERANCE = 0.02

SCRIPT = """
import json, sys
from pathlib import Path
sys.path.insert(0, {demo!r})
import torch
from demo_data import FreshScenes
import train_decoder, train_segmenter, train_unet, train_vae

work = Path({work!r})
{body}
print(json.dumps(result))
"""


def run(work: Path, body: str):
    """Run a few lines with the trainings imported; return what they left in `result`."""
    script = SCRIPT.format(demo=str(DEMO), work=str(work), body=body)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Losses of short trainings: whole, whole again, and interrupted half way."""
    body = """
scenes = FreshScenes(12, seed=0)
latents = torch.randn(12, 4, 16, 32, generator=torch.Generator().manual_seed(0))
result = {}
for name in ("once", "twice", "interrupted"):
    folder = work / name
    folder.mkdir()
    parts = [2, None] if name == "interrupted" else [None]
    for until in parts:
        vae = train_vae.train(folder, scenes, steps=4, batch=2, until=until)
    for until in parts:
        unet = train_unet.train(folder, scenes, latents, steps=4, pictures=2, copies=2, until=until)
    for until in parts:
        decoder = train_decoder.train(folder, scenes, latents, steps=4, batch=2, until=until)
    polished = train_decoder.load_polished(folder)
    for until in parts:
        judge = train_segmenter.train(folder, scenes, polished, steps=4, batch=4, until=until)
    result[name] = [vae.tolist(), unet.tolist(), decoder.tolist(), judge.tolist()]
    result[name + " weights"] = [float(sum(p.double().abs().sum() for p in m.parameters()))
                                 for m in (polished, train_unet.load(folder))]
"""
    return run(tmp_path_factory.mktemp("trainings"), body)


def test_the_same_seed_gives_the_same_losses_and_weights(runs):
    assert runs["once"] == runs["twice"]
    assert runs["once weights"] == runs["twice weights"]


def test_interrupted_and_resumed_is_as_if_never_interrupted(runs):
    assert runs["interrupted"] == runs["once"]
    assert runs["interrupted weights"] == runs["once weights"]


def test_losses_differ_from_step_to_step(runs):
    for losses in runs["once"]:
        assert len(losses) == 4
        assert len({tuple(row) for row in losses}) == 4


def test_a_checkpoint_is_refused_by_another_plan_and_by_the_export_until_it_is_done(tmp_path):
    body = """
from checkpoints import SCPError
scenes = FreshScenes(4, seed=0)
train_vae.train(work, scenes, steps=2, batch=1, until=1)
result = []
for attempt in (lambda: train_vae.train(work, scenes, steps=3, batch=1), lambda: train_vae.load(work)):
    try:
        attempt()
        result.append("went on")
    except SCPError as error:
        result.append(str(error))
"""
    other_plan, unfinished = run(tmp_path, body)
    assert "belongs to another run" in other_plan
    assert "at step 1 of 2" in unfinished


def test_the_committed_weights_training_begins_as_it_did_then(tmp_path):
    """Replay the first steps of the whole training, in its own plan, against the losses stored beside the weights."""
    stored = json.loads((DEMO / "weights" / "losses.json").read_text(encoding="utf-8"))
    body = """
import train
scenes = FreshScenes(train.SCENES, seed=0)
result = train_vae.train(work, scenes, until=3)[:, :2].tolist()
"""
    losses = run(tmp_path, body)
    first = stored["vae"]["first"]
    for step, (absolute, squared) in enumerate(losses):
        assert absolute == pytest.approx(first["absolute"][step], rel=TOLERANCE)
        assert squared == pytest.approx(first["squared"][step], rel=TOLERANCE)
