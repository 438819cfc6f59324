"""A stack machine for pickles that imports and calls nothing: what pickles of every kind read here have in common.

A pickle is a program for a small stack machine, and the standard library's machine imports and calls whatever the
program names. An allow-list on `pickle.Unpickler` would be shorter, but would leave the real machine running (object
construction, attribute setting, memo growth). This one knows few opcodes, its values are data only, and what a name
means is for a subclass to say, from a table: no name is ever looked up.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from .errors import SCPError

REFUSED = {
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


class PickleMachine:
    """Reads one pickle; a subclass gives containers and names their meaning, errors their words, and limits.

    Attributes:
        max_opcodes, max_stack, max_marks, max_text: how much a file may ask for.
        steps: what each opcode does; one that is not in it is refused.
    """

    max_opcodes = 100_000
    max_stack = 8192
    max_marks = 64
    max_text = 1024
    steps: ClassVar[Mapping[bytes, Callable[[Any], None]]] = {}

    def __init__(self, data: memoryview, name: str):
        self._data = data
        self._name = name
        self._at = 0
        self._stack: list[object] = []
        self._marks: list[int] = []
        self._memo: dict[int, object] = {}

    def run(self) -> Any:
        """Read the program to its end and return what it describes."""
        if self._take(1) != b"\x80":
            raise self._damaged("the pickle in it has no protocol 2 to 5")
        protocol = self._take(1)[0]
        if not 2 <= protocol <= 5:
            raise self._damaged(f"pickle protocol {protocol}; expected 2 to 5")
        for _ in range(self.max_opcodes):
            opcode = bytes(self._take(1))
            if opcode == b".":
                return self._finish()
            step = self.steps.get(opcode)
            if step is None:
                raise self._unknown(opcode)
            step(self)
            if len(self._stack) > self.max_stack or len(self._marks) > self.max_marks:
                raise self._damaged("it nests or piles up more than any such file does")
        raise self._damaged(f"more than {self.max_opcodes} pickle instructions")

    # For subclasses

    def _finish(self) -> Any:
        """What the program has described."""
        raise NotImplementedError

    def _name_global(self, module: str, name: str) -> None:
        """Push what the file means by this name."""
        raise NotImplementedError

    def _damaged(self, found: str) -> SCPError:
        """The error for a file that is not as it should be."""
        raise NotImplementedError

    def _forbidden(self, name: str) -> SCPError:
        """The error for a file that asks for something to be run."""
        raise NotImplementedError

    def _unknown(self, opcode: bytes) -> SCPError:
        if opcode in REFUSED:
            return self._forbidden(f"a Python object (pickle instruction {REFUSED[opcode]})")
        return self._damaged(f"the pickle instruction 0x{opcode[0]:02x}, which such files do not use")

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
        if len(data) > self.max_text:
            raise self._damaged(f"a text of {len(data)} bytes")
        try:
            return bytes(data).decode(encoding)
        except UnicodeDecodeError as error:
            raise self._damaged("a text that is no UTF-8") from error

    def _line(self) -> str:
        window = bytes(self._data[self._at : self._at + 1024])
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

    def tuple_of(self, size: int) -> None:
        self._push(self._pop_tuple(size))

    def tuple_to_mark(self) -> None:
        self._push(tuple(self._pop_to_mark()))

    # Names

    def global_line(self) -> None:
        self._name_global(self._line(), self._line())

    def global_stack(self) -> None:
        module, name = self._pop_tuple(2)
        if not isinstance(module, str) or not isinstance(name, str):
            raise self._damaged("a global whose name is not a text")
        self._name_global(module, name)

    def instance(self) -> None:
        raise self._forbidden(f"{self._line()}.{self._line()}")


PLAIN_STEPS: Mapping[bytes, Callable[[PickleMachine], None]] = {
    b"\x95": PickleMachine.frame,
    b"(": PickleMachine.mark,
    b"\x94": PickleMachine.memoize,
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
    b"\x8a": PickleMachine.long,
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
    b"t": PickleMachine.tuple_to_mark,
    b"c": PickleMachine.global_line,
    b"\x93": PickleMachine.global_stack,
    b"i": PickleMachine.instance,
}


def shown(text: str) -> str:
    """Text of a file's own making, short and in ASCII, for a message."""
    return ascii(text[:80])[1:-1] + ("..." if len(text) > 80 else "")
