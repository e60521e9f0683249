"""A model step by step: see `Sequential.stream`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Protocol, get_args

import numpy as np
import numpy.typing as npt

from ..engine import Array
from ..network import checks
from ..network.block import Block
from ..network.checks import Indices
from ..network.sessions import OnNaN, Restorable
from ..network.stream_files import save_stream
from .model import Model
from .over_time import Flatten, Last, Pool

__all__ = ["ModelStream"]


class HasBlocks(Protocol):
    """What can stream: a `Sequential`."""

    @property
    def blocks(self) -> Mapping[str, Block]:
        """Its blocks by name, in order."""


class ModelStream(Restorable):
    """A model run step by step, carrying its states; made by `Sequential.stream`.

    Parameters
    ----------
    model : Sequential
        All of whose LSTMs run in one direction, forward.
    batch_size : int
        Independent sequences, B. May `grow`.
    on_nan : {"keep", "raise", "hold", "reset"}
        What each LSTM does, by itself, with a row whose next state has NaN: see `Stream`. With
        "raise" the states of all of them are unchanged.

    Examples
    --------
    >>> stream = model.stream(batch_size=5)
    >>> for x_t in sensor:  # (5, I) each
    ...     y_t = stream.step(x_t)
    """

    def __init__(self, model: HasBlocks, batch_size: int = 1, on_nan: OnNaN = "keep") -> None:
        self._model, self._batch_size = model, checks.integer("batch_size", batch_size, 1)
        self._on_nan: OnNaN = checks.one_of("on_nan", on_nan, get_args(OnNaN))  # type: ignore[assignment]
        self._streams: dict[str, Any] = {}
        for name, block in model.blocks.items():
            if hasattr(block, "stream"):
                try:
                    self._streams[name] = block.stream(batch_size, on_nan)
                except ValueError as error:
                    raise ValueError(f"{name}: {error}") from None
            elif isinstance(block, Model):
                raise ValueError(f"{name}: {type(block).__name__} has no stream")
            elif _needs_all(block):
                raise ValueError(f"{name}: {block!r} cannot stream: it needs the whole sequence")

    @property
    def model(self) -> Any:
        """The model that runs."""
        return self._model

    @property
    def batch_size(self) -> int:
        """Sequences, B."""
        return self._batch_size

    @property
    def on_nan(self) -> OnNaN:
        """What becomes of a row whose next state has NaN."""
        return self._on_nan

    def step(self, x_t: Array, rows: npt.ArrayLike | slice | None = None) -> Array:
        """Advance every sequence, or some of them, by one time step.

        Parameters
        ----------
        x_t : array, shape (B, I), or (B,) numbers; with n rows n of them
            Input of this step.
        rows : int, slice, array of int (n,) or of bool (B,), optional
            The sequences that advance, as of `Stream.step`.

        Returns
        -------
        ndarray, shape (B or n, columns)

        Raises
        ------
        TypeError, ValueError, IndexError, FloatingPointError
            As the blocks and `Stream.step`; states are unchanged.
        """
        index = None if rows is None else checks.rows("rows", rows, self._batch_size)
        n = self._batch_size if index is None else len(index)
        shape = np.shape(x_t)
        if shape[:1] != (n,) or len(shape) > 2:
            raise ValueError(f"x_t: expected shape ({n}, I), or ({n},) numbers, got {shape}")
        y, after = self._begin(x_t, index)
        self._accept(index, after)
        return y

    def _begin(self, x_t: Array, rows: Indices | None) -> tuple[Array, dict[str, Any]]:
        """Return what a step returns, and the states of its rows after it, for `_accept`."""
        y: Any = x_t  # what is wrong with it, the first block says
        after: dict[str, Any] = {}
        for name, block in self._model.blocks.items():
            if name in self._streams:
                try:
                    y, after[name] = self._streams[name]._begin(y, rows)
                except FloatingPointError as error:
                    raise FloatingPointError(f"{name}: {error}") from None
            elif block.keeps_time:
                y, _ = block(y)
        found: Array = y
        return found, after

    def _accept(self, rows: Indices | None, states: dict[str, Any]) -> None:
        """Make states those of some rows, or of all."""
        for name, stream in self._streams.items():
            stream._accept(rows, states[name])

    @property
    def state(self) -> dict[str, Any]:
        """Copies of the states by the names of their blocks. May be set."""
        return {name: stream.state for name, stream in self._streams.items()}

    @state.setter
    def state(self, value: dict[str, Any]) -> None:
        everything = np.arange(self._batch_size, dtype=np.intp)
        self._accept(everything, self._fitting(value, self._batch_size))

    def _fitting(self, value: dict[str, Any], B: int) -> dict[str, Any]:
        """Return users' states of B rows as `_accept` takes them."""
        if not isinstance(value, dict) or value.keys() != self._streams.keys():
            raise ValueError(f"state: expected a dict with the keys {[*self._streams]}")
        return {name: one._fitting(value[name], B) for name, one in self._streams.items()}

    def take(self, rows: npt.ArrayLike | slice) -> dict[str, Any]:
        """Return the states of some sequences by the names of their blocks: see `Stream.take`."""
        index = checks.rows("rows", rows, self._batch_size, distinct=False)
        return {name: stream.take(index) for name, stream in self._streams.items()}

    def put(self, rows: npt.ArrayLike | slice, state: dict[str, Any]) -> None:
        """Set the states of some sequences, which `take` returned: see `Stream.put`."""
        index = checks.rows("rows", rows, self._batch_size)
        self._accept(index, self._fitting(state, len(index)))

    def grow(self, count: int) -> npt.NDArray[np.intp]:
        """Add sequences, which begin with zero states, and return their rows: see `Stream.grow`."""
        B = self._batch_size
        larger = ModelStream(self._model, B + checks.integer("count", count, 1), self._on_nan)
        larger.put(slice(B), self.state)
        self._streams, self._batch_size = larger._streams, larger.batch_size
        return np.arange(B, self._batch_size)

    def reset(self, rows: Any = None) -> None:
        """Set the states to zero, of all sequences or of those rows: see `Stream.reset`."""
        chosen = slice(None) if rows is None else rows
        index = checks.rows("rows", chosen, self._batch_size, distinct=False)
        for stream in self._streams.values():
            stream.reset(index)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model and the states to a file, for `lstm_fast.load`: see `LSTM.save`."""
        save_stream(path, self._model, self)

    def copy(self) -> ModelStream:
        """Return an independent stream of the same model, at the same states."""
        other = ModelStream(self._model, self._batch_size, self._on_nan)
        other.state = self.state
        return other

    __copy__ = copy

    def __repr__(self) -> str:
        return f"<ModelStream of {len(self._model.blocks)} blocks, batch_size={self._batch_size}>"


def _needs_all(block: Block) -> bool:
    """Whether a block cannot say anything before the end of a sequence."""
    return isinstance(block, Pool | Flatten) or (
        isinstance(block, Last) and (block.directions > 1 or block.reverse)
    )
