"""Read the authors' pickled .npy statistics without running anything that stands in them.

A pickle is a program for a small stack machine, and the standard library's machine imports and calls whatever the
program names. This module is a machine of its own that cannot: it knows the few opcodes which `numpy.save` writes for a
dictionary of arrays, and a name in the file is looked up in a table of constants, never imported. An allow-list on
`pickle.Unpickler` would be shorter, but would leave the real machine running (object construction, attribute setting,
memo growth, `numpy.dtype` and `ndarray.__setstate__` fed by the file). Here an array is dtype text, shape and bytes,
all three checked, and then a read-only view of the file's own bytes.
"""

from __future__ import annotations

import enum
import math
import os
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np

from .errors import SCPError

MAX_FILE_BYTES = 512 << 20  # the largest released file has 75 MB
MAX_OPCODES = 100_000  # 256 classes take about 15 000
MAX_STACK = 8192
MAX_MARKS = 64
MAX_TEXT = 1024
MAX_DEPTH = 8
MAX_DIMENSIONS = 8
MAX_HEADER = 4096

# What a file can give: see `read_object_npy`.
Tree: TypeAlias = "dict[int | str, Tree | np.ndarray | int | float | str]"

_MAGIC = b"\x93NUMPY"
_HEADER = re.compile(r"\{'descr': '([^']{1,32})', 'fortran_order': (?:True|False), 'shape': \(([0-9, ]*)\), ?\} *\n?")
_NUMBERS = frozenset({"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"})
_OBJECTS = frozenset({"O", "O4", "O8"})
_REFUSED = {
    b"o": "OBJ",
    b"\x81": "NEWOBJ",
    b"\x92": "NEWOBJ_EX",
    b"\x82": "EXT1",
    b"\x83": "EXT2",
    b"\x84": "EXT4",
    b"P": "PERSID",
    b"Q": "BINPERSID",
    b"\x97": "NEXT_BUFFER",
    b"\x98": "READONLY_BUFFER",
}


class _Global(enum.Enum):
    """The names a file may use. They are labels: nothing behind them is ever looked up or called."""

    RECONSTRUCT = "_reconstruct"
    NDARRAY = "ndarray"
    DTYPE = "dtype"
    SCALAR = "scalar"


_GLOBALS = {
    "numpy.core.multiarray._reconstruct": _Global.RECONSTRUCT,
    "numpy._core.multiarray._reconstruct": _Global.RECONSTRUCT,
    "numpy.ndarray": _Global.NDARRAY,
    "numpy.dtype": _Global.DTYPE,
    "numpy.core.multiarray.scalar": _Global.SCALAR,
    "numpy._core.multiarray.scalar": _Global.SCALAR,
}


class _DType:
    """A dtype being described; `order` is None until its state has been read."""

    __slots__ = ("code", "order")

    def __init__(self, code: str):
        self.code = code
        self.order: str | None = None


