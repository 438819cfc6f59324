"""Where sampling starts: denoise and steps for KSampler, or a noised latent for KSamplerAdvanced."""

from __future__ import annotations

import comfy.sample
import comfy.samplers
import torch
from comfy.model_management import intermediate_device
from comfy_api.latest import io

from ..scp_prior.errors import SCPError
from ..scp_prior.schedule import first_step, sigma_of_timestep, start_at, timestep_of_sigma
from .choices import check_choice
from .compat import search_aliases
from .say import say
from .wires import CATEGORY


def _schedule_inputs() -> list[io.Input]:
    return [
        io.Int.Input(
            "timestep",
            default=799,
            min=0,
            max=999,
            tooltip="How much noise to start from: 999 = pure noise, 0 = none. The paper uses 799. Lower keeps more "
            "of the prior, higher gives the model more freedom.",
        ),
        io.Int.Input(
            "steps",
            default=20,
            min=1,
            max=10000,
            tooltip="Steps of a full run from pure noise; the run itself is shorter, since it starts later.",
        ),
        io.Combo.Input(
            "scheduler",
            options=list(comfy.samplers.KSampler.SCHEDULERS),
            default="ddim_uniform",
            tooltip="The same as on your KSampler. The paper's results are with sampler ddim, scheduler ddim_uniform.",
        ),
    ]


class SCPDenoiseStart(io.ComfyNode):
    """Translates the paper's timestep into what ComfyUI's samplers ask for."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCPDenoiseStart",
            display_name="SCP Denoise Start",
            category=CATEGORY,
            description=(
                "Translates a timestep into denoise and steps for KSampler (wire both), or start_at_step for "
                "KSamplerAdvanced, or sigmas for SamplerCustom. All three start at exactly the same noise level."
            ),
            inputs=[io.Model.Input("model", tooltip="The model that will sample."), *_schedule_inputs()],
            outputs=[
                io.Float.Output("DENOISE", display_name="denoise", tooltip="For KSampler's denoise."),
                io.Int.Output(
                    "STEPS", display_name="steps", tooltip="For KSampler's steps: the steps that are really run."
                ),
                io.Int.Output(
                    "START_AT_STEP",
                    display_name="start_at_step",
                    tooltip="For KSamplerAdvanced's start_at_step; its own steps stay at the full number.",
                ),
                io.Sigmas.Output("SIGMAS", display_name="sigmas", tooltip="For SamplerCustom and its kin."),
            ],
            hidden=[io.Hidden.unique_id],
            **search_aliases("denoise", "start at step", "timestep", "scp-diff"),
        )

    @classmethod
    def validate_inputs(cls, scheduler: str | None = None) -> bool | str:
        """Whether the scheduler exists."""
        return check_choice("scheduler", scheduler, comfy.samplers.KSampler.SCHEDULERS)

    @classmethod
    def execute(cls, model, timestep: int, steps: int, scheduler: str) -> io.NodeOutput:
        sampling = model.get_model_object("model_sampling")
        sigma = sigma_of_timestep(sampling.sigmas, timestep)
        start = start_at(sigma, steps, lambda n: comfy.samplers.calculate_sigmas(sampling, scheduler, n))
        first = timestep_of_sigma(sampling.sigmas, float(start.sigmas[0]))
        where = f"starts at step {start.start_at_step} (timestep {first})"
        say(cls, f"{where}\n{start.steps} steps, denoise {start.denoise:.4g}")
        return io.NodeOutput(start.denoise, start.steps, start.start_at_step, start.sigmas)


class SCPNoisedLatent(io.ComfyNode):
    """Adds the noise that KSampler would add, for graphs that sample with add_noise disabled."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SCPNoisedLatent",
            display_name="SCP Noised Latent",
            category=CATEGORY,
            description=(
                "Noises a latent to where SCP Denoise Start begins. For KSamplerAdvanced with add_noise disabled, "
                "start_at_step from SCP Denoise Start, and the same steps and scheduler as here. "
                "With KSampler you do not need it: KSampler adds the noise itself."
            ),
            inputs=[
                io.Model.Input("model", tooltip="The model that will sample."),
                io.Latent.Input("latent", tooltip="From SCP Prior Latent, or any latent without noise."),
                *_schedule_inputs()[:1],
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Draws the noise KSampler would draw with this seed.",
                ),
                *_schedule_inputs()[1:],
            ],
            outputs=[
                io.Latent.Output(
                    "LATENT", display_name="latent", tooltip="For KSamplerAdvanced with add_noise disabled."
                )
            ],
            **search_aliases("add noise", "q_sample", "noised latent", "scp-diff"),
        )

    @classmethod
    def validate_inputs(cls, scheduler: str | None = None) -> bool | str:
        """Whether the scheduler exists."""
        return check_choice("scheduler", scheduler, comfy.samplers.KSampler.SCHEDULERS)

    @classmethod
    def execute(cls, model, latent: dict, timestep: int, seed: int, steps: int, scheduler: str) -> io.NodeOutput:
        if "noise_mask" in latent:
            # Outside the mask, ComfyUI pastes back the latent it was given, and here that holds noise.
            raise SCPError(
                "This latent has a noise mask, and KSamplerAdvanced cannot inpaint a latent that is noised already. "
                "Wire the latent straight into KSampler, with denoise and steps from SCP Denoise Start."
            )
        sampling = model.get_model_object("model_sampling")
        full = comfy.samplers.calculate_sigmas(sampling, scheduler, steps)
        sigma = full[first_step(sigma_of_timestep(sampling.sigmas, timestep), full)]
        # float32 on the latent's own device: half precision costs a hundredth, and noise is always drawn on the CPU.
        samples = comfy.sample.fix_empty_latent_channels(model, latent["samples"]).float()
        sigma, noise = sigma.to(samples.device), _host_noise(samples, seed, latent.get("batch_index"))

        clean = model.get_model_object("process_latent_in")(samples) if samples.count_nonzero() else samples
        noised = sampling.noise_scaling(sigma, noise, clean, _is_max(sampling, sigma))
        # KSamplerAdvanced will still scale what it is given by the latent's own share at this noise level.
        start = sampling.inverse_noise_scaling(sigma, noised)
        if not torch.isfinite(start).all():
            raise SCPError(
                f"At timestep {timestep} this model starts from noise alone, so there is nothing to hand over. "
                "Choose a lower timestep, or use KSampler."
            )
        out = model.get_model_object("process_latent_out")(start)
        return io.NodeOutput({**latent, "samples": out.to(intermediate_device())})


def _host_noise(samples: torch.Tensor, seed: int, batch_index) -> torch.Tensor:
    # The host's function seeds torch's global generators; what is drawn on the CPU next must not notice. (Those of
    # GPUs stay seeded, as after any sampler.)
    with torch.random.fork_rng(devices=[]):
        return comfy.sample.prepare_noise(samples.cpu(), seed, batch_index).to(samples.device)


def _is_max(sampling, sigma: torch.Tensor) -> bool:
    # As comfy.samplers.Sampler.max_denoise decides it.
    top, first = float(sampling.sigma_max), float(sigma)
    return first > top or abs(top - first) <= 1e-5 * max(abs(top), abs(first))
