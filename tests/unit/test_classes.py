"""Class tables and palettes: facts, ambiguities, and the tables users write themselves."""

from __future__ import annotations

import codecs
import colorsys
import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from shared_data import require

from scp_prior import classes
from scp_prior.errors import SCPError
from scp_prior.user_tables import may_be_table

COLOUR_PALETTES = [name for name in classes.palettes() if not classes.palette(name).grey]


def read_as(name: str) -> dict[tuple[int, ...], int]:
    palette = classes.palette(name)
    return dict(zip(map(tuple, palette.colours.tolist()), palette.ids.tolist(), strict=True))


def rows(file: str) -> list[dict[str, str]]:
    with (require("data/classes") / file).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def rgb(row: dict[str, str], prefix: str = "") -> tuple[int, ...]:
    return tuple(int(row[prefix + channel]) for channel in "rgb")


def test_the_names_are_a_contract_with_saved_graphs():
    assert classes.tables() == ("cityscapes", "cityscapes-ids", "ade20k", "coco-stuff")
    assert classes.palettes() == (
        "cityscapes",
        "cityscapes-ids",
        "ade20k",
        "ade20k-controlnet",
        "coco-stuff",
        "coco-stuff-controlnet",
        "cityscapes-grey",
        "cityscapes-ids-grey",
        "ade20k-grey",
        "coco-stuff-grey",
        "ade20k-oneformer",
        "coco-stuff-oneformer",
        "coco-stuff-panoptic",
    )


@pytest.mark.parametrize(
    ("name", "ids"),
    [
        ("cityscapes", [*range(19), 255]),
        ("cityscapes-ids", [*range(34)]),
        ("ade20k", [*range(151), 255]),
        ("coco-stuff", [*range(182), 255]),
    ],
)
def test_tables_hold_exactly_these_ids(name: str, ids: list[int]):
    table = classes.table(name)
    assert list(table.ids) == ids
    assert table.name == name
    assert len(set(table.names.values())) == len(ids)


@pytest.mark.parametrize("name", classes.palettes())
def test_palettes_are_well_formed(name: str):
    palette = classes.palette(name)
    assert palette.name == name
    assert palette is classes.palette(name)
    assert set(palette.paint) <= {*palette.table.ids, 255}
    assert palette.colours.dtype == np.uint8
    assert palette.ids.dtype == np.int64
    assert palette.colours.shape == (len(palette.ids), 3)
    assert len(np.unique(palette.colours, axis=0)) == len(palette.colours)
    assert (np.diff(palette.ids) >= 0).all()
    assert set(palette.ids.tolist()) <= {*palette.table.ids, 255}
    assert palette.grey == name.endswith("-grey") == (len(palette.colours) == 0)
    assert palette.grey or not (palette.ids.flags.writeable or palette.colours.flags.writeable)


@pytest.mark.parametrize("name", COLOUR_PALETTES)
def test_every_class_that_does_not_come_back_is_documented_as_ambiguous(name: str):
    palette = classes.palette(name)
    # Classes a palette has no colour for at all are no ambiguity: they are painted as unlabelled.
    lost = ({*palette.table.ids} & {*palette.paint}) - {*palette.unambiguous_ids()}
    documented = {class_id for entry in palette.ambiguous for class_id in entry.ids if class_id != entry.read_as}
    assert lost <= documented
    for entry in palette.ambiguous:
        assert read_as(name)[entry.colour] == entry.read_as
        assert entry.read_as in entry.ids
        assert len(entry.ids) > 1
        assert entry.rule


@pytest.mark.parametrize(
    ("name", "lost"),
    [
        ("cityscapes", set()),
        ("cityscapes-ids", {1, 2, 3, 4, 18}),
        ("ade20k", {49, 255}),
        ("ade20k-controlnet", {255}),
        ("coco-stuff", {11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90}),
        ("coco-stuff-controlnet", {11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90, 255}),
    ],
)
def test_only_these_classes_share_a_colour_with_another(name: str, lost: set[int]):
    palette = classes.palette(name)
    assert {*palette.table.ids} - {*palette.unambiguous_ids()} == lost


