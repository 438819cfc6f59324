"""The restricted reader: reads what numpy.save writes, and runs nothing whatever else it is given."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import pickle
import struct
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shared_data import require

from scp_prior import npy
from scp_prior.errors import SCPError
from scp_prior.npy import read_object_npy

NAMES = ("categorical", "spatial", "spatial_class")
SMALL = {np.int64(3): {"mean": np.arange(4, dtype=np.float32), "std": np.ones(4, np.float32)}, 7: {"mean": np.zeros(2)}}
# What an array is made of in a pickle: a finished dtype (float32, object), and an array still without its state.
DTYPE = b"cnumpy\ndtype\n"
F4 = DTYPE + b"X\x02\x00\x00\x00f4\x89\x88\x87R(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
O8 = DTYPE + b"X\x02\x00\x00\x00O8\x89\x88\x87R(K\x03X\x01\x00\x00\x00|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?tb"
EMPTY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"


def npy_bytes(program: bytes, version: tuple[int, int] = (1, 0), header: str | None = None) -> bytes:
    text = (header or "{'descr': '|O', 'fortran_order': False, 'shape': (), }").encode() + b"  \n"
    length = len(text).to_bytes(2 if version == (1, 0) else 4, "little")
    return b"\x93NUMPY" + bytes(version) + length + text + program


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def array(shape: bytes, payload: bytes, dtype: bytes = F4) -> bytes:
    return EMPTY + b"(K\x01" + shape + dtype + b"\x89" + payload + b"tb"


def around(items: bytes) -> bytes:
    """A whole program: a dictionary with the entry "a" pushed by `items`, in a 0-d object array."""
    return b"\x80\x03" + EMPTY + b"(K\x01)" + O8 + b"\x89]}" + text("a") + items + b"satb."


GOOD_ARRAY = array(b"K\x01\x85", b"C\x04\x00\x00\x80?")


@pytest.fixture
def read(tmp_path):
    def read_bytes(data: bytes):
        path = tmp_path / "f.npy"
        path.write_bytes(data)
        return read_object_npy(path)

    return read_bytes


def saved(value: object) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array(value, dtype=object), allow_pickle=True)
    return buffer.getvalue()


def assert_same(ours: object, theirs: object) -> None:
    if isinstance(theirs, dict):
        assert type(ours) is dict
        assert list(ours) == [key.item() if isinstance(key, np.generic) else key for key in theirs]
        for mine, other in zip(ours.values(), theirs.values(), strict=True):
            assert_same(mine, other)
    elif isinstance(theirs, np.ndarray):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        assert ours.tobytes() == theirs.tobytes()
        assert not ours.flags.writeable
    else:
        assert type(ours) in (int, float, str)
        assert ours == theirs


# What must be read


@pytest.mark.parametrize("name", NAMES)
def test_reads_the_authors_files_as_numpy_does(name):
    path = require(f"parity/ref_stats/cityscapes/cs_mini_{name}_mean_std.npy")
    assert_same(read_object_npy(path), np.load(path, allow_pickle=True).item())


@pytest.mark.parametrize("code", ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_reads_every_number_in_either_byte_order_and_layout(read, code, order):
    values = np.arange(24).reshape(2, 3, 4).astype(order + code)
    tree = {"c": values, "fortran": np.asfortranarray(values), "strided": values[:, ::2], "scalar": values[1, 2, 3]}
    assert_same(read(saved(tree)), tree)


def test_reads_numpy_1_and_numpy_2_spellings_alike(read):
    new = pickle.dumps(np.array(SMALL, dtype=object), 3)
    assert b"numpy._core.multiarray" in new  # this test runs under numpy 2
    old = new.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    for program in (new, old):
        assert_same(read(npy_bytes(program)), SMALL)
    framed = pickle.dumps(np.array(SMALL, dtype=object), 4)
    patched = framed.replace(b"\x16numpy._core.multiarray", b"\x15numpy.core.multiarray")
    patched = patched[:3] + struct.pack("<Q", len(patched) - 11) + patched[11:]
    assert pickle.loads(patched)[()].keys() == SMALL.keys()
    assert_same(read(npy_bytes(patched)), SMALL)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_reads_every_protocol_and_header_version(read, protocol, version):
    # Protocol 5 as a pickler writes it for arrays that are not contiguous; it is protocol 4 with another number.
    program = pickle.dumps(np.array(SMALL, dtype=object), min(protocol, 4))
    program = program[:1] + bytes([protocol]) + program[2:]
    assert_same(read(npy_bytes(program, version)), SMALL)


def test_reads_protocol_2_as_python_2_wrote_it(read):
    program = around(array(b"K\x02\x85", b"U\x08" + np.array([1, 2], "<f4").tobytes())).replace(
        b"\x80\x03", b"\x80\x02"
    )
    program = program.replace(b"C\x01b", b"U\x01b").replace(text("f4"), b"U\x02f4").replace(text("a"), b"U\x01a")
    assert pickle.loads(program, encoding="latin1")[()].keys() == {"a"}
    assert_same(read(npy_bytes(program)), {"a": np.array([1, 2], "<f4")})


@pytest.mark.parametrize(("protocol", "name"), [(2, "_codecs.encode"), (5, "numpy._core.numeric._frombuffer")])
def test_protocols_which_need_another_global_for_arrays_are_refused_by_its_name(read, protocol, name):
    with pytest.raises(SCPError, match=f"asks for {name}"):
        read(npy_bytes(pickle.dumps(np.array({"a": np.zeros(3)}, dtype=object), protocol)))


def test_reads_plain_python_values(read):
    tree = {"int": -5, 2**40: 1.5, "text": "ä", "deep": {"er": {"still": np.float32(0.25)}}, -(2**62): 2**31}
    assert_same(read(saved(tree)), tree)


def test_arrays_are_views_of_one_buffer(read):
    big = np.arange(1 << 20, dtype=np.float32)
    data = saved({"a": big, "b": big + 1})
    tracemalloc.start()
    tree = read(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert tree["b"][-1] == big[-1] + 1
    assert peak < len(data) + 200_000


leaves = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(max_size=20),
    st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=6).map(lambda v: np.array(v, np.float32)),
)
trees = st.recursive(
    st.dictionaries(st.integers(0, 300) | st.text(max_size=5), leaves, max_size=4),
    lambda inner: st.dictionaries(st.integers(0, 300) | st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(tree=trees)
def test_reads_back_any_tree_that_numpy_saved(read, tree):
    assert_same(read(saved(tree)), tree)


# What must be refused


class Call:
    """Pickles as a call of any function with any arguments."""

    def __init__(self, function, *args, state=None):
        self.parts = (function, args) if state is None else (function, args, state)

    def __reduce__(self):
        return self.parts


def hostile_objects(canary: Path) -> dict[str, tuple[object, str]]:
    """Live attacks: object to save, and the name a refusal must show."""
    touch = f"open({str(canary)!r}, 'w')"
    nested = pickle.dumps(Call(os.system, f"touch {canary}"))
    return {
        "os.system": (Call(os.system, f"touch {canary}"), f"{os.system.__module__}.system"),
        "eval": (Call(eval, touch), "builtins.eval"),
        "exec": (Call(exec, touch), "builtins.exec"),
        "open": (Call(open, str(canary), "w"), "open"),
        "getattr": (Call(getattr, Call(__import__, "os"), "system"), "builtins.getattr"),
        "nested pickle": (Call(pickle.loads, nested), "_pickle.loads"),
        "numpy.load": (Call(np.load, str(canary)), "numpy.load"),
        "numpy.memmap": (Call(np.memmap, str(canary), "u1", "w+", 0, (4,)), "numpy.memmap"),
        "numpy.fromfile": (Call(np.fromfile, str(canary)), "fromfile"),
        "bytearray": (Call(bytearray, 10**12), "builtins.bytearray"),
        "class": (Path(canary), "pathlib"),
        "state": (Call(Call, len, state={"parts": 1}), "Call"),
        "set": ({1, 2}, "0x8f|builtins.set"),
        "complex": (3j, "builtins.complex"),
    }


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", sorted(hostile_objects(Path("x"))))
def test_calls_in_a_file_are_named_and_never_made(read, tmp_path, kind, protocol):
    canary = tmp_path / "canary"
    attack, name = hostile_objects(canary)[kind]
    whole = np.array({"mean": attack}, dtype=object)
    with pytest.raises(SCPError, match=name if protocol in (3, 4) else None):
        read(npy_bytes(pickle.dumps(whole, protocol)))
    with pytest.raises(SCPError):
        read(npy_bytes(pickle.dumps(attack, protocol)))
    assert not canary.exists()


def test_the_canary_is_live(tmp_path):
    """The same file does run its call under numpy's own reader: the tests above would notice."""
    canary = tmp_path / "canary"
    path = tmp_path / "f.npy"
    path.write_bytes(saved({"mean": hostile_objects(canary)["eval"][0]}))
    np.load(path, allow_pickle=True)
    assert canary.exists()
    canary.unlink()
    with pytest.raises(SCPError, match=r"builtins\.eval"):
        read_object_npy(path)
    assert not canary.exists()


