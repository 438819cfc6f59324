"""A small release, and the command line that downloads it, in processes of their own."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

SET = "ade20k"
STATISTICS = tuple(f"{SET}/{SET}_10000_{kind}_mean_std.npy" for kind in ("categorical", "spatial", "spatial_class"))
CHECKPOINT = f"{SET}/{SET}.ckpt"
MADE = (f"controlnet/{SET}_controlnet.safetensors", f"checkpoints/{SET}_checkpoint.safetensors")
ALL_MADE = (f"scp_statistics/{SET}.safetensors", *MADE)
PATIENCE = 60
# huggingface_hub hands on a body in pieces of ten million bytes: what breaks off within the first leaves nothing.
PIECE = 10 * 1024 * 1024
_SIZE = (4, 3, 5)


def small_release(adam: int = 1000) -> dict[str, bytes]:
    """{path in the repository: content}; `adam` floats of training state make the checkpoint as large as wished."""
    random = np.random.default_rng(11)

    def moments(*shape: int) -> dict[str, np.ndarray]:
        return {"mean": random.normal(size=shape).astype("f4"), "std": random.uniform(0.5, 2, shape).astype("f4")}

    count = np.zeros((256, 1, *_SIZE[1:]), "f4")
    count[[3, 7]] = 5
    contents = ({3: moments(4), 7: moments(4)}, moments(*_SIZE), {**moments(256, *_SIZE), "count": count})
    files = {path: _npy(content) for path, content in zip(STATISTICS, contents, strict=True)}
    generator = torch.Generator().manual_seed(5)
    names = ("control_model.zero_convs.0.0.weight", "model.diffusion_model.out.2.weight", "first_stage_model.q.weight")
    state = {name: torch.randn(20, 30, generator=generator) for name in (*names, "cond_stage_model.model.ln.weight")}
    adam_state = {"state": {0: {"exp_avg": torch.randn(adam, generator=generator)}}}
    buffer = io.BytesIO()
    torch.save({"global_step": 7, "state_dict": state, "optimizer_states": [adam_state]}, buffer)
    return {**files, CHECKPOINT: buffer.getvalue(), "README.md": b"---\nlicense: apache-2.0\n---\n"}


def _npy(content: object) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, content, allow_pickle=True)
    return buffer.getvalue()


class Ran(NamedTuple):
    """What a run ended with, and said."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line it failed with."""
        assert self.code == 1, self
        assert "Traceback" not in self.err
        errors = [line for line in self.err.replace("\r", "\n").splitlines() if line.startswith("error: ")]
        assert self.err.splitlines()[-1:] == errors, self.err
        return errors[0]


class Started(NamedTuple):
    process: BaseProcess
    logs: tuple[Path, Path]

    def rest(self) -> Ran:
        self.process.join(PATIENCE)
        assert self.process.exitcode is not None, "the process hangs"
        return Ran(self.process.exitcode, *(log.read_text(encoding="utf-8") for log in self.logs))


class Downloads:
    """Starts the command line.

    Args:
        home: a folder of this test's own, for what the processes say and keep.
        comfyui: the folder that becomes a ComfyUI; default: one in `home`.
    """

    def __init__(self, home: Path, comfyui: Path | None = None):
        self.home = home
        self.models = (comfyui or home / "ComfyUI") / "models"
        self.models.mkdir(parents=True)
        self.originals = self.models / "scp_downloads" / SET
        self._children: list[BaseProcess] = []

    def start(
        self, *words: str, endpoint: str, before: Callable[[], None] | None = None, **environment: str
    ) -> Started:
        logs = tuple(self.home / f"{len(self._children)}.{name}" for name in ("out", "err"))
        for log in logs:
            log.touch()
        argv = ["download", SET, "--comfyui", str(self.models.parent), *words]
        settings = {
            "HF_ENDPOINT": endpoint,
            "HF_HUB_OFFLINE": "0",
            "TRANSFORMERS_OFFLINE": "0",
            "HF_HOME": str(self.home / "hf"),
            "HF_HUB_DOWNLOAD_TIMEOUT": "20",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
            "NO_PROXY": "127.0.0.1",
            **environment,
        }
        process = _SERVER.Process(target=_in_child, args=(argv, logs, settings, before))
        process.start()
        self._children.append(process)
        return Started(process, logs)

    def run(self, *words: str, endpoint: str, **more) -> Ran:
        return self.start(*words, endpoint=endpoint, **more).rest()

    def made(self) -> list[str]:
        """Every file in a folder that a loader looks into."""
        folders = ("scp_statistics", "controlnet", "checkpoints")
        found = [path for folder in folders for path in (self.models / folder).glob("**/*") if path.is_file()]
        return sorted(path.relative_to(self.models).as_posix() for path in found)

    def end(self) -> None:
        for child in self._children:
            child.kill()
            child.join(PATIENCE)


# Forks processes that have torch already, and not huggingface_hub, which reads its settings when it is imported.
_SERVER = multiprocessing.get_context("forkserver")
_OWN = ("downloading", "scp_prior.cli", "scp_prior.release", "scp_prior.weights")
# What it imports itself is most of its start; a name that is not installed is skipped.
_ITS = ("httpx2", "httpcore2", "httpx", "requests", "tqdm.auto", "filelock", "fsspec", "yaml")
_SERVER.set_forkserver_preload([*_OWN, *_ITS])


def _in_child(argv: list[str], logs: tuple[Path, Path], settings: dict[str, str], before: Callable | None) -> None:
    assert "huggingface_hub" not in sys.modules
    # A shell that starts the tests in the background lets them ignore Ctrl-C, and so would this process.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update(settings)
    if before:
        before()
    from scp_prior.cli import main

    with (
        logs[0].open("w", encoding="utf-8") as out,
        logs[1].open("w", encoding="utf-8") as err,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = main(argv)
    sys.exit(code)


# What a child does before anything else.


def no_pauses() -> None:
    """Between tries to connect again, of which a test sees many."""
    import time

    time.sleep = lambda seconds: None


def no_hub_library() -> None:
    sys.modules["huggingface_hub"] = None


def small_disk() -> None:
    import shutil

    whole = shutil.disk_usage(".")
    shutil.disk_usage = lambda path: whole._replace(free=100_000)
