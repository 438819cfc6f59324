"""Torch checkpoints read as data: what torch itself reads, and nothing of what a hostile file asks for."""

from __future__ import annotations

import collections
import contextlib
import functools
import io
import os
import pickle
import struct
import sys
import tarfile
import tracemalloc
import zipfile
from pathlib import Path, PurePosixPath
from types import ModuleType

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_checkpoint import lightning, save_small, small_state, write_archive

from scp_prior.errors import SCPError
from scp_prior.stored import BLOCK, MappedFile, Stored
from scp_prior.torch_file import open_torch_file
from scp_prior.torch_pickle import TorchMachine
from scp_prior.torch_zip import read_directory

MANY = HealthCheck.function_scoped_fixture


def read_all(path: Path) -> dict[str, torch.Tensor]:
    with MappedFile(path) as file:
        return {key: file.read(stored) for key, stored in open_torch_file(path).tensors.items()}


def same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for key, tensor in ours.items():
        assert tensor.dtype == theirs[key].dtype, key
        assert torch.equal(tensor, theirs[key]), key


# What torch writes


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"state_dict": state}, lightning])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_tensors_are_those_torch_reads(tmp_path, wrap, protocol):
    state = small_state()
    torch.save(wrap(state), tmp_path / "a.ckpt", pickle_protocol=protocol)
    same(read_all(tmp_path / "a.ckpt"), state)


DTYPES = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype(tmp_path, dtype):
    tensor = torch.arange(24).remainder(2).to(getattr(torch, dtype)).reshape(2, 3, 4)
    torch.save({"a": tensor, "b": tensor.movedim(0, 2)}, tmp_path / "a.pt")
    same(read_all(tmp_path / "a.pt"), {"a": tensor, "b": tensor.movedim(0, 2)})


@settings(max_examples=60, deadline=None, suppress_health_check=[MANY])
@given(data=st.data())
def test_any_view_reads_as_torch_has_it(tmp_path, data):
    """Whatever strides and whatever block size."""
    shape = data.draw(st.lists(st.integers(0, 5), max_size=4))
    stride = data.draw(st.lists(st.integers(0, 7), min_size=len(shape), max_size=len(shape)))
    first, limit = data.draw(st.integers(0, 3)), data.draw(st.sampled_from([1, 8, 64, BLOCK]))
    storage = torch.randn(120)
    view = storage.as_strided(shape, stride, first)
    torch.save({"a": view}, tmp_path / "a.pt")
    stored = open_torch_file(tmp_path / "a.pt").tensors["a"]
    with MappedFile(tmp_path / "a.pt") as file:
        blocks = [block.clone() for block in file.blocks(stored, limit)]
        assert torch.equal(file.read(stored), view)
    assert torch.equal(torch.cat([torch.zeros(0), *blocks]), view.reshape(-1))
    assert stored.in_a_row is bool(view.is_contiguous()) or 0 in shape


def test_step_size_and_identity(tmp_path):
    save_small(tmp_path / "a.ckpt")
    one = open_torch_file(tmp_path / "a.ckpt")
    assert (one.step, one.size) == (1234, (tmp_path / "a.ckpt").stat().st_size)
    state = small_state()
    state["betas"][3] += 1e-9
    torch.save(lightning(state), tmp_path / "b.ckpt")
    (tmp_path / "c.ckpt").write_bytes((tmp_path / "a.ckpt").read_bytes())
    assert open_torch_file(tmp_path / "b.ckpt").identity != one.identity
    assert open_torch_file(tmp_path / "c.ckpt").identity == one.identity


