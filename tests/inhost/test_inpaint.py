"""SCP Inpaint Latent: what the host's sampler makes of the photo outside and the prior inside."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

SCALE = 0.18215
SIZE = (8, 16)


@pytest.fixture(scope="module")
def vae(host):
    return host.nodes["CheckpointLoaderSimple"]().load_checkpoint("tiny.ckpt")[2]


@pytest.fixture(scope="module")
def photo() -> torch.Tensor:
    """Coarse random colours, 64x128."""
    small = torch.rand(1, 8, 16, 3, generator=torch.Generator().manual_seed(3))
    return small.repeat_interleave(8, 1).repeat_interleave(8, 2)


@pytest.fixture(scope="module")
def mask() -> torch.Tensor:
    """A box that is not aligned to cells: rows 20..43, columns 36..75."""
    mask = torch.zeros(1, 64, 128)
    mask[:, 20:44, 36:76] = 1
    return mask


@pytest.fixture(scope="module")
def inside() -> torch.Tensor:
    """The cells the box touches, (h, w) bool."""
    cells = torch.zeros(SIZE, dtype=torch.bool)
    cells[2:6, 4:10] = True
    return cells


@pytest.fixture(scope="module")
def prior(host):
    from builders import make_statistics

    statistics = make_statistics((0, 1, 2), size=SIZE, dataset="cityscapes", palette="cityscapes")

    def draw(seed=1, maps=1, batch_size=1):
        ids = torch.arange(3).repeat_interleave(43)[:128].expand(maps, 64, 128)
        image = (ids / 255).unsqueeze(-1).expand(-1, -1, -1, 3)
        labels = host.run(host.nodes["SCPLabelsFromImage"], image=image, palette="cityscapes-grey", tolerance=0.0)[0]
        inputs = {"statistics": statistics, "labels": labels, "method": "joint", "strength": 1.0}
        return host.run(host.nodes["SCPPriorLatent"], **inputs, seed=seed, batch_size=batch_size)[0]

    return draw


@pytest.fixture(scope="module")
def inpaint(host, vae):
    def made(latent, photo, mask, grow_mask_by=0, with_vae=vae):
        inputs = {"latent": latent, "image": photo, "vae": with_vae, "mask": mask, "grow_mask_by": grow_mask_by}
        return host.run(host.nodes["SCPInpaintLatent"], **inputs)[0]

    return made


@pytest.fixture
def sample(host, conditioning):
    """KSampler with denoise and steps from SCP Denoise Start."""

    def sampled(model, latent, seed=5):
        start = {"model": model, "timestep": 799, "steps": 6, "scheduler": "ddim_uniform"}
        denoise, steps, _, sigmas = host.run(host.nodes["SCPDenoiseStart"], **start)
        both = (conditioning, conditioning)
        ran = host.nodes["KSampler"]().sample(model, seed, steps, 1.0, "ddim", "ddim_uniform", *both, latent, denoise)
        return ran[0]["samples"], sigmas

    return sampled


def encoded(host, vae, photo):
    return host.nodes["VAEEncode"]().encode(vae, photo)[0]["samples"]


def test_the_latent_is_the_encoded_photo_outside_and_the_prior_inside(host, vae, prior, inpaint, photo, mask, inside):
    latent = inpaint(prior(), photo, mask)
    assert torch.equal(latent["samples"][..., inside], prior()["samples"][..., inside])
    assert torch.equal(latent["samples"][..., ~inside], encoded(host, vae, photo)[..., ~inside])
    assert latent["noise_mask"].shape == (1, 1, 64, 128)


def test_the_sampler_sees_the_very_cells_of_the_mask(inpaint, prior, photo, mask, inside):
    """The host scales the noise mask down by its own rule; no cell comes out half in."""
    from comfy.sampler_helpers import prepare_mask

    latent = inpaint(prior(), photo, mask)
    seen = prepare_mask(latent["noise_mask"], latent["samples"].shape, "cpu")
    assert torch.equal(seen, inside.float().expand(1, 4, -1, -1))


def test_the_first_tensor_inside_is_the_prior_noised(recorded, prior, inpaint, photo, mask, inside, sample):
    latent, recorded.blind = inpaint(prior(), photo, mask), True
    _, sigmas = sample(recorded.model, latent)
    x, sigma = recorded.calls[0]
    noise = torch.randn(1, 4, *SIZE, generator=torch.manual_seed(5))
    assert torch.equal(sigma[:1], sigmas[:1])
    wanted = sigmas[0] * noise + prior()["samples"] * SCALE
    assert torch.equal(x[:1][..., inside], wanted[..., inside])


def test_outside_is_the_photo_and_inside_changes_with_either_seed(
    host, vae, model, prior, inpaint, photo, mask, inside, sample
):
    one, _ = sample(model, inpaint(prior(), photo, mask))
    other_prior, _ = sample(model, inpaint(prior(seed=2), photo, mask))
    other_noise, _ = sample(model, inpaint(prior(), photo, mask), seed=6)
    trip = encoded(host, vae, photo)
    for latent in (one, other_prior, other_noise):
        torch.testing.assert_close(latent[..., ~inside], trip[..., ~inside], rtol=0, atol=1e-4)
        assert float((latent - trip)[..., inside].abs().mean()) > 0.1
    for other in (other_prior, other_noise):
        assert float((one - other)[..., inside].abs().mean()) > 1e-2


def test_the_decoded_picture_is_the_photos_round_trip_away_from_the_mask(
    host, vae, model, prior, inpaint, photo, mask, sample
):
    decode = host.nodes["VAEDecode"]().decode
    picture = decode(vae, {"samples": sample(model, inpaint(prior(), photo, mask))[0]})[0]
    trip = decode(vae, {"samples": encoded(host, vae, photo)})[0]
    # Rows 16..47 and columns 32..79 are replaced; the decoder looks two cells around each.
    outside = torch.ones(64, 128, dtype=torch.bool)
    outside[0:64, 16:96] = False
    assert float((picture - trip)[:, outside].abs().max()) < 1e-3
    assert float((picture - trip)[:, ~outside].abs().max()) > 0.05


@pytest.mark.parametrize(("grow", "box"), [(0, (2, 6, 4, 10)), (4, (2, 6, 4, 10)), (5, (1, 7, 3, 11))])
def test_the_mask_grows_by_pixels_to_each_side(inpaint, prior, photo, mask, grow, box):
    top, bottom, left, right = box
    wanted = torch.zeros(SIZE)
    wanted[top:bottom, left:right] = 1
    latent = inpaint(prior(), photo, mask, grow_mask_by=grow)
    assert torch.equal(latent["noise_mask"][0, 0, ::8, ::8], wanted)


def test_half_precision_photos_and_masks(host, vae, inpaint, prior, photo, mask):
    half, whole = inpaint(prior(), photo.half(), mask.half()), inpaint(prior(), photo.half().float(), mask)
    assert half["samples"].dtype == torch.float32
    # The host itself maps 0..1 to -1..1 before it leaves half precision.
    torch.testing.assert_close(half["samples"], whole["samples"], rtol=0, atol=2e-2)
    assert torch.equal(half["noise_mask"], whole["noise_mask"])


def test_a_fourth_channel_is_left_out(inpaint, prior, photo, mask):
    with_alpha = torch.cat([photo, torch.ones_like(photo[..., :1])], dim=-1)
    latents = [inpaint(prior(), one, mask)["samples"] for one in (photo, with_alpha)]
    assert torch.equal(*latents)


def test_other_keys_of_the_latent_are_kept(inpaint, prior, photo, mask):
    latent = {**prior(batch_size=2), "batch_index": [4, 7], "extra": "x", "noise_mask": torch.zeros(2, 1, 64, 128)}
    out = inpaint(latent, photo, mask)
    assert set(out) == set(latent)
    assert (out["batch_index"], out["extra"]) == ([4, 7], "x")
    assert out["noise_mask"].any()
    assert not latent["noise_mask"].any()


def test_batch_index_reaches_the_samplers_noise(recorded, inpaint, prior, photo, mask, inside, sample):
    latent = {**prior(batch_size=2), "batch_index": [4, 7]}
    recorded.blind = True
    sample(recorded.model, inpaint(latent, photo, mask))
    x, sigma = recorded.calls[0]
    noise = torch.randn(8, 4, *SIZE, generator=torch.manual_seed(5))[[4, 7]]
    wanted = sigma[0] * noise + latent["samples"] * SCALE
    torch.testing.assert_close(x[:2][..., inside], wanted[..., inside], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("latents", "photos", "masks"), [(4, 1, 1), (4, 2, 1), (2, 2, 2), (1, 3, 1), (1, 1, 2)])
def test_batches(inpaint, prior, mask, latents, photos, masks):
    g = torch.Generator().manual_seed(0)
    pictures = torch.rand(photos, 64, 128, 3, generator=g)
    boxes = torch.cat([mask.roll(8 * item, 2) for item in range(masks)])
    latent = {**prior(batch_size=latents), "batch_index": list(range(latents))}
    out, total = inpaint(latent, pictures, boxes), max(latents, photos, masks)
    assert len(set(out["batch_index"])) == total == len(out["samples"])
    for item in range(total):
        one = {"samples": latent["samples"][item % latents, None]}
        alone = inpaint(one, pictures[item % photos, None], boxes[item % masks, None])
        torch.testing.assert_close(out["samples"][item], alone["samples"][0], rtol=0, atol=1e-5)
        assert torch.equal(out["noise_mask"][item], alone["noise_mask"][0])


@given(
    cells=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    box=st.tuples(*[st.floats(0, 0.999)] * 2),
    grow=st.integers(0, 40),
    batch=st.sampled_from([(1, 1, 1), (2, 1, 1), (2, 2, 1), (1, 1, 3)]),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_any_size_of_photo_the_vae_allows(host, vae, inpaint, cells, box, grow, batch):
    """The mask is one pixel."""
    height, width = (8 * side for side in cells)
    row, column = int(box[0] * height), int(box[1] * width)
    g = torch.Generator().manual_seed(0)
    prior, photos = torch.randn(batch[0], 4, *cells, generator=g), torch.rand(batch[1], height, width, 3, generator=g)
    mask = torch.zeros(batch[2], height, width)
    mask[:, row, column] = 1
    out = inpaint({"samples": prior}, photos, mask, grow_mask_by=grow)
    replaced = out["noise_mask"][:, 0, ::8, ::8].bool()
    for i in range(cells[0]):
        for j in range(cells[1]):
            near = 8 * i - grow <= row < 8 * i + 8 + grow and 8 * j - grow <= column < 8 * j + 8 + grow
            assert bool(replaced[0, i, j]) == near
    inside = replaced.unsqueeze(1).expand_as(out["samples"])
    assert torch.equal(out["samples"][inside], prior.repeat(len(inside) // batch[0], 1, 1, 1)[inside])
    trip = encoded(host, vae, photos).repeat(len(inside) // batch[1], 1, 1, 1)
    torch.testing.assert_close(out["samples"][~inside], trip[~inside], rtol=0, atol=1e-5)


def test_a_picture_with_nothing_to_replace_is_named(inpaint, prior, photo, mask, caplog):
    with caplog.at_level("INFO", logger="scp-diff"):
        inpaint(prior(batch_size=2), photo, torch.cat([mask, mask * 0]))
    assert "9.4% of the picture is replaced; nothing in mask 2: those pictures stay as they are" in caplog.text


class TestRefused:
    def test_sizes(self, host, inpaint, prior, photo, mask):
        for picture, words in (
            (photo[:, :, :125], "photo is 125x64.*width could be 120 or 128.*for 128x64"),
            (photo[:, :, :96], "photo is 96x64.*latent is for 128x64.*set width 96 and height 64"),
        ):
            with pytest.raises(host.library.SCPError, match=words):
                inpaint(prior(), picture, mask)
        with pytest.raises(host.library.SCPError, match="mask is 64x64 pixels"):
            inpaint(prior(), photo, mask[:, :, 36:100])

    def test_photos_that_are_none(self, host, inpaint, prior, photo, mask):
        with pytest.raises(host.library.SCPError, match="The photo holds NaN or infinite values"):
            inpaint(prior(), photo * torch.nan, mask)
        with pytest.raises(host.library.SCPError, match=r"Expected a photo of shape .* got \(0, 64, 128, 3\)"):
            inpaint(prior(), photo[:0], mask)

    def test_a_vae_that_overflows(self, host, vae, inpaint, prior, photo, mask, monkeypatch):
        monkeypatch.setattr(vae, "encode", lambda pixels: torch.full((1, 4, 8, 16), torch.nan))
        with pytest.raises(host.library.SCPError, match="no numbers: it overflows in half precision.*--fp32-vae"):
            inpaint(prior(), photo, mask)

    def test_the_empty_mask_load_image_gives(self, host, inpaint, prior, photo):
        with pytest.raises(host.library.SCPError, match="mask is empty"):
            inpaint(prior(), photo, torch.zeros(1, 64, 64))

    def test_batches_that_do_not_go_together(self, host, inpaint, prior, photo, mask):
        with pytest.raises(host.library.SCPError, match="2 latents, 3 photos, 1 masks"):
            inpaint(prior(batch_size=2), photo.expand(3, -1, -1, -1), mask)

    def test_vaes_of_other_latents_and_none(self, host, vae, inpaint, prior, photo, mask):
        with pytest.raises(host.library.SCPError, match="VAE is for latents of 4 channels; the latent has 16"):
            inpaint({"samples": torch.zeros(1, 16, *SIZE)}, photo, mask)
        with pytest.raises(host.library.SCPError, match="no VAE on this wire"):
            inpaint(prior(), photo, mask, with_vae=None)

    def test_noised_latent_says_where_to_go(self, host, model, inpaint, prior, photo, mask):
        inputs = {"timestep": 799, "seed": 5, "steps": 20, "scheduler": "ddim_uniform"}
        with pytest.raises(host.library.SCPError, match="noise mask.*KSampler"):
            host.run(host.nodes["SCPNoisedLatent"], model=model, latent=inpaint(prior(), photo, mask), **inputs)
