"""A model step by step: see `Sequential.stream`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from ..engine import Array
from ..network import checks
from ..network.block import Block
from ..stream import save_stream
from .over_time import Flatten, Last, Pool

__all__ = ["ModelStream"]


class Model(Protocol):
    """What can stream: a `Sequential`."""

    @property
    def blocks(self) -> Mapping[str, Block]:
        """Its blocks by name, in order."""


class Snapshot(NamedTuple):
    """The states of a stream at some time, for `ModelStream.restore`."""

    states: dict[str, Any]


class ModelStream:
    """A model run step by step, carrying its states; made by `Sequential.stream`.

    Parameters
    ----------
    model : Sequential
        All of whose LSTMs run in one direction, forward.
    batch_size : int
        Independent sequences, B.

    Examples
    --------
    >>> stream = model.stream(batch_size=5)
    >>> for x_t in sensor:  # (5, I) each
    ...     y_t = stream.step(x_t)
    """

    def __init__(self, model: Model, batch_size: int = 1) -> None:
        self._model, self._batch_size = model, checks.integer("batch_size", batch_size, 1)
        self._streams: dict[str, Any] = {}
        for name, block in model.blocks.items():
            if hasattr(block, "stream"):
                try:
                    self._streams[name] = block.stream(batch_size)
                except ValueError as error:
                    raise ValueError(f"{name}: {error}") from None
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

    def step(self, x_t: Array) -> Array:
        """Advance every sequence by one time step.

        Parameters
        ----------
        x_t : array, shape (B, I), or (B,) numbers
            Input of this step.

        Returns
        -------
        ndarray, shape (B, columns)

        Raises
        ------
        TypeError, ValueError
            As the blocks; states are unchanged.
        """
        shape = np.shape(x_t)
        if shape[:1] != (self._batch_size,) or len(shape) > 2:
            raise ValueError(
                f"x_t: expected shape ({self._batch_size}, I), or ({self._batch_size},) numbers, "
                f"got {shape}"
            )
        y: Any = x_t  # what else is wrong with it, the first block says, before any state changes
        for name, block in self._model.blocks.items():
            if name in self._streams:
                y = self._streams[name].step(y)
            elif block.keeps_time:
                y, _ = block(y)
        found: Array = y
        return found

    @property
    def state(self) -> dict[str, Any]:
        """Copies of the states by the names of their blocks. May be set."""
        return {name: stream.state for name, stream in self._streams.items()}

    @state.setter
    def state(self, value: dict[str, Any]) -> None:
        if not isinstance(value, dict) or value.keys() != self._streams.keys():
            raise ValueError(f"state: expected a dict with the keys {[*self._streams]}")
        before = self.state
        try:
            for name, stream in self._streams.items():
                stream.state = value[name]
        except (TypeError, ValueError):
            for name, stream in self._streams.items():
                stream.state = before[name]
            raise

    def snapshot(self) -> Snapshot:
        """Return the states as they are now, for `restore`."""
        return Snapshot(self.state)

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot of this stream, or of another one of the same model.

        Raises
        ------
        TypeError, ValueError
            If it is no snapshot, or has other shapes; the states are unchanged.
        """
        if not isinstance(snapshot, Snapshot):
            raise TypeError(f"snapshot: expected one of a stream, got {type(snapshot).__name__}")
        self.state = snapshot.states

    def reset(self, rows: Any = None) -> None:
        """Set the states to zero, of all sequences or of those rows: see `Stream.reset`."""
        for stream in self._streams.values():
            stream.reset(rows)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model and the states to a file, for `lstm_fast.load`: see `LSTM.save`."""
        save_stream(path, self._model, self)

    def copy(self) -> ModelStream:
        """Return an independent stream of the same model, at the same states."""
        other = ModelStream(self._model, self._batch_size)
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
