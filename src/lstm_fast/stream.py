"""The `Stream` class: an LSTM one time step, or one chunk of them, at a time."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from .engine import Array
from .engine.memory import empty
from .network import arguments, checks, storage
from .network.block import READERS, Block, built, described
from .network.network import Network
from .network.parameters import without_values

__all__ = ["Stream", "save_stream"]


class Layer(Protocol):
    """What can stream: an LSTM."""

    _network: Network[Any]


L = TypeVar("L", bound=Layer)


class Snapshot(NamedTuple):
    """The state of a stream at some time, for `Stream.restore`."""

    h: Any
    c: Any


class Stream(Generic[L]):
    """An LSTM run step by step, carrying its state; made by `LSTM.stream`.

    The bits are those of one call over the whole sequence. Steps use the parameters as they are
    then.

    Parameters
    ----------
    lstm : LSTM
        In one direction, forward.
    batch_size : int
        Independent sequences, B.

    Examples
    --------
    >>> stream = lstm.stream()
    >>> for x_t in sensor:  # (1, I) each
    ...     y_t = stream.step(x_t)
    """

    def __init__(self, lstm: L, batch_size: int = 1) -> None:
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
        self._lstm, self._network, self._dtype = lstm, network, settings.dtype
        self._in, self._out = (batch_size, settings.input_size), (batch_size, settings.columns)
        # The current state and the next one, which becomes current when a step has succeeded.
        self._now, self._next = (
            tuple(
                _each(np.zeros, shape, settings.dtype)
                for shape in settings.state_shapes(batch_size)
            )
            for _ in range(2)
        )

    @property
    def lstm(self) -> L:
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
        one_call = self._network.one_call
        if one_call is not None:
            now, later = self._now, self._next
            y = np.empty(self._out, self._dtype) if out is None else out
            if one_call.step(x_t, now, y, later):
                self._now, self._next = later, now
                return y
        return self._advance("x_t", x_t, self._in, "B, I", out, self._out)

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
        return self._advance("x", x, tuple(shapes[0]), letters, out, tuple(shapes[1]))

    def _advance(
        self,
        name: str,
        x: Array,
        shape: tuple[int, ...],
        letters: str,
        out: Array | None,
        out_shape: tuple[int, ...],
    ) -> Array:
        """Run over x, (B, I) or with time, and return its output."""
        settings = self._network.settings
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
        self._network.infer((checks.in_order(inner_x), *self._now, inner_y, *self._next))
        self._now, self._next = self._next, self._now
        if out is None:
            return y
        out[...] = y
        return out

    @property
    def state(self) -> tuple[Any, Any]:
        """(h, c), copies of shapes (L, B, H or P) and (L, B, H). May be set.

        With layers of different sizes h and c are tuples, (1, B, columns) of each layer.
        """
        h, c = (_each(np.copy, part) for part in self._now)
        return (tuple(h), tuple(c)) if isinstance(h, list) else (h, c)

    @state.setter
    def state(self, value: tuple[Any, Any]) -> None:
        h, c = checks.pair("state", value)
        for name, part in (("h", h), ("c", c)):
            if part is None:
                raise TypeError(f"{name}: expected a NumPy array, got NoneType")
        settings = self._network.settings
        arrays = arguments.states(settings, "state", (h, c), ("h", "c"), self.batch_size, True)
        for now, array in zip(self._now, arrays, strict=True):
            _each(np.copyto, now, array)

    def snapshot(self) -> Snapshot:
        """Return the state as it is now, for `restore`."""
        return Snapshot(*self.state)

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot of this stream, or of another one of the same shape.

        Raises
        ------
        TypeError, ValueError
            If it is no snapshot, or has another shape; the state is unchanged.
        """
        if not isinstance(snapshot, Snapshot):
            raise TypeError(f"snapshot: expected one of a stream, got {type(snapshot).__name__}")
        self.state = snapshot

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
        for part in self._now:
            for array in part if isinstance(part, list) else [part]:
                array[:, index] = 0

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the LSTM and the state to a file, for `lstm_fast.load`: see `LSTM.save`."""
        save_stream(path, self.lstm, self)

    def copy(self) -> Stream[L]:
        """Return an independent stream of the same LSTM, at the same state."""
        other = Stream(self.lstm, self.batch_size)
        other.state = self.state
        return other

    __copy__ = copy

    def __repr__(self) -> str:
        return f"<Stream of {self.lstm!r}, batch_size={self.batch_size}>"


def _each(function: Callable[..., Any], part: Any, other: Any = None) -> Any:
    """Return function(part), or that of each layer's; with `other`, of both."""
    if isinstance(part, list):
        others = other if isinstance(other, list) else [other] * len(part)
        return [_each(function, one, given) for one, given in zip(part, others, strict=True)]
    return function(part) if other is None else function(part, other)


# ---- files


def save_stream(path: str | os.PathLike[str], block: Any, stream: Any) -> None:
    """Write a stream of a block to a file, with its state."""
    arrays = {**block.state_dict(), **_named("state", stream.state)}
    about = {"stream": {"batch_size": stream.batch_size}, "block": described(block)}
    storage.write(path, arrays, about)


def _named(name: str, state: Any) -> dict[str, Array]:
    """Return the arrays of a state, each by where it stands in it."""
    if isinstance(state, np.ndarray):
        return {name: state}
    parts = state.items() if isinstance(state, dict) else enumerate(state)
    return {k: v for key, part in parts for k, v in _named(f"{name}.{key}", part).items()}


def _like(name: str, state: Any, arrays: dict[str, Array]) -> Any:
    """Return a state such as this one of arrays by name, which it takes away from them."""
    if isinstance(state, np.ndarray):
        if name not in arrays:
            raise ValueError(f"has no {name}")
        return arrays.pop(name)
    if isinstance(state, dict):
        return {key: _like(f"{name}.{key}", part, arrays) for key, part in state.items()}
    return tuple(_like(f"{name}.{n}", part, arrays) for n, part in enumerate(state))


def _read_stream(arrays: dict[str, Array], what: dict[str, Any]) -> Any:
    """Return the stream of a file."""
    with without_values():
        block: Any = built(what.get("block"))
    if not isinstance(block, Block) or not hasattr(block, "stream"):
        raise ValueError(f"a {type(block).__name__} has no stream")
    batch_size = what["stream"].get("batch_size") if isinstance(what["stream"], dict) else None
    try:
        stream = block.stream(batch_size)
    except TypeError as error:
        raise ValueError(str(error)) from None
    stream.state = _like("state", stream.state, arrays)
    block._load(arrays)
    return stream


READERS["stream"] = _read_stream