class _Array:
    """An array being described; `value` is None until its state has been read."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: np.ndarray | _Root | None = None


class _Dict:
    """A dictionary, and whether something already holds it: what is read must be a tree."""

    __slots__ = ("held", "items")

    def __init__(self) -> None:
        self.items: dict[int | str, object] = {}
        self.held = False


class _Root:
    """The 0-d object array around the dictionary."""

    __slots__ = ("content",)

    def __init__(self, content: _Dict):
        self.content = content


def read_object_npy(path: str | os.PathLike[str]) -> Tree:
    """The dictionary in a .npy file written by `numpy.save(path, dictionary)`, read without running any of it.

    Accepts the spellings of numpy 1 and 2 and pickle protocols 2 to 5, as far as they use no other global than
    `_reconstruct`, `ndarray`, `dtype` and `scalar` of numpy (`numpy.save` itself uses protocols 3 and 4 and no other).

    Returns:
        Nested dictionaries; keys are int or str, values dictionaries, numpy arrays (float16/32/64 or integers, the
        file's byte order, read-only views of one buffer as large as the file), int, float or str. Every array and
        dictionary stands in one place only, and the arrays together have at most as many bytes as the file.

    Raises:
        SCPError: the file is missing, of another kind, cut short, damaged, larger than 512 MB, or asks for anything
            beyond the above; the message names what was found.
    """
    path = Path(path)
    data = _read(path)
    return _Machine(memoryview(data)[_skip_header(data, path.name) :], path.name).run()


def _read(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():
            raise SCPError(f"{path} is not a file; expected a .npy file of the SCP-Diff release.")
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_FILE_BYTES:
                raise SCPError(
                    f"{path.name} has {size / 1e6:.0f} MB; a released statistics file has at most 150 MB. "
                    "Check that this is the right file."
                )
            return file.read(size)
    except OSError as error:
        raise SCPError(f"Cannot read {path}: {error.strerror or error}.") from error


def _skip_header(data: bytes, name: str) -> int:
    """Where the pickle begins, after a strict reading of the .npy header."""
    if data[:6] != _MAGIC:
        raise SCPError(f"{name} is not a .npy file ({_kind(data)}). Use the released ..._mean_std.npy files.")
    version = tuple(data[6:8])
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise SCPError(f"{name} has .npy version {version}; expected 1.0, 2.0 or 3.0. Download it again.")
    start = 10 if version == (1, 0) else 12
    length = int.from_bytes(data[8:start], "little")
    if length > MAX_HEADER or start + length > len(data):
        raise SCPError(f"{name} has a damaged header ({length} bytes announced). Download it again.")
    header = data[start : start + length].decode("latin-1")
    match = _HEADER.fullmatch(header)
    if match is None or match[1] != "|O":
        what = f"an array of dtype {_shown(match[1])}" if match else f"an array with the header {_shown(header)}"
        raise SCPError(
            f"{name} holds {what}; expected a pickled dictionary of mean and std, as in the released "
            "..._mean_std.npy files."
        )
    if match[2]:
        raise SCPError(
            f"{name} holds an object array of shape ({_shown(match[2])}); expected one dictionary, shape ()."
        )
    return start + length


def _kind(data: bytes) -> str:
    if data[:1] == b"\x80":
        return "it looks like a bare pickle"
    if data[:2] == b"PK":
        return "it looks like a zip archive: .npz or a checkpoint"
    if data.lstrip()[:1] == b"<" or data.startswith(b"version https://git-lfs"):
        return "it looks like a web page or a pointer saved in place of the download"
    return "it is empty" if not data else "it begins otherwise"


class _Machine:
    """A stack machine for the opcodes that `numpy.save` writes, whose values are data only."""

    def __init__(self, data: memoryview, name: str):
        self._data = data
        self._name = name
        self._at = 0
        self._stack: list[object] = []
        self._marks: list[int] = []
        self._memo: dict[int, object] = {}
        self._placed = 0

    def run(self) -> Tree:
        """Read the program to its end and return the tree it describes."""
        if self._take(1) != b"\x80":
            raise self._damaged("the pickle in it has no protocol 2 to 5")
        protocol = self._take(1)[0]
        if not 2 <= protocol <= 5:
            raise self._damaged(f"pickle protocol {protocol}; expected 2 to 5")
        for _ in range(MAX_OPCODES):
            opcode = bytes(self._take(1))
            if opcode == b".":
                return self._finish()
            step = _STEPS.get(opcode)
            if step is None:
                raise self._unknown(opcode)
            step(self)
            if len(self._stack) > MAX_STACK or len(self._marks) > MAX_MARKS:
                raise self._damaged("it nests or piles up more than any statistics file does")
        raise self._damaged(f"more than {MAX_OPCODES} pickle instructions")

    # Reading

    def _take(self, size: int) -> memoryview:
        end = self._at + size
        if end > len(self._data):
            raise self._damaged(f"{size} bytes announced where {len(self._data) - self._at} are left")
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def _number(self, form: str) -> int:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _decode(self, data: memoryview, encoding: str) -> str:
        if len(data) > MAX_TEXT:
            raise self._damaged(f"a text of {len(data)} bytes")
        try:
            return bytes(data).decode(encoding)
        except UnicodeDecodeError as error:
            raise self._damaged("a text that is no UTF-8") from error

    def _line(self) -> str:
        window = bytes(self._data[self._at : self._at + MAX_TEXT])
        length = window.find(b"\n")
        if length < 0:
            raise self._damaged("a name without an end")
        self._at += length + 1
        return self._decode(memoryview(window[:length]), "utf-8")

    # Stack and memo

    def _push(self, value: object) -> None:
        self._stack.append(value)

    def _pop(self) -> object:
        floor = self._marks[-1] if self._marks else 0
        if len(self._stack) <= floor:
            raise self._damaged("an instruction without its operands")
        return self._stack.pop()

    def _top(self) -> object:
        value = self._pop()
        self._stack.append(value)
        return value

    def _pop_tuple(self, size: int) -> tuple[object, ...]:
        return tuple(reversed([self._pop() for _ in range(size)]))

    def _pop_to_mark(self) -> list[object]:
        if not self._marks:
            raise self._damaged("an instruction without its mark")
        start = self._marks.pop()
        values = self._stack[start:]
        del self._stack[start:]
        return values

    def mark(self) -> None:
        self._marks.append(len(self._stack))

    def put(self, index: int) -> None:
        self._memo[index] = self._top()

    def memoize(self) -> None:
        self.put(len(self._memo))

    def get(self, index: int) -> None:
        if index not in self._memo:
            raise self._damaged("a reference to nothing")
        self._push(self._memo[index])

    # Plain values

    def frame(self) -> None:
        size = self._number("<Q")
        if size > len(self._data) - self._at:
            raise self._damaged(f"a frame of {size} bytes where {len(self._data) - self._at} are left")

    def push(self, value: object) -> None:
        self._push(value)

    def number(self, form: str) -> None:
        self._push(self._number(form))

    def long(self) -> None:
        size = self._take(1)[0]
        if size > 8:
            raise self._damaged(f"an integer of {size} bytes")
        self._push(int.from_bytes(self._take(size), "little", signed=True))

    def text(self, form: str) -> None:
        self._push(self._decode(self._take(self._number(form)), "utf-8"))

    def raw(self, form: str) -> None:
        size = self._number(form)
        if size < 0:
            raise self._damaged("bytes of negative length")
        self._push(self._take(size))

    # Containers

    def tuple_of(self, size: int) -> None:
        self._push(self._pop_tuple(size))

    def tuple_to_mark(self) -> None:
        self._push(tuple(self._pop_to_mark()))

    def empty_list(self) -> None:
        self._push([])

    def append(self, values: list[object]) -> None:
        target = self._pop()
        if not isinstance(target, list):
            raise self._damaged("a list entry outside a list")
        self._push(target)
        target.extend(values)
        if len(target) > 1:
            raise self._damaged("a list of several objects; expected one dictionary")

    def append_one(self) -> None:
        self.append([self._pop()])

    def append_to_mark(self) -> None:
        self.append(self._pop_to_mark())

    def empty_dict(self) -> None:
        self._push(_Dict())

    def set_items(self, values: list[object]) -> None:
        target = self._top()
        if not isinstance(target, _Dict) or len(values) % 2:
            raise self._damaged("a dictionary entry outside a dictionary")
        for key, value in zip(values[::2], values[1::2], strict=True):
            key = self._as_text(key) if isinstance(key, memoryview) else key
            if type(key) not in (int, str):
                raise self._damaged(f"a dictionary key that is {_what(key)}; expected an integer or a text")
            if key in target.items:
                raise self._damaged(f"the dictionary key {_shown(str(key))} twice")
            target.items[key] = self._place(value)

    def set_one(self) -> None:
        self.set_items(list(self._pop_tuple(2)))

    def set_to_mark(self) -> None:
        self.set_items(self._pop_to_mark())

    def _place(self, value: object) -> object:
        """Check that a value may stand in a dictionary, and that it stands nowhere else."""
        if isinstance(value, _Array) and isinstance(value.value, np.ndarray):
            # Arrays may share bytes of the file, but never so that copying them all would take more than the file.
            self._placed += value.value.nbytes
            if self._placed > len(self._data):
                raise self._damaged("more array data than the file has bytes")
            return value.value
        if isinstance(value, _Dict):
            if value.held:
                raise self._damaged("a dictionary that stands in two places")
            value.held = True
            return value
        if type(value) in (int, float, str):
            return value
        raise self._damaged(f"a dictionary value that is {_what(value)}; expected arrays, numbers or texts")

    # Names and what is built from them

    def global_line(self) -> None:
        self._name_global(self._line(), self._line())

    def global_stack(self) -> None:
        module, name = self._pop_tuple(2)
        if not isinstance(module, str) or not isinstance(name, str):
            raise self._damaged("a global whose name is not a text")
        self._name_global(module, name)

    def instance(self) -> None:
        raise self._forbidden(f"{self._line()}.{self._line()}")

    def _name_global(self, module: str, name: str) -> None:
        # A dotted name would be an attribute chain; the table has none, and joined it must not read like an entry.
        symbol = None if "." in name else _GLOBALS.get(f"{module}.{name}")
        if symbol is None:
            raise self._forbidden(f"{module}.{name}")
        self._push(symbol)

    def reduce(self) -> None:
        symbol, args = self._pop_tuple(2)
        build = _CALLS.get(symbol) if isinstance(symbol, _Global) else None
        if build is None or not isinstance(args, tuple):
            raise self._damaged(f"a call of {_what(symbol)}")
        self._push(build(self, args))

    def new_array(self, args: tuple[object, ...]) -> _Array:
        if len(args) != 3 or args[0] is not _Global.NDARRAY or args[1] != (0,) or self._as_text(args[2]) != "b":
            raise self._damaged("an array that does not begin as numpy's do")
        return _Array()

    def new_dtype(self, args: tuple[object, ...]) -> _DType:
        if len(args) != 3 or not all(isinstance(flag, int) for flag in args[1:]):
            raise self._damaged("a dtype that is not described as numpy does")
        code = self._as_text(args[0])
        if code not in _NUMBERS and code not in _OBJECTS:
            raise self._damaged(f"the dtype {_shown(code)}; expected float16, 32, 64 or integers")
        return _DType(code)

    def new_scalar(self, args: tuple[object, ...]) -> int | float:
        if len(args) != 2 or not isinstance(args[1], memoryview):
            raise self._damaged("a number that is not described as numpy does")
        return self._array(args[0], (), args[1], "C").item()

    def build(self) -> None:
        target, state = self._pop_tuple(2)
        if isinstance(target, _DType) and target.order is None:
            self._build_dtype(target, state)
        elif isinstance(target, _Array) and target.value is None:
            target.value = self._build_array(state)
        else:
            raise self._damaged(f"a state for {_what(target)}")
        self._push(target)

    def _build_dtype(self, target: _DType, state: object) -> None:
        """State is (3, byte order, None, None, None, -1, -1, flags): no fields, no sub-arrays, no metadata."""
        expected = (None, None, None, -1, -1, 63 if target.code in _OBJECTS else 0)
        if not isinstance(state, tuple) or len(state) != 8 or state[0] != 3 or state[2:] != expected:
            raise self._damaged(f"a structured or unusual dtype {target.code}; expected plain numbers")
        order = self._as_text(state[1])
        if order not in ("<", ">", "|") or (order == "|") != (target.code in _OBJECTS or target.code in ("i1", "u1")):
            raise self._damaged(f"the byte order {_shown(order)} for {target.code}")
        target.order = order

    def _build_array(self, state: object) -> np.ndarray | _Root:
        """State is (1, shape, dtype, fortran order, bytes), or a list of one dictionary for the outermost array."""
        if not isinstance(state, tuple) or len(state) != 5 or state[0] != 1 or not isinstance(state[3], int):
            raise self._damaged("an array that is not described as numpy does")
        _, shape, dtype, fortran, payload = state
        if isinstance(dtype, _DType) and dtype.code in _OBJECTS:
            return self._build_root(shape, payload)
        return self._array(dtype, shape, payload, "F" if fortran else "C")

    def _build_root(self, shape: object, payload: object) -> _Root:
        content = payload[0] if isinstance(payload, list) and payload else None
        if shape != () or not isinstance(content, _Dict):
            raise self._damaged(f"an object array around {_what(content)}; expected one dictionary, shape ()")
        self._place(content)
        return _Root(content)

    def _array(self, dtype: object, shape: object, payload: object, order: str) -> np.ndarray:
        if not isinstance(dtype, _DType) or dtype.order is None or dtype.code in _OBJECTS:
            raise self._damaged("an array of objects; expected plain numbers")
        if (
            not isinstance(shape, tuple)
            or len(shape) > MAX_DIMENSIONS
            or not all(type(side) is int and side > 0 for side in shape)
        ):
            raise self._damaged("an array without a proper shape")
        if not isinstance(payload, memoryview):
            raise self._damaged(f"array data that is {_what(payload)}")
        needed = math.prod(shape) * int(dtype.code[1:])
        if needed != len(payload):
            raise self._damaged(f"an array of shape {shape}, {needed} bytes, with {len(payload)} bytes of data")
        return np.frombuffer(payload, np.dtype(dtype.order + dtype.code)).reshape(shape, order=order)

    def _as_text(self, value: object) -> str:
        # Python 2 wrote its texts as bytes.
        if isinstance(value, memoryview):
            return self._decode(value, "utf-8")
        if not isinstance(value, str):
            raise self._damaged(f"{_what(value)} where a text belongs")
        return value

    # The end

    def _finish(self) -> Tree:
        if self._at != len(self._data):
            raise self._damaged(f"{len(self._data) - self._at} bytes after its end")
        root = self._stack[0] if len(self._stack) == 1 and not self._marks else None
        if not isinstance(root, _Array) or not isinstance(root.value, _Root):
            raise self._damaged("no dictionary in a 0-d array")
        return self._tree(root.value.content, 1)

    def _tree(self, node: _Dict, depth: int) -> Tree:
        if depth > MAX_DEPTH:
            raise self._damaged(f"dictionaries nested more than {MAX_DEPTH} deep")
        return {
            key: self._tree(value, depth + 1) if isinstance(value, _Dict) else value
            for key, value in node.items.items()
        }

    # Errors

    def _damaged(self, found: str) -> SCPError:
        return SCPError(
            f"{self._name} cannot be read as released statistics: {found} (near byte {self._at} of its pickle). "
            "It is damaged, cut short, or another kind of file: download it again."
        )

    def _forbidden(self, name: str) -> SCPError:
        return SCPError(
            f"{self._name} asks for {_shown(name)}; released statistics use numpy arrays only. Nothing of it was run. "
            "Do not use this file: get the original from the SCP-Diff release."
        )

    def _unknown(self, opcode: bytes) -> SCPError:
        if opcode in _REFUSED:
            return self._forbidden(f"a Python object (pickle instruction {_REFUSED[opcode]})")
        return self._damaged(f"the pickle instruction 0x{opcode[0]:02x}, which statistics do not use")


_CALLS: dict[_Global, Callable[[_Machine, tuple[object, ...]], object]] = {
    _Global.RECONSTRUCT: _Machine.new_array,
    _Global.DTYPE: _Machine.new_dtype,
    _Global.SCALAR: _Machine.new_scalar,
}

_STEPS: dict[bytes, Callable[[_Machine], None]] = {
    b"\x95": _Machine.frame,
    b"(": _Machine.mark,
    b"\x94": _Machine.memoize,
    b"q": lambda machine: machine.put(machine._number("<B")),
    b"r": lambda machine: machine.put(machine._number("<I")),
    b"h": lambda machine: machine.get(machine._number("<B")),
    b"j": lambda machine: machine.get(machine._number("<I")),
    b"N": lambda machine: machine.push(None),
    b"\x88": lambda machine: machine.push(True),
    b"\x89": lambda machine: machine.push(False),
    b"K": lambda machine: machine.number("<B"),
    b"M": lambda machine: machine.number("<H"),
    b"J": lambda machine: machine.number("<i"),
    b"G": lambda machine: machine.number(">d"),
    b"\x8a": _Machine.long,
    b"\x8c": lambda machine: machine.text("<B"),
    b"X": lambda machine: machine.text("<I"),
    b"C": lambda machine: machine.raw("<B"),
    b"B": lambda machine: machine.raw("<I"),
    b"\x8e": lambda machine: machine.raw("<Q"),
    b"U": lambda machine: machine.raw("<B"),
    b"T": lambda machine: machine.raw("<i"),
    b")": lambda machine: machine.push(()),
    b"\x85": lambda machine: machine.tuple_of(1),
    b"\x86": lambda machine: machine.tuple_of(2),
    b"\x87": lambda machine: machine.tuple_of(3),
    b"t": _Machine.tuple_to_mark,
    b"]": _Machine.empty_list,
    b"a": _Machine.append_one,
    b"e": _Machine.append_to_mark,
    b"}": _Machine.empty_dict,
    b"s": _Machine.set_one,
    b"u": _Machine.set_to_mark,
    b"c": _Machine.global_line,
    b"\x93": _Machine.global_stack,
    b"i": _Machine.instance,
    b"R": _Machine.reduce,
    b"b": _Machine.build,
}


def _what(value: object) -> str:
    """What to call a value in a message; never its content, which can be large or hostile."""
    if isinstance(value, _Global):
        return f"numpy's {value.value}"
    if isinstance(value, _Array):
        return "an object array or an unfinished array"
    names = {type(None): "None", memoryview: "bytes", _Dict: "a dictionary", _DType: "a dtype"}
    return names.get(type(value), f"of type {type(value).__name__}")


def _shown(text: str) -> str:
    return ascii(text[:80])[1:-1] + ("..." if len(text) > 80 else "")
