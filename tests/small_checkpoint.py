"""Training checkpoints for tests: the names of a release, few and small tensors, and what a trainer keeps beside."""

from __future__ import annotations

import zipfile
from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor

NAMES = {
    "controlnet": ("control_model.zero_convs.0.0.weight", "control_model.input_hint_block.0.weight"),
    "checkpoint": (
        "model.diffusion_model.input_blocks.0.0.weight",
        "model.diffusion_model.out.2.bias",
        "first_stage_model.decoder.conv_in.weight",
        "cond_stage_model.model.ln_final.weight",
    ),
}


def small_state(seed: int = 0, dtype: torch.dtype = torch.float32) -> OrderedDict[str, Tensor]:
    """A state dict of both halves: plain tensors, a scalar, an integer, an empty one, views of all kinds."""
    g = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g).to(dtype)

    shared, state = draw(40), OrderedDict()
    state["betas"] = torch.linspace(0, 1, 10, dtype=torch.float64)
    state["model.diffusion_model.input_blocks.0.0.weight"] = draw(6, 4, 3, 3)
    state["model.diffusion_model.out.2.bias"] = draw(7)
    state["model_ema.decay"] = torch.tensor(0.999)
    state["model_ema.diffusion_modelout2bias"] = draw(7)
    state["first_stage_model.decoder.conv_in.weight"] = draw(5, 3).t()
    state["first_stage_model.loss.logvar"] = draw(1)
    state["cond_stage_model.model.ln_final.weight"] = shared[3:13]
    state["cond_stage_model.model.overlapping"] = shared.as_strided((9, 6), (3, 1), 4)
    state["cond_stage_model.model.every_third"] = shared[1::3]
    state["cond_stage_model.model.logit_scale"] = torch.tensor(4.6, dtype=dtype)
    state["cond_stage_model.model.position_ids"] = torch.arange(5)
    state["cond_stage_model.model.mask"] = torch.tensor([True, False, True])
    state["cond_stage_model.model.empty"] = torch.zeros(0, 3, dtype=dtype)
    state["control_model.zero_convs.0.0.weight"] = draw(3, 3, 1, 1)
    state["control_model.input_hint_block.0.weight"] = torch.nn.Parameter(draw(4, 3, 3, 3))
    return state


def lightning(state: dict[str, Tensor], **more: object) -> dict[str, object]:
    """What Lightning saves around a state dict."""
    adam = {
        i: {"step": torch.tensor(3.0), "exp_avg": value.detach() * 0, "exp_avg_sq": value.detach() * 0}
        for i, value in enumerate(state.values())
    }
    return {
        "epoch": 1,
        "global_step": 1234,
        "pytorch-lightning_version": "1.5.0",
        "state_dict": state,
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 2}}}},
        "callbacks": {},
        "optimizer_states": [{"state": adam, "param_groups": [{"lr": 1e-5, "betas": (0.9, 0.999), "params": [0, 1]}]}],
        "lr_schedulers": [],
        **more,
    }


def save_small(path: Path, **more: object) -> OrderedDict[str, Tensor]:
    """Write a small Lightning checkpoint; its state dict."""
    state = small_state()
    torch.save(lightning(state, **more), path)
    return state


def write_archive(path: Path, program: bytes, records: dict[str, bytes] | None = None, **options: int) -> None:
    """Write a torch archive around a pickle of one's own."""
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in {"data.pkl": program, "version": b"3\n", **(records or {})}.items():
            archive.writestr(f"archive/{name}", data)
