"""Class tables and palettes: which id is which class, and in which colour each data set and each ControlNet shows it.

A *table* names ids. A *palette* is one way of painting a table: the data set's official colours, the colours the
released ControlNet was trained on, or the grey value that is the id itself. Tables are read from `data/` when first
asked for.

Sources of the facts: cityscapesScripts `helpers/labels.py`; CSAILVision/sceneparsing `objectInfo150.txt` and
`color150.mat`; nightrome/cocostuff `labels.txt`; the loaders in AIR-DISCOVER/SCP-Diff-Toolkit `datasets/`;
cocodataset/panopticapi `panoptic_coco_categories.json`; Fannovel16/comfyui_controlnet_aux `oneformer/`.
"""

from __future__ import annotations

import csv
import difflib
import functools
import os
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .errors import SCPError
from .ids import UNLABELLED
from .user_tables import read_table_file

ANY = "ids"
"""The table and palette of ids that nobody has named."""

RGB = tuple[int, int, int]

_DATA = Path(__file__).with_name("data")
_BLACK: RGB = (0, 0, 0)


@dataclass(frozen=True)
class ClassTable:
    """The ids of one convention and their names.

    Attributes:
        name: what saved graphs and statistics files call this table, e.g. `"cityscapes-ids"`.
        names: id -> name, in ascending order of ids.
        dataset: the family of tables whose ids mean the same things; `"cityscapes"` for both Cityscapes tables.
        convert_to: other table's name -> {id here: id there}; ids absent there become `UNLABELLED`.
        usual: the ids that most of the data set's pictures consist of; empty where nobody knows.
    """

    name: str
    names: Mapping[int, str] = field(hash=False)
    dataset: str
    convert_to: Mapping[str, Mapping[int, int]] = field(default_factory=dict, hash=False)
    usual: frozenset[int] = frozenset()

    @property
    def ids(self) -> tuple[int, ...]:
        """The ids of the table, ascending."""
        return tuple(self.names)

    def name_of(self, class_id: int) -> str:
        """Name of an id; "unlabelled" for 255 and "unknown class 77" for an id the table does not hold."""
        fallback = "unlabelled" if class_id == UNLABELLED else f"unknown class {class_id}"
        return self.names.get(int(class_id), fallback)

    def id_of(self, name: str) -> int:
        """Id of a class name, see `ids_of`; the smallest where there are several.

        Raises:
            SCPError: no class has that name; the message lists the closest ones.
        """
        return self.ids_of(name)[0]

    def ids_of(self, name: str) -> tuple[int, ...]:
        """Ids of a class name, ignoring case and taking "-", "_" and blanks as the same; ascending.

        The names of a built-in table are all different; a user may have given one name to several ids.

        Raises:
            SCPError: no class has that name; the message lists the closest ones.
        """
        wanted = plain_name(str(name))  # a graph written by hand may hold a number
        ids = tuple(class_id for class_id, known in self.names.items() if plain_name(known) == wanted)
        if ids:
            return ids
        by_name = {plain_name(known): class_id for class_id, known in reversed(self.names.items())}
        close = difflib.get_close_matches(wanted, by_name, n=5, cutoff=0.5)
        close += [known for known in by_name if wanted and wanted in known and known not in close][: 5 - len(close)]
        names = [f"{self.names[by_name[known]]!r}" for known in close] or [f"{n!r}" for n in list(self.names.values())]
        shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
        raise SCPError(f"No class {name!r} in the table {self.name!r}. Did you mean: {shown}?")


class Ambiguity(NamedTuple):
    """A colour that several ids are painted in, and how a picture is read there."""

    colour: RGB
    ids: tuple[int, ...]
    read_as: int
    rule: str


