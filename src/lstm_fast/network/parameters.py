"""Parameters of a block: arrays by name, with a version; read-only unless opened for writing."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, ItemsView, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from sys import getrefcount
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ..engine import Array
from ..engine.direct import Version
from ..engine.memory import copy_arrays
from ..engine.runtime.arithmetic import DefaultArithmetic
from . import checks
from .layout import Layout, checked

__all__ = ["ParameterSource", "Parameters", "WritableParameters", "lock", "without_values"]

# Held while parameters are loaded, opened or closed, or an optimiser steps, and while something is
# computed from them that is to be kept: the one sees nothing half done of the other. A thread that
# has it may take it again (a signal handler may come in between), and a forked child, where no
# other thread exists, has a new one.
_lock = threading.RLock()


def lock() -> AbstractContextManager[bool]:
    """Return the lock of all parameters."""
    return _lock


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


_drawn = ContextVar("drawn", default=True)


@contextmanager
def without_values() -> Iterator[None]:
    """Let blocks that are made in here begin with zeros, for `Parameters.fill`.

    Nothing is drawn, and no memory is touched before it is filled.
    """
    before = _drawn.set(False)
    try:
        yield
    finally:
        _drawn.reset(before)


def copy_checked(
    name: str, value: npt.ArrayLike, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Array:
    """Return a copy of floating-point values of one shape, cast to `dtype`."""
    array = checked(name, value, shape)
    with DefaultArithmetic():
        return array.astype(dtype, order="C")


class _Memory:
    """The memory of an array that is itself read-only, as NumPy may write to it."""

    def __init__(self, owner: Array) -> None:
        self.owner = owner
        self.__array_interface__ = {
            **owner.__array_interface__,
            "data": (owner.__array_interface__["data"][0], False),
        }


class WritableParameters(Mapping[str, Array]):
    """Parameters that can be written in place until closed; ``p[name] = value`` copies values."""

    def __init__(self, values: Mapping[str, Array]) -> None:
        # Slices that users take are views of `_opened`, too, which so tells whether there are any.
        self._values = values
        self._opened = {name: np.asarray(_Memory(value)) for name, value in values.items()}
        self._views = {name: opened.view() for name, opened in self._opened.items()}
        self._references = {name: getrefcount(self._opened[name]) for name in self._opened}

    def __getitem__(self, name: str) -> Array:
        return self._views[name]

    def __setitem__(self, name: str, value: npt.ArrayLike) -> None:
        view = self._views[name]
        if value is not view:  # p[name] -= ... assigns the array that it has changed in place
            view[...] = copy_checked(name, value, view.shape, view.dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)

    def close(self) -> list[weakref.ref[Array]]:
        """Make the arrays that were handed out read-only, and return what can still be written.

        Those are parameters of which somebody holds a slice: NumPy cannot take that back.
        """
        for view in self._views.values():
            view.flags.writeable = False
        held = []
        for name in self._opened:
            if getrefcount(self._opened[name]) > self._references[name]:
                held.append(weakref.ref(self._opened[name]))
            self._opened[name].flags.writeable = False
        self._views = {name: value.view() for name, value in self._values.items()}  # read-only
        self._opened = {}
        return held


class ParameterSource(Protocol):
    """What a network needs of its parameters: `Parameters`, or arrays in somebody else's memory."""

    @property
    def names(self) -> tuple[str, ...]:
        """In the order of layers and directions."""

    @property
    def version(self) -> Version:
        """Its number is another one whenever the values may be."""

    @property
    def settled(self) -> bool:
        """Whether what is computed from the values now holds for this version."""

    def items(self) -> ItemsView[str, Array]:
        """Return names and arrays."""


class Storage(NamedTuple):
    """A flat buffer, and the arrays in it."""

    flat: Array
    arrays: dict[str, Array]


