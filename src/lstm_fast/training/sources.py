"""Where batches come from: what a model learns from at once, and the batches of an epoch.

A source of the package gives those of any epoch from any position, without computing those before.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Batch", "Epochs", "Source", "axes_of", "epoch_of"]


class Batch(NamedTuple):
    """What a model learns from at once.

    Attributes
    ----------
    x : ndarray
        What the model takes: of an `nn.EncoderDecoder` a pair of such, and `lengths` as well.
    target : ndarray
        What the loss takes.
    lengths : ndarray of int, shape (B,), optional
        Steps of each sequence; the rest is padding.
    weight : ndarray, optional
        What the loss takes as `weight`.
    state : bool
        Whether the model starts in the state in which the batch before it ended, or from none.
    target_lengths : ndarray of int, shape (B,), optional
        Steps of each target, if they are others than those of its sequence.
    """

    x: Any
    target: Any = None
    lengths: Any = None
    weight: Any = None
    state: bool = False
    target_lengths: npt.NDArray[np.intp] | None = None


# What `Trainer.fit` takes: batches, or a function of the number of the epoch that returns them.
Given: TypeAlias = "Batch | tuple[Any, Any]"
Source: TypeAlias = "Iterable[Given] | Callable[[int], Iterable[Given]]"


def epoch_of(name: str, source: Source, epoch: int, start: int = 0) -> Iterator[Batch]:
    """Return the batches of an epoch from number `start` on."""
    if isinstance(source, Epochs):
        return source.epoch(epoch, start)
    given = source(epoch) if callable(source) else source
    if not isinstance(given, Iterable):
        raise TypeError(f"{name}: expected an iterable of batches, got {type(given).__name__}")
    return (_batch(name, item) for item in islice(given, start, None))


def _batch(name: str, item: Any) -> Batch:
    if isinstance(item, Batch):
        return item
    if not isinstance(item, tuple) or len(item) != 2:
        got = f"{len(item)} items" if isinstance(item, tuple) else type(item).__name__
        hint = "; `training.batches` makes them of arrays" * isinstance(item, np.ndarray)
        raise TypeError(f"{name}: expected batches (x, target), or of type Batch, got {got}{hint}")
    return Batch(*item)


class Epochs(ABC):
    """A source whose ``iter`` gives one epoch after the other."""

    _next = 0  # epoch of the next iter

    @abstractmethod
    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """Return the batches of an epoch from number `start` on."""

    def __iter__(self) -> Iterator[Batch]:
        self._next += 1
        return self.epoch(self._next - 1)


def axes_of(array: npt.NDArray[Any]) -> int:
    """Return how many axes a sequence of such numbers has: steps, and features if not integers."""
    return 1 if array.dtype.kind in "iu" else 2