@dataclass(frozen=True, eq=False)
class Palette:
    """One way of painting a class table.

    Attributes:
        name: what saved graphs call this palette.
        table: the ids it reads to and paints from.
        colours: `(N, 3)` uint8, every distinct colour a picture may hold; empty for a grey palette.
        ids: `(N,)` int64, the id each of `colours` is read as.
        paint: id -> colour; any other id is painted in `unlabelled_colour`.
        grey: the picture's grey value *is* the id.
        ambiguous: colours that several ids share, with the rule that decides.
    """

    name: str
    table: ClassTable
    colours: np.ndarray
    ids: np.ndarray
    paint: Mapping[int, RGB]
    grey: bool = False
    ambiguous: tuple[Ambiguity, ...] = ()

    @property
    def unlabelled_colour(self) -> RGB:
        """The colour of unlabelled pixels and of ids the palette does not know."""
        return self.paint.get(UNLABELLED, _BLACK)

    def unambiguous_ids(self) -> tuple[int, ...]:
        """Ids of the table that come back as themselves after painting and reading."""
        if self.grey:
            return self.table.ids
        read_as = {
            tuple(colour): class_id for colour, class_id in zip(self.colours.tolist(), self.ids.tolist(), strict=True)
        }
        return tuple(class_id for class_id in self.table.ids if read_as.get(self.paint.get(class_id)) == class_id)


def tables() -> tuple[str, ...]:
    """Names of the built-in class tables."""
    return tuple(_TABLES)


def table(name: str) -> ClassTable:
    """A built-in class table by name.

    Raises:
        SCPError: there is no such table.
    """
    if name not in _TABLES:
        raise SCPError(f"No class table {name!r}. Choose one of: {', '.join(_TABLES)}.")
    return _TABLES[name]()


def palettes() -> tuple[str, ...]:
    """Names of the built-in palettes; a contract with saved graphs."""
    return tuple(_PALETTES)


def palette(name: str) -> Palette:
    """A built-in palette by name.

    Raises:
        SCPError: there is no such palette.
    """
    if name not in _PALETTES:
        raise SCPError(f"No palette {name!r}. Choose one of: {', '.join(_PALETTES)}.")
    return _PALETTES[name]()


@functools.cache
def any_ids() -> Palette:
    """Grey values that are class ids of whatever classes; for label maps of a user's own."""
    names = {class_id: f"class {class_id}" for class_id in range(UNLABELLED)}
    own = ClassTable(ANY, {**names, UNLABELLED: "unlabelled"}, ANY)
    paint = {class_id: (class_id, class_id, class_id) for class_id in own.ids}
    return Palette(ANY, own, np.zeros((0, 3), dtype=np.uint8), np.zeros(0, dtype=np.int64), paint, grey=True)


def released_palette(name: str) -> str:
    """The palette the released ControlNet of a table (or data set) was trained on.

    The hint for Cityscapes is the official colour picture of all 34 ids, so labels that still hold the 34 ids are
    painted with them.

    Raises:
        SCPError: no ControlNet was released for that table.
    """
    if name not in _RELEASED:
        raise SCPError(
            f"No released ControlNet for the class table {name!r}; there is one for each of: {', '.join(_RELEASED)}. "
            "Choose the palette your own ControlNet was trained on."
        )
    return _RELEASED[name]


def load_table(path: str | os.PathLike[str], name: str | None = None) -> tuple[ClassTable, Palette]:
    """Read a class table and its palette from a CSV or JSON file of the user's; both get `name`, or the file's stem.

    Every row has an id (0..65535), a name and a colour; see `user_tables`. Two ids of one colour are allowed: the
    smaller one is read, and `Palette.ambiguous` says so. Id 255 stays what it is everywhere, "unlabelled".

    Raises:
        SCPError: the file is missing, too big, unreadable, or a row of it is wrong (the message says which).
    """
    rows = read_table_file(path)
    ordered = sorted(rows, key=lambda row: row.class_id)
    name = name or Path(path).stem
    own = ClassTable(name=name, names={row.class_id: row.name for row in ordered}, dataset=name)
    return own, _coloured(name, own, {row.class_id: row.colour for row in ordered})


def plain_name(name: str) -> str:
    """A class name without case, and with blanks for "-" and "_": what two spellings of it have in common.

    Accents are one character or two as the keyboard or the program pleases that wrote them; that is no difference.
    """
    return " ".join(unicodedata.normalize("NFKC", name).casefold().replace("-", " ").replace("_", " ").split())


def _read(file: str) -> list[dict[str, str]]:
    with (_DATA / file).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _rgb(text: str) -> RGB:
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)


_SMALLER_ID = "the smaller id is read"


