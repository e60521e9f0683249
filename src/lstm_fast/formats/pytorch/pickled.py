"""What a pickle says, without doing it: containers, numbers and strings; the rest by its name.

Python's own `pickle` imports and calls what a file names. Here nothing is imported and nothing is
called: a class or function is a `Named`, what a call of it would make is a `Made`, unless the
reader has given another answer for that name. A step makes at most one object, besides the bytes
that it takes from the file; their number is limited, so that time and memory are, too.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["STEP", "Made", "Named", "unpickled"]

LONG = 4096  # bytes of a string or a number
STEP = 192  # bytes that a step may take in memory: an object, its name, its places in containers

Call = Callable[[str, tuple[Any, ...]], Any]


class Named(NamedTuple):
    """A class or function."""

    name: str  # with its module


class Made:
    """What a call would make.

    Attributes
    ----------
    name : str
        Of the class or function.
    arguments : tuple
    state : object
        What it would be given afterwards: of most classes, a dict of its attributes.
    items : dict
        What it would hold, if it is a container.
    """

    __slots__ = ("arguments", "items", "name", "state")

    def __init__(self, name: str, arguments: tuple[Any, ...]) -> None:
        self.name, self.arguments = name, arguments
        self.state: Any = None
        self.items: dict[Any, Any] = {}


def unpickled(
    data: bytes,
    start: int,
    end: int,
    steps: int,
    persistent: Callable[[Any], Any],
    call: Call,
) -> tuple[Any, int]:
    """Return what a pickle holds, and where it ends.

    Parameters
    ----------
    data, start, end
        Bytes, where in them the pickle begins, and where it has ended at the latest.
    steps : int
        That it may have; one takes up to `STEP` bytes of memory.
    persistent : callable
        Returns what an identifier stands for that the pickle does not hold itself.
    call : callable
        Returns what stands for a call, of the name and the arguments.

    Raises
    ------
    ValueError
        If it is no pickle, or not a whole one, or one of before protocol 2.
    """
    reader = _Reader(data, start, end, persistent, call)
    try:
        return reader.run(steps), reader.position
    except (IndexError, KeyError, TypeError, struct.error, OverflowError) as error:
        where = f"at byte {reader.position}"
        raise ValueError(f"no pickle, or a damaged one: {error!r} {where}") from error


class _Reader:
    """A stack machine: each opcode of a pickle is a step."""

    def __init__(
        self, data: bytes, start: int, end: int, persistent: Callable[[Any], Any], call: Call
    ) -> None:
        self.data, self.position, self.end = data, start, end
        self.persistent, self.call = persistent, call
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under marks
        self.memo: dict[int, Any] = {}

    def run(self, steps: int) -> Any:
        for _ in range(steps):
            code = self.take(1)
            if code == pickle.STOP:
                return self.stack.pop()
            if code not in STEPS:
                raise ValueError(f"no pickle, or a damaged one: opcode {code!r}")
            STEPS[code](self)
        raise ValueError(f"a pickle of more than {steps} steps")

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def take(self, count: int) -> bytes:
        """Return the next bytes."""
        end = self.position + count
        if count < 0 or end > self.end:
            raise ValueError("a pickle that is cut short")
        found = self.data[self.position : end]
        self.position = end
        return found

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self) -> str:
        end = self.data.find(b"\n", self.position, self.position + LONG)
        if end < 0:
            raise ValueError("a name in a pickle that does not end")
        found = self.take(end - self.position).decode()
        self.position += 1
        return found

    def text(self, form: str, encoding: str = "utf-8") -> None:
        found = self.string(form)
        self.push(found if isinstance(found, Made) else found.decode(encoding, "surrogatepass"))

    def string(self, form: str) -> Any:
        """Return the bytes of a string; a long one stays where it is, as no name of a tensor."""
        count = self.number(form)
        if count <= LONG:
            return self.take(count)
        if count > self.end - self.position:
            raise ValueError("a pickle that is cut short")
        self.position += count
        return Made("a long string", ())

    def since_mark(self) -> list[Any]:
        """Return what was put on the stack since the last mark."""
        found, self.stack = self.stack, self.below.pop()
        return found

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def tuple(self, count: int) -> None:
        if len(self.stack) < count:
            raise IndexError(count)
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def keep(self, at: int) -> None:
        self.memo[at] = self.stack[-1]

    def long(self, form: str) -> None:
        count = self.number(form)
        if count > LONG:
            raise ValueError(f"a pickle with a number of more than {LONG} bytes")
        self.push(int.from_bytes(self.take(count), "little", signed=True))

    def named(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise TypeError("a class without a name")
        self.stack.append(Named(f"{module}.{name}"))

    def reduce(self) -> None:
        arguments, what = self.stack.pop(), self.stack.pop()
        if not isinstance(arguments, tuple):
            raise TypeError("arguments")
        if isinstance(what, Named):
            self.stack.append(self.call(what.name, arguments))
        else:
            self.stack.append(Made("a call of no name", (what, *arguments)))

    def new(self) -> None:
        self.reduce()

    def new_with_keywords(self) -> None:
        self.stack.pop()
        self.reduce()

    def build(self) -> None:
        state, what = self.stack.pop(), self.stack[-1]
        if isinstance(what, Made):
            what.state = state

    def set_items(self, given: list[Any]) -> None:
        what = self.stack[-1]
        if len(given) % 2:
            raise IndexError(len(given))
        items = what.items if isinstance(what, Made) else what
        if not isinstance(items, dict):
            raise TypeError(type(what).__name__)
        for key, value in zip(given[::2], given[1::2], strict=True):
            # Other keys are never looked up; a deep tuple could not even be hashed.
            known = key if isinstance(key, PLAIN) else Made("a key", (key,))
            if known in items:
                raise ValueError(f"a pickle with the key {key!r:.80} twice")
            items[known] = value

    def append(self, given: list[Any]) -> None:
        what = self.stack[-1]
        if isinstance(what, Made):
            what.items |= {len(what.items) + n: value for n, value in enumerate(given)}
        elif isinstance(what, list):
            what.extend(given)
        else:
            raise TypeError(type(what).__name__)

    def persistent_id(self) -> None:
        self.stack.append(self.persistent(self.stack.pop()))


PLAIN = (str, int, float, bytes, type(None))


def _put(value: Any) -> Callable[[_Reader], None]:
    return lambda reader: reader.push(value)


STEPS: dict[bytes, Callable[[_Reader], Any]] = {
    pickle.PROTO: lambda reader: reader.take(1),
    pickle.FRAME: lambda reader: reader.take(8),
    pickle.MARK: _Reader.mark,
    pickle.POP: lambda reader: reader.stack.pop() if reader.stack else reader.since_mark(),
    pickle.POP_MARK: _Reader.since_mark,
    pickle.DUP: lambda reader: reader.push(reader.stack[-1]),
    # the memo
    pickle.BINPUT: lambda reader: reader.keep(reader.number("<B")),
    pickle.LONG_BINPUT: lambda reader: reader.keep(reader.number("<I")),
    pickle.MEMOIZE: lambda reader: reader.keep(len(reader.memo)),
    pickle.BINGET: lambda reader: reader.push(reader.memo[reader.number("<B")]),
    pickle.LONG_BINGET: lambda reader: reader.push(reader.memo[reader.number("<I")]),
    # numbers and strings
    pickle.NONE: _put(None),
    pickle.NEWTRUE: _put(True),
    pickle.NEWFALSE: _put(False),
    pickle.BININT: lambda reader: reader.push(reader.number("<i")),
    pickle.BININT1: lambda reader: reader.push(reader.number("<B")),
    pickle.BININT2: lambda reader: reader.push(reader.number("<H")),
    pickle.LONG1: lambda reader: reader.long("<B"),
    pickle.LONG4: lambda reader: reader.long("<i"),
    pickle.BINFLOAT: lambda reader: reader.push(reader.number(">d")),
    pickle.BINUNICODE: lambda reader: reader.text("<I"),
    pickle.SHORT_BINUNICODE: lambda reader: reader.text("<B"),
    pickle.BINUNICODE8: lambda reader: reader.text("<Q"),
    pickle.BINSTRING: lambda reader: reader.text("<i", "latin-1"),
    pickle.SHORT_BINSTRING: lambda reader: reader.text("<B", "latin-1"),
    pickle.BINBYTES: lambda reader: reader.push(reader.string("<I")),
    pickle.SHORT_BINBYTES: lambda reader: reader.push(reader.string("<B")),
    pickle.BINBYTES8: lambda reader: reader.push(reader.string("<Q")),
    pickle.BYTEARRAY8: lambda reader: reader.push(reader.string("<Q")),
    # containers; a set is a list
    pickle.EMPTY_TUPLE: _put(()),
    pickle.TUPLE1: lambda reader: reader.tuple(1),
    pickle.TUPLE2: lambda reader: reader.tuple(2),
    pickle.TUPLE3: lambda reader: reader.tuple(3),
    pickle.TUPLE: lambda reader: reader.push(tuple(reader.since_mark())),
    pickle.EMPTY_LIST: lambda reader: reader.push([]),
    pickle.EMPTY_SET: lambda reader: reader.push([]),
    pickle.LIST: lambda reader: reader.push(reader.since_mark()),
    pickle.FROZENSET: lambda reader: reader.push(reader.since_mark()),
    pickle.APPEND: lambda reader: reader.append([reader.stack.pop()]),
    pickle.APPENDS: lambda reader: reader.append(reader.since_mark()),
    pickle.ADDITEMS: lambda reader: reader.append(reader.since_mark()),
    pickle.EMPTY_DICT: lambda reader: reader.push({}),
    pickle.SETITEM: lambda reader: reader.set_items([reader.stack.pop(), reader.stack.pop()][::-1]),
    pickle.SETITEMS: lambda reader: reader.set_items(reader.since_mark()),
    # what pickle would import and call
    pickle.GLOBAL: lambda reader: reader.push(Named(f"{reader.line()}.{reader.line()}")),
    pickle.STACK_GLOBAL: _Reader.named,
    pickle.REDUCE: _Reader.reduce,
    pickle.NEWOBJ: _Reader.new,
    pickle.NEWOBJ_EX: _Reader.new_with_keywords,
    pickle.BUILD: _Reader.build,
    pickle.BINPERSID: _Reader.persistent_id,
}
