"""The parameters of several blocks in one flat buffer."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..engine import Array
from .layout import Layout
from .parameters import Parameters, Storage, WritableParameters, closed, lock

__all__ = ["JointParameters"]


class JointParameters(Parameters):
    """Parameters of several blocks, each name after that of its block and a dot.

    The blocks keep theirs, which lie in the same memory from now on: what is written here is
    written there.

    Parameters
    ----------
    parts : dict of str to Parameters

    Raises
    ------
    ValueError
        If a part stands twice, belongs to others already, or is open for writing.
    """

    def __init__(self, parts: Mapping[str, Parameters]) -> None:
        self._parts = dict(parts)
        shapes: dict[str, tuple[int, ...]] = {}
        seen: dict[int, str] = {}
        dtype: np.dtype[Any] = np.dtype(np.float32)
        for of, part in parts.items():
            if id(part) in seen:
                raise ValueError(f"{of}: is the same block as {seen[id(part)]}")
            seen[id(part)] = of
            if part.home() is not None:
                raise ValueError(f"{of}: is part of another model; make a copy of it")
            for name, shape in zip(part.names, part.layout.shapes, strict=True):
                shapes[f"{of}.{name}"], dtype = shape, part.layout.dtype
        self._set_up(Layout(shapes, dtype))
        with lock():
            for of, part in parts.items():
                if not part.settled:
                    raise ValueError(f"{of}: its parameters are open for writing")
            flat = self.layout.zeros()
            self._move_parts(flat, 0)
            closed(flat)
            for part in parts.values():
                part.home = weakref.ref(self)

    def _move_parts(self, flat: Array, start: int) -> None:
        ours = flat[start : start + self.layout.size]
        for part in self._parts.values():
            part.move(flat, start)
            start += part.layout.size
        ours.flags.writeable = False
        self._storage = Storage(ours, self.layout.views(ours))

    def move(self, flat: Array, start: int) -> None:
        """Keep all parts in another flat buffer from now on. See `Parameters.move`."""
        with lock():
            self._move_parts(flat, start)
            self.version.number += 1

    @property
    def settled(self) -> bool:
        """Whether nobody can write to them now, here or through a block."""
        return super().settled and all(part.settled for part in self._parts.values())

    def _begin(self, writer: WritableParameters) -> None:
        super()._begin(writer)
        for part in self._parts.values():
            part._begin(writer)

    def _end(self, writer: WritableParameters, held: list[weakref.ref[Array]]) -> None:
        super()._end(writer, held)
        for part in self._parts.values():
            part._end(writer, held)

    def __reduce__(self) -> tuple[Any, ...]:
        return JointParameters, (self._parts,)
