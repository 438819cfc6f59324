"""Which records a torch checkpoint has and where their bytes lie: the directory of an uncompressed zip archive.

`zipfile` would believe the file: it reads a directory of any size at once, and inflates what is compressed. torch never
compresses, so a record here is a stretch of the file or it is refused.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

from .errors import SCPError
from .pickle_machine import shown

MAX_DIRECTORY = 64 << 20  # a checkpoint of 10 000 tensors takes about 1 MB
MAX_RECORDS = 200_000
_END, _END64, _LOCATOR64 = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_ENTRY = struct.Struct("<4s6H3I5H2I")
_UNSET16, _UNSET32 = 0xFFFF, 0xFFFFFFFF
_LOCAL_HEADER = 30


class Record(NamedTuple):
    """A record of the archive: its bytes are `size` from `start` on.

    checksum: the CRC-32 that the directory gives; nobody has checked it. header, end: where its local header begins,
    and the first byte that is no longer its own.
    """

    size: int
    checksum: int
    header: int
    end: int
    start: int


class Directory(NamedTuple):
    """The records by name, without the folder they all lie in; the size of the file."""

    records: Mapping[str, Record]
    size: int


def read_directory(path: Path) -> Directory:
    """The directory of a torch checkpoint; nothing else of the file is read but the head of each record.

    Raises:
        SCPError: it cannot be read, is no zip archive, is cut short or damaged, or has records that are compressed,
            encrypted, overlapping or out of range; the message says which.
    """
    try:
        with path.open("rb") as file:
            return _Reader(file, path.name).read()
    except OSError as error:
        raise SCPError(f"Cannot read {path}: {error.strerror or error}.") from error


class _Reader:
    def __init__(self, file: BinaryIO, name: str):
        self._file, self._name = file, name
        self._size = os.fstat(file.fileno()).st_size

    def read(self) -> Directory:
        """Read and check the directory."""
        self._check_kind(self._at(0, 8))
        count, length, start = self._find()
        if count > MAX_RECORDS or length > MAX_DIRECTORY:
            raise self._damaged(f"its directory announces {count} records in {length} bytes")
        if start + length > self._size:
            raise self._damaged("its directory lies beyond its end")
        found: dict[str, Record] = {}
        for name, record in self._entries(self._at(start, length), count):
            if name in found:
                raise self._damaged(f"the record {shown(name)} is in it twice")
            found[name] = record
        return Directory(self._placed(found, start), self._size)

    def _check_kind(self, head: bytes) -> None:
        if head[:4] == b"PK\x03\x04":
            return
        if not self._size:
            what = "it is empty, so its download was cut short"
        elif head[:1] == b"\x80" or head[:1] in b"(]}":
            what = "it is a bare pickle, as torch wrote before version 1.6, which can only be read by running it"
        elif self._at(257, 5) == b"ustar":
            what = "it is a tar archive, the oldest of torch's formats"
        elif head.lstrip()[:1] == b"<" or head.startswith(b"version "):
            what = "it is a web page or a pointer saved in place of the download"
        else:
            what = "it begins otherwise"
        raise SCPError(
            f"{self._name} is not a torch checkpoint that can be read here: {what}. Nothing of it was run. "
            "Expected a .ckpt or .pt as torch 1.6 and newer write it: get the file again, or a .safetensors of it."
        )

    def _find(self) -> tuple[int, int, int]:
        """How many records, and the length and start of the directory, as the end of the file tells."""
        tail_start = max(0, self._size - 22 - 0xFFFF)
        tail = self._at(tail_start, self._size - tail_start)
        at = tail.rfind(_END)
        if at < 0 or len(tail) - at < 22:
            raise self._damaged("the directory at its end is missing, so it was cut short")
        count, length, start = struct.unpack("<HII", tail[at + 10 : at + 20])
        locator = self._at(tail_start + at - 20, 20) if tail_start + at >= 20 else b""
        if locator[:4] == _LOCATOR64:
            (where,) = struct.unpack("<Q", locator[8:16])
            end = self._at(where, 56) if where < self._size else b""
            if len(end) < 56 or end[:4] != _END64:
                raise self._damaged("its directory cannot be found")
            count, length, start = struct.unpack("<3Q", end[32:56])
        return count, length, start

    def _entries(self, data: bytes, count: int) -> Iterator[tuple[str, Record]]:
        at = 0
        for _ in range(count):
            if at + _ENTRY.size > len(data):
                raise self._damaged("its directory is shorter than it says")
            fields = _ENTRY.unpack_from(data, at)
            flags, method, checksum, packed, size = fields[3], fields[4], fields[7], fields[8], fields[9]
            lengths, header = fields[10:13], fields[16]
            at += _ENTRY.size
            if fields[0] != b"PK\x01\x02" or at + sum(lengths) > len(data):
                raise self._damaged("its directory is damaged")
            raw, extra = data[at : at + lengths[0]], data[at + lengths[0] : at + sum(lengths[:2])]
            at += sum(lengths)
            name = raw.decode("utf-8", "replace")
            size, packed, header = self._wide(extra, (size, packed, header), name)
            if method or packed != size or flags & 0x2041:
                raise self._damaged(
                    f"its record {shown(name)} is {'encrypted' if flags & 0x2041 else 'compressed'}, which torch "
                    "never does"
                )
            end = header + _LOCAL_HEADER + lengths[0] + size
            yield name, Record(size, checksum, header, end, 0)

    def _wide(self, extra: bytes, values: tuple[int, int, int], name: str) -> tuple[int, int, int]:
        """The 64-bit values which stand elsewhere where 32 bits do not hold them, in this order."""
        at, wide = 0, b""
        while at + 4 <= len(extra):
            kind, length = struct.unpack_from("<HH", extra, at)
            if kind == 1:
                wide = extra[at + 4 : at + 4 + length]
            at += 4 + length
        numbers = iter(struct.unpack(f"<{len(wide) // 8}Q", wide[: len(wide) // 8 * 8]))
        found = tuple(next(numbers, -1) if value == _UNSET32 else value for value in values)
        if -1 in found:
            raise self._damaged(f"the size of its record {shown(name)} is missing")
        return found

    def _placed(self, found: Mapping[str, Record], directory: int) -> dict[str, Record]:
        """The same, with the start of each record's bytes, once none lies in another."""
        folder = self._folder(found)
        ordered = sorted(found.items(), key=lambda item: item[1].header)
        limits = [record.header for _, record in ordered[1:]] + [directory]
        placed = {}
        for (name, record), limit in zip(ordered, limits, strict=True):
            head = self._at(record.header, _LOCAL_HEADER) if record.end <= limit else b""
            if head[:4] != b"PK\x03\x04":
                raise self._damaged(f"its record {shown(name)} overlaps another, or lies beyond the end")
            start = record.header + _LOCAL_HEADER + sum(struct.unpack("<HH", head[26:30]))
            if start + record.size > limit:
                raise self._damaged(f"its record {shown(name)} overlaps another, or lies beyond the end")
            placed[name.removeprefix(folder)] = record._replace(start=start)
        return placed

    def _folder(self, found: Mapping[str, Record]) -> str:
        pickles = [name for name in found if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise self._damaged("it holds no data.pkl, so it is a zip archive of another kind")
        return pickles[0].removesuffix("data.pkl")

    def _at(self, start: int, length: int) -> bytes:
        self._file.seek(start)
        return self._file.read(length)

    def _damaged(self, found: str) -> SCPError:
        return SCPError(
            f"{self._name} cannot be read as a torch checkpoint: {found}. Nothing of it was run. It is damaged, its "
            "download was cut short, or it is another kind of file: get it again."
        )
