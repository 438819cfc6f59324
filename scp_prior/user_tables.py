"""Reading the class tables users write themselves: a CSV or JSON file of ids, names and colours.

CSV: a header row, then one class a row. Columns `id`, `name` and either `r`, `g`, `b` or one `rgb` column holding
`#rrggbb`, `r,g,b` or `[r, g, b]`; other columns are ignored. Comma, semicolon or tab between them, as Excel writes.

JSON: a list of objects with the same keys (`rgb` may be a list of three numbers), or an object that holds one such
list, e.g. `{"classes": [...]}`.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .errors import SCPError
from .ids import MAX_CLASS_ID

MAX_BYTES = 8 * 2**20
LONGEST_NAME = 200
"""Characters of a class name; a legend or a menu has room for a fifth of that."""

_CHANNELS = (("r", "g", "b"), ("red", "green", "blue"))
_COLOUR_COLUMNS = ("rgb", "colour", "color")
_HEX = re.compile(r"#?([0-9a-fA-F]{6})")
# JSON can write these, but no message with one of them can be sent to the page.
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")


class TableRow(NamedTuple):
    """One class of a user's table."""

    class_id: int
    name: str
    colour: tuple[int, int, int]


class _BadRowError(ValueError):
    """What is wrong with a row; the caller adds which file and which row."""


def read_table_file(path: str | os.PathLike[str]) -> list[TableRow]:
    """The rows of a user's class table in the file's order; ids are distinct and within 0..65535.

    Raises:
        SCPError: naming the file, the row (a line of a CSV, the n-th object of a JSON list) and what is wrong with it.
    """
    file = Path(path)
    text = _read_text(file)
    entries = _json_entries(file, text) if file.suffix.lower() == ".json" else _csv_entries(file, text)
    rows: list[TableRow] = []
    where_seen: dict[int, str] = {}
    for where, entry in entries:
        try:
            row = TableRow(_class_id(entry), _name(entry), _colour(entry))
        except _BadRowError as error:
            raise SCPError(f"{file.name}, {where}: {error}") from None
        if row.class_id in where_seen:
            raise SCPError(
                f"{file.name}, {where}: id {row.class_id} is there twice, first in {where_seen[row.class_id]}. "
                "Give every class an id of its own."
            )
        where_seen[row.class_id] = where
        rows.append(row)
    if not rows:
        raise SCPError(f"{file.name} holds no classes. Expected at least one row with id, name and colour.")
    return rows


def may_be_table(path: str | os.PathLike[str]) -> bool:
    """Whether a file could be meant as a class table: False for JSON that names no id, such as a model's settings.

    One that cannot be read, or is broken, may be: whoever chooses it is told what is wrong with it.
    """
    file = Path(path)
    if file.suffix.lower() != ".json":
        return True
    try:
        return '"id"' in _read_text(file).casefold()
    except SCPError:
        return True


