"""The demo's committed model in the real host: its own loaders read it, and what it draws follows the label map."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

DEMO = Path(__file__).resolve().parents[2] / "demo"
SEED = 3
ROAD, BUILDING, VEGETATION, SKY, CAR = 0, 2, 8, 10, 13


@pytest.fixture(scope="module")
def graph(host):
    sys.path.append(str(DEMO))
    from demo_graph import Graph

    yield Graph(DEMO / "weights")
    sys.path.remove(str(DEMO))


@pytest.fixture(scope="module")
def street(graph):
    """A label map the model never saw: (1, H, W, 3) as LoadImage gives it, its ids, and a picture of that street."""
    from make_maps import UNSEEN_SEED
    from scenes import scene

    colours = np.asarray(Image.open(DEMO / "maps" / "street-1.png").convert("RGB"))
    truth = scene(0, UNSEEN_SEED)
    return torch.from_numpy(colours.astype(np.float32) / 255)[None], truth.labels, truth.picture


@pytest.fixture(scope="module")
def drawn(graph, street):
    """The street from pure noise and from the prior, each (H, W, 3)."""
    return {
        prior: graph.draw(street[0], seed=SEED, steps=10, cfg=1.5, prior=prior)[0][0].numpy() for prior in (False, True)
    }


def test_every_tensor_of_the_controlnet_finds_its_place(graph, host, caplog):
    with caplog.at_level(logging.DEBUG):
        host.nodes["ControlNetLoader"]().load_controlnet("scp-demo-controlnet.safetensors")
    assert not [record for record in caplog.records if "keys" in record.getMessage()]


def test_the_unet_loader_reads_the_same_file(graph, host):
    host.folder_paths.add_model_folder_path("diffusion_models", str(DEMO / "weights"), is_default=True)
    model = host.nodes["UNETLoader"]().load_unet("scp-demo.safetensors", "default")[0]
    ours, theirs = (m.model.diffusion_model.state_dict() for m in (graph.model, model))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_registering_twice_adds_one_shape(graph):
    import asyncio

    import comfy.supported_models

    import nodes

    asyncio.run(nodes.load_custom_node(str(DEMO / "host_nodes")))
    assert sum(model.__name__ == "DemoSD2" for model in comfy.supported_models.models) == 1


def test_the_autoencoder_gives_a_street_back(graph, street):
    picture = torch.from_numpy(street[2].astype(np.float32) / 255)[None]
    latent = graph.nodes["VAEEncode"]().encode(graph.vae, picture)[0]
    back = graph.nodes["VAEDecode"]().decode(graph.vae, latent)[0]
    assert float(-10 * torch.log10((back - picture).square().mean())) > 22
    assert float(latent["samples"].std()) * 0.18215 == pytest.approx(1, abs=0.25)


@pytest.mark.parametrize("prior", [False, True])
def test_pictures_have_the_colours_of_their_classes(drawn, street, prior):
    labels, picture = street[1], drawn[prior]
    mean = {k: picture[labels == k].mean(0) for k in (ROAD, BUILDING, VEGETATION, SKY)}
    # Leaves are the least blue of all, sky the brightest, asphalt grey.
    assert mean[VEGETATION][1] - mean[VEGETATION][2] > 0.05
    assert mean[SKY].mean() > mean[ROAD].mean()
    assert np.ptp(mean[ROAD]) < 0.12


@pytest.mark.parametrize("prior", [False, True])
def test_edges_are_where_the_label_map_has_them(drawn, street, prior):
    """Across the border of two classes the picture must change more than within a class."""
    labels, grey = street[1].astype(int), drawn[prior].mean(2)
    large = np.isin(labels, (ROAD, BUILDING, VEGETATION, SKY))
    step = np.abs(grey[4:] - grey[:-4])
    both = large[4:] & large[:-4]
    border = both & (labels[4:] != labels[:-4])
    assert step[border].mean() > 2 * step[both & ~border].mean()


@pytest.mark.parametrize("prior", [False, True])
def test_a_segmenter_that_never_saw_the_pictures_finds_the_label_map_in_them(graph, prior):
    """On all the demo's maps, the hand-painted one among them, with the demo's own settings."""
    import segmenter
    from scene_canvas import CLASSES
    from scenes import COLOURS

    paths = sorted((DEMO / "maps").glob("*.png"))
    colours = torch.from_numpy(np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths]))
    truth = torch.zeros(colours.shape[:3], dtype=torch.uint8)
    for label in CLASSES:
        truth[(colours == torch.from_numpy(COLOURS[label])).all(3)] = label
    drawn, _ = graph.draw(colours.float() / 255, seed=SEED, steps=20, cfg=3.0, prior=prior)
    judge = segmenter.load(DEMO / "weights" / segmenter.NAME)
    told, _ = segmenter.segment(judge, drawn.clamp(0, 1).permute(0, 3, 1, 2).contiguous())
    right = (told == truth).float().mean((1, 2))
    assert float(right.mean()) > 0.9
    assert float(right.min()) > 0.85
    # Where the map has them in some size, a stranger must find road, sky, houses, trees and cars.
    for label in (ROAD, BUILDING, VEGETATION, SKY, CAR):
        assert float((told == truth)[truth == label].float().mean()) > 0.8


def test_guidance_does_something(graph, street, drawn):
    strong = graph.draw(street[0], seed=SEED, steps=10, cfg=4.0, prior=False)[0][0].numpy()
    assert np.abs(strong - drawn[False]).mean() > 0.01


def test_the_checkpoint_that_workflows_load_draws_the_same_picture(graph, host, street, drawn):
    """U-Net, autoencoder and text in one file, by the plain loader, with any words in the prompt."""
    from demo_model import install

    install(host.base)
    model, clip, vae = graph.nodes["CheckpointLoaderSimple"]().load_checkpoint("scp_demo_checkpoint.safetensors")[:3]
    words = graph.nodes["CLIPTextEncode"]().encode(clip, "a street, best quality")[0]
    hint = graph.run("SCPHintFromLabels", labels=graph.labels(street[0]), palette="cityscapes")[0]
    controlnet = graph.nodes["ControlNetLoader"]().load_controlnet("scp_demo_controlnet.safetensors")[0]
    positive = graph.nodes["ControlNetApplyAdvanced"]().apply_controlnet(words, words, controlnet, hint, 1.0, 0.0, 1.0)
    settings = (SEED, 10, 1.5, "ddim", "ddim_uniform", positive[0], words, graph.empty(graph.labels(street[0])), 1.0)
    done = graph.nodes["KSampler"]().sample(model, *settings)[0]
    picture = graph.nodes["VAEDecode"]().decode(vae, done)[0][0].numpy()
    assert np.array_equal(picture, drawn[False])
