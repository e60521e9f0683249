"""Losses: numbers that training makes small, with their gradients.

Each is the mean of what it says of every target, ``sum(weight * loss) / sum(weight)``, over those
within `lengths`; 0 where there are none.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..engine import Array
from ..engine.rows import cross_entropy
from ..engine.runtime.arithmetic import DefaultArithmetic
from ..network import checks
from .rows import Rows

__all__ = [
    "Absolute",
    "BinaryCrossEntropy",
    "CrossEntropy",
    "Huber",
    "Loss",
    "MeanSquared",
    "Quantile",
]


class Loss(ABC):
    """A loss of outputs and targets.

    Parameters
    ----------
    batch_first : bool
        Arrays are (B, T, ...) where lengths are given, instead of (T, B, ...).
    """

    def __init__(self, *, batch_first: bool = False) -> None:
        self.batch_first = checks.boolean("batch_first", batch_first)

    def __call__(
        self,
        y: Array,
        target: npt.ArrayLike,
        weight: npt.ArrayLike | None = None,
        lengths: npt.ArrayLike | None = None,
    ) -> tuple[float, Array]:
        """Return the loss and its gradient.

        Parameters
        ----------
        y : ndarray of float32 or float64
            What a model returned.
        target : array_like
            What it should have returned.
        weight : array_like, optional
            How much each target counts; it broadcasts to the shape of `target`.
        lengths : array_like of int, shape (B,), optional
            Time steps of each sequence: what comes after is neither read nor counted.

        Returns
        -------
        loss : float
        dy : ndarray, shape of y

        Raises
        ------
        TypeError
            If an array has a wrong dtype.
        ValueError
            If a shape or value is wrong.
        """
        if not isinstance(y, np.ndarray):
            raise TypeError(f"y: expected a NumPy array, got {type(y).__name__}")
        y = checks.real("y", y, checks.real_dtype("y", y.dtype))
        wanted = self._shape_of_target(y)
        checks.unmasked("target", target)
        target = np.asarray(target)
        if target.shape != wanted:
            raise ValueError(f"target: expected shape {wanted}, got {target.shape}")
        weights, counted = self._what_counts(target, weight, lengths)
        if counted.all():
            return self._mean(y, target, weights)
        loss, of_counted = self._mean(
            y[counted], target[counted], None if weights is None else weights[counted]
        )
        dy = np.zeros(y.shape, y.dtype)
        dy[counted] = of_counted
        return loss, dy

    def count(
        self,
        target: npt.ArrayLike,
        weight: npt.ArrayLike | None = None,
        lengths: npt.ArrayLike | None = None,
    ) -> float:
        """Return how much counts of a batch: the sum of weights of which a call takes the mean."""
        weights, counted = self._what_counts(np.asarray(target), weight, lengths)
        return float((counted if weights is None else weights[counted]).sum())

    def _what_counts(
        self, target: npt.NDArray[Any], weight: Any, lengths: Any
    ) -> tuple[Array | None, npt.NDArray[np.bool_]]:
        """Return weights, and which targets count, both of the shape of the target."""
        weights, counted = _weights(weight, target.shape), self._counted(target)
        if lengths is not None:
            valid = Rows(target.shape[:2], lengths, self.batch_first).valid
            if valid is not None:
                counted = counted & valid.reshape(valid.shape + (1,) * (target.ndim - 2))
        if weights is not None:
            of_counted = weights[counted]
            if not ((of_counted >= 0) & (of_counted < np.inf)).all():
                raise ValueError("weight: expected finite numbers, none of them negative")
            counted = counted & (weights > 0)
        return weights, counted

    def _counted(self, target: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Return which targets count."""
        return np.ones(target.shape, bool)

    def _shape_of_target(self, y: Array) -> tuple[int, ...]:
        return y.shape

    def _mean(self, y: Array, target: Array, weights: Array | None) -> tuple[float, Array]:
        """Return the loss and its gradient where every target counts."""
        with DefaultArithmetic():
            losses, slopes = self._each(y, target)
            count = float(target.size if weights is None else weights.sum())
            if not count:
                return 0.0, np.zeros_like(slopes)
            share = np.float64(1 / count) if weights is None else weights / count
            loss = float(np.sum(losses * share, dtype=np.float64))
            more = slopes.ndim - share.ndim if share.ndim else 0
            slopes *= share.astype(slopes.dtype).reshape(share.shape + (1,) * more)
            return loss, slopes

    @abstractmethod
    def _each(self, y: Array, target: npt.NDArray[Any]) -> tuple[Array, Array]:
        """Return the loss of each target, and its gradient, a new array of the shape of y."""

    def __repr__(self) -> str:
        words = [f"{name.removeprefix('_')}={value!r}" for name, value in vars(self).items()]
        return f"{type(self).__name__}({', '.join(words)})"


def _weights(weight: Any, shape: tuple[int, ...]) -> Array | None:
    """Return weights of this shape."""
    if weight is None:
        return None
    checks.unmasked("weight", weight)
    array = np.asarray(weight)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"weight: expected real numbers, got {array.dtype}")
    try:
        return np.broadcast_to(array.astype(np.float64), shape)
    except ValueError:
        raise ValueError(f"weight: expected a shape that fits {shape}, got {array.shape}") from None


def _real(target: npt.NDArray[Any], dtype: np.dtype[Any]) -> Array:
    """Return targets that are numbers."""
    if target.dtype.kind not in "fiub":
        raise TypeError(f"target: expected real numbers, got {target.dtype}")
    return target.astype(dtype)


