"""What SCP Prior Latent says of a prior."""

from __future__ import annotations

import pytest
import torch
from builders import make_statistics

from scp_prior import prior_maps
from scp_prior.report import report
from scp_prior.statistics import Statistics

LABELS = torch.tensor([0, 1, 3, 255])[torch.arange(24) % 4].view(1, 4, 6)


def said(statistics: Statistics, method: str = "joint", labels: torch.Tensor = LABELS) -> tuple[list[str], bool]:
    text, uncertain = report(statistics, labels, prior_maps(statistics, labels, method), method)
    return text.splitlines(), uncertain


def test_cells_that_nobody_saw_and_where_their_numbers_come_from():
    plain, learned = make_statistics(), make_statistics(learned=True)
    unseen = sum(
        int(plain.tensors()["joint.count"][plain.row_of(int(k)), i // 6, i % 6] == 0)
        for i, k in enumerate(LABELS.flatten())
    )
    assert unseen
    assert f"{unseen / 24:.1%} never seen there: from the class" in said(plain)[0]
    assert f"{unseen / 24:.1%} never seen there: from the class nearby" in said(learned)[0]
    assert f"{unseen / 24:.1%} never seen there: from the class" in said(learned, "joint-class")[0]
    assert f"{unseen / 24:.1%} never seen there: from the place" in said(plain, "joint-spatial")[0]


def test_a_file_without_scene_effects_is_told_apart_from_one_that_found_none():
    learned = make_statistics(learned=True)
    tensors = learned.tensors()
    tensors["scene.share"] = torch.zeros_like(tensors["scene.share"])
    none = Statistics.from_tensors(tensors, learned.metadata)
    assert not any("drawn by itself" in line for line in said(learned)[0])
    assert "no scene effects in this file: every cell is drawn by itself" in said(make_statistics())[0]
    assert any(line.startswith("its photos share nothing") for line in said(none)[0])


@pytest.mark.parametrize("method", ["joint-class", "joint-spatial", "class", "spatial", "mixture", "normal"])
def test_the_papers_methods_say_nothing_of_scene_effects(method):
    assert not any("scene" in line or "by itself" in line for line in said(make_statistics(), method)[0])


def test_a_class_nobody_knows_is_named_and_a_warning():
    lines, uncertain = said(make_statistics((0, 1, 3)), labels=torch.where(LABELS == 255, 77, LABELS))
    assert uncertain
    assert "treated as unlabelled: class 77 (25.0%)" in lines[-1]
    assert not said(make_statistics())[1]


def test_statistics_of_another_size_are_said_to_be_resampled():
    statistics = make_statistics()
    text, _ = report(statistics, LABELS, prior_maps(statistics, LABELS, latent_size=(5, 9)), "joint")
    assert "statistics resampled from 6x4 to 9x5 cells" in text.splitlines()
    assert not any("resampled" in line for line in said(statistics)[0])
