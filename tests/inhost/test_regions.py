"""SCP Region Prompts: which words the host's sampler follows in which cell."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SCALE = 0.18215
ROAD, SIDEWALK, BUILDING = 0, 1, 2


class WordCounter:
    """Stands in for a text encoder: a prompt's conditioning is filled with a number of its own."""

    def __init__(self):
        self.encoded: list[str] = []

    def tokenize(self, text: str) -> str:
        return text

    def encode_from_tokens_scheduled(self, tokens: str) -> list:
        self.encoded.append(tokens)
        return [[torch.full((1, 77, 1024), number_of(tokens)), {"pooled_output": None}]]


def number_of(words: str) -> float:
    return {"whole": 1.0, "wet": 5.0, "brick": -3.0}[words]


@pytest.fixture
def clip() -> WordCounter:
    return WordCounter()


@pytest.fixture
def whole(clip) -> list:
    return clip.encode_from_tokens_scheduled("whole")


@pytest.fixture(scope="module")
def listening(model):
    """A model whose answer is, in every cell, the number of the prompt it is run with."""
    patched = model.clone()
    patched.set_model_unet_function_wrapper(
        lambda apply, given: given["c"]["c_crossattn"].mean((1, 2)).view(-1, 1, 1, 1).expand(given["input"].shape)
    )
    return patched


def labels_of(host, ids: torch.Tensor, palette: str = "cityscapes-grey"):
    image = (ids.float() / 255).unsqueeze(-1).expand(*ids.shape, 3)
    return host.run(host.nodes["SCPLabelsFromImage"], image=image, palette=palette, tolerance=0.0)[0]


