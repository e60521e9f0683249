"""The `Stream` class: an LSTM one time step at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from . import _checks, _forward
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
            [
                (
                    np.zeros(self._out, lstm.dtype),
                    np.zeros((batch_size, lstm.hidden_size), lstm.dtype),
                )
                for _ in range(lstm.num_layers)
            ]
            for _ in range(2)
        )
        self._between = [np.empty((1, *self._out), lstm.dtype) for _ in range(lstm.num_layers - 1)]

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
        dtype = lstm.dtype
        x = _checks.real("x_t", x_t, dtype)
        if x.shape != self._in:
            raise ValueError(f"x_t: expected shape (B, I) = {self._in}, got {x.shape}")
        if out is None:
            out = y = np.empty(self._out, dtype)
        else:
            y = self._checked_out(out, x)
        x = np.ascontiguousarray(x)[None]
        cells, use_blas = lstm._packed(), lstm.matmul == "blas"
        last = len(cells) - 1
        for layer, cell in enumerate(cells):
            above = y[None] if layer == last else self._between[layer]
            _forward.forward(
                cell, x, *self._now[layer], above, *self._next[layer], False, False, use_blas
            )
            x = above
        self._now, self._next = self._next, self._now
        if y is not out:
            out[...] = y
        return out

    def _checked_out(self, out: Array, x: Array) -> Array:
        """Return `out`, or a new array where the engine cannot write to `out` directly."""
        if not isinstance(out, np.ndarray) or out.dtype != self._lstm.dtype:
            got = out.dtype if isinstance(out, np.ndarray) else type(out).__name__
            raise TypeError(f"out: expected a NumPy array of {self._lstm.dtype}, got {got}")
        _checks.unmasked("out", out)
        if out.shape != self._out:
            raise ValueError(f"out: expected shape (B, H or P) = {self._out}, got {out.shape}")
        if not out.flags.writeable:
            raise ValueError("out: is read-only")
        if out.flags.c_contiguous and out.flags.aligned and not np.may_share_memory(out, x):
            return out
        return np.empty(self._out, self.lstm.dtype)

    @property
    def state(self) -> tuple[Array, Array]:
        """(h, c), copies of shapes (L, B, H or P) and (L, B, H). May be set."""
        return np.stack([h for h, _ in self._now]), np.stack([c for _, c in self._now])

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
        for layer, (h_now, c_now) in enumerate(self._now):
            h_now[...], c_now[...] = arrays[0][layer], arrays[1][layer]

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
        for arrays in self._now:
            for array in arrays:
                array[index] = 0

    def copy(self) -> Stream:
        """Return an independent stream of the same LSTM, at the same state."""
        other = Stream(self.lstm, self.batch_size)
        other.state = self.state
        return other

    __copy__ = copy

    def __repr__(self) -> str:
        return f"<Stream of {self.lstm!r}, batch_size={self.batch_size}>"
