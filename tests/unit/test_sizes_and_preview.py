from __future__ import annotations

import pytest
import torch

from scp_prior import SCPError
from scp_prior.preview import SD_FACTORS, latent_to_rgb
from scp_prior.sizes import latent_size_of


def test_multiples_of_the_factor():
    assert latent_size_of((512, 1024), 8) == (64, 128)
    assert latent_size_of((512, 1024), 16) == (32, 64)


@pytest.mark.parametrize(
    ("size", "words"),
    [((512, 683), ["683x512", "680 or 688"]), ((500, 640), ["496 or 504"]), ((4, 8), ["height could be 8"])],
)
def test_other_sizes_are_refused_with_the_two_nearest(size, words):
    with pytest.raises(SCPError) as error:
        latent_size_of(size, 8)
    assert all(word in str(error.value) for word in words)


def test_sd_latents_by_the_hosts_factors():
    latent = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(0))
    rgb = latent_to_rgb(latent)
    i, j, b = 2, 1, 1
    for c in range(3):
        value = sum(float(latent[b, k, j, i]) * 0.18215 * SD_FACTORS[k][c] for k in range(4))
        assert float(rgb[b, j, i, c]) == pytest.approx(min(max((value + 1) / 2, 0), 1), abs=1e-6)


@pytest.mark.parametrize("channels", [1, 2, 3, 8, 16])
def test_any_number_of_channels_gives_a_picture(channels):
    latent = torch.randn(1, channels, 6, 7, generator=torch.Generator().manual_seed(0))
    rgb = latent_to_rgb(latent)
    assert rgb.shape == (1, 6, 7, 3)
    assert 0 <= float(rgb.min()) < float(rgb.max()) <= 1
    assert torch.isfinite(latent_to_rgb(torch.zeros(1, channels, 2, 2))).all()
