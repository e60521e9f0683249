"""Long series: `windows` of them as samples; `truncated`, pieces that carry the state over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..network import checks
from .sources import Batch, Epochs, axes_of

__all__ = ["Truncated", "truncated", "windows"]

AnyArray = npt.NDArray[Any]


def windows(
    series: AnyArray, length: int, horizon: int, stride: int = 1
) -> tuple[AnyArray, AnyArray]:
    """Return the windows of a series, and what comes after each.

    Parameters
    ----------
    series : ndarray, shape (N,) or (N, F)
        One number a step, or F.
    length : int
        Steps of a window.
    horizon : int
        Steps after it.
    stride : int
        Steps from the start of a window to that of the next.

    Returns
    -------
    x : ndarray, shape (S, length, F), or (S, length) of integers
        Window s begins at step s stride. F = 1 for a series (N,).
    target : ndarray, shape (S, horizon) for a series (N,), or (S, horizon, F)
        Both are read-only views of the series, nothing is copied; S may be 0. `batches` takes them,
        of several features ``target[:, :, 0]`` or ``target.reshape(S, -1)``.

    Raises
    ------
    TypeError, ValueError
        If an argument has another type, shape or value; the message names it.
    """
    steps = _series("series", series)
    length = checks.integer("length", length, 1)
    horizon = checks.integer("horizon", horizon, 1)
    stride = checks.integer("stride", stride, 1)

    def cut(array: AnyArray, size: int) -> AnyArray:
        if len(array) < size:
            return np.empty((0, size, *array.shape[1:]), array.dtype)
        view = np.lib.stride_tricks.sliding_window_view(array, size, axis=0)
        return np.moveaxis(view, -1, 1)[::stride]

    return (
        cut(steps[: max(len(steps) - horizon, 0)], length),
        cut(series[length:], horizon),
    )


@dataclass(eq=False, repr=False)
class Truncated(Epochs):
    """What `truncated` returns."""

    parts: tuple[AnyArray, AnyArray]  # x and target, (B, steps, ...)
    length: int
    batch_first: bool

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        steps: int = self.parts[0].shape[1]
        return -(-steps // self.length)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """Return the batches of an epoch from number `start` on; all epochs are alike."""
        for n in range(start, len(self)):
            x, target = (self._cut(part, n * self.length) for part in self.parts)
            yield Batch(x, target, state=n > 0)

    def _cut(self, part: AnyArray, start: int) -> AnyArray:
        piece = part[:, start : start + self.length]
        return np.ascontiguousarray(piece if self.batch_first else piece.swapaxes(0, 1))


def truncated(
    stream: AnyArray,
    length: int,
    batch_size: int,
    targets: AnyArray | None = None,
    *,
    batch_first: bool = False,
) -> Truncated:
    """Return a long stream in pieces, for truncated back-propagation through time.

    The stream is cut into `batch_size` parts of the same length, which go side by side, and these
    into pieces of `length` steps. A piece begins in the state in which the one before it ended; the
    first of an epoch in none.

    Parameters
    ----------
    stream : ndarray, shape (N,) or (N, F)
        What does not fill the parts is left out at its end.
    length : int
        Steps of a piece; the last one has what is left.
    batch_size : int
        Parts, B.
    targets : ndarray, shape (N,) or (N, K), optional
        One for each step. Without it, the next step.
    batch_first : bool
        Batches are (B, T, ...) instead of (T, B, ...).

    Returns
    -------
    Truncated
        As `batches` returns; its `Batch` es have x (length, B, F), or (length, B) of integers.

    Raises
    ------
    TypeError, ValueError
        If an argument has another type, shape or value; the message names it.
    """
    steps = _series("stream", stream)
    length = checks.integer("length", length, 1)
    B = checks.integer("batch_size", batch_size, 1)
    if targets is None:
        steps, after = steps[:-1], steps[1:]
    else:
        after = _series("targets", targets)
        if len(after) != len(steps):
            raise ValueError(
                f"targets: expected {len(steps)} steps, as stream has, got {len(after)}"
            )
    each = len(steps) // B
    if not each:
        raise ValueError(
            f"stream: expected a step for each of {B} parts (batch_size), and a target to it, "
            f"got {len(stream)} steps"
        )
    x, target = (array[: B * each].reshape(B, each, *array.shape[1:]) for array in (steps, after))
    return Truncated((x, target), length, checks.boolean("batch_first", batch_first))


def _series(name: str, given: Any) -> AnyArray:
    """Return an array of steps: (N, F), or (N,) of integers."""
    if not isinstance(given, np.ndarray) or given.dtype.kind not in "iuf":
        got = given.dtype if isinstance(given, np.ndarray) else type(given).__name__
        raise TypeError(f"{name}: expected a NumPy array of numbers, got {got}")
    checks.unmasked(name, given)
    if given.ndim == 1 and given.dtype.kind == "f":
        return given[:, None]
    if given.ndim != axes_of(given):
        raise ValueError(
            f"{name}: expected shape (N, F) or (N,), got {given.shape} of {given.dtype}"
        )
    return given
