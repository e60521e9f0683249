"""The `Stream` class: an LSTM one time step, or one chunk of them, at a time."""

from __future__ import annotations

import os
from typing import Any, Generic, Protocol, TypeVar, get_args

import numpy as np
import numpy.typing as npt

from .engine import Array
from .engine.memory import empty
from .network import arguments, checks, sessions
from .network.checks import Indices
from .network.network import Network
from .network.sessions import OnNaN, SessionStates
from .network.stream_files import save_stream

__all__ = ["OnNaN", "Stream"]


class Layer(Protocol):
    """What can stream: an LSTM."""

    _network: Network[Any]


L = TypeVar("L", bound=Layer)


class Stream(sessions.Restorable, Generic[L]):
    """An LSTM run step by step, carrying its state; made by `LSTM.stream`.

    The bits are those of one call over the whole sequence. Steps use the parameters as they are
    then.

    Parameters
    ----------
    lstm : LSTM
        In one direction, forward.
    batch_size : int
        Independent sequences, B: the rows of the batch, or sessions. May `grow`.
    on_nan : {"keep", "raise", "hold", "reset"}
        What becomes of a row whose next state has NaN, which no later step would end: "keep" does
        not look, and the row has NaN until it is reset. "raise" raises FloatingPointError, which
        names the rows; the state of all rows is unchanged. "hold" leaves the row at the state that
        it had, "reset" puts it to zero; both return the output that was computed, NaN included,
        which tells the rows.

    Examples
    --------
    >>> stream = lstm.stream()
    >>> for x_t in sensor:  # (1, I) each
    ...     y_t = stream.step(x_t)

    Of five sensors, those that have something to say:

    >>> stream = lstm.stream(batch_size=5)
    >>> y_t = stream.step(x_t, rows=[3, 0])  # (2, I) to (2, H)
    """

    def __init__(self, lstm: L, batch_size: int = 1, on_nan: OnNaN = "keep") -> None:
        network = getattr(lstm, "_network", None)
        if not isinstance(network, Network):
            raise TypeError(f"lstm: expected an LSTM, got {lstm!r}")
        settings = network.settings
        if settings.bidirectional:
            raise ValueError(
                "a bidirectional LSTM cannot stream: its reverse direction starts at the end"
            )
        if settings.reverse:
            raise ValueError("an LSTM with reverse=True cannot stream: it starts at the end")
        batch_size = checks.integer("batch_size", batch_size, 1)
        checks.fits("batch_size", batch_size * settings.widest, settings.dtype)
        self._on_nan: OnNaN = checks.one_of("on_nan", on_nan, get_args(OnNaN))  # type: ignore[assignment]
        self._lstm, self._network, self._dtype = lstm, network, settings.dtype
        self._set(sessions.zeros(settings, batch_size), batch_size)

    def _set(self, state: SessionStates, batch_size: int) -> None:
        """Take arrays for the state."""
        settings = self._network.settings
        self._in, self._out = (batch_size, settings.input_size), (batch_size, settings.columns)
        self._now = state
        # A step of all rows writes the next state here; after it the two change places.
        self._next: SessionStates | None = None

    @property
    def lstm(self) -> L:
        """The LSTM that runs."""
        return self._lstm

    @property
    def batch_size(self) -> int:
        """Sequences, B."""
        return self._in[0]

    @property
    def on_nan(self) -> OnNaN:
        """What becomes of a row whose next state has NaN."""
        return self._on_nan

    def step(
        self, x_t: Array, out: Array | None = None, rows: npt.ArrayLike | slice | None = None
    ) -> Array:
        """Advance every sequence, or some of them, by one time step.

        Parameters
        ----------
        x_t : ndarray, shape (B, I), or (n, I) with n rows
            Input of this step.
        out : ndarray, shape (B or n, H or P), optional
            Receives the result; then a step of all rows allocates no array.
        rows : int, slice, array of int (n,) or of bool (B,), optional
            The sequences that advance, in the order of `x_t`, each once; the others stay as they
            are. The bits are those of steps of all rows, and the time that of a batch of n.

        Returns
        -------
        ndarray, shape (B or n, H or P)
            The output of the last layer: `out` where it was given.

        Raises
        ------
        TypeError, ValueError
            If `x_t` or `out` has a wrong dtype or shape, or `out` is read-only, or a row comes
            twice; the state is unchanged.
        IndexError
            If a row does not exist; the state is unchanged.
        FloatingPointError
            With ``on_nan="raise"``, where the next state has NaN; the state is unchanged.
        """
        if rows is None and self._on_nan == "keep":
            one_call, now, later = self._network.one_call, self._now, self._next
            if one_call is not None and later is not None:
                y = np.empty(self._out, self._dtype) if out is None else out
                if one_call.step(x_t, now, y, later):
                    self._now, self._next = later, now
                    return y
        index = None if rows is None else checks.rows("rows", rows, self.batch_size)
        y, after = self._begin(x_t, index, out)
        self._accept(index, after)
        return y

    def _begin(
        self, x_t: Array, rows: Indices | None, out: Array | None = None
    ) -> tuple[Array, SessionStates]:
        """Return what a step returns, and the state of its rows after it, for `_accept`."""
        if rows is None:
            before, after, n = self._now, self._spare(), self.batch_size
        else:
            before, n = sessions.rows_of(self._now, rows), len(rows)
            after = before if self._on_nan == "keep" else sessions.copied(before)
        shapes = (n, self._in[1]), (n, self._out[1])
        one_call = self._network.one_call
        if n > 0 and one_call is not None:
            y = np.empty(shapes[1], self._dtype) if out is None else out
            if one_call.step(x_t, before, y, after):
                if self._on_nan != "keep":
                    sessions.settle(self._on_nan, before, after, rows)
                return y, after
        return self._advance("x_t", x_t, shapes, "B, I", out, before, after, rows), after

    def _accept(self, rows: Indices | None, state: SessionStates) -> None:
        """Make a state that of some rows, or of all."""
        if rows is None:
            self._now, self._next = state, self._now
        else:
            sessions.put_rows(self._now, rows, state)

    def _spare(self) -> SessionStates:
        """Return arrays for the next state of all rows."""
        if self._next is None:
            self._next = sessions.zeros(self._network.settings, self.batch_size)
        return self._next

    def __call__(self, x: Array, out: Array | None = None) -> Array:
        """Advance every sequence by some time steps.

        Parameters
        ----------
        x : ndarray, shape (T, B, I), or (B, T, I) with `batch_first`
            Input of these steps.
        out : ndarray, shape (T, B, H or P), or (B, T, ...), optional
            Receives the result.

        Returns
        -------
        ndarray, shape (T, B, H or P), or (B, T, ...)
            The output of the last layer: `out` where it was given.

        Raises
        ------
        TypeError, ValueError
            As `step`; the state is unchanged.
        """
        settings = self._network.settings
        time = 1 if settings.batch_first else 0
        steps = x.shape[time] if isinstance(x, np.ndarray) and x.ndim == 3 else 0
        shapes = [list(self._in), list(self._out)]
        for shape in shapes:
            shape.insert(time, steps)
        checks.fits("x", steps * self.batch_size * settings.widest, settings.dtype)
        letters = "B, T, I" if time else "T, B, I"
        after = self._spare()
        y = self._advance(
            "x", x, (tuple(shapes[0]), tuple(shapes[1])), letters, out, self._now, after, None
        )
        self._accept(None, after)
        return y

    def _advance(
        self,
        name: str,
        x: Array,
        shapes: tuple[tuple[int, ...], tuple[int, ...]],
        letters: str,
        out: Array | None,
        before: SessionStates,
        after: SessionStates,
        rows: Indices | None,
    ) -> Array:
        """Run over x, (n, I) or with time, write the state after it, and return the output."""
        settings = self._network.settings
        shape, out_shape = shapes
        given = checks.real(name, x, settings.dtype)
        if given.shape != shape:
            raise ValueError(f"{name}: expected shape ({letters}) = {shape}, got {given.shape}")
        if out is not None:
            checks.output("out", out, settings.dtype, out_shape)
        y = empty(out_shape, settings.dtype)
        inner_x, inner_y = given, y
        if given.ndim == 2:
            inner_x, inner_y = given[None], y[None]
        elif settings.batch_first:
            inner_x, inner_y = given.swapaxes(0, 1), y.swapaxes(0, 1)
        self._run(checks.in_order(inner_x), before, inner_y, after, rows)
        if out is None:
            return y
        out[...] = y
        return out

    def _run(
        self,
        x: Array,
        before: SessionStates,
        y: Array,
        after: SessionStates,
        rows: Indices | None,
    ) -> None:
        """Write y (T, n, H or P) and the state after x (T, n, I)."""
        self._network.infer((x, *before, y, *after))
        if self._on_nan == "keep" or not sessions.settle(self._on_nan, before, after, rows):
            return
        if len(x) > 1:  # in which step it came matters
            for t in range(len(x)):
                self._run(x[t : t + 1], before, y[t : t + 1], after, rows)
                before = sessions.copied(after)

    @property
    def state(self) -> tuple[Any, Any]:
        """(h, c), copies of shapes (L, B, H or P) and (L, B, H). May be set.

        With layers of different sizes h and c are tuples, (1, B, columns) of each layer.
        """
        return sessions.users(sessions.copied(self._now))

    @state.setter
    def state(self, value: tuple[Any, Any]) -> None:
        everything = np.arange(self.batch_size, dtype=np.intp)
        self._accept(everything, self._fitting(value, self.batch_size))

    def _fitting(self, value: tuple[Any, Any], B: int) -> SessionStates:
        """Return users' state of B rows as `_accept` takes it."""
        h, c = checks.pair("state", value)
        for name, part in (("h", h), ("c", c)):
            if part is None:
                raise TypeError(f"{name}: expected a NumPy array, got NoneType")
        settings = self._network.settings
        found: Any = arguments.states(settings, "state", (h, c), ("h", "c"), B, True)
        return found  # type: ignore[no-any-return]

    def take(self, rows: npt.ArrayLike | slice) -> tuple[Any, Any]:
        """Return the state of some sequences, for `put`.

        Parameters
        ----------
        rows : int, slice, array of int (n,) or of bool (B,)
            Of these, in their order; one may come several times.

        Returns
        -------
        tuple (h, c)
            Copies, in the form of `state` of a stream of n sequences.

        Raises
        ------
        IndexError, TypeError
            If a row does not exist.
        """
        index = checks.rows("rows", rows, self.batch_size, distinct=False)
        return sessions.users(sessions.rows_of(self._now, index))

    def put(self, rows: npt.ArrayLike | slice, state: tuple[Any, Any]) -> None:
        """Set the state of some sequences; the others stay as they are.

        Parameters
        ----------
        rows : int, slice, array of int (n,) or of bool (B,)
            These, each once.
        state : tuple (h, c)
            Of n sequences, as `take` returns it, of this stream or of another one of such an LSTM.

        Raises
        ------
        IndexError, TypeError, ValueError
            If a row does not exist or comes twice, or the state has another form; nothing is
            changed.
        """
        index = checks.rows("rows", rows, self.batch_size)
        self._accept(index, self._fitting(state, len(index)))

    def grow(self, count: int) -> npt.NDArray[np.intp]:
        """Add sequences, which begin with a zero state.

        The states of all are copied: grow by many at a time, and `reset` the rows of sessions that
        have ended for new ones.

        Parameters
        ----------
        count : int
            How many, at least 1.

        Returns
        -------
        ndarray of int, shape (count,)
            Their rows, the last ones.

        Raises
        ------
        TypeError, ValueError, MemoryError
            If there cannot be so many; nothing is changed.
        """
        B, count = self.batch_size, checks.integer("count", count, 1)
        checks.fits("count", (B + count) * self._network.settings.widest, self._dtype)
        larger = Stream(self.lstm, B + count, self._on_nan)
        larger._accept(np.arange(B, dtype=np.intp), self._now)
        self._set(larger._now, larger.batch_size)
        return np.arange(B, larger.batch_size)

    def reset(self, rows: npt.ArrayLike | slice | None = None) -> None:
        """Set the state to zero.

        Parameters
        ----------
        rows : int, slice, array of int (n,) or of bool (B,), optional
            Only of these sequences.

        Raises
        ------
        IndexError, TypeError
            If a row does not exist.
        """
        chosen = slice(None) if rows is None else rows
        sessions.put_rows(
            self._now, checks.rows("rows", chosen, self.batch_size, distinct=False), None
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the LSTM and the state to a file, for `lstm_fast.load`: see `LSTM.save`."""
        save_stream(path, self.lstm, self)

    def copy(self) -> Stream[L]:
        """Return an independent stream of the same LSTM, at the same state."""
        other = Stream(self.lstm, self.batch_size, self._on_nan)
        other.state = self._now
        return other

    __copy__ = copy

    def __repr__(self) -> str:
        return f"<Stream of {self.lstm!r}, batch_size={self.batch_size}>"
