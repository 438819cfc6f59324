"""Lines of "class: value", and what is said about bad ones."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scp_prior import classes
from scp_prior.class_lines import class_lines
from scp_prior.errors import SCPError

CITY = classes.table("cityscapes")


def read(text: str, table: classes.ClassTable = CITY):
    return class_lines(text, table, "prompts", "sky: storm clouds")


def test_names_go_by_the_table_and_values_are_what_follows_the_first_colon():
    lines = read("sky: storm clouds\n\n   Traffic_Light :  (red:1.3), late  \nroad\uff1awet")
    assert [line[:] for line in lines] == [
        (1, (10,), "sky", "storm clouds"),
        (3, (6,), "traffic light", "(red:1.3), late"),
        (4, (0,), "road", "wet"),
    ]


def test_nothing_is_no_lines():
    assert read("") == read(" \n\t\n") == []


def test_ids_of_ones_own_go_by_their_number():
    assert read("class 7: roof", classes.any_ids().table)[0].class_ids == (7,)


OWN = classes.ClassTable("own", {1: "wall", 2: "wall: brick", 3: "car", 7: "Car", 9: "cafe\u0301"}, "own")


@pytest.mark.parametrize(
    ("text", "ids", "value"),
    [
        ("wall: white", (1,), "white"),
        ("wall: brick: red, (old: 1.2)", (2,), "red, (old: 1.2)"),
        ("wall: brick", (1,), "brick"),
        ("WALL\uff1a brick\uff1a red", (2,), "red"),
        ("car: red", (3, 7), "red"),
        ("caf\u00e9: full", (9,), "full"),
        ("unlabelled: a hedge", (255,), "a hedge"),
    ],
)
def test_names_of_ones_own_may_hold_colons_be_of_several_ids_and_be_spelled_either_way(text, ids, value):
    assert [line[1::2] for line in read(text, OWN)] == [(ids, value)]


def test_a_name_of_several_ids_has_one_line():
    with pytest.raises(SCPError, match="line 2: car is there twice, first in line 1"):
        read("car: red\nCAR: blue", OWN)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sky: a\nstorm clouds", r"prompts, line 2: 'storm clouds' is not of the form.*'sky: storm clouds'"),
        ("sky:", "line 1: 'sky:' is not"),
        ("sky:   ", "line 1"),
        (": clouds", "line 1"),
        ("\n\nskies: clouds", "prompts, line 3: No class 'skies'.*Did you mean: 'sky'"),
        ("sky: a\nroad: b\nSKY: c", "line 3: sky is there twice, first in line 1"),
    ],
)
def test_bad_lines_are_told_by_their_number(text, words):
    with pytest.raises(SCPError, match=words):
        read(text)


@given(st.text(max_size=80))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_whatever_is_typed_is_read_or_refused(text):
    try:
        lines = read(text)
    except SCPError:
        return
    assert all(line.value.strip() == line.value != "" and CITY.names.keys() >= set(line.class_ids) for line in lines)


@given(st.lists(st.sampled_from(CITY.ids), unique=True), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_every_class_is_found_by_its_own_name(ids, random):
    text = "\n".join(f"{random.choice(['', '  '])}{CITY.name_of(k).upper()}: words {k}" for k in ids)
    assert [(line.class_ids, line.value) for line in read(text)] == [((k,), f"words {k}") for k in ids]
