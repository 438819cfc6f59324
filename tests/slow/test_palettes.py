"""Detection on every real label map, in every palette it could be in, compressed, resized, and as a screenshot."""

from __future__ import annotations

from collections import Counter

import pytest
from shared_data import require

from benchmarks.palette_cases import SAME_COLOURS, Case, cases, photos
from scp_prior.detection import detect_palette
from scp_prior.errors import SCPError


@pytest.fixture(scope="module")
def judged() -> list[tuple[Case, bool, bool]]:
    """(picture, is the palette right, is it sure) of all but three quarters of the CamVid maps, which look alike."""
    found = []
    for case in cases(require("data"), every=4):
        made = detect_palette(case.picture)
        right = made.palette.name == SAME_COLOURS.get(case.palette, case.palette)
        found.append((case._replace(picture=None), right, made.sure))
    assert len(found) > 1500
    return found


def share_right(judged: list[tuple[Case, bool, bool]]) -> float:
    return sum(right for _, right, _ in judged) / len(judged)


def test_the_right_palette_is_first_in_19_of_20(judged):
    assert share_right(judged) >= 0.98
    assert share_right([one for one in judged if not one[0].blurred_ids]) >= 0.99


def test_whatever_is_wrong_is_doubted(judged):
    assert [(case.source, case.palette, case.version) for case, right, sure in judged if sure and not right] == []


@pytest.mark.parametrize("version", ["exact", "jpeg 70", "half, smooth", "x 1.6, smooth", "screenshot"])
def test_no_way_of_treating_a_picture_in_colours_makes_it_unknown(judged, version):
    of_version = [one for one in judged if one[0].version == version and not one[0].palette.endswith("-grey")]
    assert len(of_version) > 100
    assert share_right(of_version) >= 0.99


def test_it_does_not_cry_wolf(judged):
    """Of the pictures in colours, five in six are sure; id pictures of few ids fit several data sets."""
    colours = [one for one in judged if not one[0].palette.endswith("-grey")]
    assert sum(sure for *_, sure in colours) / len(colours) > 0.85


def test_blurred_id_pictures_are_never_sure(judged):
    assert not any(sure for case, _, sure in judged if case.blurred_ids)


def test_photos_are_refused_or_doubted():
    outcomes = Counter()
    for case in photos(require("data")):
        try:
            outcomes["sure" if detect_palette(case.picture).sure else "doubted"] += 1
        except SCPError:
            outcomes["refused"] += 1
    assert outcomes["sure"] == 0
    assert outcomes["refused"] >= 0.9 * outcomes.total()