@pytest.mark.parametrize(
    "name",
    [
        "os\nsystem",
        "posix\nsystem",
        "numpy.f2py\ncompile",
        "numpy.f2py.crackfortran\nmyeval",
        "numpy\nload",
        "numpy\nmemmap",
        "numpy\ncore.multiarray._reconstruct",
        "numpy.core\nmultiarray._reconstruct",
        "numpy.core.multiarray\n_reconstruct.__globals__",
        "numpy\nndarray.tofile",
        "numpy.dtypes\ndtype",
        "numpy.matrixlib.defmatrix\nmatrix",
        "\nnumpy.ndarray",
        "NUMPY\nndarray",
        "numpy.core.multiarray\n_reconstruct ",
    ],
)
def test_names_near_the_allowed_ones_are_refused(read, name):
    module, attribute = name.split("\n")
    shown = f"asks for {module}.{attribute}"
    for program in (f"c{module}\n{attribute}\n".encode(), text(module) + text(attribute) + b"\x93"):
        with pytest.raises(SCPError) as error:
            read(npy_bytes(around(program)))
        assert shown in str(error.value)


def test_a_long_or_ugly_name_is_shown_short_and_clean(read):
    with pytest.raises(SCPError) as error:
        read(npy_bytes(around(text("\x1b[31m\n" + "x" * 500) + text("y") + b"\x93")))
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    ("instructions", "found"),
    [
        (b"(ios\nsystem\n", "os.system"),
        (b"(cnumpy\nndarray\no", "OBJ"),
        (b"cnumpy\nndarray\n)\x81", "NEWOBJ"),
        (b"cnumpy\nndarray\n)}\x92", "NEWOBJ_EX"),
        (b"\x82\x01", "EXT1"),
        (b"\x83\x01\x00", "EXT2"),
        (b"\x84\x01\x00\x00\x00", "EXT4"),
        (b"Pevil\n", "PERSID"),
        (b"K\x01Q", "BINPERSID"),
        (b"\x97", "NEXT_BUFFER"),
        (b"K\x01\x98", "READONLY_BUFFER"),
        (b"I1\n", "0x49"),
        (b"V" + b"1" * 100 + b"\n", "0x56"),
        (b"\x8b\xff\xff\xff\x7f", "0x8b"),
        (b"\x8a\xff" + b"\x01" * 255, "255 bytes"),
        (b"\x8f", "0x8f"),
        (b"K\x012", "0x32"),
        (b"K\x010", "0x30"),
        (b"\x80\x04", "0x80"),
        (b"N", "None"),
        (b"\x88", "bool"),
        (b"]", "list"),
        (b"C\x02ab", "bytes"),
        (b"cnumpy\nndarray\n", "ndarray"),
        (b"cnumpy\nndarray\n)R", "a call of numpy's ndarray"),
        (b"cnumpy\ndtype\ncnumpy\ndtype\n\x85R", "dtype"),
        (EMPTY, "unfinished"),
        (F4, "a dtype"),
        (b"cnumpy\nndarray\n}b", "a state for numpy's ndarray"),
        (b"}}b", "a state for a dictionary"),
        (F4 + b"(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb", "a state for a dtype"),
        (GOOD_ARRAY + b"}b", "a state for"),
        (array(b")", b"]K\x01a", O8), "object"),
        (array(b"K\x01\x85", b"]K\x01a", O8), "object"),
        (array(b")", b"]}a", O8), "object array"),
        (array(b"K\x01\x85", b"C\x08" + bytes(8), O8), "object"),
        (array(b"K\x01\x85", b"C\x03abc"), "4 bytes, with 3 bytes"),
        (array(b"K\x01\x85", b"X\x04\x00\x00\x00abcd"), "array data that is of type str"),
        (array(b"\x8a\x06\x00\x10\xa5\xd4\xe8\x00\x85", b"C\x04abcd"), "with 4 bytes of data"),
        (array(b"J\xff\xff\xff\xff\x85", b"C\x04abcd"), "shape"),
        (array(b"K\x00\x85", b"C\x00"), "shape"),
        (array(b"\x88\x85", b"C\x04abcd"), "shape"),
        (array(b"(" + b"K\x01" * 9 + b"t", b"C\x04abcd"), "shape"),
        (
            array(b"(" + b"\x8a\x08" + b"\xff" * 7 + b"\x7f" + b"\x8a\x08" + b"\xff" * 7 + b"\x7ft", b"C\x04abcd"),
            "of data",
        ),
        (b"\x8e" + b"\xff" * 8, "announced"),
        (b"B\xff\xff\xff\xff", "announced"),
        (b"T\xff\xff\xff\xff", "negative"),
        (b"X\x04\x00\x00\x00\xff\xff\xff\xff", "UTF-8"),
        (b"X\x00\x08\x00\x00" + b"x" * 2048, "a text of 2048 bytes"),
        (b"\x95" + struct.pack("<Q", 2**62), "frame"),
        (b"c" + b"x" * 2000 + b"\ny\n", "name without an end"),
        (b"h\x07", "reference to nothing"),
        (b"j\xff\xff\xff\xff", "reference to nothing"),
        (b"R", "a call of a dictionary"),
        (b"K\x01(\x85", "operands"),
        (b"(" * 100, "nests or piles up"),
        (b"}" * 9000, "nests or piles up"),
        (array(b"K\x01\x85", b"C\x04abcd", DTYPE + text("f4") + b"\x89\x88\x87R"), "objects"),
        (b"u", "outside"),
        (b"tt", "mark"),
        (b"(", "mark|operands|outside"),
        (b"K\x01K\x01", "outside|nothing|dictionary"),
    ],
)
def test_every_other_instruction_is_refused_and_named(read, instructions, found):
    with pytest.raises(SCPError, match=found):
        read(npy_bytes(around(instructions)))