def test_an_archive_of_64_bit_offsets(tmp_path):
    """Written as torch does beyond 4 GB, with a hole in place of the gigabytes."""
    state = {"first": torch.arange(5.0), "last": torch.arange(7.0)}
    torch.save(state, tmp_path / "a.pt")
    records = read_directory(tmp_path / "a.pt").records
    content = (tmp_path / "a.pt").read_bytes()
    hole, wide = 5 << 30, 2**32 - 1
    path, entries = tmp_path / "b.pt", b""
    with path.open("wb") as file:
        for i, (name, record) in enumerate(records.items()):
            raw = f"b/{name}".encode()
            if i == len(records) - 2:
                file.seek(hole)
            header = file.tell()
            body = content[record.start : record.start + record.size]
            file.write(struct.pack("<4s5H3I2H", b"PK\x03\x04", 45, 0, 0, 0, 0, 0, 0, 0, len(raw), 0) + raw + body)
            extra = struct.pack("<HHQQQ", 1, 24, record.size, record.size, header)
            sizes = [wide, wide, len(raw), len(extra)]
            entries += struct.pack("<4s6H3I5H2I", b"PK\x01\x02", 45, 45, *[0] * 5, *sizes, *[0] * 4, wide)
            entries += raw + extra
        start = file.tell()
        file.write(entries)
        end = file.tell()
        file.write(struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, *[len(records)] * 2, len(entries), start))
        file.write(struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1))
        file.write(struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, *[0xFFFF] * 2, wide, wide, 0))
    assert max(record.start for record in read_directory(path).records.values()) > hole
    same(read_all(path), state)


def test_trainers_own_objects_become_stand_ins(tmp_path, monkeypatch):
    """Their modules are not there, and nothing looks for them."""
    made = {}
    for module, name in (
        ("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint"),
        ("omegaconf.listconfig", "ListConfig"),
        ("omegaconf.base", "ContainerMetadata"),
        ("cldm.logger", "ImageLogger"),
    ):
        kind = type(name, (list if name == "ListConfig" else object,), {"__module__": module})
        parts = module.split(".")
        for n in range(len(parts)):
            monkeypatch.setitem(sys.modules, ".".join(parts[: n + 1]), ModuleType(parts[n]))
        setattr(sys.modules[module], name, kind)
        thing = kind()
        thing.setting = {"deep": [1, 2.5, (None, True)]}
        made[name] = thing
    made["ListConfig"].extend([1, 2])
    content = lightning(
        small_state(),
        callbacks={type(made["ModelCheckpoint"]): {"best": made["ImageLogger"]}, "other": {1, 2, frozenset({3})}},
        hyper_parameters={
            "config": made["ListConfig"],
            "metadata": made["ContainerMetadata"],
            "path": PurePosixPath("/data"),
            "counts": collections.Counter("aab"),
            "default": collections.defaultdict(int, a=1),
            "rates": __import__("numpy").float64(0.5),
            "size": torch.Size([1, 2]),
            "dtype": torch.float32,
            "raw": b"\xff\x00",
            "big": 2**60,
        },
    )
    torch.save(content, tmp_path / "a.ckpt")
    monkeypatch.undo()
    before = set(sys.modules)
    same(read_all(tmp_path / "a.ckpt"), small_state())
    assert set(sys.modules) == before


# What nobody should write


class Call:
    """Pickles as a call."""

    def __init__(self, function: object, *args: object, state: object = None):
        self.parts = (function, args) if state is None else (function, args, state)

    def __reduce__(self) -> tuple:
        return self.parts


def nested(canary: Path) -> bytes:
    return pickle.dumps(Call(os.mkdir, str(canary)))


TRICKS = {
    "reduce": lambda c: Call(os.mkdir, str(c)),
    "eval": lambda c: Call(eval, f"__import__('os').mkdir({str(c)!r})"),
    "exec": lambda c: Call(exec, f"import os; os.mkdir({str(c)!r})"),
    "getattr": lambda c: Call(getattr, Call(__import__, "os"), "mkdir"),
    "partial": lambda c: Call(functools.partial, os.mkdir, str(c)),
    "map": lambda c: {"m": Call(list, Call(map, os.mkdir, [str(c)]))},
    "nested pickle": lambda c: Call(pickle.loads, nested(c)),
    "torch.load": lambda c: Call(torch.load, str(c)),
    "nested torch": lambda c: Call(torch.storage._load_from_bytes, nested(c)),
    "key": lambda c: {Call(os.mkdir, str(c)): 1},
    "in a tuple": lambda c: (1, (2, Call(os.mkdir, str(c)))),
    "in optimizer": lambda c: [{"state": {0: Call(os.mkdir, str(c))}}],
    "state": lambda c: Call(Path, state=Call(os.mkdir, str(c))),
    "beside a stand-in": lambda c: Call(collections.Counter, Call(os.mkdir, str(c))),
}


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("trick", TRICKS)
def test_nothing_is_executed(tmp_path, trick, protocol):
    canary, path = tmp_path / "canary", tmp_path / "evil.ckpt"
    content = lightning(small_state(), extra=TRICKS[trick](canary))
    torch.save(content, path, pickle_protocol=protocol)
    with pytest.raises(SCPError, match="Nothing of it was run") as caught:
        open_torch_file(path)
    assert "\n" not in str(caught.value)
    assert not canary.exists()