@pytest.mark.parametrize(
    ("name", "colour", "class_id"),
    [
        ("cityscapes", (0, 0, 0), 255),
        ("cityscapes", (250, 170, 160), 255),  # parking is ignored, not the nearest trainId
        ("cityscapes", (153, 153, 153), 5),
        ("cityscapes", (0, 0, 142), 13),
        ("cityscapes-ids", (0, 0, 0), 0),
        ("cityscapes-ids", (250, 170, 160), 9),
        ("cityscapes-ids", (153, 153, 153), 17),
        ("cityscapes-ids", (0, 0, 142), 26),
        ("ade20k", (140, 140, 140), 7),
        ("ade20k", (0, 0, 0), 0),
        ("ade20k-controlnet", (0, 0, 30), 1),
        ("ade20k-controlnet", (90, 0, 90), 150),
        ("coco-stuff", (0, 0, 0), 255),
        ("coco-stuff-controlnet", (0, 0, 0), 255),
        ("coco-stuff-controlnet", (128, 0, 0), 0),
        ("ade20k-oneformer", (255, 235, 102), 4),  # floor, not glass
        ("ade20k-oneformer", (255, 255, 255), 0),
        ("coco-stuff-oneformer", (255, 255, 255), 255),
        ("coco-stuff-panoptic", (70, 130, 180), 156),  # sky-other, not clouds
    ],
)
def test_colours_are_read_as(name: str, colour: tuple[int, int, int], class_id: int):
    assert read_as(name)[colour] == class_id


def test_the_coco_controlnet_is_shown_unlabelled_pixels_as_roof():
    palette = classes.palette("coco-stuff-controlnet")
    assert palette.table.name_of(150) == "roof"
    assert palette.paint[255] == palette.paint[150] == palette.unlabelled_colour
    assert classes.palette("coco-stuff").paint[255] == (0, 0, 0)


def test_cityscapes_facts():
    own, by_train_id = classes.palette("cityscapes-ids"), classes.palette("cityscapes")
    for row in rows("cityscapes_ids.csv"):
        class_id, train_id = int(row["id"]), int(row["train_id"])
        if class_id < 0:
            continue
        assert own.table.name_of(class_id) == row["name"]
        assert own.paint[class_id] == rgb(row)
        assert own.table.convert_to["cityscapes"].get(class_id, 255) == train_id
        if train_id != 255:
            assert by_train_id.table.name_of(train_id) == row["name"]
            assert by_train_id.paint[train_id] == rgb(row)
            assert by_train_id.table.convert_to["cityscapes-ids"][train_id] == class_id
        if rgb(row) != (153, 153, 153):
            assert read_as("cityscapes")[rgb(row)] == train_id


def test_ade20k_facts():
    official, hint = classes.palette("ade20k"), classes.palette("ade20k-controlnet")
    facts = rows("ade20k_150.csv")
    assert len(facts) == 151
    for row in facts:
        class_id = int(row["id"])
        assert official.paint[class_id] == rgb(row)
        assert hint.paint[class_id] == rgb(row, "scp_hint_")
        if class_id:
            assert official.table.name_of(class_id) == row["name"].strip()


def test_coco_stuff_facts():
    official = classes.palette("coco-stuff")
    facts = rows("coco_stuff_182.csv")
    assert len(facts) == 183
    for row in facts:
        class_id = int(row["id"])
        assert official.paint[class_id] == rgb(row, "scp_")
        if class_id != 255:
            assert official.table.name_of(class_id) == row["name"]


def golden_angle_colour(number: int) -> list[float]:
    """What the OneFormer preprocessor's formula gives, before its last rounding."""
    hue = int(number * 137.508 % 360 / 2) / 180
    saturation = (153, 204, 255)[number % 3] / 255
    return [255 * channel for channel in colorsys.hsv_to_rgb(hue, saturation, (178, 255)[number % 2] / 255)]