def test_the_hand_made_programs_are_good_but_for_the_one_thing_tested(read):
    assert read(npy_bytes(around(GOOD_ARRAY)))["a"].tolist() == [1.0]
    assert read(npy_bytes(around(b"K\x05"))) == {"a": 5}


@pytest.mark.parametrize(
    "code", ["c8", "b1", "M8", "m8", "S4", "U4", "V4", "f16", "i3", "f4,i4", "(2,)f4", "float32", "object", "O", ""]
)
def test_other_dtypes_are_refused(read, code):
    dtype = F4.replace(text("f4"), text(code))
    with pytest.raises(SCPError, match=r"dtype|objects"):
        read(npy_bytes(around(array(b"K\x01\x85", b"C\x04abcd", dtype))))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"<NNN", b"=NNN"),
        (b"<NNN", b"|NNN"),
        (b"<NNN", b"<)NN"),
        (b"<NNN", b"<N]N"),
        (b"<NNN", b"<NN}"),
        (b"K\x03X", b"K\x04X"),
        (b"K\x00tb", b"K\x3ftb"),
        (b"J\xff\xff\xff\xffK", b"K\x10K"),
    ],
)
def test_structured_and_unusual_dtype_states_are_refused(read, old, new):
    assert old in F4
    with pytest.raises(SCPError, match=r"dtype|byte order"):
        read(npy_bytes(around(array(b"K\x01\x85", b"C\x04abcd", F4.replace(old, new)))))