class MeanSquared(Loss):
    """(y - target)^2."""

    def _each(self, y: Array, target: npt.NDArray[Any]) -> tuple[Array, Array]:
        error = y - _real(target, y.dtype)
        return error * error, 2 * error


class Absolute(Loss):
    """|y - target|, with the slope 0 where they are equal."""

    def _each(self, y: Array, target: npt.NDArray[Any]) -> tuple[Array, Array]:
        error = y - _real(target, y.dtype)
        return np.abs(error), np.sign(error)


class Huber(Loss):
    """error^2 / 2 up to delta, delta (|error| - delta / 2) beyond.

    Parameters
    ----------
    delta : float
        Positive.
    batch_first : bool
        As of `Loss`.
    """

    def __init__(self, delta: float = 1.0, *, batch_first: bool = False) -> None:
        super().__init__(batch_first=batch_first)
        self.delta = checks.number("delta", delta)
        if not 0 < self.delta < np.inf:
            raise ValueError(f"delta: expected a positive number, got {delta}")

    def _each(self, y: Array, target: npt.NDArray[Any]) -> tuple[Array, Array]:
        error, delta = y - _real(target, y.dtype), y.dtype.type(self.delta)
        size = np.abs(error)
        near = np.minimum(size, delta)  # this way no square overflows
        return near * (size - near / 2), np.clip(error, -delta, delta)


class Quantile(Loss):
    """max(q (target - y), (q - 1)(target - y)), the pinball loss: y learns the quantile q.

    Parameters
    ----------
    quantiles : float or sequence of float
        Between 0 and 1. With a sequence, the last axis of y has a value for each of them, which
        that of the target has not, and the loss is the mean of theirs.
    batch_first : bool
        As of `Loss`.
    """

    def __init__(
        self, quantiles: float | Sequence[float] = 0.5, *, batch_first: bool = False
    ) -> None:
        super().__init__(batch_first=batch_first)
        one = not isinstance(quantiles, Sequence)
        given: Any = [quantiles] if one else quantiles
        found = tuple(checks.number("quantiles", q) for q in given)
        if not found or not all(0 < q < 1 for q in found):
            raise ValueError(f"quantiles: expected numbers between 0 and 1, got {quantiles}")
        self.quantiles = found[0] if one else found

    def _shape_of_target(self, y: Array) -> tuple[int, ...]:
        if isinstance(self.quantiles, float):
            return y.shape
        if y.ndim == 0 or y.shape[-1] != len(self.quantiles):
            raise ValueError(f"y: expected a last axis of {len(self.quantiles)}, got {y.shape}")
        return y.shape[:-1]

    def _each(self, y: Array, target: npt.NDArray[Any]) -> tuple[Array, Array]:
        q, several = np.asarray(self.quantiles, y.dtype), not isinstance(self.quantiles, float)
        wanted = _real(target, y.dtype)
        error = (wanted[..., None] if several else wanted) - y
        losses = np.maximum(q * error, (q - 1) * error)
        slopes = np.where(error > 0, -q, 1 - q) * (error != 0)
        return (losses.mean(-1), slopes / y.shape[-1]) if several else (losses, slopes)


class BinaryCrossEntropy(Loss):
    """-target log s(y) - (1 - target) log(1 - s(y)), with s the sigmoid: y comes before it.

    Targets are from 0 to 1.
    """

    def _each(self, y: Array, target: npt.NDArray[Any]) -> tuple[Array, Array]:
        wanted = _real(target, y.dtype)
        if not ((wanted >= 0) & (wanted <= 1)).all():
            raise ValueError("target: expected numbers from 0 to 1")
        small = np.exp(-np.abs(y))
        losses = np.maximum(y, 0) - y * wanted + np.log1p(small)
        return losses, np.where(y >= 0, 1 / (1 + small), small / (1 + small)) - wanted


class CrossEntropy(Loss):
    """-log softmax(y)[target]: y, (..., C), comes before the softmax, targets are class numbers.

    Parameters
    ----------
    ignore_index : int
        Targets of this number do not count.
    label_smoothing : float
        The share of a target that is spread over all classes.
    batch_first : bool
        As of `Loss`.
    """

    def __init__(
        self,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        *,
        batch_first: bool = False,
    ) -> None:
        super().__init__(batch_first=batch_first)
        self.ignore_index = checks.integer("ignore_index", ignore_index, -(2**62))
        self.label_smoothing = checks.fraction("label_smoothing", label_smoothing)

    def _counted(self, target: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        counted: npt.NDArray[np.bool_] = target != self.ignore_index
        return counted

    def _shape_of_target(self, y: Array) -> tuple[int, ...]:
        if y.ndim == 0:
            raise ValueError("y: expected shape (..., C), got ()")
        return y.shape[:-1]

    def _each(self, y: Array, target: npt.NDArray[Any]) -> tuple[Array, Array]:
        if target.dtype.kind not in "iu":
            raise TypeError(f"target: expected integers, got {target.dtype}")
        C = y.shape[-1]
        if target.size and not 0 <= target.min() <= target.max() < C:
            raise ValueError(
                f"target: expected 0 to {C - 1}, or ignore_index={self.ignore_index}, "
                f"got {target.min()} to {target.max()}"
            )
        numbers = target.astype(np.intp).reshape(-1)
        rows = checks.in_order(y.reshape(numbers.size, C))
        losses, slopes = cross_entropy(rows, numbers, self.label_smoothing)
        return losses.reshape(target.shape), slopes.reshape(y.shape)
