"""What the pickle of a torch checkpoint says, as data: which tensors there are and where, and what else is in it.

The weights-only way of reading, without torch's machine: tensors become places in the file, and what a trainer keeps
beside them (callbacks, hyper parameters, optimizer settings) becomes a stand-in that was never made. A name that is
neither is refused.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import ClassVar, NamedTuple

import torch

from .errors import SCPError
from .pickle_machine import PLAIN_STEPS, PickleMachine, shown
from .stored import Stored, extent
from .torch_zip import Record

MAX_DIMENSIONS = 16
MAX_ELEMENTS = 1 << 48


class Inert(NamedTuple):
    """Stands for a thing of this name: never imported, never made, and nothing is kept of what the file gives it."""

    name: str
    made: bool = False


class _Storage(NamedTuple):
    dtype: torch.dtype | None
    start: int
    size: int


class _Call(enum.Enum):
    """The functions a file may call. They are labels: nothing behind them is ever looked up or called."""

    DICT = enum.auto()
    TENSOR = enum.auto()
    TENSOR_V3 = enum.auto()
    PARAMETER = enum.auto()
    TYPED = enum.auto()


_CALLS = {
    "collections.OrderedDict": _Call.DICT,
    "collections.defaultdict": _Call.DICT,
    "torch._utils._rebuild_tensor": _Call.TENSOR,
    "torch._utils._rebuild_tensor_v2": _Call.TENSOR,
    "torch._utils._rebuild_tensor_v3": _Call.TENSOR_V3,
    "torch._utils._rebuild_parameter": _Call.PARAMETER,
    "torch._utils._rebuild_parameter_with_state": _Call.PARAMETER,
    "torch._tensor._rebuild_from_type_v2": _Call.TYPED,
}

_MAKE_TENSORS = (_Call.TENSOR, _Call.TENSOR_V3, _Call.PARAMETER)

_STORAGES: dict[str, torch.dtype | None] = {
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
    "torch.storage.UntypedStorage": None,
}

_DTYPES = {
    f"torch.{name}": getattr(torch, name)
    for name in (
        *("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"),
        *(f"float8_{kind}" for kind in ("e4m3fn", "e5m2") if hasattr(torch, f"float8_{kind}")),
    )
}

# What trainers keep beside weights. As none of it is imported or made, a whole package may be named.
_INERT_PACKAGES = frozenset(
    {"pytorch_lightning", "lightning", "lightning_fabric", "lightning_utilities", "omegaconf", "torchmetrics"}
    | {"cldm", "ldm", "pathlib", "datetime", "typing"}
)
_INERT_NAMES = frozenset(
    {"argparse.Namespace", "collections.Counter", "collections.deque", "_codecs.encode"}
    | {"torch.Size", "torch.device", "torch.Tensor", "torch.nn.parameter.Parameter"}
    | {f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")}
    | {f"numpy.{name}" for name in ("dtype", "ndarray", "float64", "float32", "int64", "int32", "bool_")}
    | {
        f"{module}.{kind.__name__}"
        for module in ("builtins", "__builtin__")
        for kind in (bool, bytearray, bytes, complex, dict, float, frozenset, int, list, range, set, slice, str, tuple)
    }
    # What protocol 2 calls int, str and range.
    | {f"__builtin__.{name}" for name in ("long", "unicode", "xrange")}
)


class TorchMachine(PickleMachine):
    """Reads `data.pkl` of a torch checkpoint.

    `run()` gives what stands at the top: a dictionary (entries with text keys only; whatever has another key is left
    out), an `Inert`, a number, a text, ... Tensors in it are `Stored`. Lists and sets are kept as `Inert`, empty.

    Raises (from `run`):
        SCPError: a name that is neither known nor harmless, or a pickle that is damaged, too long, or points outside
            of its records.
    """

    max_opcodes = 1_000_000
    max_stack = 100_000
    max_marks = 1000
    max_text = 1 << 20
    steps: ClassVar[Mapping[bytes, Callable[[TorchMachine], None]]]

    def __init__(self, data: memoryview, name: str, records: Mapping[str, Record]):
        super().__init__(data, name)
        self._records = records

    def _finish(self) -> object:
        if len(self._stack) != 1 or self._marks:
            raise self._damaged("it ends in the middle of something")
        return self._stack[0]

    # Containers: only dictionaries matter

    def inert(self, name: str) -> None:
        self._push(Inert(name, made=True))

    def frozen(self) -> None:
        self._pop_to_mark()
        self.inert("frozenset")

    def drop_one(self) -> None:
        self._pop()
        self._require_open(self._top())

    def drop_to_mark(self) -> None:
        self._pop_to_mark()
        self._require_open(self._top())

    def _require_open(self, target: object) -> None:
        if not (isinstance(target, Inert) and target.made):
            raise self._damaged(f"an entry for {_what(target)}")

    def empty_dict(self) -> None:
        self._push({})

    def set_one(self) -> None:
        self._set_items(list(self._pop_tuple(2)))

    def set_to_mark(self) -> None:
        self._set_items(self._pop_to_mark())

    def _set_items(self, values: list[object]) -> None:
        target = self._top()
        if len(values) % 2:
            raise self._damaged("a dictionary key without its value")
        if not isinstance(target, dict):
            self._require_open(target)
            return
        # Weights have names; an optimizer numbers its states, and those are not wanted.
        target.update((key, value) for key, value in zip(values[::2], values[1::2], strict=True) if type(key) is str)

    # Names

    def _name_global(self, module: str, name: str) -> None:
        full = f"{module}.{name}"
        # A dotted name would be an attribute chain: whatever it begins with, it can end anywhere.
        if "." in name or not name:
            raise self._forbidden(full)
        if full in _CALLS:
            self._push(_CALLS[full])
        elif full in _STORAGES:
            self._push(_Storage(_STORAGES[full], -1, 0))
        elif full in _DTYPES:
            self._push(_DTYPES[full])
        elif full in _INERT_NAMES or module.split(".")[0] in _INERT_PACKAGES:
            self._push(Inert(full))
        else:
            raise self._forbidden(full)

    def reduce(self) -> None:
        called, args = self._pop_tuple(2)
        if not isinstance(args, tuple):
            raise self._damaged(f"a call of {_what(called)} without arguments")
        self._push(self._called(called, args))

    def _called(self, called: object, args: tuple[object, ...]) -> object:
        if isinstance(called, Inert) and not called.made:
            return Inert(called.name, made=True)
        if called is _Call.DICT:
            return {}
        if called is _Call.TENSOR and len(args) >= 4:
            return self._tensor(args[0], *args[1:4])
        if called is _Call.TENSOR_V3 and len(args) >= 7:
            return self._tensor(args[0], *args[1:4], dtype=args[6])
        if called is _Call.PARAMETER and args and isinstance(args[0], Stored):
            return args[0]
        if called is _Call.TYPED and len(args) == 4 and args[0] in _MAKE_TENSORS and isinstance(args[2], tuple):
            return self._called(args[0], args[2])
        raise self._damaged(f"a call of {_what(called)} that is not as torch writes it")

    def new_object(self, size: int) -> None:
        made, *_ = self._pop_tuple(size)
        if not isinstance(made, Inert) or made.made:
            raise self._damaged(f"an object made of {_what(made)}")
        self.inert(made.name)

    def build(self) -> None:
        """The state of a stand-in is dropped, and so is what a dictionary carries beside its entries."""
        self._pop()
        target = self._top()
        if not isinstance(target, dict):
            self._require_open(target)

    # Tensors

    def persistent(self) -> None:
        """A storage is called ("storage", kind, record, device, number of elements)."""
        called = self._pop()
        if (
            not isinstance(called, tuple)
            or len(called) != 5
            or called[0] != "storage"
            or not isinstance(called[1], _Storage)
            or not isinstance(called[2], str)
            or not _is_size(called[4])
        ):
            raise self._damaged("a storage that is not described as torch does")
        dtype, record, count = called[1].dtype, self._records.get(f"data/{called[2]}"), called[4]
        size = count * (dtype.itemsize if dtype else 1)
        if record is None or size > record.size:
            there = record.size if record else 0
            raise self._damaged(f"storage {shown(called[2])} of {size} bytes, of which {there} are there")
        self._push(_Storage(dtype, record.start, size))

    def _tensor(self, storage: object, first: object, shape: object, stride: object, dtype: object = None) -> Stored:
        if isinstance(storage, _Storage) and storage.dtype is not None and dtype is None:
            dtype = storage.dtype
        if not isinstance(storage, _Storage) or storage.start < 0 or not isinstance(dtype, torch.dtype):
            raise self._damaged("a tensor without its storage")
        if (
            not (_is_size(first) and _are_sizes(shape) and _are_sizes(stride))
            or len(shape) != len(stride)
            or len(shape) > MAX_DIMENSIONS
        ):
            raise self._damaged("a tensor without a proper shape")
        tensor = Stored(dtype, shape, stride, storage.start + first * dtype.itemsize, storage.size)
        needed = (first + extent(shape, stride)) * dtype.itemsize
        if needed > storage.size or tensor.numel > MAX_ELEMENTS:
            raise self._damaged(f"a tensor of shape {shape} that needs {needed} bytes of {storage.size}")
        return tensor

    # Errors

    def _damaged(self, found: str) -> SCPError:
        return SCPError(
            f"{self._name} cannot be read as a checkpoint: {found} (near byte {self._at} of its pickle). Nothing of it "
            "was run. It is damaged, or another kind of file: get it again."
        )

    def _forbidden(self, name: str) -> SCPError:
        return SCPError(
            f"{self._name} asks for {shown(name)}, which weights do not need. Nothing of it was run. Do not use this "
            "file: get it from where it was released, best as .safetensors."
        )


TorchMachine.steps = {
    **PLAIN_STEPS,
    b"]": lambda machine: machine.inert("list"),
    b"\x8f": lambda machine: machine.inert("set"),
    b"\x91": TorchMachine.frozen,
    b"a": TorchMachine.drop_one,
    b"e": TorchMachine.drop_to_mark,
    b"\x90": TorchMachine.drop_to_mark,
    b"}": TorchMachine.empty_dict,
    b"s": TorchMachine.set_one,
    b"u": TorchMachine.set_to_mark,
    b"R": TorchMachine.reduce,
    b"b": TorchMachine.build,
    b"Q": TorchMachine.persistent,
    b"\x81": lambda machine: machine.new_object(2),
    b"\x92": lambda machine: machine.new_object(3),
}


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


def _are_sizes(value: object) -> bool:
    return isinstance(value, tuple) and all(map(_is_size, value))


def _what(value: object) -> str:
    """What to call a value in a message; never its content, which can be large or hostile."""
    if isinstance(value, Inert):
        return shown(value.name)
    if isinstance(value, _Call):
        return f"torch's {value.name.lower()}"
    return f"something of type {type(value).__name__}"