def test_structured_arrays_saved_by_numpy_are_refused(read):
    for value in (np.zeros(2, "f4,i4"), np.array([None]), np.array(["a"]), np.zeros(1, "M8[s]"), np.array([1j])):
        with pytest.raises(SCPError, match=r"dtype|object"):
            read(saved({"mean": value}))


def test_a_dictionary_may_not_stand_in_two_places(read):
    laughs = b"}q\x00" + text("x") + b"K\x01s"
    for level in range(1, 40):
        laughs += b"}q" + bytes([level]) + b"(" + b"".join(text(k) + b"h" + bytes([level - 1]) for k in "ab") + b"u"
    with pytest.raises(SCPError, match="two places"):
        read(npy_bytes(around(laughs)))
    with pytest.raises(SCPError, match=r"two places|damaged"):
        read(npy_bytes(around(b"}q\x00" + text("self") + b"h\x00s")))


def test_one_array_used_often_cannot_stand_for_more_than_the_file_holds(read):
    payload = struct.pack("<I", 4000) + bytes(4000)
    array_bytes = array(b"M\xe8\x03\x85", b"B" + payload) + b"q\x00"
    twice = b"}(" + text("x") + array_bytes + text("y") + b"h\x00u"
    with pytest.raises(SCPError, match="more array data than the file has bytes"):
        read(npy_bytes(around(twice)))