def patches(batch: int = 1, height: int = 64, width: int = 128, seed: int = 0) -> torch.Tensor:
    """Label maps of 3 classes in ragged patches, not aligned to cells."""
    g = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 3, (batch, height // 5 + 1, width // 7 + 1), generator=g)
    return ids.repeat_interleave(5, 1).repeat_interleave(7, 2)[:, :height, :width]


def regions(host, whole, clip, labels, prompts="road: wet\nbuilding: brick", strength=1.0, **more):
    inputs = {"conditioning": whole, "clip": clip, "labels": labels, "prompts": prompts, "strength": strength}
    return host.run(host.nodes["SCPRegionPrompts"], **inputs, **more)[0]


def followed(host, model, conditioning, batch: int, size=(8, 16)) -> torch.Tensor:
    """What one step of the host's sampler makes of the prompts: (B, h, w)."""
    latent = {"samples": torch.zeros(batch, 4, *size)}
    ran = host.nodes["KSampler"]().sample(model, 1, 1, 1.0, "euler", "normal", conditioning, conditioning, latent, 1.0)
    samples = ran[0]["samples"] * SCALE
    assert torch.allclose(samples, samples[:, :1].expand_as(samples), atol=1e-4)
    return samples[:, 0]


def expected(grid: torch.Tensor, strength: float, words: dict[int, str]) -> torch.Tensor:
    """The weighted average of the whole picture's prompt and the cell's own, spelled out cell by cell."""
    values = []
    for class_id in grid.flatten().tolist():
        own = words.get(class_id)
        values.append(1.0 if own is None else (1 + strength * number_of(own)) / (1 + strength))
    return torch.tensor(values).view(grid.shape)


@pytest.mark.parametrize("strength", [1.0, 3.0, 0.25])
def test_the_sampler_follows_each_classs_words_in_its_cells_and_the_whole_pictures_elsewhere(
    host, listening, clip, whole, strength
):
    ids = patches()
    out = regions(host, whole, clip, labels_of(host, ids), strength=strength)
    wanted = expected(ids[:, ::8, ::8], strength, {ROAD: "wet", BUILDING: "brick"})
    torch.testing.assert_close(followed(host, listening, out, 1), wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("times", [1, 2])
def test_each_item_of_a_batch_has_the_words_of_its_own_map(host, listening, clip, whole, times):
    """And where a batch holds each map several times, in the order SCP Prior Latent deals them out."""
    ids = patches(3)
    out = regions(host, whole, clip, labels_of(host, ids))
    wanted = expected(ids[:, ::8, ::8], 1.0, {ROAD: "wet", BUILDING: "brick"}).repeat(times, 1, 1)
    torch.testing.assert_close(followed(host, listening, out, 3 * times), wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("rule", "downscale"), [("nearest", 8), ("majority", 8), ("nearest", 16)])
@pytest.mark.parametrize("asked", [(0, 0), (96, 48)])
def test_prior_words_and_hint_agree_cell_for_cell(host, clip, whole, rule, downscale, asked):
    """The prior's own means say which class it took a cell for."""
    from builders import make_statistics

    width, height = asked if downscale == 8 else tuple(2 * side for side in asked)
    metadata = {"label_rule": rule, "latent_downscale": str(downscale), "dataset": "cityscapes"}
    statistics = make_statistics((0, 1, 2), size=(8, 16), palette="cityscapes", **metadata)
    labels = labels_of(host, patches(2))
    prior = {"statistics": statistics, "labels": labels, "method": "class", "seed": 1, "strength": 1.0, "batch_size": 1}
    size = {"width": width, "height": height}
    latent = host.run(host.nodes["SCPPriorLatent"], **prior, **size)[0]["samples"]
    cells = latent.shape[-2:]
    maps = host.library.prior_maps(statistics, labels.labels, "class", latent_size=cells)
    means = statistics.categorical().mean
    hint = host.run(host.nodes["SCPHintFromLabels"], labels=labels, palette="cityscapes")[0]
    out = regions(host, whole, clip, labels, statistics=statistics, **size)
    for entry, row in zip(out[1:], (ROAD, BUILDING), strict=True):
        taken = torch.isclose(maps.mean, means[row].view(1, 4, 1, 1)).all(1)
        assert taken.any()
        assert torch.equal(entry[1]["mask"], taken.float())
        if rule == "nearest" and not width:
            painted = torch.tensor(labels_palette(host).paint[row]) / 255
            seen = torch.isclose(hint[:, ::downscale, ::downscale], painted).all(-1)
            assert torch.equal(seen, taken)


def labels_palette(host):
    """The colours of the hint, as the pack's own copy of the library has them."""
    import importlib

    return importlib.import_module(f"{host.library.__name__}.classes").palette("cityscapes")


def test_the_mask_is_the_hosts_own_kind(host, clip, whole):
    labels = labels_of(host, patches())
    out = regions(host, whole, clip, labels, prompts="road: wet", strength=2.5)
    words = clip.encode_from_tokens_scheduled("wet")
    mask = (labels.labels[:, ::8, ::8] == ROAD).float()
    theirs = host.nodes["ConditioningSetMask"]().append(words, mask, "default", 2.5)[0]
    (ours,) = out[1:]
    assert torch.equal(ours[0], theirs[0][0])
    assert ours[1].keys() == theirs[0][1].keys()
    assert torch.equal(ours[1]["mask"], theirs[0][1]["mask"])
    assert {k: v for k, v in ours[1].items() if k != "mask"} == {k: v for k, v in theirs[0][1].items() if k != "mask"}


@pytest.mark.parametrize(("prompts", "strength"), [("", 1.0), ("bus: wet", 1.0), ("road: wet", 0.0)])
def test_without_words_the_conditioning_is_the_one_wired_in(host, clip, whole, prompts, strength):
    out = regions(host, whole, clip, labels_of(host, patches()), prompts=prompts, strength=strength)
    assert len(out) == len(whole) == 1
    assert out[0][0] is whole[0][0]
    assert clip.encoded == ["whole"]


def test_what_was_wired_in_is_not_changed(host, clip, whole):
    regions(host, whole, clip, labels_of(host, patches()))
    assert len(whole) == 1
    assert set(whole[0][1]) == {"pooled_output"}


def test_classes_with_the_same_words_are_encoded_once(host, clip, whole):
    out = regions(host, whole, clip, labels_of(host, patches()), prompts="road: wet\nsidewalk: wet")
    assert clip.encoded == ["whole", "wet"]
    assert len(out) == 2


@pytest.mark.parametrize("behind", [False, True])
def test_every_region_has_the_controlnet_before_and_behind_it(host, clip, whole, behind):
    net = host.nodes["ControlNetLoader"]().load_controlnet("tiny.safetensors")[0]
    apply, labels = host.nodes["ControlNetApplyAdvanced"](), labels_of(host, patches())
    hint = host.run(host.nodes["SCPHintFromLabels"], labels=labels, palette="auto")[0]
    if behind:
        out = regions(host, apply.apply_controlnet(whole, whole, net, hint, 1.0, 0.0, 1.0)[0], clip, labels)
    else:
        out = apply.apply_controlnet(regions(host, whole, clip, labels), whole, net, hint, 1.0, 0.0, 1.0)[0]
    assert len(out) == 3
    # One and the same object: only then does the host run all prompts as one batch, and the ControlNet once.
    assert len({id(options["control"]) for _, options in out}) == 1
    assert [options["control_apply_to_uncond"] for _, options in out] == [False] * 3
    assert ["mask" in options for _, options in out] == [False, True, True]


def test_regions_have_what_is_of_the_whole_picture_and_not_what_is_of_a_part(host, clip, whole):
    net, area = object(), (4, 4, 0, 0)
    of_part = {"area": area, "strength": 2.0, "start_percent": 0.5, "pooled_output": torch.ones(1)}
    wired = [[whole[0][0], {"guidance": 3.5, "control": net, **of_part}]]
    out = regions(host, wired, clip, labels_of(host, patches()), prompts="road: wet", strength=1.5)
    assert out[0] == wired[0]
    assert set(out[1][1]) == {"guidance", "control", "pooled_output", "mask", "mask_strength", "set_area_to_bounds"}
    assert (out[1][1]["guidance"], out[1][1]["control"], out[1][1]["pooled_output"]) == (3.5, net, None)


def test_parts_with_controlnets_of_their_own_hand_on_none(host, clip, whole):
    two = [[whole[0][0], {**whole[0][1], "control": name}] for name in ("one", "two")]
    out = regions(host, two, clip, labels_of(host, patches()))
    assert [options.get("control") for _, options in out] == ["one", "two", None, None]


def test_the_real_text_encoder_and_sampler(host):
    """Other words, another picture; and only the words of a class that is there count."""
    model, clip, _ = host.nodes["CheckpointLoaderSimple"]().load_checkpoint("tiny.ckpt")[:3]
    whole, labels = host.nodes["CLIPTextEncode"]().encode(clip, "street")[0], labels_of(host, patches())

    def sampled(prompts):
        positive = regions(host, whole, clip, labels, prompts=prompts)
        latent = {"samples": torch.zeros(1, 4, 8, 16)}
        ran = host.nodes["KSampler"]().sample(model, 1, 2, 2.0, "ddim", "ddim_uniform", positive, whole, latent, 1.0)
        return ran[0]["samples"]

    plain, wet, dry, bus = (sampled(x) for x in ("", "road: wet stones", "road: dry sand", "bus: wet stones"))
    assert torch.equal(plain, bus)
    assert not torch.allclose(plain, wet, atol=1e-4)
    assert not torch.allclose(wet, dry, atol=1e-4)


def test_what_is_said(host, clip, whole, caplog):
    ids = torch.zeros(1, 64, 128, dtype=torch.int64)
    ids[:, :16] = BUILDING
    with caplog.at_level("INFO", logger="scp-diff"):
        regions(host, whole, clip, labels_of(host, ids), prompts="building: brick\nbus: wet")
    assert "building (25.0%): brick; in no cell of the picture, left out: bus" in caplog.text


@pytest.mark.parametrize(
    ("prompts", "words"),
    [
        ("road: wet\nbuilding brick", "prompts, line 2: 'building brick' is not of the form"),
        ("roads: wet", "line 1: No class 'roads' in the table 'cityscapes'. Did you mean: 'road'"),
        ("road: wet\nroad: brick", "line 2: road is there twice"),
    ],
)
def test_bad_lines(host, clip, whole, prompts, words):
    with pytest.raises(host.library.SCPError, match=words):
        regions(host, whole, clip, labels_of(host, patches()), prompts=prompts)


def test_sizes_that_cannot_be(host, clip, whole):
    with pytest.raises(host.library.SCPError, match="label map is 125x64.*width could be 120 or 128"):
        regions(host, whole, clip, labels_of(host, patches(width=125)))
    out = regions(host, whole, clip, labels_of(host, patches(width=125)), width=128)
    assert out[1][1]["mask"].shape == (1, 8, 16)


@given(
    cells=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    of_map=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    maps=st.integers(1, 3),
)
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_size_of_map_goes_with_any_size_the_vae_allows(host, clip, whole, cells, of_map, maps):
    height, width = (8 * side for side in cells)
    labels = labels_of(host, patches(maps, *of_map))
    out = regions(host, whole, clip, labels, width=width, height=height)
    masks = [options["mask"] for _, options in out[1:]]
    assert all(mask.shape == (maps, *cells) and mask.any() for mask in masks)
    assert sum(masks, torch.zeros(maps, *cells)).max() <= 1


def test_no_text_encoder(host, whole):
    with pytest.raises(host.library.SCPError, match="no text encoder"):
        regions(host, whole, None, labels_of(host, patches()))
