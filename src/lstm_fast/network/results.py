"""Where results go: new arrays, or those that the user passes as ``out``."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np

from ..engine import Array
from ..engine.memory import empty
from . import checks
from .settings import StateShape

__all__ = ["Out", "Results"]

Out = tuple[Array | None, tuple[Array | None, Array | None] | None]
# Bound on the search for a shared element of two arrays whose memory interleaves.
MOST_OVERLAP_WORK = 10_000


class Results:
    """The arrays y, (T, B, columns), and hn and cn, (L D, B, columns), of one call.

    Parameters
    ----------
    y_shape : tuple of int
    state_shapes : tuple of the shapes of hn and cn
        A list, of each layer, where states have different sizes.
    dtype : dtype
    batched, y_batched : bool
        Whether users see B in states, and in y.
    batch_first : bool
        Users see y as (B, T, columns).
    out : (y, (hn, cn)) or None
        The user's arrays, any of them None.
    inputs : tuple of ndarray or None
        What the computation reads while it writes.

    Attributes
    ----------
    y, hn, cn : ndarray
        To be written: C order but for y, whose last axis alone is contiguous.
    """

    def __init__(
        self,
        y_shape: tuple[int, int, int],
        state_shapes: tuple[StateShape, StateShape],
        dtype: np.dtype[Any],
        batched: bool,
        y_batched: bool,
        batch_first: bool,
        out: Out | None,
        inputs: tuple[Any, ...],
    ) -> None:
        self._batched = {"y": y_batched, "hn": batched, "cn": batched}
        self._swapped = y_batched and batch_first
        T, B, columns = y_shape
        self.y: Array = empty((B, T, columns) if self._swapped else y_shape, dtype)
        if self._swapped:
            self.y = self.y.swapaxes(0, 1)
        self.hn, self.cn = (_empty(shape, dtype) for shape in state_shapes)
        self._given: list[Array | None] | None = None
        if out is not None:
            self._receive(out, inputs)

    def _receive(self, out: Out, inputs: tuple[Any, ...]) -> None:
        y, state = checks.pair("out", out)
        self._given = [y, *checks.pair("out[1]", state)]
        checked = {}
        for name, given in zip(("y", "hn", "cn"), self._given, strict=True):
            if given is not None:
                seen = self._seen(name)
                if isinstance(seen, tuple):
                    raise ValueError(f"out ({name}): states of different sizes cannot be given")
                inner = checks.output(f"out ({name})", given, seen.dtype, seen.shape)
                if not self._batched[name]:
                    inner = inner[:, None]
                elif name == "y" and self._swapped:
                    inner = inner.swapaxes(0, 1)
                if _writable_at_once(inner, name != "y", inputs):
                    checked[name] = inner
        named = zip(("y", "hn", "cn"), self._given, strict=True)
        for (a, one), (b, other) in combinations(named, 2):
            if one is not None and other is not None and _overlap(one, other):
                raise ValueError(f"out: {a} and {b} share memory, and each is a result")
        self.__dict__.update(checked)

    def _seen(self, name: str) -> Any:
        """Return an array as the user sees it."""
        array = getattr(self, name)
        if isinstance(array, list):
            return tuple(array) if self._batched[name] else tuple(one[:, 0] for one in array)
        if not self._batched[name]:
            return array[:, 0]
        return array.swapaxes(0, 1) if name == "y" and self._swapped else array

    def finished(self) -> tuple[Array, tuple[Any, Any]]:
        """Return y, (hn, cn) for the user, once they are written."""
        y, hn, cn = map(self._seen, ("y", "hn", "cn"))
        if self._given is not None:
            y, hn, cn = (
                array if given is None else _copied(array, given)
                for array, given in zip((y, hn, cn), self._given, strict=True)
            )
        return y, (hn, cn)


def _empty(shape: StateShape, dtype: np.dtype[Any]) -> Any:
    if isinstance(shape, list):
        return [np.empty(one, dtype) for one in shape]
    return np.empty(shape, dtype)


def _overlap(a: Array, b: Array) -> bool:
    """Whether two arrays have an element in common; True where that is too hard to tell."""
    try:
        return np.shares_memory(a, b, max_work=MOST_OVERLAP_WORK)  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True


def _writable_at_once(array: Array, is_state: bool, inputs: tuple[Any, ...]) -> bool:
    size = array.itemsize
    in_order = array.strides[2] == size and not any(stride % size for stride in array.strides)
    return (
        array.flags.aligned
        and (array.flags.c_contiguous if is_state else in_order)
        and not any(np.may_share_memory(a, array) for a in _flat(inputs))
    )


def _flat(inputs: tuple[Any, ...]) -> list[Array]:
    """Return the arrays among some states, which may be None or lists."""
    parts = [part if isinstance(part, list) else [part] for part in inputs]
    return [a for part in parts for a in part if a is not None]


def _copied(array: Array, given: Array) -> Array:
    """Write an array to the user's, unless it is that."""
    if not np.may_share_memory(array, given):
        given[...] = array
    return given
