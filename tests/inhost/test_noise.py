"""Numbers: what the host's samplers are really given."""

from __future__ import annotations

import pytest
import torch

SCALE = 0.18215
SIZE = (8, 16)


@pytest.fixture(scope="module")
def statistics(host):
    """Statistics of 3 classes on an 8x16 grid, through the loader node."""
    from builders import save_toy_statistics

    save_toy_statistics(host.base / "models" / "scp_statistics" / "toy.safetensors", SIZE)
    return host.run(host.nodes["SCPLoadStatistics"], statistics="toy.safetensors")[0]


@pytest.fixture(scope="module")
def labels(host):
    """A label map of 3 classes, 64x128, through the reader node (grey ids)."""
    ids = torch.tensor([0, 1, 2]).repeat_interleave(43)[:128].expand(1, 64, 128)
    image = (ids / 255).unsqueeze(-1).expand(-1, -1, -1, 3)
    return host.run(host.nodes["SCPLabelsFromImage"], image=image, palette="cityscapes-grey", tolerance=0.0)[0]


@pytest.fixture
def prior(host, statistics, labels):
    def draw(seed=1, strength=1.0, method="joint", batch_size=1, **more):
        inputs = {"statistics": statistics, "labels": labels, "method": method, "seed": seed, "strength": strength}
        return host.run(host.nodes["SCPPriorLatent"], **inputs, batch_size=batch_size, **more)[0]

    return draw


def ksampler(
    host, model, latent, conditioning, seed=5, steps=17, denoise=0.85, sampler="ddim", scheduler="ddim_uniform"
):
    return host.nodes["KSampler"]().sample(
        model, seed, steps, 1.0, sampler, scheduler, conditioning, conditioning, latent, denoise
    )[0]["samples"]


@pytest.mark.parametrize(("sampler", "scheduler"), [("ddim", "ddim_uniform"), ("euler", "karras"), ("euler", "normal")])
def test_first_tensor_is_the_latent_plus_noise_bit_for_bit(host, recorded, prior, conditioning, sampler, scheduler):
    latent, recorded.blind = prior(), True
    denoise, steps, _, sigmas = host.run(
        host.nodes["SCPDenoiseStart"], model=recorded.model, timestep=799, steps=20, scheduler=scheduler
    )
    ksampler(host, recorded.model, latent, conditioning, 5, steps, denoise, sampler, scheduler)
    x, sigma = recorded.calls[0]
    noise = torch.randn(latent["samples"].shape, generator=torch.manual_seed(5))
    assert torch.equal(sigma[:1], sigmas[:1])
    assert torch.equal(x[:1], sigmas[0] * noise + latent["samples"] * SCALE)


def test_strength_zero_with_full_denoise_is_an_empty_latent(host, model, prior, conditioning):
    empty = {"samples": torch.zeros(1, 4, *SIZE)}
    faint = prior(strength=0.0)
    assert torch.equal(faint["samples"].signbit(), empty["samples"].signbit())
    ours = ksampler(host, model, faint, conditioning, steps=4, denoise=1.0)
    theirs = ksampler(host, model, empty, conditioning, steps=4, denoise=1.0)
    assert torch.equal(ours, theirs)


def test_method_normal_is_an_empty_latent_too(host, model, prior, conditioning):
    assert not prior(method="normal")["samples"].any()


def test_variance_at_the_first_call_is_that_of_prior_and_noise(host, recorded, prior, statistics, labels, conditioning):
    """Var(S L + sigma n) = (S std)^2 + sigma^2, over many seeds, prior and host seeded alike."""
    seeds, sigma2, recorded.blind = 400, None, True
    total, squares = 0, 0
    for seed in range(seeds):
        latent = prior(seed=seed)
        recorded.calls.clear()
        ksampler(host, recorded.model, latent, conditioning, seed, 1, 0.85)
        x, sigma = recorded.calls[0]
        sigma2 = float(sigma[0]) ** 2
        total, squares = total + x[0].double(), squares + x[0].double() ** 2
    variance = (squares - total**2 / seeds) / (seeds - 1)
    mean, std = maps_of(host, statistics, labels)
    expected = (SCALE * std.double()) ** 2 + sigma2
    # Of a normal sample's variance, the relative standard error is sqrt(2 / (n - 1)); pooled over all values far less.
    ratio = (variance / expected).flatten()
    assert abs(float(ratio.mean()) - 1) < 4 * (2 / (seeds - 1) / ratio.numel()) ** 0.5
    assert float((ratio - 1).abs().max()) < 5.5 * (2 / (seeds - 1)) ** 0.5
    drift = (total / seeds - SCALE * mean) / (expected / seeds).sqrt()
    assert float(drift.abs().max()) < 5


def maps_of(host, statistics, labels):
    maps = host.library.prior_maps(statistics, labels.labels, "joint")
    return maps.mean[0], maps.std[0]


def test_prior_and_host_noise_are_uncorrelated_at_the_same_seed(prior, statistics, labels, host):
    mean, std = maps_of(host, statistics, labels)
    values = []
    for seed in range(200):
        ours = (prior(seed=seed)["samples"][0] - mean) / std
        theirs = torch.randn(1, 4, *SIZE, generator=torch.manual_seed(seed))[0]
        values.append((ours * theirs).mean())
    values = torch.stack(values)
    error = 1 / (200 * ours.numel()) ** 0.5
    assert abs(float(values.mean())) < 4 * error
    assert float(values.abs().max()) < 4.5 / ours.numel() ** 0.5


