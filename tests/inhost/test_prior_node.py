"""SCP Prior Latent: strengths per class, what its preview shows, and every size the VAE allows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

SIZE = (8, 16)
SCALE = 0.18215


@pytest.fixture(scope="module")
def statistics(host):
    from builders import make_statistics

    return make_statistics((0, 1, 2), size=SIZE, learned=True, dataset="cityscapes", palette="cityscapes")


def labels_of(host, ids, palette="cityscapes-grey"):
    image = (ids.float() / 255).unsqueeze(-1).expand(*ids.shape, 3)
    return host.run(host.nodes["SCPLabelsFromImage"], image=image, palette=palette, tolerance=0.0)[0]


def stripes(batch=1, height=64, width=128):
    return torch.arange(width).mul(3).div(width, rounding_mode="floor").expand(batch, height, width)


@pytest.fixture
def prior(host, statistics):
    def draw(labels=None, **changed):
        inputs = {"method": "joint", "seed": 7, "strength": 1.0, "batch_size": 1}
        labels = labels or labels_of(host, stripes())
        return host.run(host.nodes["SCPPriorLatent"], statistics=statistics, labels=labels, **{**inputs, **changed})

    return draw


class TestClassStrength:
    def test_nothing_written_changes_nothing(self, prior):
        for strength in (1.0, 0.35, 0.0):
            plain = prior(strength=strength)[0]["samples"]
            for text in ("", " \n ", "sky: 0.2", "road: 1"):
                assert torch.equal(prior(strength=strength, class_strength=text)[0]["samples"], plain)

    def test_each_class_is_weighed_in_its_own_cells(self, host, prior):
        ids = stripes(2).clone()
        ids[1] = ids[1].flip(1)
        labels = labels_of(host, ids)
        plain = prior(labels, batch_size=4)[0]["samples"]
        weighed = prior(labels, batch_size=4, class_strength="road: 0.5\nbuilding: 0")[0]["samples"]
        grid = ids[:, ::8, ::8].repeat(2, 1, 1)
        factor = torch.tensor([0.5, 1.0, 0.0])[grid].unsqueeze(1)
        assert torch.equal(weighed, plain * factor + 0.0)
        assert not weighed[:, 0][grid == 2].signbit().any()

    def test_it_multiplies_strength(self, prior):
        both = prior(strength=0.8, class_strength="road: 0.5\nsidewalk: 0.5\nbuilding: 0.5")[0]["samples"]
        torch.testing.assert_close(both, prior(strength=0.4)[0]["samples"])

    def test_classes_go_by_the_names_of_the_label_maps_own_palette(self, host, prior):
        ids = torch.tensor([7, 8, 11])[stripes()]  # road, sidewalk, building among the 34 ids
        labels = labels_of(host, ids, "cityscapes-ids-grey")
        ours = prior(labels, class_strength="sidewalk: 0.1")[0]["samples"]
        assert torch.equal(ours, prior(class_strength="sidewalk: 0.1")[0]["samples"])
        assert not torch.equal(ours, prior()[0]["samples"])

    def test_what_is_said(self, host, prior, caplog):
        with caplog.at_level("INFO", logger="scp-diff"):
            prior(class_strength="car: 0.5\nroad: 0.5")
        assert "class_strength: in no cell of the picture: car" in caplog.text
        for text, words in (("road", "line 1: 'road' is not of the form"), ("rode: 1", "Did you mean: 'road'")):
            with pytest.raises(host.library.SCPError, match=f"class_strength, .*{words}"):
                prior(class_strength=text)
        with pytest.raises(host.library.SCPError, match="class_strength, line 1: '3' is not a number from 0"):
            prior(class_strength="road: 3")


class TestPreview:
    def shown(self, host, draw) -> list[tuple[int, int]]:
        """(height, width) of the pictures the node shows."""
        node = host.nodes["SCPPriorLatent"].PREPARE_CLASS_CLONE(None)
        files = node.EXECUTE_NORMALIZED(**draw).ui.as_dict()["images"]
        sizes = []
        for file in files:
            with Image.open(f"{host.folder_paths.get_temp_directory()}/{file['filename']}") as picture:
                sizes.append(picture.size[::-1])
        return sizes

    def test_mean_is_the_hosts_own_latent_preview(self, host, model, prior, statistics):
        from latent_preview import Latent2RGBPreviewer

        labels = labels_of(host, stripes())
        mean = host.library.prior_maps(statistics, labels.labels, "joint").mean
        formats = model.get_model_object("latent_format")
        theirs = Latent2RGBPreviewer(formats.latent_rgb_factors, formats.latent_rgb_factors_bias)
        drawn = torch.from_numpy(np.array(theirs.decode_latent_to_preview(mean * SCALE))).float()
        for wired in (model, None):
            picture = prior(labels, model=wired)[1]
            assert picture.shape == (1, 64, 128, 3)
            assert (picture[0, ::8, ::8] * 255 - drawn).abs().max() < 1.01
            assert torch.equal(picture[:, ::8, ::8], picture[:, 7::8, 7::8])

    def test_mean_through_a_vae_is_the_mean_decoded(self, host, prior, statistics, caplog):
        vae = host.nodes["CheckpointLoaderSimple"]().load_checkpoint("tiny.ckpt")[2]
        labels = labels_of(host, stripes(2))
        mean = host.library.prior_maps(statistics, labels.labels, "joint").mean
        with caplog.at_level("INFO", logger="scp-diff"):
            picture = prior(labels, vae=vae, strength=0.5)[1]
        assert torch.equal(picture, vae.decode(mean * 0.5))
        assert "preview decoded by the VAE in" in caplog.text

    def test_the_vae_is_asked_once_for_all_seeds_and_never_in_another_view(self, host, prior, monkeypatch):
        vae = host.nodes["CheckpointLoaderSimple"]().load_checkpoint("tiny.ckpt")[2]
        asked, decode = [], vae.decode
        monkeypatch.setattr(vae, "decode", lambda latent: asked.append(latent.shape) or decode(latent))
        pictures = [prior(vae=vae, seed=seed)[1] for seed in (1, 2, 3)]
        assert len(asked) == 1
        assert torch.equal(pictures[0], pictures[2])
        prior(vae=vae, strength=0.3)
        assert len(asked) == 2
        for view in ("coverage", "spread"):
            prior(vae=vae, view=view)
        assert len(asked) == 2

    def test_a_vae_of_other_latents(self, host, prior):
        vae = host.nodes["CheckpointLoaderSimple"]().load_checkpoint("tiny.ckpt")[2]
        vae.latent_channels = 16
        with pytest.raises(host.library.SCPError, match="VAE is for latents of 16 channels; the latent has 4"):
            prior(vae=vae)

    def test_the_latent_does_not_depend_on_the_view(self, prior):
        latents = [prior(view=view)[0]["samples"] for view in ("mean", "coverage", "spread")]
        assert torch.equal(latents[0], latents[1])
        assert torch.equal(latents[0], latents[2])

    def test_coverage_and_spread_are_pages_with_a_key(self, host, prior):
        for view in ("coverage", "spread"):
            picture = prior(labels_of(host, stripes(2)), view=view)[1]
            assert picture.shape[0] == 2
            assert picture.shape[1] > 320
            assert picture.shape[2:] == (640, 3)

    def test_spread_follows_the_strengths(self, prior):
        plain, weak = (prior(view="spread", class_strength=text)[1] for text in ("", "road: 0"))
        assert float(plain[0, :320, :200].max()) > 0.3
        assert not weak[0, :320, :200].any()

    @pytest.mark.parametrize(("size", "shown"), [((128, 256), (256, 512)), ((512, 1024), (512, 1024))])
    def test_the_node_shows_small_pictures_larger(self, host, statistics, size, shown):
        inputs = {"method": "joint", "seed": 7, "strength": 1.0, "batch_size": 1, "statistics": statistics}
        assert self.shown(host, {**inputs, "labels": labels_of(host, stripes(1, *size))}) == [shown]

    def test_views_that_are_not_there(self, host):
        validate = host.nodes["SCPPriorLatent"].validate_inputs
        assert "Choose one of: mean, coverage, spread" in validate(method="joint", view="depth")
        assert validate(method="joint", view="spread") is True
        assert validate(method="joint") is True

    def test_a_view_that_is_wired_and_not_there(self, host, prior):
        with pytest.raises(host.library.SCPError, match="no view 'depth'. Choose one of: mean"):
            prior(view="depth")


class TestSizes:
    @given(
        cells=st.tuples(st.integers(1, 20), st.integers(1, 20)),
        of_map=st.tuples(st.integers(1, 70), st.integers(1, 70)),
        method=st.sampled_from(["joint", "joint-spatial", "class", "spatial", "mixture", "normal"]),
        view=st.sampled_from(["mean", "coverage", "spread"]),
        maps=st.integers(1, 2),
    )
    @settings(
        max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    def test_any_size_of_map_goes_with_any_size_the_vae_allows(self, host, prior, cells, of_map, method, view, maps):
        height, width = (8 * side for side in cells)
        ids = torch.randint(0, 4, (maps, *of_map), generator=torch.Generator().manual_seed(0))
        more = {"method": method, "view": view, "class_strength": "road: 0.5"}
        latent, picture = prior(labels_of(host, ids), width=width, height=height, **more)
        assert latent["samples"].shape == (maps, 4, *cells)
        assert torch.isfinite(latent["samples"]).all()
        assert torch.isfinite(picture).all()
        if view == "mean":
            assert picture.shape == (maps, height, width, 3)

    @pytest.mark.parametrize("size", [(8, 8), (8, 1024), (1024, 768), (512, 384), (640, 360), (520, 1000)])
    def test_the_label_map_wins_over_the_file(self, host, prior, size, caplog):
        with caplog.at_level("INFO", logger="scp-diff"):
            latent = prior(labels_of(host, stripes(1, *size)))[0]
        h, w = (side // 8 for side in size)
        assert latent["samples"].shape == (1, 4, h, w)
        assert f"statistics resampled from 16x8 to {w}x{h} cells" in caplog.text

    @pytest.mark.parametrize(
        ("size", "words"),
        [
            ((512, 683), "The width could be 680 or 688. Resize"),
            ((500, 640), "The height could be 496 or 504. Resize"),
            ((7, 13), "The width could be 8 or 16. The height could be 8. Resize"),
        ],
    )
    def test_others_are_refused_with_the_two_nearest(self, host, prior, size, words):
        with pytest.raises(host.library.SCPError, match=words):
            prior(labels_of(host, stripes(1, *size)))

    def test_a_portrait_through_the_sampler(self, host, model, conditioning, prior):
        """3:4, two maps and two seeds, to the end of the host's own sampler."""
        latent = prior(labels_of(host, stripes(2, 128, 96)), batch_size=4)[0]
        both = (conditioning, conditioning)
        ran = host.nodes["KSampler"]().sample(model, 1, 2, 1.0, "ddim", "ddim_uniform", *both, latent, 0.8)[0]
        assert ran["samples"].shape == (4, 4, 16, 12)
        assert torch.isfinite(ran["samples"]).all()