G = b"cos\nsystem\n"
COMMAND = b"X\x05\x00\x00\x00touch"
PROGRAMS = {
    "os.system": (G + COMMAND + b"\x85R.", "os.system"),
    "posix.system": (b"cposix\nsystem\n)R.", "posix.system"),
    "stack global": (b"\x8c\x02os\x8c\x06system\x93)R.", "os.system"),
    "dotted name": (b"\x8c\x11pytorch_lightning\x8c\x09os.system\x93)R.", "asks for pytorch_lightning.os.system"),
    "dotted in a known module": (b"\x8c\x0bcollections\x8c\x14OrderedDict.__init__\x93)R.", "OrderedDict.__init__"),
    "inst": (b"(ios\nsystem\n.", "os.system"),
    "obj": (b"(" + G + COMMAND + b"o.", "os.system"),
    "obj of a stand-in": (b"(cpathlib\nPath\no.", "OBJ"),
    "newobj": (G + b")\x81.", "os.system"),
    "newobj of a call": (b"ccollections\nOrderedDict\n)\x81.", "dict"),
    "newobj_ex": (b"cpathlib\nPath\n)}\x92.", "got pathlib.Path"),
    "ext": (b"\x82\x01.", "EXT1"),
    "persid": (b"Pos\n.", "PERSID"),
    "buffer": (b"\x97.", "NEXT_BUFFER"),
    "call of a call": (b"cpathlib\nPath\n)R)R.", "pathlib.Path"),
    "call of a text": (COMMAND + b")R.", "of type str"),
    "call of a tensor maker with nothing": (b"ctorch._utils\n_rebuild_tensor_v2\n)R.", "tensor"),
    "build a text": (COMMAND + b"}b.", "of type str"),
    "build a name": (b"cpathlib\nPath\n}b.", "pathlib.Path"),
    "entries for a name": (b"cpathlib\nPath\nK\x01a.", "pathlib.Path"),
    "storage that is a text": (COMMAND + b"Q.", "storage"),
    "old integer": (b"I1\n.", "0x49"),
    "eval through a name": (b"c__builtin__\neval\n.", "__builtin__.eval"),
    "strange name": (b"c\xc3\xa9\n" + b"a" * 900 + b"\n.", "asks for"),
    "name without end": (b"cos" + b"x" * 5000, "name without an end"),
    "memo that is not there": (b"h\x09.", "reference to nothing"),
    "mark that is not there": (b"u.", "without its mark"),
    "empty stack": (b"R.", "without its operands"),
    "below the mark": (b"}(s.", "without its operands"),
    "two values": (b"}}.", "in the middle"),
    "nothing": (b".", "in the middle"),
    "no end": (b"}", "announced"),
    "long text": (b"X\xff\xff\xff\x7f.", "2147483647 bytes announced"),
    "long bytes": (b"\x8e" + b"\xff" * 8 + b".", "announced"),
    "negative bytes": (b"T\xff\xff\xff\xff.", "negative"),
    "long integer": (b"\x8a\xff" + b"\x01" * 255 + b".", "integer of 255 bytes"),
    "longer integer": (b"\x8b\xff\xff\xff\x7f.", "0x8b"),
    "frame": (b"\x95" + b"\xff" * 8 + b".", "frame"),
    "marks": (b"(" * 5000 + b".", "piles up"),
    "stack": (b"N" * 200_000 + b".", "piles up"),
    "list": (b"].", "got list"),
    "number": (b"K\x01.", "got int"),
    "state dict that is none": (b"}X\x0a\x00\x00\x00state_dictK\x01s.", "got int"),
}