def test_different_seeds_give_different_pictures(host, model, prior, conditioning):
    pictures = {(p, h): ksampler(host, model, prior(seed=p), conditioning, h, 3, 0.85) for p in (1, 2) for h in (1, 2)}
    assert not torch.allclose(pictures[1, 1], pictures[2, 1], atol=1e-3)
    assert not torch.allclose(pictures[1, 1], pictures[1, 2], atol=1e-3)


def test_items_of_a_batch_are_the_same_drawn_alone(host, prior, labels):
    batch = prior(batch_size=3)["samples"]
    assert torch.equal(batch[:1], prior(batch_size=1)["samples"])
    assert not torch.allclose(batch[0], batch[1])


class TestNoisedLatent:
    def noised(self, host, model, latent, timestep=799, seed=5, steps=20, scheduler="ddim_uniform"):
        inputs = {"model": model, "latent": latent, "timestep": timestep, "seed": seed, "steps": steps}
        return host.run(host.nodes["SCPNoisedLatent"], **inputs, scheduler=scheduler)[0]

    def advanced(self, host, model, latent, conditioning, start, steps=20, scheduler="ddim_uniform", seed=99):
        node, both = host.nodes["KSamplerAdvanced"](), (conditioning, conditioning)
        ran = node.sample(model, "disable", seed, steps, 1.0, "ddim", scheduler, *both, latent, start, 10000, "disable")
        return ran[0]["samples"]

    def test_is_what_ksampler_would_have_started_from(self, host, recorded, prior, conditioning):
        latent = prior(batch_size=2)
        one = ksampler(host, recorded.model, latent, conditioning)
        two = self.advanced(host, recorded.model, self.noised(host, recorded.model, latent), conditioning, 3)
        torch.testing.assert_close(two, one, rtol=0, atol=1e-5)

    def test_reproduces_an_independent_ddim(self, host, recorded, prior, conditioning):
        """The paper's sampler, written out in DDPM terms from x_t, the network called through the host's model."""
        latent = prior()
        noised = self.noised(host, recorded.model, latent)
        got = self.advanced(host, recorded.model, noised, conditioning, 3) * SCALE

        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
        abar = torch.cumprod(1 - betas, 0)
        noise = torch.randn(latent["samples"].shape, generator=torch.manual_seed(5)).double()
        grid = list(range(801, 0, -50))
        assert len(grid) == 17
        x = abar[801].sqrt() * latent["samples"].double() * SCALE + (1 - abar[801]).sqrt() * noise
        for t, after in zip(grid, [*grid[1:], None], strict=True):
            e = epsilon(recorded.model, x.float(), t, conditioning).double()
            x0 = (x - (1 - abar[t]).sqrt() * e) / abar[t].sqrt()
            x = x0 if after is None else abar[after].sqrt() * x0 + (1 - abar[after]).sqrt() * e
        assert float((got - x).abs().max()) < 1e-4

    def test_keeps_the_dict_and_the_callers_generator(self, host, model, prior):
        latent = {**prior(batch_size=2), "batch_index": [4, 7], "extra": "x"}
        torch.manual_seed(123)
        before = torch.get_rng_state()
        noised = self.noised(host, model, latent)
        assert torch.equal(torch.get_rng_state(), before)
        assert set(noised) == set(latent)
        assert noised["batch_index"] == [4, 7]
        whole = self.noised(host, model, {"samples": torch.zeros(8, 4, 8, 16)})["samples"]
        alone = self.noised(host, model, {"samples": torch.zeros(2, 4, 8, 16), "batch_index": [4, 7]})["samples"]
        assert torch.equal(alone, whole[[4, 7]])

    def test_a_noise_mask_is_refused_because_the_host_would_paste_noise_back(self, host, model, prior):
        with pytest.raises(host.library.SCPError, match="noise mask.*KSampler"):
            self.noised(host, model, {**prior(), "noise_mask": torch.ones(1, 1, 8, 16)})

    def test_half_precision_latents_are_noised_in_full(self, host, model, prior):
        latent = prior()
        half = self.noised(host, model, {"samples": latent["samples"].half()})["samples"]
        whole = self.noised(host, model, {"samples": latent["samples"].half().float()})["samples"]
        assert half.dtype == torch.float32
        assert torch.equal(half, whole)

    def test_everything_goes_to_the_latents_own_device(self, host, model, monkeypatch):
        """As under --gpu-only, where latents live on a GPU: here the "meta" device stands for one."""
        moved = []
        to = torch.Tensor.to

        def spy(tensor, *args, **kwargs):
            moved.append(args[0] if args else kwargs.get("device"))
            return to(tensor, *args, **kwargs)

        samples = torch.ones(1, 4, *SIZE)
        with monkeypatch.context() as patch:
            patch.setattr(torch.Tensor, "to", spy)
            self.noised(host, model, {"samples": samples})
        assert moved.count(samples.device) >= 2  # the noise and the sigma


def epsilon(model, x, t, conditioning):
    """The network's own output at DDPM x_t, t."""
    from comfy.model_management import load_models_gpu

    load_models_gpu([model])
    network = model.model.diffusion_model
    context = conditioning[0][0]
    return network(x, torch.tensor([float(t)]), context=context)
