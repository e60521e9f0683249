"""Losses: numbers that training makes small, with their gradients.

Each is the mean of what it says of every target, ``sum(weight * loss) / sum(weight)``, over those
within `lengths`; 0 where there are none.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, TypeAlias

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

Counted: TypeAlias = "npt.NDArray[np.bool_] | None"


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
        checks.unmasked("target", target)
        target = np.asarray(target)
        wanted = self._shape_of_target(y, target.ndim)
        if target.shape != wanted:
            raise ValueError(f"target: expected shape {wanted}, got {target.shape}")
        weights = self._weights(target, weight, lengths)
        counted = None if weights is None or (weights > 0).all() else weights > 0
        with DefaultArithmetic():
            losses, slopes = self._each(y, target, counted)
            share = np.asarray(_share(weights, target.shape)).astype(y.dtype)
            losses *= share
            slopes *= share[..., None] if slopes.ndim > target.ndim else share
            return float(losses.sum(dtype=np.float64)), np.asarray(slopes).reshape(y.shape)

    def count(
        self,
        target: npt.ArrayLike,
        weight: npt.ArrayLike | None = None,
        lengths: npt.ArrayLike | None = None,
    ) -> float:
        """Return how much counts of a batch: the sum of weights of which a call takes the mean."""
        target = np.asarray(target)
        return _total(self._weights(target, weight, lengths), target.shape)

    def _weights(self, target: npt.NDArray[Any], weight: Any, lengths: Any) -> Array | None:
        """Return how much each target counts, in a shape that broadcasts to theirs; None: alike."""
        counted = self._counted(target)
        if lengths is not None:
            valid = Rows(target.shape[:2], lengths, self.batch_first).valid
            if valid is not None:
                valid = valid.reshape(valid.shape + (1,) * (target.ndim - valid.ndim))
                counted = valid if counted is None else counted & valid
        if weight is None:
            return None if counted is None else counted.astype(np.float64)
        weights = _real_weights(weight, target.shape)
        if counted is not None:
            weights = np.where(counted, weights, 0)
        if not ((weights >= 0) & (weights < np.inf)).all():
            raise ValueError("weight: expected finite numbers, none of them negative")
        return weights

    def _counted(self, target: npt.NDArray[Any]) -> npt.NDArray[np.bool_] | None:
        """Return which targets count; None: all."""
        return None

    def _shape_of_target(self, y: Array, axes: int) -> tuple[int, ...]:
        """Return the shape that the target, which has so many axes, has to have."""
        return y.shape

    @abstractmethod
    def _each(self, y: Array, target: npt.NDArray[Any], counted: Counted) -> tuple[Array, Array]:
        """Return the loss of each target, and its gradient: new arrays.

        The gradient has the shape of the target, or one axis more. What does not count is not read,
        and has finite numbers. `counted` broadcasts to the shape of the target; None: all count.
        """

    def __repr__(self) -> str:
        words = [f"{name.removeprefix('_')}={value!r}" for name, value in vars(self).items()]
        return f"{type(self).__name__}({', '.join(words)})"


def _real_weights(weight: Any, shape: tuple[int, ...]) -> Array:
    """Return weights that broadcast to this shape."""
    checks.unmasked("weight", weight)
    array = np.asarray(weight)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"weight: expected real numbers, got {array.dtype}")
    try:
        np.broadcast_to(array, shape)
    except ValueError:
        raise ValueError(f"weight: expected a shape that fits {shape}, got {array.shape}") from None
    return array.astype(np.float64)


def _total(weights: Array | None, shape: tuple[int, ...]) -> float:
    """Return the sum of weights that broadcast to this shape."""
    return float(math.prod(shape) if weights is None else np.broadcast_to(weights, shape).sum())


def _share(weights: Array | None, shape: tuple[int, ...]) -> Array | float:
    """Return weights over their sum; 0 where there are none."""
    total = _total(weights, shape) or 1.0
    return 1 / total if weights is None else weights / total


def _real(target: npt.NDArray[Any], dtype: np.dtype[Any]) -> Array:
    """Return targets that are numbers."""
    if target.dtype.kind not in "fiub":
        raise TypeError(f"target: expected real numbers, got {target.dtype}")
    return target.astype(dtype, copy=False)


def _difference(a: Array, b: Array, counted: Counted) -> Array:
    """Return a - b, and 0 where it does not count."""
    if counted is None:
        return a - b
    found = np.zeros(np.broadcast_shapes(a.shape, b.shape), a.dtype)
    return np.subtract(a, b, out=found, where=counted)


class MeanSquared(Loss):
    """(y - target)^2."""

    def _each(self, y: Array, target: npt.NDArray[Any], counted: Counted) -> tuple[Array, Array]:
        error = _difference(y, _real(target, y.dtype), counted)
        return error * error, 2 * error


class Absolute(Loss):
    """|y - target|, with the slope 0 where they are equal."""

    def _each(self, y: Array, target: npt.NDArray[Any], counted: Counted) -> tuple[Array, Array]:
        error = _difference(y, _real(target, y.dtype), counted)
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

    def _each(self, y: Array, target: npt.NDArray[Any], counted: Counted) -> tuple[Array, Array]:
        error = _difference(y, _real(target, y.dtype), counted)
        delta = y.dtype.type(self.delta)
        size = np.abs(error)
        near = np.minimum(size, delta)  # this way no square overflows
        return near * (size - near / 2), np.clip(error, -delta, delta)


class Quantile(Loss):
    """max(q (target - y), (q - 1)(target - y)), the pinball loss: y learns the quantile q.

    Parameters
    ----------
    quantiles : float or sequence of float
        Between 0 and 1. With a sequence of Q, the loss is the mean of theirs, and y has Q numbers
        for each target, side by side: it is (..., Q) where the target is (...), with one axis less,
        or (..., K Q) where the target is (..., K), with as many axes.
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

    def _shape_of_target(self, y: Array, axes: int) -> tuple[int, ...]:
        if isinstance(self.quantiles, float):
            return y.shape
        Q = len(self.quantiles)
        if axes == y.ndim > 0:
            if y.shape[-1] % Q:
                raise ValueError(f"y: expected {Q} columns for each target, got {y.shape}")
            return *y.shape[:-1], y.shape[-1] // Q
        if y.ndim == 0 or y.shape[-1] != Q:
            raise ValueError(f"y: expected a last axis of {Q}, got {y.shape}")
        return y.shape[:-1]

    def _each(self, y: Array, target: npt.NDArray[Any], counted: Counted) -> tuple[Array, Array]:
        q, wanted = np.asarray(self.quantiles, y.dtype), _real(target, y.dtype)
        if q.ndim:
            y, wanted = y.reshape(*target.shape, len(q)), wanted[..., None]
            counted = None if counted is None else counted[..., None]
        error = _difference(wanted, y, counted)
        losses = np.maximum(q * error, (q - 1) * error)
        slopes = np.where(error > 0, -q, 1 - q) * (error != 0)
        return (losses.mean(-1), slopes / y.dtype.type(len(q))) if q.ndim else (losses, slopes)


