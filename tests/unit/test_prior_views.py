"""Coverage and spread of a prior, as pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from builders import make_statistics

from scp_prior import METHODS, prior_maps
from scp_prior import prior_views as views
from scp_prior.drawing import heat
from scp_prior.methods import CELL, CLASS, SPATIAL
from scp_prior.preview import enlarged

SIZE = (8, 16)
LABELS = torch.tensor([0, 1, 3, 77])[torch.arange(128) // 4 % 4].view(1, *SIZE)


def maps_of(method: str = "joint-spatial", empty: float = 0.3, ids=(0, 1, 3), labels=LABELS):
    return prior_maps(make_statistics(ids, size=SIZE, empty=empty), labels, method)


def cells_of(page: torch.Tensor, size=SIZE) -> np.ndarray:
    """The middle pixel of each cell of a page 640 wide, as bytes."""
    step = 640 // size[1]
    middle = page[step // 2 : step * size[0] : step, step // 2 :: step]
    return (middle * 255).round().to(torch.uint8).numpy()


def test_counts_of_the_prior_are_those_of_the_file():
    statistics = make_statistics((0, 1, 3), size=SIZE)
    count = statistics.tensors()["joint.count"]
    maps = prior_maps(statistics, LABELS, "joint")
    for i in range(SIZE[0]):
        for j in range(SIZE[1]):
            row = statistics.row_of(int(LABELS[0, i, j]))
            assert float(maps.count[0, i, j]) == (0 if row is None else int(count[row, i, j]))
    assert not prior_maps(statistics, LABELS, "class").count.any()


def test_cells_are_as_bright_as_they_are_known_and_stand_ins_have_colours_of_their_own():
    maps = maps_of()
    page = views.coverage_view(maps)[0]
    cells, origin, count = cells_of(page), maps.origin[0], maps.count[0].numpy()
    assert {CELL, SPATIAL} == set(origin.unique().tolist())
    for i in range(SIZE[0]):
        for j in range(SIZE[1]):
            if origin[i, j] == SPATIAL:
                assert tuple(cells[i, j]) == views._STAND_INS[SPATIAL]
            else:
                share = np.log1p(count[i, j]) / np.log1p(count[origin.numpy() == CELL].max())
                assert np.abs(cells[i, j].astype(int) - heat(share)).max() <= 1


def test_the_key_names_what_is_there_and_nothing_else(monkeypatch):
    rows = []
    monkeypatch.setattr(views, "_pages", lambda colours, key: rows.append([row.text for row in key]))
    views.coverage_view(maps_of())
    views.coverage_view(maps_of("joint-class", ids=(0, 1, 3, 255)), "class nearby")
    views.coverage_view(maps_of("normal"))
    views.coverage_view(maps_of(empty=0.0, labels=LABELS.clamp_max(1)))
    # Of 39 photos at the most: (1 + n)^2 = 40 at n = 5.3.
    photos = "photos that showed this class here (at the middle 5)"
    assert rows == [
        [photos, "never seen there: from the place"],
        [photos, "never seen there: from the class nearby"],
        ["nothing: an empty latent"],
        [photos],
    ]


def test_the_bar_of_the_key_reads_as_its_ends_and_middle_say():
    page, count = views.coverage_view(maps_of(empty=0.0, labels=LABELS.clamp_max(1)))[0], 39
    bar = (page[320 + 14 + 4, 14:-14] * 255).round().to(torch.uint8).numpy().astype(int)
    for at, photos in ((0, 0), (306, (1 + count) ** 0.5 - 1), (611, count)):
        assert np.abs(bar[at] - heat(np.log1p(photos) / np.log1p(count))).max() <= 2


def test_brightness_is_the_spread():
    std = torch.rand(2, 4, *SIZE, generator=torch.Generator().manual_seed(0))
    pages = views.spread_view(std)
    most = max(float((std[b, :, i, j] ** 2).mean() ** 0.5) for b in range(2) for i in range(8) for j in range(16))
    for b in range(2):
        cells = cells_of(pages[b])
        for i in range(SIZE[0]):
            for j in range(SIZE[1]):
                expected = 255 * float((std[b, :, i, j] ** 2).mean() ** 0.5) / most
                assert np.abs(cells[i, j] - expected).max() <= 1


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [(1, 1), (16, 32), (64, 48), (128, 128), (2, 900), (900, 2)])
def test_any_method_and_size_gives_a_page_of_the_nodes_width(method, size):
    labels = torch.tensor([0, 1, 3, 77])[torch.arange(size[0] * size[1]) % 4].view(1, *size).expand(2, -1, -1)
    maps = prior_maps(make_statistics(size=SIZE), labels, method, latent_size=size)
    for page in (views.coverage_view(maps), views.spread_view(maps.std)):
        assert page.shape[0] == 2
        assert page.shape[2:] == (640, 3)
        assert page.shape[1] < 650
        assert 0 <= float(page.min()) < float(page.max()) <= 1


def test_the_stand_ins_are_told_apart_from_every_count():
    ramp = heat(np.linspace(0, 1, 256)).astype(int)
    for colour in views._STAND_INS.values():
        assert np.abs(ramp - colour).sum(1).min() > 60
    assert len({views._STAND_INS[k] for k in (CLASS, SPATIAL)}) == 2


@pytest.mark.parametrize(("size", "times"), [((128, 256), 2), ((64, 64), 8), ((512, 1024), 1), ((384, 500), 2)])
def test_small_pictures_are_shown_larger(size, times):
    picture = torch.rand(1, *size, 3, generator=torch.Generator().manual_seed(0))
    shown = enlarged(picture)
    assert shown.shape == (1, size[0] * times, size[1] * times, 3)
    assert torch.equal(shown[:, ::times, times - 1 :: times], picture)