@pytest.mark.parametrize("case", PROGRAMS)
def test_hostile_programs(tmp_path, case):
    program, message = PROGRAMS[case]
    write_archive(tmp_path / "evil.pt", b"\x80\x04" + program)
    tracemalloc.start()
    try:
        with pytest.raises(SCPError, match=message) as caught:
            open_torch_file(tmp_path / "evil.pt")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40 << 20
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_programs_that_do_not_end(tmp_path, monkeypatch):
    monkeypatch.setattr(TorchMachine, "max_opcodes", 1000)
    write_archive(tmp_path / "evil.pt", b"\x80\x02]" + b"Na" * 499 + b".")
    with pytest.raises(SCPError, match="got list"):
        open_torch_file(tmp_path / "evil.pt")
    write_archive(tmp_path / "evil.pt", b"\x80\x02]" + b"Na" * 500 + b".")
    with pytest.raises(SCPError, match="more than 1000 pickle instructions"):
        open_torch_file(tmp_path / "evil.pt")


def test_protocols_0_and_6(tmp_path):
    for program in (b"}.", b"\x80\x06}.", b""):
        write_archive(tmp_path / "evil.pt", program)
        with pytest.raises(SCPError, match=r"protocol|announced"):
            open_torch_file(tmp_path / "evil.pt")


def tensor_program(kind="FloatStorage", key="0", count=6, first=0, shape=(2, 3), stride=(3, 1)) -> bytes:
    """A pickle of {"a": tensor} that says about it whatever one likes."""

    class Place:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, thing: object) -> tuple | None:
            return ("storage", getattr(torch, kind), key, "cpu", count) if isinstance(thing, Place) else None

    made = io.BytesIO()
    tensor = Call(torch._utils._rebuild_tensor_v2, Place(), first, shape, stride, False, collections.OrderedDict())
    Pickler(made, 2).dump({"a": tensor})
    return made.getvalue()


TENSORS = {
    "beyond the storage": ({"shape": (2, 4)}, "needs 28 bytes of 24"),
    "offset beyond": ({"first": 1}, "needs 28 bytes of 24"),
    "gigantic": ({"shape": (1 << 40, 3)}, "needs"),
    "gigantic without stride": ({"shape": (1 << 40, 1 << 20), "stride": (0, 0)}, "needs"),
    "negative shape": ({"shape": (-1, 3)}, "shape"),
    "negative stride": ({"stride": (-3, 1)}, "shape"),
    "negative offset": ({"first": -1}, "shape"),
    "float shape": ({"shape": (2.0, 3)}, "shape"),
    "truth shape": ({"shape": (True, 3)}, "shape"),
    "no shape": ({"shape": None}, "shape"),
    "many dimensions": ({"shape": (1,) * 500, "stride": (1,) * 500}, "shape"),
    "unequal stride": ({"stride": (1,)}, "shape"),
    "storage larger than its record": ({"count": 7}, "storage 0 of 28 bytes, of which 24"),
    "gigantic storage": ({"count": 1 << 60}, "storage 0"),
    "negative storage": ({"count": -6}, "storage"),
    "no such record": ({"key": "1"}, "storage 1 of 24 bytes, of which 0"),
    "record elsewhere": ({"key": "../data.pkl"}, "storage ../data.pkl"),
    "wide": ({"kind": "DoubleStorage"}, "48 bytes, of which 24"),
    "complex": ({"kind": "ComplexFloatStorage"}, "torch.ComplexFloatStorage"),
    "quantised": ({"kind": "QInt8Storage"}, "torch.QInt8Storage"),
}


@pytest.mark.parametrize("case", TENSORS)
def test_tensors_that_lie(tmp_path, case):
    options, message = TENSORS[case]
    write_archive(tmp_path / "a.pt", tensor_program(), {"data/0": bytes(24)})
    assert open_torch_file(tmp_path / "a.pt").tensors["a"].shape == (2, 3)
    write_archive(tmp_path / "a.pt", tensor_program(**options), {"data/0": bytes(24)})
    with pytest.raises(SCPError, match=message):
        open_torch_file(tmp_path / "a.pt")


def test_a_view_that_claims_a_terabyte_is_not_made(tmp_path):
    program = tensor_program(shape=(1 << 38,), stride=(0,))
    write_archive(tmp_path / "a.pt", program, {"data/0": bytes(24)})
    stored = open_torch_file(tmp_path / "a.pt").tensors["a"]
    with MappedFile(tmp_path / "a.pt") as file, pytest.raises(SCPError, match="read up to 1 GB"):
        next(file.blocks(stored))