def test_duplicate_and_odd_keys_are_refused(read):
    for entries, found in (
        (b"K\x01K\x02K\x01K\x03", "key 1 twice"),
        (b"NK\x02", "key that is None"),
        (b"\x88K\x02", "key that is of type bool"),
        (b"G" + bytes(8) + b"K\x02", "key that is of type float"),
        (b")K\x02", "key that is of type tuple"),
        (b"K\x01K\x02K\x03", "outside a dictionary"),
    ):
        with pytest.raises(SCPError, match=found):
            read(npy_bytes(around(b"}(" + entries + b"u")))


@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x03" + b"(" * 10**6,
        b"\x80\x03" + b"}" * 10**6,
        b"\x80\x03)" + b"\x85" * 10**6 + b".",
        b"\x80\x03K\x00" + b"r\x00\x00\x00\x00" * 10**6,
        b"\x80\x04K\x00" + b"\x94" * 10**6,
        b"\x80\x03]q\x00" + b"h\x00a" * 10**6,
        b"\x80\x03" + b"".join(b"}q\x01" + b"X\x01\x00\x00\x00k" + b"h\x00" + b"s" + b"q\x00" for _ in range(10**5)),
        b"\x80\x03C\x01b" + b"r" + b"\xff" * 4 + b".",
        b"\x80\x04\x95" + struct.pack("<Q", 2**62),
        b"\x80\x04" + (b"\x95" + bytes(8)) * 10**6,
        b"",
        b".",
        b"\x80",
        b"\x80\x03",
        b"\x80\x03.",
        b"\x80\x01N.",
        b"\x80\x06N.",
        b"\x80\xffN.",
        b"(dp0\n.",
        b"\x80\x03N.",
        b"\x80\x03}.",
        b"\x80\x03" + GOOD_ARRAY + b".",
        around(b"K\x05") + b"\x00",
        around(b"K\x05") + around(b"K\x05"),
        around(b"K\x05")[:-1] + b"(.",
        around(b"K\x05")[:-1] + b"N.",
        around(b"K\x05").replace(b"satb.", b"saKatb."),
        b"\x80\x03" + EMPTY + b"(K\x01)" + O8 + b"\x89]K\x05atb.",
        b"\x80\x03" + EMPTY + b"(K\x01)" + O8 + b"\x89]tb.",
        around(b"".join(b"}" + text("k") for _ in range(20)) + b"K\x01" + b"s" * 20),
    ],
    ids=itertools.count(),
)
def test_abuse_of_the_machine_ends_quickly(read, program):
    tracemalloc.start()
    began = time.perf_counter()
    with pytest.raises(SCPError):
        read(npy_bytes(program))
    elapsed = time.perf_counter() - began
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert elapsed < 10  # a fraction of a second when it is not traced
    assert peak < len(program) + 40_000_000


def test_a_file_cut_short_anywhere_is_refused(read):
    whole = saved(SMALL)
    assert read(whole)
    for length in range(len(whole)):
        with pytest.raises(SCPError):
            read(whole[:length])


def test_any_single_damaged_byte_gives_a_tree_or_a_clear_error(read):
    whole = saved(SMALL)
    start = whole.index(b"\x80\x04")
    outcomes = {True: 0, False: 0}
    for position in range(start, len(whole)):
        for value in (0, ord("."), ord("R"), whole[position] ^ 0x10):
            damaged = whole[:position] + bytes([value]) + whole[position + 1 :]
            try:
                outcomes[isinstance(read(damaged), dict)] += 1
            except SCPError:
                outcomes[False] += 1
    assert outcomes[True] > 0
    assert outcomes[False] > outcomes[True]


