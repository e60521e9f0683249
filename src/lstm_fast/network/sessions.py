"""The states of the sequences of a stream, and some rows of them.

A state is (h, c), each an array (L, B, columns) or, with layers of different sizes, a list with
that of each layer.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np

from ..engine import Array
from ..engine.sessions import gather, rows_with_nan, scatter
from .checks import Indices
from .settings import Settings
from .wiring import States

__all__ = [
    "OnNaN",
    "Restorable",
    "SessionStates",
    "copied",
    "put_rows",
    "rows_of",
    "settle",
    "users",
    "zeros",
]

OnNaN = Literal["keep", "raise", "hold", "reset"]
SessionStates = tuple[States, States]

SHOWN = 10  # rows that an error names


class Snapshot(NamedTuple):
    """The state of a stream at some time, for `restore`."""

    state: Any


class Restorable:
    """What can go back to a state that it had."""

    state: Any

    def snapshot(self) -> Snapshot:
        """Return the state as it is now, for `restore`."""
        return Snapshot(self.state)

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot of this stream, or of another one of the same model.

        Raises
        ------
        TypeError, ValueError
            If it is no snapshot, or has another shape; the state is unchanged.
        """
        if not isinstance(snapshot, Snapshot):
            raise TypeError(f"snapshot: expected one of a stream, got {type(snapshot).__name__}")
        self.state = snapshot.state


def zeros(settings: Settings, B: int) -> SessionStates:
    """Return the state at the beginning of B sequences."""
    h, c = settings.state_shapes(B)
    if settings.differ:
        return [np.zeros(n, settings.dtype) for n in h], [np.zeros(n, settings.dtype) for n in c]
    return np.zeros(h, settings.dtype), np.zeros(c, settings.dtype)


def copied(state: SessionStates) -> SessionStates:
    """Return a copy."""
    return _like(state, [array.copy() for array in _arrays(state)])


def users(state: SessionStates) -> tuple[Any, Any]:
    """Return a state as users have it: with tuples for lists."""
    h, c = state
    return (tuple(h), tuple(c)) if isinstance(h, list) else (h, c)


def rows_of(state: SessionStates, rows: Indices) -> SessionStates:
    """Return a copy of some rows, in this order."""
    return _like(state, gather(_arrays(state), rows))


def put_rows(state: SessionStates, rows: Indices, some: SessionStates | None) -> None:
    """Write to distinct rows of a state what `rows_of` returned of it, or zeros for None."""
    scatter(_arrays(state), rows, None if some is None else _arrays(some))


def settle(
    on_nan: OnNaN, before: SessionStates, after: SessionStates, rows: Indices | None
) -> bool:
    """Do to the rows of a step in whose state there is NaN what a stream does then.

    Parameters
    ----------
    on_nan : str
        As of a stream.
    before, after : tuple
        The states of these rows before and after the step. "hold" and "reset" write to `after`.
    rows : ndarray of intp, optional
        Which rows of the stream these are; all of them.

    Returns
    -------
    bool
        Whether there were such rows.

    Raises
    ------
    FloatingPointError
        With "raise", if there are such rows.
    """
    found = rows_with_nan(_arrays(after))
    if found.size == 0:
        return False
    if on_nan == "raise":
        named = found if rows is None else rows[found]
        shown = ", ".join(map(str, named[:SHOWN])) + (", ..." if len(named) > SHOWN else "")
        raise FloatingPointError(f"the next state of rows {shown} has NaN")
    put_rows(after, found, rows_of(before, found) if on_nan == "hold" else None)
    return True


def _arrays(state: SessionStates) -> list[Array]:
    """Return the arrays of h and c."""
    h, c = state
    if isinstance(h, list) and isinstance(c, list):
        return h + c
    return [h, c]  # type: ignore[list-item]


def _like(state: SessionStates, arrays: list[Array]) -> SessionStates:
    """Return a state of arrays that come as `_arrays` returns those of `state`."""
    if isinstance(state[0], list):
        return arrays[: len(state[0])], arrays[len(state[0]) :]
    h, c = arrays
    return h, c