def test_oneformer_facts():
    """OpenCV rounds halves its own way, so that a channel may differ by a hair more than a half from the formula."""
    ade, coco = classes.palette("ade20k-oneformer"), classes.palette("coco-stuff-oneformer")
    panoptic = [class_id for class_id in coco.unambiguous_ids() if class_id != 255]
    # The 133 classes are numbered things first, then stuff, then what was merged.
    merged = [168, 112, 101, 156, 97, 164, 114, 139, 134, 123, 110, 138, 120, 95, 149, 172, 151]
    numbered = [class_id for class_id in panoptic if class_id not in merged] + merged
    assert len(numbered) == 133
    for painted, ids in ((ade, range(1, 151)), (coco, numbered)):
        assert painted.paint[ids[0]] == (0, 0, 0)
        for number, class_id in enumerate(ids):
            if number:
                assert painted.paint[class_id] == pytest.approx(golden_angle_colour(number), abs=0.51), class_id
    assert ade.paint[255] == coco.paint[255] == (255, 255, 255)
    assert ade.table.name_of(read_as("ade20k-oneformer")[(0, 0, 0)]) == "wall"
    assert coco.table.name_of(read_as("coco-stuff-oneformer")[(0, 0, 0)]) == "person"


@pytest.mark.parametrize(
    ("name", "colour"),
    [
        ("person", (220, 20, 60)),
        ("toothbrush", (191, 162, 208)),
        ("banner", (255, 255, 128)),
        ("window-other", (255, 73, 97)),
        ("tree", (107, 142, 35)),
        ("bush", (107, 142, 35)),
        ("ceiling-other", (146, 139, 141)),
        ("carpet", (250, 141, 255)),
        ("snow", (255, 255, 255)),
    ],
)
def test_panoptic_facts(name: str, colour: tuple[int, int, int]):
    palette = classes.palette("coco-stuff-panoptic")
    assert palette.paint[palette.table.id_of(name)] == colour


def test_91_kinds_of_stuff_are_53_of_coco_panoptic():
    """36 as they were, 43 merged into 17, 12 left out: so says the data set."""
    palette = classes.palette("coco-stuff-panoptic")
    stuff = range(91, 182)
    merged = [entry for entry in palette.ambiguous if len(entry.ids) > 1]
    assert len({palette.paint[class_id] for class_id in stuff if class_id in palette.paint}) == 53
    assert sum(class_id not in palette.paint for class_id in stuff) == 12
    assert (len(merged), sum(len(entry.ids) for entry in merged)) == (17, 43)
    assert set(palette.paint) == set(classes.palette("coco-stuff-oneformer").paint)


@pytest.mark.parametrize("name", classes.tables())
def test_the_usual_classes_are_classes(name: str):
    table = classes.table(name)
    assert table.usual
    assert table.usual <= {*table.ids, 255}


def test_the_usual_classes_of_ade20k_are_most_of_its_pixels():
    shares = {int(row["id"]): float(row["pixel_ratio"] or 0) for row in rows("ade20k_150.csv")}
    usual = classes.table("ade20k").usual
    assert sum(shares[class_id] for class_id in usual) > 0.74
    assert min(shares[class_id] for class_id in usual) >= max(v for k, v in shares.items() if k not in usual)


def test_names_and_ids():
    table = classes.table("cityscapes")
    assert table.name_of(255) == "unlabelled"
    assert table.name_of(77) == "unknown class 77"
    assert table.id_of("traffic light") == 6
    assert table.id_of(" Traffic_Light ") == 6
    for class_id, name in table.names.items():
        assert table.id_of(name) == class_id
    with pytest.raises(SCPError, match=r"No class 'trafic light' in the table 'cityscapes'.*'traffic light'"):
        table.id_of("trafic light")
    with pytest.raises(SCPError, match=r"road.*sidewalk"):
        table.id_of("zzz")


@pytest.mark.parametrize("ask", [classes.table, classes.palette, classes.released_palette])
def test_unknown_names_are_answered_with_the_known_ones(ask):
    with pytest.raises(SCPError, match=r"'camvid'.*cityscapes.*ade20k"):
        ask("camvid")


def test_released_palettes_paint_their_tables():
    expected = {"ade20k": "ade20k-controlnet", "coco-stuff": "coco-stuff-controlnet"}
    for name in classes.tables():
        released = classes.released_palette(name)
        assert released == expected.get(name, name)
        assert classes.palette(released).table == classes.table(name)


def test_importing_reads_no_table():
    readers = "_cityscapes_rows", "_ade20k_rows", "_coco_rows"
    code = f"import scp_prior.classes as c; print(*(getattr(c, r).cache_info().currsize for r in {readers}))"
    root = Path(classes.__file__).parents[1]
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["0", "0", "0"]


# --- tables of users ------------------------------------------------------------------------------------------------


