"""The state of a training on disk: weights, their running average, the optimiser and the losses so far.

Randomness needs no state: every step draws from a generator seeded with the run's seed and the step's number. A run
that was interrupted therefore goes on exactly as if it had not been.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor, nn

# Behind the host's folder when there is one: the pack's `nodes` must not shadow the host's.
if (_ROOT := str(Path(__file__).resolve().parent.parent)) not in sys.path:
    sys.path.append(_ROOT)

from scp_prior.errors import SCPError
from scp_prior.files import write_safetensors

Plan = Mapping[str, object]


def generator(seed: int, step: int) -> torch.Generator:
    """Return the generator of a step."""
    state = np.random.SeedSequence([seed, step]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(state[0]) << 32 | int(state[1]))


class Training:
    """A network in training, with AdamW and a running average of its weights.

    Attributes:
        network, average: what is trained, and the average that is exported.
        optimiser: AdamW over `network`.
        step: how many steps were done.
        losses: (steps done, quantities) what `advance` was told at each step.
        plan: what decides the result; a run with another plan refuses this one's checkpoint.
    """

    def __init__(
        self, network: nn.Module, average: nn.Module, optimiser: torch.optim.AdamW, plan: Plan, quantities: int
    ):
        self.network, self.average, self.optimiser, self.plan = network, average, optimiser, dict(plan)
        average.load_state_dict(network.state_dict())
        average.requires_grad_(False)
        self.step = 0
        self._losses: list[list[float]] = []
        self._quantities = quantities

    @property
    def losses(self) -> Tensor:
        return torch.tensor(self._losses, dtype=torch.float64).reshape(-1, self._quantities)

    def advance(self, rate: float, decay: float, report: Sequence[float]) -> None:
        """Take one step down the parameters' gradients and average the weights; remember what is reported."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        with torch.no_grad():
            # Early on a long average would still hold the random start.
            keep = min(decay, self.step / (self.step + 10))
            torch._foreach_lerp_(list(self.average.parameters()), list(self.network.parameters()), 1 - keep)
        self._losses.append(list(report))

    def save(self, path: Path) -> None:
        """Write everything that is needed to go on, whole or not at all."""
        tensors = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        tensors |= {f"average.{name}": tensor for name, tensor in self.average.state_dict().items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{name}": value for name, value in state.items()}
        tensors["losses"] = self.losses
        tensors = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
        metadata = {"plan": json.dumps(self.plan, sort_keys=True), "step": str(self.step)}
        write_safetensors(path, tensors, metadata)

    def resume(self, path: Path) -> bool:
        """Go on from a checkpoint, if there is one; return whether there was.

        Raises:
            SCPError: it belongs to a run with another plan.
        """
        if not path.exists():
            return False
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if metadata["plan"] != json.dumps(self.plan, sort_keys=True):
            raise SCPError(
                f"The checkpoint {path} belongs to another run: {metadata['plan']} then, "
                f"{json.dumps(self.plan, sort_keys=True)} now. Use the same settings, or remove it and start again."
            )
        self.step = int(metadata["step"])
        self._losses = tensors.pop("losses").tolist()
        self.network.load_state_dict(_part(tensors, "network."))
        self.average.load_state_dict(_part(tensors, "average."))
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _part(tensors, "optimiser.").items():
            index, _, key = name.partition(".")
            state.setdefault(int(index), {})[key] = tensor
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": state})
        return True


def load_average(path: Path) -> tuple[dict[str, Tensor], dict[str, object], Tensor]:
    """Return the averaged weights of a checkpoint, its plan and the losses of each step.

    Raises:
        SCPError: the training did not reach the end of its plan.
    """
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        names = [name for name in file.keys() if name.startswith("average.")]  # noqa: SIM118
        weights = {name.removeprefix("average."): file.get_tensor(name) for name in names}
        losses = file.get_tensor("losses")
    plan = json.loads(metadata["plan"])
    if int(metadata["step"]) < plan["steps"]:
        raise SCPError(f"{path} is at step {metadata['step']} of {plan['steps']}. Let the training end first.")
    return weights, plan, losses


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