class BinaryCrossEntropy(Loss):
    """-target log s(y) - (1 - target) log(1 - s(y)), with s the sigmoid: y comes before it.

    Targets are from 0 to 1.
    """

    def _each(self, y: Array, target: npt.NDArray[Any], counted: Counted) -> tuple[Array, Array]:
        wanted = _real(target, y.dtype)
        if counted is not None:
            y, wanted = (np.where(counted, a, y.dtype.type(0)) for a in (y, wanted))
        if not ((wanted >= 0) & (wanted <= 1)).all():
            raise ValueError("target: expected numbers from 0 to 1")
        small = np.exp(-np.abs(y))
        losses = np.zeros_like(small)
        np.log1p(small, out=losses, where=True if counted is None else counted)  # most of the time
        losses += np.maximum(y, 0) - y * wanted
        return losses, np.where(y >= 0, y.dtype.type(1), small) / (1 + small) - wanted


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

    def _counted(self, target: npt.NDArray[Any]) -> npt.NDArray[np.bool_] | None:
        counted: npt.NDArray[np.bool_] = target != self.ignore_index
        return None if counted.all() else counted

    def _shape_of_target(self, y: Array, axes: int) -> tuple[int, ...]:
        if y.ndim == 0:
            raise ValueError("y: expected shape (..., C), got ()")
        return y.shape[:-1]

    def _each(self, y: Array, target: npt.NDArray[Any], counted: Counted) -> tuple[Array, Array]:
        if target.dtype.kind not in "iu":
            raise TypeError(f"target: expected integers, got {target.dtype}")
        C = y.shape[-1]
        given = target if counted is None else target[np.broadcast_to(counted, target.shape)]
        if given.size and not 0 <= given.min() <= given.max() < C:
            raise ValueError(
                f"target: expected 0 to {C - 1}, or ignore_index={self.ignore_index}, "
                f"got {given.min()} to {given.max()}"
            )
        numbers = target.astype(np.intp)
        if counted is not None:
            numbers = np.where(counted, numbers, -1)  # whose rows are not read
        rows = checks.in_order(y.reshape(numbers.size, C))
        losses, slopes = cross_entropy(rows, numbers.reshape(-1), self.label_smoothing)
        return losses.reshape(target.shape), slopes.reshape(y.shape)