def write(folder: Path, text: str | bytes, name: str = "mine.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


EXPECTED = {1: ("wall, brick", (120, 0, 7)), 300: ("sky", (0, 200, 255))}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('id,name,r,g,b\n300,sky,0,200,255\n1,"wall, brick",120,0,7\n', "mine.csv"),
        ('\ufeffID;Name;RGB\r\n\r\n1;"wall, brick";#780007\r\n300;sky;0,200,255\r\n', "mine.csv"),
        ("name\tid\tcolour\twhy\nwall, brick\t1\t120 0 7\tx\nsky\t300\t[0, 200, 255]\n", "mine.txt"),
        ('id, name, red, green, blue\n1.0, "wall, brick", 120, 0, 7\n300, sky, 0, 200, 255\n', "mine.csv"),
        (
            codecs.BOM_UTF16_LE + "id\tname\trgb\n1\twall, brick\t780007\n300\tsky\t(0,200,255)\n".encode("utf-16-le"),
            "a.csv",
        ),
        (
            json.dumps(
                [{"id": 1, "name": "wall, brick", "rgb": [120, 0, 7]}, {"id": 300, "name": "sky", "rgb": "#00c8ff"}]
            ),
            "a.json",
        ),
        (
            json.dumps(
                {
                    "note": "ours",
                    "classes": [
                        {"id": "1", "name": "wall, brick", "r": 120, "g": 0, "b": 7},
                        {"ID": 300, "name": "sky", "color": "0,200,255"},
                    ],
                }
            ),
            "a.JSON",
        ),
    ],
)
def test_tables_of_users(tmp_path: Path, text: str | bytes, name: str):
    table, palette = classes.load_table(write(tmp_path, text, name))
    assert {class_id: (table.names[class_id], palette.paint[class_id]) for class_id in table.ids} == EXPECTED
    assert palette.table is table
    assert table.name == palette.name == table.dataset == Path(name).stem
    assert palette.ids.tolist() == [1, 300]
    assert palette.colours.tolist() == [[120, 0, 7], [0, 200, 255]]
    assert palette.unlabelled_colour == (0, 0, 0)
    assert palette.ambiguous == ()


def test_a_user_s_table_can_be_given_another_name(tmp_path: Path):
    table, palette = classes.load_table(write(tmp_path, "id,name,rgb\n1,a,#010203\n", "ade20k.csv"), "ade20k.csv")
    assert table.name == palette.name == table.dataset == "ade20k.csv"


