"""SCPDenoiseStart against the host's own samplers."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="module")
def sampling(host, model):
    return model.get_model_object("model_sampling")


@pytest.fixture(scope="module")
def schedules(host, sampling):
    """A model whose schedules are remembered: the property below asks for the same ones thousands of times."""
    cache = {}
    calculate = host.samplers.calculate_sigmas

    def remembered(model_sampling, scheduler, steps):
        key = (scheduler, steps)
        if key not in cache:
            cache[key] = calculate(model_sampling, scheduler, steps)
        return cache[key].clone()

    patch = pytest.MonkeyPatch()
    patch.setattr(host.samplers, "calculate_sigmas", remembered)
    yield remembered
    patch.undo()


def ksampler_sigmas(host, model, scheduler, steps, denoise):
    return host.samplers.KSampler(model, steps, "cpu", sampler="ddim", scheduler=scheduler, denoise=denoise).sigmas


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Bit for bit; kl_optimal itself gives NaN for a single step."""
    return torch.equal(a.nan_to_num(-1), b.nan_to_num(-1))


def test_every_scheduler_is_offered(host):
    inputs = host.nodes["SCPDenoiseStart"].INPUT_TYPES()
    assert inputs["required"]["scheduler"][1]["options"] == list(host.samplers.SCHEDULER_NAMES)


def test_ksampler_gets_exactly_the_sigmas_of_ksampler_advanced(host, model, sampling, schedules):
    """For every scheduler of the host, 1..100 steps, and every start that any of the 1000 timesteps leads to."""
    node, table = host.nodes["SCPDenoiseStart"], sampling.sigmas
    starts = 0
    for scheduler in host.samplers.SCHEDULER_NAMES:
        for steps in range(1, 101):
            full = schedules(sampling, scheduler, steps)
            # Timesteps between two grid sigmas lead to the same start: one of each is enough.
            places = torch.searchsorted(-full[:-1], -table * (1 - 1e-6), right=True)
            timesteps = [int((places == place).nonzero()[0]) for place in places.unique()]
            for timestep in timesteps:
                denoise, count, first, sigmas = host.run(
                    node, model=model, timestep=timestep, steps=steps, scheduler=scheduler
                )
                advanced = full[first:]
                # The rule, said another way: this step has the noise asked for, and the next one has less.
                asked = float(table[timestep])
                assert first == 0 or float(full[first]) >= asked * (1 - 1e-5)
                assert first == len(full) - 2 or not float(full[first + 1]) > asked * (1 + 1e-5)
                assert same(sigmas, advanced)
                ran = ksampler_sigmas(host, model, scheduler, count, denoise)
                assert same(ran, advanced), (scheduler, steps, timestep, denoise, count)
                starts += 1
    assert starts > 5000


def test_the_papers_start(host, model):
    denoise, steps, first, sigmas = host.run(
        host.nodes["SCPDenoiseStart"], model=model, timestep=799, steps=20, scheduler="ddim_uniform"
    )
    assert (steps, first, len(sigmas)) == (17, 3, 18)
    assert denoise == pytest.approx(0.85)
    assert float(sigmas[0]) == pytest.approx(5.13443, abs=1e-5)


def test_the_schema_takes_no_scheduler_the_host_does_not_know(host):
    node = host.nodes["SCPDenoiseStart"]
    assert node.validate_inputs(scheduler="ddim_uniform") is True
    assert "Choose one of" in node.validate_inputs(scheduler="nonsense")
