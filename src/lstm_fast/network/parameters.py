"""Parameters of a block: arrays by name, with a version; read-only unless opened for writing."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import ItemsView, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from sys import getrefcount
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..engine import Array
from ..engine.direct import Version
from ..engine.memory import copy_arrays
from ..engine.runtime.arithmetic import DefaultArithmetic
from . import checks

__all__ = ["ParameterSource", "Parameters", "WritableParameters", "lock"]

# Held while parameters are loaded, opened or closed, and while something is computed from them that
# is to be kept: the one sees nothing half done of the other. A thread that has it may take it again
# (a signal handler may come in between), and a forked child, where no other thread exists, has a
# new one.
_lock = threading.RLock()


def lock() -> AbstractContextManager[bool]:
    """Return the lock of all parameters."""
    return _lock


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def copy_checked(
    name: str, value: npt.ArrayLike, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Array:
    """Return a copy of floating-point values of one shape, cast to `dtype`."""
    checks.unmasked(name, value)
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(
            f"{name}: expected shape {shape}, got rows of different lengths"
        ) from error
    if array.dtype.kind != "f":
        raise TypeError(f"{name}: expected real floating-point numbers, got {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")
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


class Parameters(Mapping[str, Array]):
    """Arrays by name, which a block computes with.

    As a mapping, they are read-only views.

    Parameters
    ----------
    values : dict of str to ndarray
        Arrays of floating-point numbers that own their memory, in C order; they now belong to this.

    Attributes
    ----------
    names : tuple of str
    version : Version
        Its number is another one after each time that the parameters were, or could be, written.
    """

    def __init__(self, values: Mapping[str, Array]) -> None:
        self._values = dict(values)
        for value in self._values.values():
            value.flags.writeable = False
        self.names = tuple(self._values)
        self.version = Version()
        self._writers: dict[int, WritableParameters] = {}  # by identity
        self._held: list[weakref.ref[Array]] = []  # see WritableParameters.close

    def __getitem__(self, name: str) -> Array:
        return self._values[name].view()

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    @property
    def settled(self) -> bool:
        """Whether nobody can write to them now: what is computed then holds for this version."""
        self._held = [held for held in self._held if held() is not None]
        return not (self._writers or self._held)

    def state_dict(self) -> dict[str, Array]:
        """Return copies of all parameters by name."""
        with _lock:
            return {name: value.copy() for name, value in self._values.items()}

    def load_state_dict(self, state_dict: Mapping[str, npt.ArrayLike]) -> None:
        """Set all parameters; nothing changes if this raises. See `LSTM.load_state_dict`."""
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"state_dict: expected a mapping, got {type(state_dict).__name__}")
        missing = [name for name in self._values if name not in state_dict]
        unknown = [name for name in state_dict if name not in self._values]
        if missing or unknown:
            wrong = [f"missing keys {missing}"] * bool(missing)
            wrong += [f"unknown keys {unknown}"] * bool(unknown)
            raise ValueError(f"state_dict: {', '.join(wrong)}")
        values = {
            name: copy_checked(f"state_dict[{name!r}]", state_dict[name], old.shape, old.dtype)
            for name, old in self._values.items()
        }
        with _lock, self.writable() as parameters:
            copy_arrays([*parameters.values()], [*values.values()])

    @contextmanager
    def writable(self) -> Iterator[WritableParameters]:
        """Open the parameters for writing. See `LSTM.writable`."""
        parameters = WritableParameters(self._values)
        try:
            with _lock:
                self.version.number += 1
                self._writers[id(parameters)] = parameters
            yield parameters
        finally:
            with _lock:
                self._held += parameters.close()
                self.version.number += 1
                self._writers.pop(id(parameters), None)

    def __getstate__(self) -> dict[str, Array]:
        return self.state_dict()

    def __setstate__(self, state: dict[str, Array]) -> None:
        # Copies: unpickled arrays may lie in a buffer of somebody else's.
        self.__init__({name: value.copy() for name, value in state.items()})  # type: ignore[misc]