def test_a_user_s_two_ids_of_one_colour_are_read_as_the_smaller(tmp_path: Path):
    text = "id,name,rgb\n9,b,#010203\n4,a,#010203\n255,void,#ffffff\n"
    _, palette = classes.load_table(write(tmp_path, text))
    assert palette.ids.tolist() == [4, 255]
    assert palette.ambiguous == (classes.Ambiguity((1, 2, 3), (4, 9), 4, "the smaller id is read"),)
    assert palette.unlabelled_colour == (255, 255, 255)


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("id,name,rgb\n1,a,#010203\n\n1,b,#020304\n", "t.csv", r"t\.csv, line 4: id 1 is there twice, first in line 2"),
        ("id,name,r,g,b\n1,a,1,2,256\n", "t.csv", r"t\.csv, line 2: colour '1, 2, 256' is not three .* 0 to 255"),
        ("id,name,r,g,b\n1,a,1,-2,25\n", "t.csv", "line 2: colour '1, -2, 25'"),
        ("id,name,rgb\n1,a,#12345\n", "t.csv", "line 2: colour '#12345'"),
        ("id,name,r,g,b\n1,a,1,2\n", "t.csv", "line 2: no b"),
        ("id,name,rgb\n1,,#010203\n", "t.csv", "line 2: no name"),
        ("id,name,rgb\n65536,a,#010203\n", "t.csv", "line 2: id '65536' is not a whole number from 0 to 65535"),
        ("id,name,rgb\n-1,a,#010203\n", "t.csv", "line 2: id '-1'"),
        ("id,name,rgb\n1.5,a,#010203\n", "t.csv", "line 2: id '1.5'"),
        ("id,name,rgb\nnan,a,#010203\n", "t.csv", "line 2: id 'nan'"),
        ("id,name,rgb\n1,a,1,2,3\n", "t.csv", r"line 2: 5 values, but the header names 3 columns.*quotes"),
        ("id,rgb\n1,#010203\n", "t.csv", r"t\.csv: no column name\..*it names: id, rgb"),
        ("1,wall,#010203\n", "t.csv", "no column id and no column name and no column rgb"),
        ("id,name,r,g\n1,a,2,3\n", "t.csv", "no column rgb"),
        ("id,name,rgb,id\n1,a,#010203,1\n", "t.csv", "the column id is there twice"),
        ("id,name,rgb\n", "t.csv", "holds no classes"),
        ("", "t.csv", "holds no classes"),
        (b"id,name,rgb\n1,caf\xe9,#010203\n", "t.csv", "not a text file in UTF-8"),
        (b"id,name\0", "t.csv", "not a text file"),
        ('id,name,rgb\n1,"' + "x" * 200_000 + '",#010203\n', "t.csv", "not readable as CSV"),
        ("id,name,rgb\n" + "9" * (8 << 20), "t.csv", "larger than 8 MB"),
        ('[{"id": 1,\n"name" "a"}]', "t.json", r"t\.json, line 2: not readable as JSON"),
        ("[" * 100_000, "t.json", r"t\.json"),
        ("7", "t.json", "expected a JSON list of classes, found int"),
        ('{"a": [], "b": []}', "t.json", "expected one list of classes, found 2 lists"),
        ('[{"id": 1, "name": "a", "rgb": [1, 2, 3]}, 5]', "t.json", "entry 2: expected an object"),
        ('[{"id": true, "name": "a", "rgb": [1, 2, 3]}]', "t.json", "entry 1: id True"),
        ('[{"id": 1, "name": "a", "rgb": [1, 2]}]', "t.json", "entry 1: colour '1, 2'"),
        ('[{"id": 1, "name": "a", "rgb": null}]', "t.json", "entry 1: no rgb"),
        ('[{"id": 1, "name": "a"}]', "t.json", "entry 1: no rgb"),
        ('[{"id": ' + "9" * 5000 + ', "name": "a", "rgb": [1, 2, 3]}]', "t.json", "a number of thousands of digits"),
        ('[{"id": 1, "name": "a\\ud800b", "rgb": [1, 2, 3]}]', "t.json", "entry 1: the name .* is no text"),
        ("id,name,rgb\n1," + "x" * 201 + ",#010203\n", "t.csv", "line 2: the name 'x*...' has 201 characters; 200 are"),
        ('[{"id": 1e999, "name": "a", "rgb": "#010203"}]', "t.json", "entry 1: id inf"),
    ],
)
def test_what_is_wrong_with_a_user_s_table(tmp_path: Path, text: str | bytes, name: str, message: str):
    with pytest.raises(SCPError, match=message):
        classes.load_table(write(tmp_path, text, name))


def test_a_missing_table_and_a_folder(tmp_path: Path):
    with pytest.raises(SCPError, match=r"Cannot read the class table .*gone\.csv: No such file"):
        classes.load_table(tmp_path / "gone.csv")
    with pytest.raises(SCPError, match="Cannot read the class table"):
        classes.load_table(tmp_path)


def test_one_name_of_several_ids_and_other_spellings_of_it(tmp_path: Path):
    table, _ = classes.load_table(write(tmp_path, "id,name,rgb\n7,Car,#010203\n3,car,#020304\n1,cafe\u0301,#030405\n"))
    assert (table.ids_of("car"), table.id_of("CAR"), table.ids_of("caf\u00e9")) == ((3, 7), 3, (1,))
    for name in classes.tables():
        built_in = classes.table(name)
        assert all(built_in.ids_of(one) == (class_id,) for class_id, one in built_in.names.items())


@pytest.mark.parametrize(
    ("name", "text", "may"),
    [
        ("a.json", '[{"ID": 1, "name": "a", "rgb": [1, 2, 3]}]', True),
        ("a.json", '{"classes": [{"id": 1', True),
        ("a.json", '{"steps": [0, 1], "width": 3}', False),
        ("a.json", b"\xff\xfe\xff", True),
        ("a.csv", "step,loss\n", True),
    ],
)
def test_what_may_be_meant_as_a_table(tmp_path: Path, name: str, text: str | bytes, may: bool):
    assert may_be_table(write(tmp_path, text, name)) is may
    assert may_be_table(tmp_path / "gone.json")