def _coloured(
    name: str,
    own: ClassTable,
    paint: Mapping[int, RGB],
    *,
    also_read: Iterable[tuple[RGB, int]] = (),
    decided: Mapping[RGB, tuple[int, str]] | None = None,
) -> Palette:
    """Palette from what is painted, what is only ever read, and the colours that do not follow the smaller-id rule."""
    claims: dict[RGB, set[int]] = {}
    for class_id, colour in [*paint.items(), *((class_id, colour) for colour, class_id in also_read)]:
        claims.setdefault(colour, set()).add(class_id)
    # 255 is painted even where the table has no row for it, so it always takes part.
    unlabelled = paint.get(UNLABELLED, _BLACK)
    if unlabelled in claims:
        claims[unlabelled].add(UNLABELLED)
    read_as: dict[RGB, int] = {}
    ambiguous: list[Ambiguity] = []
    for colour, ids in claims.items():
        read_as[colour], rule = (decided or {}).get(colour, (min(ids), _SMALLER_ID))
        if len(ids) > 1:
            ambiguous.append(Ambiguity(colour, tuple(sorted(ids)), read_as[colour], rule))
    # Ascending ids: where a picture's colour lies exactly between two classes, the first, smaller id wins.
    ordered = sorted(read_as.items(), key=lambda item: (item[1], item[0]))
    colours = np.array([colour for colour, _ in ordered], dtype=np.uint8).reshape(-1, 3)
    ids_read = np.array([class_id for _, class_id in ordered], dtype=np.int64)
    colours.setflags(write=False)
    ids_read.setflags(write=False)
    return Palette(name, own, colours, ids_read, dict(sorted(paint.items())), ambiguous=tuple(ambiguous))


def _grey(table_name: str) -> Palette:
    own = table(table_name)
    empty = np.zeros((0, 3), dtype=np.uint8), np.zeros(0, dtype=np.int64)
    paint = {class_id: (class_id, class_id, class_id) for class_id in own.ids}
    return Palette(f"{table_name}-grey", own, *empty, paint, grey=True)


def _voc_colour(index: int) -> RGB:
    """Colour `index` of PASCAL VOC: bit 3k, 3k+1, 3k+2 of the index is bit 7-k of red, green, blue."""
    red = green = blue = 0
    for bit in range(8):
        red |= (index >> (3 * bit) & 1) << (7 - bit)
        green |= (index >> (3 * bit + 1) & 1) << (7 - bit)
        blue |= (index >> (3 * bit + 2) & 1) << (7 - bit)
    return red, green, blue


# --- Cityscapes -----------------------------------------------------------------------------------------------------


# Road, sidewalk, building, vegetation, sky, car and what is ignored: nine tenths of the pixels.
_CITYSCAPES_USUAL = frozenset({0, 1, 2, 8, 10, 13, UNLABELLED})
# Ego vehicle, rectification border, out of roi, static.
_CITYSCAPES_VOID = frozenset({1, 2, 3, 4})


@functools.cache
def _cityscapes_rows() -> tuple[tuple[int, int, str, RGB], ...]:
    return tuple(
        (int(row["id"]), int(row["train_id"]), row["name"], _rgb(row["colour"])) for row in _read("cityscapes.csv")
    )


def _to_train_ids() -> dict[int, int]:
    return {class_id: train_id for class_id, train_id, _, _ in _cityscapes_rows() if train_id != UNLABELLED}


@functools.cache
def _cityscapes_table() -> ClassTable:
    names = {train_id: name for _, train_id, name, _ in _cityscapes_rows() if train_id != UNLABELLED}
    back = {train_id: class_id for class_id, train_id in _to_train_ids().items()}
    own = {**names, UNLABELLED: "unlabelled"}
    return ClassTable("cityscapes", own, "cityscapes", {"cityscapes-ids": back}, _CITYSCAPES_USUAL)


@functools.cache
def _cityscapes_ids_table() -> ClassTable:
    names = {class_id: name for class_id, _, name, _ in _cityscapes_rows()}
    usual = {class_id for class_id, train_id in _to_train_ids().items() if train_id in _CITYSCAPES_USUAL}
    return ClassTable(
        "cityscapes-ids", names, "cityscapes", {"cityscapes": _to_train_ids()}, frozenset(usual | _CITYSCAPES_VOID)
    )