# Pieces of real programs in any order reach far deeper than random bytes do.
_PIECES = [EMPTY, F4, O8, DTYPE, GOOD_ARRAY, text("a"), text("f4"), b"cnumpy\nndarray\n", b"C\x04abcd", b"G" + bytes(8)]
_PIECES += [b"cnumpy.core.multiarray\nscalar\n", b"J\xff\xff\xff\xff", b"K\x01", b"q\x00", b"h\x00"]
_PIECES += [bytes([opcode]) for opcode in b"(}])t\x85\x86\x87Rbsuae\x94\x93N\x88\x89."]
pieces = st.sampled_from(_PIECES)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
@given(program=st.binary(max_size=200) | st.lists(pieces, max_size=30).map(b"".join))
def test_garbage_gives_a_clear_error(read, program):
    for data in (program, npy_bytes(program), npy_bytes(b"\x80\x04" + program), npy_bytes(around(program))):
        with contextlib.suppress(SCPError):
            assert isinstance(read(data), dict)


# Headers and other files


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }", "dtype <f4; expected a pickled dictionary"),
        ("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (), }", "header"),
        ("{'descr': '|O', 'fortran_order': False, 'shape': (2,), }", r"shape \(2,\)"),
        ("{'descr': '|O', 'fortran_order': False, 'shape': (), 'x': 1}", "header"),
        ("{'descr': '|O', 'fortran_order': __import__('os'), 'shape': (), }", "header"),
        ("{'descr': '|O', 'shape': (), }", "header"),
        ("x" * 5000, "damaged header"),
        ("(" * 3000, "header"),
    ],
)
def test_headers_are_read_strictly(read, header, found):
    with pytest.raises(SCPError, match=found):
        read(npy_bytes(around(GOOD_ARRAY), header=header))


def test_header_lengths_and_versions_are_checked(read):
    good = npy_bytes(around(GOOD_ARRAY), (2, 0))
    assert read(good)
    with pytest.raises(SCPError, match="damaged header"):
        read(good[:8] + b"\xff\xff\xff\xff" + good[12:])
    with pytest.raises(SCPError, match=r"version \(4, 0\)"):
        read(good[:6] + b"\x04\x00" + good[8:])


def test_other_files_are_told_apart(read, tmp_path):
    plain = io.BytesIO()
    np.save(plain, np.zeros((4, 3), np.float32))
    for data, found in (
        (plain.getvalue(), "dtype <f4; expected a pickled dictionary"),
        (pickle.dumps({}), "bare pickle"),
        (b"PK\x03\x04" + bytes(30), "zip"),
        (b"<!doctype html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "pointer"),
        (b"", "empty"),
        (bytes(100), "begins otherwise"),
    ):
        with pytest.raises(SCPError, match=found):
            read(data)
    with pytest.raises(SCPError, match="No such file"):
        read_object_npy(tmp_path / "absent.npy")
    with pytest.raises(SCPError, match="not a file"):
        read_object_npy(tmp_path)


def test_a_file_larger_than_any_release_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(npy, "MAX_FILE_BYTES", 1000)
    path = tmp_path / "big.npy"
    path.write_bytes(bytes(1001))
    with pytest.raises(SCPError, match="Check that this is the right file"):
        read_object_npy(path)


def test_reading_imports_nothing_and_changes_nothing(read):
    import sys

    before = set(sys.modules)
    with pytest.raises(SCPError, match=r"antigravity\.fly"):
        read(npy_bytes(around(b"cantigravity\nfly\n")))
    assert set(sys.modules) == before


def zip_bomb(path: Path) -> None:
    """100 MB of zeros as an .npz, 100 KB, with another ending."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("mean.npy", "w") as member:
        for _ in range(100):
            member.write(bytes(1 << 20))


def terabytes(path: Path, header: str) -> None:
    path.write_bytes(npy_bytes(b"", header=header))


def sparse(path: Path) -> None:
    path.write_bytes(saved(SMALL))
    os.truncate(path, 100 << 30)


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (zip_bomb, "zip"),
        (
            lambda path: terabytes(path, "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"),
            "dtype",
        ),
        (lambda path: terabytes(path, "{'descr': '|O', 'fortran_order': False, 'shape': (1000000000000,), }"), "shape"),
        (sparse, "Check that this is the right file"),
    ],
    ids=["zip bomb", "numbers of terabytes", "objects of terabytes", "100 GB of nothing"],
)
def test_files_that_promise_more_than_they_are_cost_nothing(tmp_path, make, found):
    path = tmp_path / "x_spatial_mean_std.npy"
    make(path)
    size = min(path.stat().st_size, 1 << 20)
    tracemalloc.start()
    with pytest.raises(SCPError, match=found) as error:
        read_object_npy(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * size + 100_000
    assert "\n" not in str(error.value)
