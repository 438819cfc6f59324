"""A street painted by class names, and everything made of it: latent, hint and masks speak of the same classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

CELL = 8
HEIGHT, WIDTH = 128, 256
# From back to front, spelled as people spell; ids are trainIds of Cityscapes.
STREET = [
    ("Sky", 10),
    ("building", 2),
    ("ROAD", 0),
    ("sidewalk", 1),
    ("vegetation", 8),
    ("traffic-light", 6),
]
properties = settings(derandomize=True, deadline=None, max_examples=40)


def street_masks(height=HEIGHT, width=WIDTH) -> torch.Tensor:
    """(6, height, width): soft-edged shapes that overlap, each at an angle to the latent's grid."""
    y, x = torch.meshgrid((torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij")
    distance = [
        0.55 - y,
        torch.minimum(0.3 - (x - 0.2).abs(), y - 0.15),
        y - 0.5 - 0.2 * (x - 0.5).abs(),
        torch.minimum(y - 0.6, x - 0.55 - 0.3 * y),
        0.17 - ((x - 0.8) ** 2 + (y - 0.45) ** 2).sqrt(),
        0.06 - ((x - 0.45) ** 2 + (y - 0.3) ** 2).sqrt(),
    ]
    return torch.stack([(0.5 + 20 * d).clamp(0, 1) for d in distance])


def expected_ids(masks: torch.Tensor, height=HEIGHT, width=WIDTH) -> np.ndarray:
    """Pixel by pixel; masks of another size by their pixel at floor(i h / H)."""
    h, w = masks.shape[1:]
    out = np.full((height, width), 255)
    for row in range(height):
        for column in range(width):
            for mask, (_, class_id) in zip(masks, STREET, strict=True):
                if float(mask[row * h // height, column * w // width]) >= 0.5:
                    out[row, column] = class_id
    return out


@pytest.fixture
def said(caplog):
    """What nodes tell the artist, not warnings alone."""
    caplog.set_level("INFO", "scp-diff")
    return caplog


@pytest.fixture(scope="module")
def statistics(host):
    """Every class is a colour of its own, all but without spread: a latent cell tells its class."""
    from builders import make_statistics

    ids = [class_id for _, class_id in STREET] + [255]
    tensors = make_statistics(sorted(ids), size=(HEIGHT // CELL, WIDTH // CELL), empty=0.0).tensors()
    own = (torch.arange(len(ids))[:, None] * 10.0 + torch.arange(4)).float()
    for part in ("joint", "class"):
        shape = tensors[f"{part}.mean"].shape
        tensors[f"{part}.mean"] = own.view(*own.shape, *[1] * (len(shape) - 2)).expand(shape).clone()
        tensors[f"{part}.std"] = torch.full(shape, 1e-3)
    return host.library.Statistics.from_tensors(
        tensors, {"palette": "cityscapes", "label_rule": "nearest", "latent_downscale": str(CELL)}
    )


def paint(host, mask=None, name="sky", labels=None, palette="cityscapes", width=WIDTH, height=HEIGHT):
    inputs = {"labels": labels, "mask": mask}
    return host.run(
        host.nodes["SCPPaintLabels"],
        palette=palette,
        class_name=name,
        width=width,
        height=height,
        **{key: value for key, value in inputs.items() if value is not None},
    )[0]


def chained(host, masks):
    labels = None
    for mask, (name, _) in zip(masks, STREET, strict=True):
        labels = paint(host, mask[None], name, labels)
    return labels


def at_once(host, masks, **more):
    lines = "\n".join(name for name, _ in STREET)
    node = host.nodes["SCPLabelsFromMasks"]
    return host.run(node, masks=masks, palette="cityscapes", classes=lines, **more)[0]


def classes_of_latent(statistics, latent: torch.Tensor) -> torch.Tensor:
    """(B, 4, h, w) -> (B, h, w): the class whose mean each cell is nearest to."""
    means = statistics.categorical().mean
    nearest = (latent.movedim(1, -1).unsqueeze(-2) - means).norm(dim=-1).argmin(-1)
    return statistics.class_ids[nearest]


@pytest.mark.parametrize("how", [chained, at_once])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_latent_hint_and_masks_agree_pixel_for_pixel_at_the_latent_grid(host, statistics, how, dtype):
    from scp_prior.classes import palette

    masks = street_masks().to(dtype)
    labels = how(host, masks)
    ids = torch.from_numpy(expected_ids(masks))
    assert {0, 1, 2, 6, 8, 10, 255} == set(ids.unique().tolist())
    assert torch.equal(labels.labels[0], ids)
    grid = ids[::CELL, ::CELL]

    latent = host.run(
        host.nodes["SCPPriorLatent"],
        statistics=statistics, labels=labels, method="joint", seed=3, strength=1.0, batch_size=2,
    )[0]["samples"]  # fmt: skip
    assert torch.equal(classes_of_latent(statistics, latent), grid.expand(2, -1, -1))

    # ComfyUI brings a hint to eight times the latent's size by nearest pixel: here it has that size already.
    hint = host.run(host.nodes["SCPHintFromLabels"], labels=labels, palette="auto")[0]
    colours = palette("cityscapes").paint
    wanted = torch.tensor([[colours[int(i)] for i in row] for row in grid])
    assert torch.equal((hint[0, ::CELL, ::CELL] * 255).round().long(), wanted)

    for name, class_id in STREET:
        mask = host.run(host.nodes["SCPMaskFromLabels"], labels=labels, class_name=name)[0]
        assert torch.equal(mask[0, ::CELL, ::CELL], (grid == class_id).float())
        assert torch.equal(mask[0], (ids == class_id).float())


def test_masks_of_another_size_land_where_they_should_and_the_node_says_so(host, said):
    masks = street_masks(90, 180)
    assert np.array_equal(chained(host, masks).labels[0].numpy(), expected_ids(masks))
    assert "mask resized from 180x90" in said.text
    assert not any("stretched" in record.message for record in said.records)
    paint(host, torch.ones(1, 64, 64))
    assert "mask stretched from 64x64 to 256x128" in said.text


@pytest.mark.parametrize(("maps", "height", "width"), [(1, 512, 384), (3, 512, 384), (2, 128, 256)])
def test_batches_and_a_portrait_go_all_the_way(host, statistics, maps, height, width):
    masks = street_masks(height, width).repeat(maps, 1, 1).half()
    labels = at_once(host, masks, background="terrain")
    assert labels.labels.shape == (maps, height, width)
    assert not (labels.labels == 255).any()
    mask = host.run(host.nodes["SCPMaskFromLabels"], labels=labels, class_name="sky")[0]
    assert mask.shape == (maps, height, width)
    assert mask.dtype == torch.float32
    legend = host.run(host.nodes["SCPPreviewLabels"], labels=labels, statistics=statistics)[0]
    assert legend.shape[0] == maps
    latent, _ = host.run(
        host.nodes["SCPPriorLatent"],
        statistics=statistics, labels=labels, method="joint", seed=3, strength=1.0, batch_size=maps,
    )  # fmt: skip
    assert latent["samples"].shape == (maps, 4, height // CELL, width // CELL)


def test_several_masks_make_several_maps_and_one_mask_serves_several(host):
    three = paint(host, street_masks()[:3], "road", width=0, height=0)
    assert three.labels.shape == (3, HEIGHT, WIDTH)
    assert torch.equal(three.labels == 0, street_masks()[:3] >= 0.5)
    again = paint(host, street_masks()[5:], "car", three)
    assert torch.equal(again.labels == 13, (street_masks()[5:] >= 0.5).expand(3, -1, -1))
    with pytest.raises(host.library.SCPError, match="2 masks and 3 label maps"):
        paint(host, street_masks()[:2], "car", three)


class TestStarts:
    def test_from_nothing_but_a_size(self, host):
        labels = paint(host, name="road", palette="ade20k", width=64, height=32)
        assert labels.palette.name == "ade20k"
        assert torch.equal(labels.labels, torch.full((1, 32, 64), 7))

    def test_from_the_mask_alone(self, host):
        labels = paint(host, street_masks()[:1], width=0, height=0)
        assert labels.labels.shape == (1, HEIGHT, WIDTH)

    def test_from_neither(self, host):
        with pytest.raises(host.library.SCPError, match="Set width and height"):
            paint(host, width=0, height=0)

    def test_labels_keep_their_palette_and_size_and_the_node_says_so(self, host, said):
        first = paint(host, name="road")
        second = paint(host, street_masks()[:1], "rider", first, palette="ade20k", width=8, height=8)
        assert second.palette is first.palette
        assert second.labels.shape == first.labels.shape
        assert (second.labels == 12).any()
        assert "classes of cityscapes, not ade20k" in said.text

    def test_an_empty_mask_is_said(self, host, said):
        labels = paint(host, torch.zeros(1, 64, 64), "car", paint(host, name="road"))
        assert (labels.labels == 0).all()
        assert "the mask is empty: no car" in said.text

    def test_unlabelled_erases(self, host):
        labels = paint(host, street_masks()[:1], "unlabelled", paint(host, name="road"))
        assert torch.equal(labels.labels == 255, street_masks()[:1] >= 0.5)

    @properties
    @given(st.tuples(*[st.integers(1, 70)] * 4), st.integers(1, 3), st.sampled_from([torch.float16, torch.float32]))
    def test_any_sizes_of_map_and_mask(self, host, sizes, batch, dtype):
        height, width, h, w = sizes
        mask = torch.rand(batch, h, w, generator=torch.Generator().manual_seed(h * w)).to(dtype)
        labels = paint(host, mask, "car", width=width, height=height)
        assert labels.labels.shape == (batch, height, width)
        back = host.run(host.nodes["SCPMaskFromLabels"], labels=labels, class_name="car")[0]
        assert torch.equal(back == 1, labels.labels == 13)
        assert host.run(host.nodes["SCPPreviewLabels"], labels=labels)[0].shape[0] == batch


class TestNames:
    @pytest.mark.parametrize("name", ["skyy", ""])
    def test_a_class_that_is_not_there_is_refused_before_anything_runs(self, host, name):
        for node, inputs in (
            ("SCPPaintLabels", {"class_name": name}),
            ("SCPLabelsFromMasks", {"classes": f"road\n{name or '?'}"}),
            ("SCPLabelsFromMasks", {"background": name}),
        ):
            told = host.nodes[node].validate_inputs(palette="cityscapes", **inputs)
            assert isinstance(told, str)
            assert "'sky'" in told or not name

    def test_a_palette_that_is_not_there(self, host):
        for node in ("SCPPaintLabels", "SCPLabelsFromMasks"):
            assert "Choose one of" in host.nodes[node].validate_inputs(palette="nonsense")

    def test_names_no_menu_offers_are_taken_where_they_mean_something(self, host):
        node = host.nodes["SCPPaintLabels"]
        assert node.validate_inputs(palette="cityscapes", class_name="Traffic-LIGHT") is True
        assert node.validate_inputs(palette="ade20k", class_name="rider") is not True
        # What is wired in has the last word.
        assert node.validate_inputs(palette="ade20k", class_name="rider", labels=None) is True
        assert host.nodes["SCPMaskFromLabels"].validate_inputs(class_name="anything") is True
        with pytest.raises(host.library.SCPError, match="No class 'anything' in the table 'cityscapes'"):
            host.run(host.nodes["SCPMaskFromLabels"], labels=paint(host), class_name="anything")

    def test_wired_values_are_not_known_yet(self, host):
        assert host.nodes["SCPPaintLabels"].validate_inputs(palette=None, class_name=None) is True
        assert host.nodes["SCPLabelsFromMasks"].validate_inputs(palette="ade20k", classes=None, background=None) is True

    def test_a_class_the_map_does_not_hold_is_black_and_said(self, host, said):
        mask = host.run(host.nodes["SCPMaskFromLabels"], labels=paint(host, name="road"), class_name="car")[0]
        assert not mask.any()
        assert "no car in this map; there is: road" in said.text

    @pytest.mark.parametrize(
        ("node", "name"),
        [("SCPMaskFromLabels", "class_name"), ("SCPPaintLabels", "class_name"), ("SCPLabelsFromMasks", "background")],
    )
    def test_the_page_is_told_the_classes_of_every_palette(self, host, node, name):
        from scp_prior.classes import palette, palettes

        inputs = host.nodes[node].INPUT_TYPES()
        told = next(inputs[part][name][1] for part in ("required", "optional") if name in inputs.get(part, {}))
        menus = told["scp_classes"]
        assert {*palettes(), "ids"} <= {*menus["palettes"]}
        for each in palettes():
            names = menus["tables"][menus["palettes"][each]]
            assert set(palette(each).table.names.values()) <= set(names)
            assert set(names) <= set(told["options"])
        assert told["default"] in told["options"]
        assert len(told["options"]) == len(set(told["options"]))


class TestPalettesOfTheUsers:
    @pytest.fixture
    def own(self, host):
        path = host.base / "models" / "scp_statistics" / "toys.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("id,name,rgb\n1,Duck,#ffee00\n2,train,#0000ff\n", encoding="utf-8")
        yield path
        path.unlink()

    def test_their_classes_are_on_the_menu_and_can_be_painted(self, host, own):
        menus = host.nodes["SCPPaintLabels"].INPUT_TYPES()["required"]["class_name"][1]["scp_classes"]
        assert menus["tables"][menus["palettes"]["toys.csv"]] == ["Duck", "train", "unlabelled"]
        painted = paint(host, street_masks()[:1], "duck", palette="toys.csv")
        assert torch.equal(painted.labels == 1, street_masks()[:1] >= 0.5)
        assert host.run(host.nodes["SCPPreviewLabels"], labels=painted)[0].shape[0] == 1

    def test_a_changed_table_is_noticed(self, host, own):
        for node in ("SCPPaintLabels", "SCPLabelsFromMasks"):
            before = host.nodes[node].fingerprint_inputs(palette="toys.csv", width=8)
            assert before == host.nodes[node].fingerprint_inputs(palette="toys.csv", width=8)
            own.write_text(own.read_text(encoding="utf-8") + "3,boat,#ff0000\n", encoding="utf-8")
            assert before != host.nodes[node].fingerprint_inputs(palette="toys.csv", width=8)

    def test_a_broken_table_spoils_no_menu_and_says_what_is_wrong(self, host, own):
        own.write_text("id,name,rgb\n1,Duck,yellow\n", encoding="utf-8")
        told = host.nodes["SCPPaintLabels"].INPUT_TYPES()["required"]
        assert "toys.csv" in told["palette"][1]["options"]
        assert "toys.csv" not in told["class_name"][1]["scp_classes"]["palettes"]
        assert "yellow" in host.nodes["SCPPaintLabels"].validate_inputs(palette="toys.csv", class_name="Duck")


class TestLegend:
    def test_statistics_add_what_the_prior_knows(self, host, statistics):
        labels = at_once(host, street_masks())
        plain = host.run(host.nodes["SCPPreviewLabels"], labels=labels)[0]
        known = host.run(host.nodes["SCPPreviewLabels"], labels=labels, statistics=statistics)[0]
        assert known.shape[1] > plain.shape[1]

    def test_each_map_has_marks_of_its_own(self, host, statistics):
        both = paint(host, torch.stack([torch.zeros(64, 64), torch.ones(64, 64)]), "car", paint(host, name="road"))
        first, second = host.run(host.nodes["SCPPreviewLabels"], labels=both, statistics=statistics)[0]
        amber = [((page * 255 - torch.tensor([255, 190, 90])).abs().amax(-1) < 0.5).any() for page in (first, second)]
        assert amber == [False, True]

    def test_labels_of_another_data_set_are_refused(self, host, statistics):
        with pytest.raises(host.library.SCPError, match="read as ade20k"):
            host.run(
                host.nodes["SCPPreviewLabels"], labels=paint(host, name="sky", palette="ade20k"), statistics=statistics
            )