@functools.cache
def _cityscapes_palette() -> Palette:
    # All 34 colours are read, the ignored ones as 255: left out, parking would be taken for its nearest neighbour.
    rows = _cityscapes_rows()
    paint = {train_id: colour for _, train_id, _, colour in rows if train_id != UNLABELLED}
    return _coloured(
        "cityscapes",
        table("cityscapes"),
        {**paint, UNLABELLED: _BLACK},
        also_read=[(colour, train_id) for _, train_id, _, colour in rows] + [((0, 0, 142), UNLABELLED)],
        decided={
            (153, 153, 153): (5, "pole is read; polegroup, ignored in evaluation, has the same colour"),
            (0, 0, 142): (13, "car is read; license plate, never drawn into the maps, has the same colour"),
        },
    )


@functools.cache
def _cityscapes_ids_palette() -> Palette:
    return _coloured(
        "cityscapes-ids",
        table("cityscapes-ids"),
        {class_id: colour for class_id, _, _, colour in _cityscapes_rows()},
        decided={
            _BLACK: (0, "unlabeled is read; ids 1 to 4 and 255 are black as well"),
            (153, 153, 153): (17, "pole is read; polegroup, ignored in evaluation, has the same colour"),
        },
    )


# --- ADE20K ---------------------------------------------------------------------------------------------------------


# The data set numbers its classes by size: from wall, 16 % of the pixels, to car, 1 %, they make three quarters.
_ADE20K_USUAL = frozenset(range(1, 22))
_WHITE: RGB = (255, 255, 255)


@functools.cache
def _ade20k_rows() -> tuple[tuple[int, str, RGB], ...]:
    return tuple((int(row["id"]), row["name"], _rgb(row["colour"])) for row in _read("ade20k.csv"))


@functools.cache
def _ade20k_table() -> ClassTable:
    names = {class_id: name for class_id, name, _ in _ade20k_rows()}
    return ClassTable("ade20k", {**names, UNLABELLED: "unlabelled"}, "ade20k", usual=_ADE20K_USUAL)


@functools.cache
def _ade20k_palette() -> Palette:
    return _coloured(
        "ade20k",
        table("ade20k"),
        {**{class_id: colour for class_id, _, colour in _ade20k_rows()}, UNLABELLED: _BLACK},
        decided={
            (140, 140, 140): (7, "the smaller id is read: road covers 22 times as many pixels as skyscraper"),
            _BLACK: (0, "other is read; no class is black, and ADE20K itself never uses 255"),
        },
    )


