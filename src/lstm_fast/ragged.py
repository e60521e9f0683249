"""Batches of sequences of different lengths: with padding outside, without it in the engine."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from . import _checks
from ._checks import Array
from ._engine import Ragged

__all__ = ["Packing", "Padding"]

Indices = npt.NDArray[np.intp]
Padding = Literal["zero", "hold"]


class Packing:
    """The way between a padded batch, (T, B, ...), and its valid rows, (N, ...).

    Rows come in order of time and, within a time, longest sequence first: see `_engine.Ragged`.

    Parameters
    ----------
    lengths : array_like of int, shape (B,)
        Steps of each row, from 0 to T.
    T, B : int
    padding : {"zero", "hold"}
        What results have after the end of a row.

    Raises
    ------
    TypeError
        If `lengths` does not hold integers.
    ValueError
        If it has another shape, a length is negative or more than T, or `padding` is unknown.
    """

    def __init__(self, lengths: Any, T: int, B: int, padding: Padding = "zero") -> None:
        self.lengths = _checks.lengths("lengths", lengths, T, B)
        self.T, self._hold = T, padding == "hold"
        self._order = np.argsort(-self.lengths, kind="stable")
        self.ragged = Ragged(self.lengths[self._order])

    def _where(self) -> tuple[Indices, Indices]:
        """Return the time and the row of the batch of each valid row; not kept, to save memory."""
        counts, offsets = self.ragged.counts[:-1], self.ragged.offsets
        time = np.repeat(np.arange(len(counts)), counts)
        return time, self._order[np.arange(len(time)) - offsets[time]]

    def pack(self, padded: Array) -> Array:
        """Return the valid rows of (T, B, columns)."""
        return np.ascontiguousarray(padded[self._where()])

    def pack_gradient(self, dy: Array) -> Array:
        """Return the gradient of what `unpack` took, from that of what it gave."""
        packed = self.pack(dy)
        if self._hold:  # a row's last output was copied to all later times
            time, row = self._where()
            last = np.flatnonzero(time == self.lengths[row] - 1)
            after = np.arange(self.T)[:, None, None] >= self.lengths[:, None]
            # One after the other, whatever the shape: `sum` adds in pairs where it can.
            held = np.cumsum(np.where(after, dy, dy.dtype.type(0)), axis=0)[-1:]
            packed[last] += held[0, row[last]] if len(held) else 0
        return packed

    def unpack(self, packed: Array, out: Array) -> Array:
        """Write (N, columns) to a padded array, and what comes after the end of each row."""
        after, row = np.nonzero(np.arange(self.T)[:, None] >= self.lengths)
        out[after, row] = 0
        out[self._where()] = packed
        if self._hold:
            held = self.lengths[row] > 0
            after, row = after[held], row[held]
            out[after, row] = out[self.lengths[row] - 1, row]
        return out

    def unpack_gradient(self, packed: Array) -> Array:
        """Return the gradient of what `pack` took: zero where it did not look."""
        dx = np.zeros((self.T, len(self.lengths), packed.shape[-1]), packed.dtype)
        dx[self._where()] = packed
        return dx

    def sort(self, state: Array | None) -> Array | None:
        """Return a state (L D, B, columns) with the rows in the order of the engine."""
        return None if state is None else np.ascontiguousarray(state[:, self._order])

    def unsort(self, state: Array, out: Array) -> Array:
        """Write a state back in the order of the batch."""
        out[:, self._order] = state
        return out
