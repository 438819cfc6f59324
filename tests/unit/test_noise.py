from __future__ import annotations

import torch

from scp_prior.noise import item_generator


def draw(seed: int, index: int, n: int = 20_000) -> torch.Tensor:
    return torch.randn(n, generator=item_generator(seed, index))


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a * b).mean())


def test_independent_of_the_hosts_noise_at_the_same_seed():
    """Correlations are 0 within 4 standard errors (1 / sqrt(n)), and their spread is what chance gives."""
    n, seeds = 20_000, 50
    values = []
    for seed in range(seeds):
        host = torch.randn(n, generator=torch.manual_seed(seed))
        values.append(correlation(draw(seed, 0, n), host))
    values = torch.tensor(values)
    assert values.abs().max() < 4 / n**0.5
    assert 0.7 < float(values.std()) * n**0.5 < 1.3


def test_every_item_and_seed_is_its_own():
    draws = [draw(seed, index, 1000) for seed in range(4) for index in range(8)]
    for i, a in enumerate(draws):
        for b in draws[:i]:
            assert abs(correlation(a, b)) < 5 / 1000**0.5


def test_no_two_items_of_a_batch_share_a_seed():
    seeds = {item_generator(7, index).initial_seed() & 0xFFFFFFFF for index in range(5000)}
    assert len(seeds) == 5000


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    draw(3, 1)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_whole_seed_counts():
    assert not torch.equal(draw(1, 0), draw(1 + 2**32, 0))
    assert torch.equal(draw(2**64 - 1, 3), draw(2**64 - 1, 3))
