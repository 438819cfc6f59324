"""Scene effects and shrinkage, as the node SCP Prior Latent gives them."""

from __future__ import annotations

import pytest
import torch

SIZE = (16, 24)


@pytest.fixture(scope="module")
def statistics(host):
    """Forty small pictures of two classes, each with a light of its own."""
    g = torch.Generator().manual_seed(0)
    made = host.library.Collector(4, SIZE)
    labels = torch.randint(0, 2, (40, 2, 3), generator=g).repeat_interleave(8, 1).repeat_interleave(8, 2)
    light = 2 * torch.randn(40, 4, 1, 1, generator=g)
    made.add(torch.randn(40, 4, *SIZE, generator=g) + light + labels[:, None], labels)
    return made.statistics(dataset="cityscapes", label_rule="nearest", palette="cityscapes")


@pytest.fixture(scope="module")
def labels(host):
    picture = torch.zeros(1, 8 * SIZE[0], 8 * SIZE[1], 3)
    picture[:, :64] = torch.tensor([128, 64, 128]) / 255  # road
    picture[:, 64:] = torch.tensor([244, 35, 232]) / 255  # sidewalk
    return host.run(host.nodes["SCPLabelsFromImage"], image=picture, palette="cityscapes", tolerance=0)[0]


@pytest.fixture
def prior(host, statistics, labels):
    def draw(**changed):
        inputs = {"method": "joint", "seed": 7, "strength": 1.0, "batch_size": 1, "width": 0, "height": 0}
        return host.run(host.nodes["SCPPriorLatent"], statistics=statistics, labels=labels, **{**inputs, **changed})[0]

    return draw


def between(latents: torch.Tensor) -> float:
    """Variance between pictures of a picture's mean."""
    return float(latents["samples"].mean((2, 3)).var(0).mean())


def test_pictures_of_a_batch_differ_in_what_a_whole_picture_shares(prior):
    """The photos' light has a variance of 4; independent cells would leave a 384th of theirs."""
    assert between(prior(batch_size=64)) > 1
    assert between(prior(batch_size=64, scene_variation=0.0)) < 0.1
    assert 0.1 < between(prior(batch_size=64, scene_variation=0.5)) < between(prior(batch_size=64))


def test_each_cell_keeps_its_mean_and_spread(host, prior, statistics, labels):
    maps = host.library.prior_maps(statistics, labels.labels)
    z = (prior(batch_size=400)["samples"] - maps.mean) / maps.std
    # 400 pictures that move together: the standard error is that of 400 draws, whatever the number of cells.
    assert float(z.mean((0, 2, 3)).abs().max()) < 4 / 400**0.5
    assert float((z.var((0, 2, 3)) - 1).abs().max()) < 5 * (2 / 400) ** 0.5


def test_an_item_is_the_same_alone(prior):
    assert torch.equal(prior(batch_size=3)["samples"][:1], prior()["samples"])


def test_only_joint_has_them(prior):
    for method in ("joint-class", "joint-spatial", "class", "spatial", "mixture", "normal"):
        both = [prior(method=method, scene_variation=x)["samples"] for x in (0.0, 1.0)]
        assert torch.equal(*both)


def test_shrinkage_none_is_the_papers_joint(prior):
    ours = prior(shrinkage=0.0, scene_variation=0.0)["samples"]
    assert torch.allclose(ours, prior(method="joint-class")["samples"], atol=1e-4)
    assert not torch.allclose(prior(scene_variation=0.0)["samples"], ours, atol=1e-2)


def test_a_file_without_scene_effects_says_so(host, statistics, labels, caplog):
    bare = {k: t for k, t in statistics.tensors().items() if not k.startswith(("target.", "scene."))}
    metadata = {k: v for k, v in statistics.metadata.items() if k != "shrinkage"}
    released = type(statistics).from_tensors(bare, metadata)
    inputs = {"method": "joint", "seed": 7, "strength": 1.0, "batch_size": 1, "width": 0, "height": 0}
    with caplog.at_level("INFO", logger="scp-diff"):
        host.run(host.nodes["SCPPriorLatent"], statistics=released, labels=labels, **inputs)
    assert "no scene effects in this file" in caplog.text


def test_merging_with_a_file_that_lacks_them_says_what_is_left_out(host, statistics, caplog):
    metadata = {**statistics.metadata, "vae": "v sha256:0123456789ab"}
    whole = type(statistics).from_tensors(statistics.tensors(), metadata)
    bare = {k: t for k, t in statistics.tensors().items() if not k.startswith("scene.")}
    other = type(statistics).from_tensors(bare, metadata)
    with caplog.at_level("INFO", logger="scp-diff"):
        merged = host.run(host.nodes["SCPMergeStatistics"], statistics_a=whole, statistics_b=other)[0]
    assert merged.has_target
    assert not merged.has_scene
    assert "left out, as one of them lacks it: scene effects" in caplog.text