@functools.cache
def _ade20k_controlnet_palette() -> Palette:
    """Entry n of the 7x7x7 grid of the authors' ADE20K loader: (30 (n div 49), 30 (n div 7 mod 7), 30 (n mod 7))."""
    grid = {n: (30 * (n // 49), 30 * (n // 7 % 7), 30 * (n % 7)) for n, _, _ in _ade20k_rows()}
    # 255 is no value of ADE20K, so the released ControlNet never saw its grid colour; it did see black, "other".
    return _coloured(
        "ade20k-controlnet",
        table("ade20k"),
        {**grid, UNLABELLED: _BLACK},
        decided={_BLACK: (0, "other is read; ADE20K itself never uses 255")},
    )


@functools.cache
def _ade20k_oneformer() -> Palette:
    """What the OneFormer preprocessor of comfyui_controlnet_aux paints since June 2025; wall is black.

    Class n = id - 1 has the hue 137.508 n degrees, a saturation of 0.6, 0.8 or 1 as n mod 3 is 0, 1 or 2, and a value
    of 1 where n is odd and else 0.7, each truncated to OpenCV's 8 bits before it is made RGB. The file holds what comes
    out of OpenCV (4.11 and 5.0 agree). As 144 steps of that hue are nearly 55 turns, the last classes repeat the first.
    """
    paint = {int(row["id"]): _rgb(row["oneformer"]) for row in _read("ade20k.csv") if row["oneformer"]}
    # No class is white, and the preprocessor leaves nothing out; black, the usual colour for that, is wall here.
    return _coloured(
        "ade20k-oneformer",
        table("ade20k"),
        {0: _WHITE, **paint, UNLABELLED: _WHITE},
        decided={_WHITE: (0, "other is read; ADE20K itself never uses 255")},
    )


# --- COCO-Stuff -----------------------------------------------------------------------------------------------------

_ROOF = 150
# Person, and all that is no object: stuff covers two thirds of the pixels.
_COCO_USUAL = frozenset({0, *range(91, 182), UNLABELLED})


@functools.cache
def _coco_rows() -> tuple[tuple[int, str, bool], ...]:
    return tuple((int(row["id"]), row["name"], row["annotated"] == "1") for row in _read("coco-stuff.csv"))


@functools.cache
def _coco_table() -> ClassTable:
    names = {class_id: name for class_id, name, _ in _coco_rows()}
    return ClassTable("coco-stuff", {**names, UNLABELLED: "unlabelled"}, "coco-stuff", usual=_COCO_USUAL)


def _coco_palette(name: str, unlabelled: RGB) -> Palette:
    """The table of the authors' loader: id i in VOC colour i + 1, never annotated ids black."""
    paint = {class_id: _voc_colour(class_id + 1) if annotated else _BLACK for class_id, _, annotated in _coco_rows()}
    return _coloured(
        name,
        table("coco-stuff"),
        {**paint, UNLABELLED: unlabelled},
        also_read=[(_BLACK, UNLABELLED)],
        decided={
            _BLACK: (UNLABELLED, "unlabelled is read; the eleven classes that are never annotated are black as well"),
            paint[_ROOF]: (_ROOF, "roof is read; the released ControlNet was shown unlabelled pixels as roof"),
        },
    )


@functools.cache
def _coco_official() -> Palette:
    return _coco_palette("coco-stuff", _BLACK)


@functools.cache
def _coco_controlnet() -> Palette:
    # The authors' loader overwrites 255 with 150 before it paints.
    return _coco_palette("coco-stuff-controlnet", _voc_colour(_ROOF + 1))


def _coco_panoptic(name: str, column: str, unlabelled: RGB) -> Palette:
    """Colours of the 133 classes of COCO panoptic, read and painted as classes of COCO-Stuff.

    17 of them merge several classes of COCO-Stuff, e.g. tree, branch, bush and leaves. All of them are painted in its
    colour, which is read as the one it is called after. The other COCO-Stuff classes have no colour.
    """
    rows = [row for row in _read("coco-stuff.csv") if row["panoptic"]]
    own = table("coco-stuff")
    colours = {int(row["id"]): _rgb(row[column]) for row in rows if row[column]}
    paint = {int(row["id"]): colours[int(row["panoptic"])] for row in rows}
    decided = {
        colours[read_as]: (read_as, f"{own.names[read_as]} is read; the 133 classes have no other name for it")
        for read_as in {int(row["panoptic"]) for row in rows if row["panoptic"] != row["id"]}
    }
    return _coloured(name, own, {**paint, UNLABELLED: unlabelled}, decided=decided)


@functools.cache
def _coco_detectron() -> Palette:
    """Detectron2's colours of COCO panoptic: OneFormer's preprocessors before June 2025, and Mask2Former's."""
    return _coco_panoptic("coco-stuff-panoptic", "panoptic_colour", _BLACK)


@functools.cache
def _coco_oneformer() -> Palette:
    """The colours of `ade20k-oneformer` for the 133 classes: person is black. Krita's AI plugin asks for these."""
    return _coco_panoptic("coco-stuff-oneformer", "oneformer", _WHITE)


_TABLES = {
    "cityscapes": _cityscapes_table,
    "cityscapes-ids": _cityscapes_ids_table,
    "ade20k": _ade20k_table,
    "coco-stuff": _coco_table,
}

_PALETTES = {
    "cityscapes": _cityscapes_palette,
    "cityscapes-ids": _cityscapes_ids_palette,
    "ade20k": _ade20k_palette,
    "ade20k-controlnet": _ade20k_controlnet_palette,
    "coco-stuff": _coco_official,
    "coco-stuff-controlnet": _coco_controlnet,
    "cityscapes-grey": functools.cache(functools.partial(_grey, "cityscapes")),
    "cityscapes-ids-grey": functools.cache(functools.partial(_grey, "cityscapes-ids")),
    "ade20k-grey": functools.cache(functools.partial(_grey, "ade20k")),
    "coco-stuff-grey": functools.cache(functools.partial(_grey, "coco-stuff")),
    "ade20k-oneformer": _ade20k_oneformer,
    "coco-stuff-oneformer": _coco_oneformer,
    "coco-stuff-panoptic": _coco_detectron,
}

_RELEASED = {
    "cityscapes": "cityscapes",
    "cityscapes-ids": "cityscapes-ids",
    "ade20k": "ade20k-controlnet",
    "coco-stuff": "coco-stuff-controlnet",
}
