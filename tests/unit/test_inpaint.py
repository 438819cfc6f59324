"""A photo's latent with a prior's where a mask says so."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scp_prior.batches import common_batch, dealt_out, repeated_index
from scp_prior.errors import SCPError
from scp_prior.inpaint import cells_of_mask, check_photo, grown, inpainted, mask_for

SMALL = settings(max_examples=60, deadline=None, derandomize=True)


def random_mask(seed: int, batch: int, height: int, width: int, share: float = 0.1) -> torch.Tensor:
    return torch.rand(batch, height, width, generator=torch.Generator().manual_seed(seed)) < share


@given(
    st.integers(0, 99), st.integers(1, 2), st.integers(1, 12), st.integers(1, 12), st.integers(0, 15), st.floats(0, 1)
)
@SMALL
def test_growing_against_a_slow_loop(seed, batch, height, width, pixels, share):
    mask = random_mask(seed, batch, height, width, share)
    result = grown(mask, pixels)
    for b in range(batch):
        for i in range(height):
            for j in range(width):
                near = mask[b, max(0, i - pixels) : i + pixels + 1, max(0, j - pixels) : j + pixels + 1]
                assert bool(result[b, i, j]) == bool(near.any())


@given(st.integers(0, 99), st.integers(1, 4), st.integers(1, 4), st.sampled_from([1, 2, 8, 16]))
@SMALL
def test_every_cell_the_mask_touches_and_no_other(seed, h, w, downscale):
    mask = random_mask(seed, 2, h * downscale, w * downscale, 0.02)
    cells = cells_of_mask(mask, downscale)
    touched = {(b, i // downscale, j // downscale) for b, i, j in mask.nonzero().tolist()}
    assert {tuple(at) for at in cells.nonzero().tolist()} == touched


def test_inside_is_the_prior_outside_the_photo_and_the_mask_says_so():
    g = torch.Generator().manual_seed(0)
    prior, photo = torch.randn(2, 4, 3, 5, generator=g), torch.randn(2, 4, 3, 5, generator=g)
    mask = random_mask(1, 2, 24, 40, 0.01)
    samples, noise_mask = inpainted(prior, photo, mask, 8)
    cells = cells_of_mask(mask, 8)
    assert cells.any()
    assert not cells.all()
    for b in range(2):
        for i in range(3):
            for j in range(5):
                source = prior if cells[b, i, j] else photo
                assert torch.equal(samples[b, :, i, j], source[b, :, i, j])
                block = noise_mask[b, 0, 8 * i : 8 * i + 8, 8 * j : 8 * j + 8]
                assert (block == float(cells[b, i, j])).all()
    assert noise_mask.shape == (2, 1, 24, 40)


@pytest.mark.parametrize("counts", [(4, 1, 1), (4, 2, 1), (4, 2, 4), (1, 3, 1), (1, 1, 3), (2, 2, 4)])
def test_batches_are_dealt_out_in_turn(counts):
    g = torch.Generator().manual_seed(0)
    prior, photo = (torch.randn(n, 4, 2, 2, generator=g) for n in counts[:2])
    mask = random_mask(2, counts[2], 16, 16, 0.01)
    samples, noise_mask = inpainted(prior, photo, mask, 8)
    assert len(samples) == len(noise_mask) == max(counts)
    for item in range(max(counts)):
        alone = inpainted(prior[item % counts[0], None], photo[item % counts[1], None], mask[item % counts[2], None], 8)
        assert torch.equal(samples[item], alone.samples[0])
        assert torch.equal(noise_mask[item], alone.noise_mask[0])


def test_batches_that_do_not_go_together():
    with pytest.raises(SCPError, match="4 latents, 3 photos, 1 masks.*4"):
        inpainted(torch.zeros(4, 4, 1, 1), torch.zeros(3, 4, 1, 1), torch.ones(1, 8, 8, dtype=torch.bool), 8)
    with pytest.raises(SCPError, match="must be a multiple"):
        common_batch(a=2, b=3)


def test_dealing_out_and_numbering():
    part = torch.arange(3)
    assert dealt_out(part, 3) is part
    assert dealt_out(part, 6).tolist() == [0, 1, 2, 0, 1, 2]
    assert repeated_index([4, 7], 3) == [4, 7, 8, 11, 12, 15]
    assert repeated_index([5], 3) == [5, 6, 7]


def test_half_precision_latents_become_whole():
    made = inpainted(torch.ones(1, 4, 1, 1).half(), torch.zeros(1, 4, 1, 1), torch.ones(1, 8, 8, dtype=torch.bool), 8)
    assert made.samples.dtype == torch.float32


def test_half_white_is_marked_as_everywhere():
    mask = torch.tensor([[0.0, 0.498, 0.502, 1.0]]).half()
    assert mask_for(mask, (1, 4)).tolist() == [[[False, False, True, True]]]
    assert mask_for(torch.full((1, 1, 8, 8), 0.5), (8, 8)).all()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: mask_for(torch.zeros(1, 64, 64), (512, 1024)), "mask is empty.*MaskEditor.*SCP Mask From Labels"),
        (lambda: mask_for(torch.full((1, 8, 8), math.nan), (8, 8)), "mask with values in 0..1, got nan"),
        (lambda: mask_for(torch.ones(0, 8, 8), (8, 8)), "Expected a mask of shape"),
        (lambda: mask_for(torch.ones(1, 64, 32), (512, 1024)), "mask is 32x64 pixels.*the photo 1024x512"),
        (lambda: check_photo((500, 640), (64, 80), 8), "photo is 640x500.*height could be 496 or 504.*for 640x512"),
        (lambda: check_photo((512, 640), (64, 128), 8), "photo is 640x512.*1024x512.*set width 640 and height 512"),
        (lambda: check_photo((512, 1000), (64, 128), 16), "width could be 992 or 1008"),
    ],
)
def test_sizes_that_do_not_agree(call, words):
    with pytest.raises(SCPError, match=words):
        call()


def test_a_photo_of_the_latents_size_passes():
    check_photo((512, 1024), (64, 128), 8)