def _read_text(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise SCPError(f"Cannot read the class table {file}: {error.strerror or error}.") from error
    if len(content) > MAX_BYTES:
        raise SCPError(
            f"{file.name} is larger than {MAX_BYTES >> 20} MB, too big for a class table. Is it the right file?"
        )
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError:
        raise SCPError(f"{file.name} is not a text file in UTF-8. Save it as 'CSV UTF-8' or as JSON.") from None
    if "\0" in text:
        raise SCPError(f"{file.name} is not a text file. Expected a CSV or JSON class table.")
    return text


def _csv_entries(file: Path, text: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    header = next((line for line in text.splitlines() if line.strip()), "")
    separator = max(",;\t", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    columns: list[str] | None = None
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if columns is None:
                columns = [cell.strip().casefold() for cell in cells]
                _check_columns(file, columns)
                continue
            if len(cells) > len(columns):
                raise SCPError(
                    f"{file.name}, line {reader.line_num}: {len(cells)} values, but the header names {len(columns)} "
                    "columns. Put a value that contains the separator in double quotes."
                )
            yield f"line {reader.line_num}", dict(zip(columns, cells, strict=False))
    except csv.Error as error:
        raise SCPError(f"{file.name}, line {reader.line_num}: not readable as CSV ({error}).") from error


def _check_columns(file: Path, columns: list[str]) -> None:
    missing = [name for name in ("id", "name") if name not in columns]
    has_channels = any(set(names) <= set(columns) for names in _CHANNELS)
    if not has_channels and not set(_COLOUR_COLUMNS) & set(columns):
        missing.append("rgb (or r, g, b)")
    if missing:
        raise SCPError(
            f"{file.name}: no column {' and no column '.join(missing)}. The first row must name the columns id, name, "
            f"and rgb (or r, g, b); it names: {', '.join(columns)}."
        )
    doubled = sorted({name for name in columns if name and columns.count(name) > 1})
    if doubled:
        raise SCPError(f"{file.name}: the column {doubled[0]} is there twice. Name every column once.")


def _json_entries(file: Path, text: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise SCPError(f"{file.name}, line {error.lineno}: not readable as JSON ({error.msg}).") from error
    except RecursionError:
        raise SCPError(f"{file.name} is nested too deeply. Expected a JSON list of classes.") from None
    except ValueError:
        # Python refuses to read numbers of thousands of digits, with an error that is none of JSON's.
        raise SCPError(f"{file.name} holds a number of thousands of digits. Is it the right file?") from None
    if isinstance(content, dict):
        lists = [value for value in content.values() if isinstance(value, list)]
        if len(lists) != 1:
            raise SCPError(
                f"{file.name}: expected one list of classes, found {len(lists)} lists. "
                'Write it as [{"id": 1, "name": "wall", "rgb": [120, 120, 120]}, ...].'
            )
        content = lists[0]
    if not isinstance(content, list):
        raise SCPError(f"{file.name}: expected a JSON list of classes, found {type(content).__name__}.")
    for number, entry in enumerate(content, 1):
        if not isinstance(entry, dict):
            raise SCPError(f"{file.name}, entry {number}: expected an object with id, name, rgb; found {entry!r:.60}.")
        yield f"entry {number}", {str(key).strip().casefold(): value for key, value in entry.items()}


def _value(entry: Mapping[str, Any], key: str) -> Any:
    value = entry.get(key)
    if value is None or (isinstance(value, str) and not value.strip()):
        raise _BadRowError(f"no {key}.")
    return value


def _class_id(entry: Mapping[str, Any]) -> int:
    value = _value(entry, "id")
    number = _whole_number(value)
    if number is None or not 0 <= number <= MAX_CLASS_ID:
        raise _BadRowError(f"id {value!r:.40} is not a whole number from 0 to {MAX_CLASS_ID}.")
    return number


def _name(entry: Mapping[str, Any]) -> str:
    name = " ".join(str(_value(entry, "name")).split())
    if len(name) > LONGEST_NAME:
        raise _BadRowError(f"the name '{name:.40}...' has {len(name)} characters; {LONGEST_NAME} are allowed.")
    if _HALF_CHARACTER.search(name):
        raise _BadRowError(f"the name {name!r:.60} is no text.")
    return name


def _colour(entry: Mapping[str, Any]) -> tuple[int, int, int]:
    for names in _CHANNELS:
        if any(name in entry for name in names):
            return _channels([_value(entry, name) for name in names])
    key = next((key for key in _COLOUR_COLUMNS if key in entry), "rgb")
    value = _value(entry, key)
    if isinstance(value, (list, tuple)):
        return _channels(list(value))
    text = str(value).strip()
    if match := _HEX.fullmatch(text):
        red, green, blue = bytes.fromhex(match[1])
        return red, green, blue
    return _channels([part for part in re.split(r"[,;\s]+", text.strip("()[] ")) if part], shown=text)


def _channels(values: list[Any], shown: str | None = None) -> tuple[int, int, int]:
    numbers = [_whole_number(value) for value in values]
    if len(numbers) != 3 or any(number is None or not 0 <= number <= 255 for number in numbers):
        shown = shown if shown is not None else ", ".join(str(value) for value in values)
        raise _BadRowError(f"colour '{shown:.60}' is not three whole numbers from 0 to 255, nor '#rrggbb'.")
    red, green, blue = (number for number in numbers if number is not None)
    return red, green, blue


def _whole_number(value: Any) -> int | None:
    """The integer in a cell (a spreadsheet may have made it "7.0"), or None."""
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
        return int(number) if number.is_integer() and abs(number) < 2**31 else None
    except (TypeError, ValueError, OverflowError):
        return None