class Parameters(Mapping[str, Array]):
    """Arrays by name, which a block computes with: views of one flat buffer.

    As a mapping, they are read-only views.

    Parameters
    ----------
    values : dict of str to ndarray
        Arrays of floating-point numbers, all of one dtype. They are copied.

    Attributes
    ----------
    names : tuple of str
    layout : Layout
        Where the arrays are in the flat buffer.
    home : callable
        Returns the `JointParameters` that these are part of, or None.
    version : Version
        Its number is another one after each time that the parameters were, or could be, written.
    """

    def __init__(self, values: Mapping[str, Array]) -> None:
        dtypes = {value.dtype for value in values.values()} or {np.dtype(np.float32)}
        if len(dtypes) > 1:
            raise TypeError(f"values: expected one dtype, got {sorted(map(str, dtypes))}")
        self._set_up(Layout({k: value.shape for k, value in values.items()}, dtypes.pop()))
        flat = self.layout.zeros()
        for name, view in self.layout.views(flat).items():
            view[...] = values[name]
        closed(flat)
        self._storage = Storage(flat, self.layout.views(flat))

    @classmethod
    def first(
        cls,
        shapes: Mapping[str, tuple[int, ...]],
        dtype: npt.DTypeLike,
        draw: Callable[[], Mapping[str, Array]],
    ) -> Parameters:
        """Return those of a new block: what `draw` returns, or zeros within `without_values`."""
        if _drawn.get():
            return cls(draw())
        parameters = cls.__new__(cls)
        parameters._set_up(Layout(shapes, dtype))
        flat = parameters.layout.zeros()
        closed(flat)
        parameters._storage = Storage(flat, parameters.layout.views(flat))
        return parameters

    def _set_up(self, layout: Layout) -> None:
        self.layout, self.names, self.version = layout, layout.names, Version()
        self.home: Callable[[], object] = nothing
        self._writers: dict[int, WritableParameters] = {}  # by identity
        self._held: list[weakref.ref[Array]] = []  # see WritableParameters.close

    def __getitem__(self, name: str) -> Array:
        return self._storage.arrays[name].view()

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def settled(self) -> bool:
        """Whether nobody can write to them now: what is computed then holds for this version."""
        self._held = [held for held in self._held if held() is not None]
        return not (self._writers or self._held)

    @property
    def flat(self) -> Array:
        """The flat buffer, read-only."""
        return self._storage.flat.view()

    def state_dict(self) -> dict[str, Array]:
        """Return copies of all parameters by name."""
        with _lock:
            return {name: value.copy() for name, value in self._storage.arrays.items()}

    def load_state_dict(self, state_dict: Mapping[str, npt.ArrayLike]) -> None:
        """Set all parameters; nothing changes if this raises. See `LSTM.load_state_dict`."""
        checks.keys("state_dict", state_dict, self.names)
        values = {
            name: copy_checked(f"state_dict[{name!r}]", state_dict[name], shape, self.layout.dtype)
            for name, shape in zip(self.names, self.layout.shapes, strict=True)
        }
        with _lock, self.writable() as parameters:
            copy_arrays([*parameters.values()], [*values.values()])

    def fill(self, values: Mapping[str, npt.ArrayLike]) -> None:
        """Set all parameters of a block that nobody else has yet, each straight from its value.

        As `load_state_dict`, but without copies of all values, one of which may not be there: if
        this raises, the block is of no use.
        """
        checks.keys("state_dict", values, self.names)
        with self.writable() as parameters, DefaultArithmetic():
            for name, shape in zip(self.names, self.layout.shapes, strict=True):
                value = checked(f"state_dict[{name!r}]", values[name], shape)
                np.copyto(parameters[name], value, casting="same_kind")

    def writable(self) -> AbstractContextManager[WritableParameters]:
        """Open the parameters for writing. See `LSTM.writable`."""
        return self._open(lambda storage: storage.arrays)

    @contextmanager
    def update(self) -> Iterator[Array]:
        """Open the flat buffer for writing, as `writable` does the arrays; its gaps stay zeros."""
        with self._open(lambda storage: {"flat": storage.flat}) as opened:
            yield opened["flat"]

    @contextmanager
    def _open(self, part: Callable[[Storage], Mapping[str, Array]]) -> Iterator[WritableParameters]:
        parameters = None
        try:
            with _lock:  # nobody moves them meanwhile
                parameters = WritableParameters(part(self._storage))
                self._begin(parameters)
            yield parameters
        finally:
            with _lock:
                if parameters is not None:
                    self._end(parameters, parameters.close())

    def _begin(self, writer: WritableParameters) -> None:
        """Note that somebody can write."""
        self.version.number += 1
        self._writers[id(writer)] = writer

    def _end(self, writer: WritableParameters, held: list[weakref.ref[Array]]) -> None:
        """Note that this is over, but for what `held` are."""
        self._held += held
        self.version.number += 1
        self._writers.pop(id(writer), None)

    def move(self, flat: Array, start: int) -> None:
        """Keep the parameters in another flat buffer from now on, from element `start`.

        The values stay, what is in the buffer there is overwritten, and the version changes. The
        caller makes the buffer read-only once everything is in it.

        Raises
        ------
        ValueError
            If somebody can write to the parameters, who would write to the old buffer.
        """
        with _lock:
            if not self.settled:
                raise ValueError("parameters are open for writing, or a slice of them is kept")
            part = flat[start : start + self.layout.size]
            part[...] = self._storage.flat
            part.flags.writeable = False
            self._storage = Storage(part, self.layout.views(part))
            self.version.number += 1

    def __reduce__(self) -> tuple[Any, ...]:
        return Parameters, (self.state_dict(),)


def nothing() -> None:
    """Do nothing, where something may be to be done."""


def closed(flat: Array) -> None:
    """Make a flat buffer read-only, and the memory that it is in."""
    flat.flags.writeable = False
    if flat.base is not None:
        flat.base.flags.writeable = False
