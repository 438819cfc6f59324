"""Read the authors' pickled .npy statistics without running anything that stands in them.

The machine knows the few opcodes which `numpy.save` writes for a dictionary of arrays. An array is dtype text, shape
and bytes, all three checked, and then a read-only view of the file's own bytes; `numpy.dtype` and
`ndarray.__setstate__` are never fed by the file.
"""

from __future__ import annotations

import enum
import math
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar, TypeAlias

import numpy as np

from .errors import SCPError
from .pickle_machine import PLAIN_STEPS, PickleMachine, shown

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
        what = f"an array of dtype {shown(match[1])}" if match else f"an array with the header {shown(header)}"
        raise SCPError(
            f"{name} holds {what}; expected a pickled dictionary of mean and std, as in the released "
            "..._mean_std.npy files."
        )
    if match[2]:
        raise SCPError(f"{name} holds an object array of shape ({shown(match[2])}); expected one dictionary, shape ().")
    return start + length


def _kind(data: bytes) -> str:
    if data[:1] == b"\x80":
        return "it looks like a bare pickle"
    if data[:2] == b"PK":
        return "it looks like a zip archive: .npz or a checkpoint"
    if data.lstrip()[:1] == b"<" or data.startswith(b"version https://git-lfs"):
        return "it looks like a web page or a pointer saved in place of the download"
    return "it is empty" if not data else "it begins otherwise"


class _Machine(PickleMachine):
    """A stack machine for the opcodes that `numpy.save` writes; `run()` gives the tree."""

    max_opcodes, max_stack, max_marks, max_text = MAX_OPCODES, MAX_STACK, MAX_MARKS, MAX_TEXT
    steps: ClassVar[Mapping[bytes, Callable[[_Machine], None]]]

    def __init__(self, data: memoryview, name: str):
        super().__init__(data, name)
        self._placed = 0

    # Containers

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
                raise self._damaged(f"the dictionary key {shown(str(key))} twice")
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
            raise self._damaged(f"the dtype {shown(code)}; expected float16, 32, 64 or integers")
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
            raise self._damaged(f"the byte order {shown(order)} for {target.code}")
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
            f"{self._name} asks for {shown(name)}; released statistics use numpy arrays only. Nothing of it was run. "
            "Do not use this file: get the original from the SCP-Diff release."
        )


_CALLS: dict[_Global, Callable[[_Machine, tuple[object, ...]], object]] = {
    _Global.RECONSTRUCT: _Machine.new_array,
    _Global.DTYPE: _Machine.new_dtype,
    _Global.SCALAR: _Machine.new_scalar,
}

_Machine.steps = {
    **PLAIN_STEPS,
    b"]": _Machine.empty_list,
    b"a": _Machine.append_one,
    b"e": _Machine.append_to_mark,
    b"}": _Machine.empty_dict,
    b"s": _Machine.set_one,
    b"u": _Machine.set_to_mark,
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
