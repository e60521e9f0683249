"""The `Stream` class: an LSTM one time step at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from . import _checks, _direct, _forward
from ._checks import Array
from .parameters import ParameterHolder

if TYPE_CHECKING:
    from .layers import LSTM

__all__ = ["Stream"]


class Stream:
    """An LSTM run step by step, carrying its state; made by `LSTM.stream`.

    The bits are those of one call over the whole sequence. Steps use the parameters as they are
    then.

    Parameters
    ----------
    lstm : LSTM
        Not bidirectional.
    batch_size : int
        Independent sequences, B.

    Examples
    --------
    >>> stream = lstm.stream()
    >>> for x_t in sensor:  # (1, I) each
    ...     y_t = stream.step(x_t)
    """

    def __init__(self, lstm: LSTM, batch_size: int = 1) -> None:
        if not isinstance(lstm, ParameterHolder):
            raise TypeError(f"lstm: expected an LSTM, got {lstm!r}")
        if lstm.bidirectional:
            raise ValueError(
                "a bidirectional LSTM cannot stream: its reverse direction starts at the end"
            )
        batch_size = _checks.integer("batch_size", batch_size, 1)
        widest = max(lstm.input_size, 4 * lstm.hidden_size)
        _checks.fits("batch_size", batch_size * widest, lstm.dtype)
        columns = lstm.proj_size or lstm.hidden_size
        self._lstm = lstm
        self._in, self._out = (batch_size, lstm.input_size), (batch_size, columns)
        # The current state and the next one, which becomes current when a step has succeeded.
        self._now, self._next = (
            (
                np.zeros((lstm.num_layers, *self._out), lstm.dtype),
                np.zeros((lstm.num_layers, batch_size, lstm.hidden_size), lstm.dtype),
            )
            for _ in range(2)
        )

    @property
    def lstm(self) -> LSTM:
        """The LSTM that runs."""
        return self._lstm

    @property
    def batch_size(self) -> int:
        """Sequences, B."""
        return self._in[0]

    def step(self, x_t: Array, out: Array | None = None) -> Array:
        """Advance every sequence by one time step.

        Parameters
        ----------
        x_t : ndarray, shape (B, I)
            Input of this step.
        out : ndarray, shape (B, H or P), optional
            Receives the result; then a step allocates no array.

        Returns
        -------
        ndarray, shape (B, H or P)
            The output of the last layer: `out` where it was given.

        Raises
        ------
        TypeError, ValueError
            If `x_t` or `out` has a wrong dtype or shape, or `out` is read-only; the state is
            unchanged.
        """
        lstm = self._lstm
        cells, blas = lstm._cells or lstm._packed(), lstm.matmul == "blas"
        now, later = self._now, self._next
        if not blas and _direct.step(cells, x_t, now, out, later):
            self._now, self._next = later, now
            return out  # type: ignore[return-value]  # it was given
        dtype = lstm.dtype
        x = _checks.real("x_t", x_t, dtype)
        if x.shape != self._in:
            raise ValueError(f"x_t: expected shape (B, I) = {self._in}, got {x.shape}")
        if out is None:
            out = y = np.empty(self._out, dtype)
        else:
            y = self._checked_out(out, x)
        x = np.ascontiguousarray(x)
        _forward.forward(cells, x, *self._now, y, *self._next, blas=blas)
        self._now, self._next = self._next, self._now
        if y is not out:
            out[...] = y
        return out

    def _checked_out(self, out: Array, x: Array) -> Array:
        """Return `out`, or a new array where the engine cannot write to `out` directly."""
        _checks.output("out", out, self._lstm.dtype, self._out)
        if out.flags.c_contiguous and out.flags.aligned and not np.may_share_memory(out, x):
            return out
        return np.empty(self._out, self.lstm.dtype)

    @property
    def state(self) -> tuple[Array, Array]:
        """(h, c), copies of shapes (L, B, H or P) and (L, B, H). May be set."""
        h, c = self._now
        return h.copy(), c.copy()

    @state.setter
    def state(self, value: tuple[Array, Array]) -> None:
        lstm = self.lstm
        h, c = _checks.pair("state", value)
        sizes = {"h": (h, self._out[1]), "c": (c, lstm.hidden_size)}
        arrays = [
            _checks.shaped(
                name, array, lstm.dtype, (lstm.num_layers, self.batch_size, n), "L, B, columns"
            )
            for name, (array, n) in sizes.items()
        ]
        for now, array in zip(self._now, arrays, strict=True):
            now[...] = array

    def reset(self, rows: npt.ArrayLike | slice | None = None) -> None:
        """Set the state to zero.

        Parameters
        ----------
        rows : int, slice, array of int or of bool (B,), optional
            Only of these sequences of the batch.

        Raises
        ------
        IndexError
            If a row does not exist.
        """
        index: Any = slice(None) if rows is None else rows
        if not isinstance(index, slice):
            index = np.asarray(rows)
            if index.size == 0 and not isinstance(rows, np.ndarray):
                index = index.astype(np.intp)
            if index.dtype == bool and index.shape != (self.batch_size,):
                raise IndexError(f"rows: expected {self.batch_size} booleans, got {rows!r}")
        np.empty(self.batch_size, bool)[index]  # raises before anything is written
        for array in self._now:
            array[:, index] = 0

    def copy(self) -> Stream:
        """Return an independent stream of the same LSTM, at the same state."""
        other = Stream(self.lstm, self.batch_size)
        other.state = self.state
        return other

    __copy__ = copy

    def __repr__(self) -> str:
        return f"<Stream of {self.lstm!r}, batch_size={self.batch_size}>"
