"""FlatBuffers, as TensorFlow Lite's files are: tables, vectors and strings, every offset checked.

The generated classes for Python follow offsets wherever they lead, also out of the file; this
reader is as long as the checks around them would be.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Table", "root"]

MOST = 100_000  # elements of a vector of tables
SIZES = {"B": 1, "?": 1, "b": 1, "h": 2, "H": 2, "i": 4, "I": 4, "f": 4, "q": 8, "Q": 8}


class Table:
    """A table of a buffer: fields by their number in the schema, each of which may be missing.

    Parameters
    ----------
    data : bytes
        The buffer.
    at : int
        Where the table begins.

    Raises
    ------
    ValueError
        If it does not lie in the buffer; its methods, if a field does not.
    """

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at
        vtable = at - _number(data, "i", at)
        self._fields = _number(data, "H", vtable)
        self._size = _number(data, "H", vtable + 2)
        if self._fields < 4 or self._fields % 2 or self._size < 4:
            raise ValueError(f"the table at byte {at} is broken")
        _check(data, vtable, self._fields)
        _check(data, at, self._size)
        self._vtable = vtable

    def _place(self, field: int, size: int) -> int | None:
        """Return where a field is, or None if it is missing."""
        offset: int
        entry = 4 + 2 * field
        if entry >= self._fields:
            return None
        offset = _number(self._data, "H", self._vtable + entry)
        if offset == 0:
            return None
        if not 4 <= offset <= self._size - size:
            raise ValueError(f"field {field} of the table at byte {self._at} is outside of it")
        return self._at + offset

    def number(self, field: int, kind: str, default: Any = 0) -> Any:
        """Return a number; `kind` is a letter of `struct`."""
        at = self._place(field, SIZES[kind])
        return default if at is None else _number(self._data, kind, at)

    def _target(self, field: int) -> int | None:
        at = self._place(field, 4)
        if at is None:
            return None
        offset: int = _number(self._data, "I", at)
        return at + offset

    def table(self, field: int) -> Table | None:
        """Return a table that a field refers to."""
        at = self._target(field)
        return None if at is None else Table(self._data, at)

    def vector(self, field: int, kind: str, most: int | None = None) -> npt.NDArray[Any] | None:
        """Return numbers, a view of the buffer."""
        at = self._target(field)
        if at is None:
            return None
        length = _number(self._data, "I", at)
        if most is not None and length > most:
            raise ValueError(f"the vector at byte {at} has {length} elements, more than {most}")
        _check(self._data, at + 4, length * SIZES[kind])
        return np.frombuffer(self._data, f"<{kind}", length, at + 4)

    def text(self, field: int, most: int = 1000) -> str:
        """Return a string, cut off after `most` bytes."""
        found = self.vector(field, "B")
        return "" if found is None else found[:most].tobytes().decode(errors="replace")

    def tables(self, field: int) -> Iterator[Table]:
        """Yield the tables of a vector."""
        at = self._target(field)
        if at is None:
            return
        length = _number(self._data, "I", at)
        if length > MOST:
            raise ValueError(f"the vector at byte {at} has {length} tables, more than {MOST}")
        _check(self._data, at + 4, 4 * length)
        for place in range(at + 4, at + 4 + 4 * length, 4):
            yield Table(self._data, place + _number(self._data, "I", place))


def root(data: bytes, identifier: bytes) -> Table:
    """Return the table that a buffer begins with.

    Raises
    ------
    ValueError
        If the buffer does not say that it is of this kind.
    """
    if data[4:8] != identifier:
        raise ValueError(f"it does not begin as {identifier.decode()} files do")
    return Table(data, _number(data, "I", 0))


def _check(data: bytes, at: int, size: int) -> None:
    if not 0 <= at <= len(data) - size:
        raise ValueError(f"it ends before byte {at + size}")


def _number(data: bytes, kind: str, at: int) -> Any:
    _check(data, at, SIZES[kind])
    return struct.unpack_from(f"<{kind}", data, at)[0]