def test_an_item_taken_out_of_a_batch_samples_as_it_did_within_it(host, model, conditioning, prior):
    """LatentFromBatch writes batch_index; prior and noise of the item must be those it had."""
    latent = prior(labels_of(host, stripes(2)), batch_size=4)[0]
    alone = host.nodes["LatentFromBatch"]().frombatch(latent, 2, 1)[0]
    both = (conditioning, conditioning)
    whole, one = (
        host.nodes["KSampler"]().sample(model, 1, 2, 1.0, "ddim", "ddim_uniform", *both, x, 0.8)[0]["samples"]
        for x in (latent, alone)
    )
    torch.testing.assert_close(one[0], whole[2], rtol=0, atol=1e-4)


def test_a_segmentation_image_in_half_precision_gives_the_same_latent(host, prior):
    image = torch.tensor([[128, 64, 128], [244, 35, 232], [70, 70, 70]])[stripes()] / 255  # road, sidewalk, building
    read = host.nodes["SCPLabelsFromImage"]
    half, whole = (
        prior(host.run(read, image=picture, palette="cityscapes", tolerance=2.0)[0])[0]["samples"]
        for picture in (image.half(), image)
    )
    assert torch.equal(half, whole)
    assert torch.equal(whole, prior()[0]["samples"])