def test_what_is_not_in_a_row_is_made_once(tmp_path):
    """And not at all where two elements lie further apart than any weight is long."""
    (tmp_path / "a").write_bytes(bytes(24))
    os.truncate(tmp_path / "a", 3 << 30)  # takes no space
    with MappedFile(tmp_path / "a") as file:
        (block,) = file.blocks(Stored(torch.float32, (2, 3), (1, 2), 0, 24))
        assert block.is_contiguous()
        with pytest.raises(SCPError, match="read up to 1 GB"):
            next(file.blocks(Stored(torch.float32, (2,), (1 << 29,), 1, 3 << 30)))


def test_a_hostile_name_at_the_top(tmp_path):
    write_archive(tmp_path / "a.pt", b"\x80\x02cpathlib\nP\x1b[2J\n)R.")
    with pytest.raises(SCPError, match="expected a dictionary") as caught:
        open_torch_file(tmp_path / "a.pt")
    assert str(caught.value).isprintable()


# Archives


def whole(tmp_path: Path) -> bytes:
    write_archive(tmp_path / "whole.pt", tensor_program(), {"data/0": bytes(24)})
    return (tmp_path / "whole.pt").read_bytes()


def test_compressed_archives(tmp_path):
    """A bomb: a gigabyte of zeros in a megabyte."""
    write_archive(tmp_path / "a.pt", tensor_program(), {"data/0": bytes(1 << 24)}, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(SCPError, match="compressed"):
        open_torch_file(tmp_path / "a.pt")


def patched(content: bytes, name: bytes, offset: int, value: bytes) -> bytes:
    """The same with some bytes of a directory entry replaced."""
    at = content.rindex(name) - 46 + offset
    return content[:at] + value + content[at + len(value) :]


ENTRY = b"archive/data/0"
ARCHIVES = {
    "encrypted": (lambda c: patched(c, ENTRY, 8, b"\x01\x00"), "encrypted"),
    "size beyond the file": (lambda c: patched(c, ENTRY, 20, struct.pack("<2I", 1 << 30, 1 << 30)), "overlaps"),
    "sizes that differ": (lambda c: patched(c, ENTRY, 20, struct.pack("<2I", 24, 1 << 30)), "compressed"),
    "size into the directory": (lambda c: patched(c, ENTRY, 20, struct.pack("<2I", 60, 60)), "overlaps"),
    "on another's header": (lambda c: patched(c, ENTRY, 42, bytes(4)), "overlaps"),
    "header beyond the file": (lambda c: patched(c, ENTRY, 42, b"\xf0\xff\xff\x0f"), "overlaps"),
    "header in the middle": (lambda c: patched(c, ENTRY, 42, struct.pack("<I", c.index(ENTRY) - 29)), "overlaps"),
    "64 bits that are not there": (lambda c: patched(c, ENTRY, 20, b"\xff" * 8), "size of its record"),
    "entry of another kind": (lambda c: patched(c, ENTRY, 0, b"XX"), "directory is damaged"),
    "name beyond the directory": (lambda c: patched(c, ENTRY, 28, b"\xff\xff"), "directory is damaged"),
    "many records": (lambda c: c[:-12] + b"\xff\xff" + c[-10:], "shorter than it says"),
    "directory elsewhere": (lambda c: c[:-6] + b"\xff\xff\xff\x0f" + c[-2:], "beyond its end"),
    "huge directory": (lambda c: c[:-10] + b"\xff\xff\xff\x7f" + c[-6:], "announces"),
    "no end": (lambda c: c[:-22], "cut short"),
    "no pickle": (lambda c: c.replace(b"data.pkl", b"data.txt"), "no data.pkl"),
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_damaged_archives(tmp_path, case):
    change, message = ARCHIVES[case]
    path = tmp_path / "a.pt"
    path.write_bytes(change(whole(tmp_path)))
    with pytest.raises(SCPError, match=message) as caught:
        open_torch_file(path)
    assert "a.pt" in str(caught.value)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_records_of_one_name(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        for _ in range(2):
            archive.writestr("a/data.pkl", b"\x80\x02}.")
    with pytest.raises(SCPError, match="twice"):
        open_torch_file(tmp_path / "a.pt")


def test_a_long_pickle_is_not_read(tmp_path):
    write_archive(tmp_path / "a.pt", bytes(33 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(SCPError, match="its pickle has 35 MB"):
            open_torch_file(tmp_path / "a.pt")
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_a_big_endian_file(tmp_path):
    write_archive(tmp_path / "a.pt", tensor_program(), {"data/0": bytes(24), "byteorder": b"big"})
    with pytest.raises(SCPError, match="big-endian"):
        open_torch_file(tmp_path / "a.pt")


def legacy(tmp_path: Path) -> bytes:
    torch.save({"a": torch.zeros(3)}, tmp_path / "x", _use_new_zipfile_serialization=False)
    return (tmp_path / "x").read_bytes()


def tar(tmp_path: Path) -> bytes:
    with tarfile.open(tmp_path / "x", "w", format=tarfile.USTAR_FORMAT) as archive:
        (tmp_path / "storages").write_bytes(bytes(100))
        archive.add(tmp_path / "storages", "storages")
    return (tmp_path / "x").read_bytes()


OTHERS = {
    "legacy": (legacy, "before version 1.6"),
    "bare pickle": (lambda p: nested(p / "canary"), "bare pickle"),
    "old pickle": (lambda p: pickle.dumps([], 0), "bare pickle"),
    "tar": (tar, "tar archive"),
    "web page": (lambda p: b"<!DOCTYPE html><html>", "web page"),
    "pointer": (lambda p: b"version https://git-lfs.github.com/spec/v1\n", "pointer"),
    "empty": (lambda p: b"", "empty"),
    "short": (lambda p: b"P", "begins otherwise"),
    "head of a zip": (lambda p: b"PK\x03\x04", "cut short"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_files_of_other_kinds(tmp_path, case):
    make, message = OTHERS[case]
    (tmp_path / "a.ckpt").write_bytes(make(tmp_path))
    with pytest.raises(SCPError, match=message):
        open_torch_file(tmp_path / "a.ckpt")
    assert not (tmp_path / "canary").exists()
    with pytest.raises(SCPError, match="Cannot read"):
        open_torch_file(tmp_path / "absent.ckpt")


@settings(max_examples=150, deadline=None, suppress_health_check=[MANY])
@given(data=st.data())
def test_damaged_anywhere_it_reads_or_says_so(tmp_path, data):
    """Bytes changed or cut off: tensors of sound shapes, or one line."""
    save_small(tmp_path / "a.ckpt")
    content = bytearray((tmp_path / "a.ckpt").read_bytes())
    pickle_end = read_directory(tmp_path / "a.ckpt").records["data.pkl"].start + 3000
    for _ in range(data.draw(st.integers(1, 4))):
        # Mostly where it hurts: in the pickle and in the directory.
        at = data.draw(st.one_of(st.integers(0, pickle_end), st.integers(1, 2500).map(lambda n: len(content) - n)))
        content[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    (tmp_path / "b.ckpt").write_bytes(content[:cut])
    with contextlib.suppress(SCPError):
        tensors = read_all(tmp_path / "b.ckpt")
        assert sum(tensor.numel() for tensor in tensors.values()) < 10_000


@settings(max_examples=300, deadline=None, suppress_health_check=[MANY])
@given(program=st.binary(max_size=200))
def test_random_programs(tmp_path, program):
    write_archive(tmp_path / "a.pt", b"\x80\x02" + program)
    with pytest.raises(SCPError):
        open_torch_file(tmp_path / "a.pt")


def test_a_file_that_shrinks_while_it_is_read(tmp_path):
    save_small(tmp_path / "a.ckpt")
    stored = open_torch_file(tmp_path / "a.ckpt").tensors["control_model.zero_convs.0.0.weight"]
    with MappedFile(tmp_path / "a.ckpt") as file:
        os.truncate(tmp_path / "a.ckpt", 200)
        with pytest.raises(SCPError, match="shorter"):
            file.read(stored)


def test_blocks_of_unaligned_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"x" + struct.pack("<3f", 1, 2, 3))
    with MappedFile(tmp_path / "a") as file:
        assert file.read(Stored(torch.float32, (3,), (1,), 1, 12)).tolist() == [1, 2, 3]
