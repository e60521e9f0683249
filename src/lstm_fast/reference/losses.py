"""Losses: each returns a mean over what counts, and its gradient.

A loss has one value ``l`` for each element of ``target``, whose weight is ``w``::

    loss = sum(w * l) / sum(w)        dy = w * dl/dy / sum(w)

``w`` is ``weight``, broadcast to the shape of ``target``, or 1 without. It is 0 beyond ``lengths``,
with which the first two axes are T and B, as in `blocks`. What has the weight 0 does not count: it
is read neither in ``y`` nor in ``target``, and its ``dy`` is 0. If nothing counts, the loss is 0.

All arithmetic is done in the dtype of ``y``. Wrong dtypes raise `TypeError`, and wrong shapes and
values `ValueError`.

Parameters that all have
------------------------
y : ndarray of float32 or float64
    The shape of ``target``, or where a function says so, with one axis more.
target : ndarray of the dtype of ``y``, or of int for `cross_entropy`
weight : array_like, optional
    Not negative.
lengths : array_like of int, shape (B,), optional

References
----------
P. J. Huber (1964), "Robust Estimation of a Location Parameter", Annals of Mathematical Statistics
35(1):73-101.

R. Koenker, G. Bassett (1978), "Regression Quantiles", Econometrica 46(1):33-50.

C. Szegedy et al. (2016), "Rethinking the Inception Architecture for Computer Vision", CVPR 2016,
section 7 (label smoothing).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from . import checks
from .functions import Array, Bools, Integers, Lengths, sigmoid, softmax

__all__ = [
    "absolute",
    "binary_cross_entropy",
    "cross_entropy",
    "huber",
    "mean_squared",
    "quantile",
]

Weight = npt.ArrayLike | None


def mean_squared(
    y: Array, target: Array, weight: Weight = None, lengths: Lengths = None
) -> tuple[float, Array]:
    """Mean of l = (y - target)^2."""
    y, target, w = arguments(y, target, weight, lengths)
    e = y - target
    return mean(e**2, 2 * e, w)


def absolute(
    y: Array, target: Array, weight: Weight = None, lengths: Lengths = None
) -> tuple[float, Array]:
    """Mean of l = |y - target|, with the derivative 0 where they are equal."""
    y, target, w = arguments(y, target, weight, lengths)
    e = y - target
    return mean(np.abs(e), np.sign(e), w)


def huber(
    y: Array,
    target: Array,
    weight: Weight = None,
    lengths: Lengths = None,
    *,
    delta: float = 1.0,
) -> tuple[float, Array]:
    """Mean of l = e^2 / 2 where |e| <= delta, else delta * (|e| - delta / 2); e = y - target."""
    y, target, w = arguments(y, target, weight, lengths)
    bound = checks.limit("delta", delta, y.dtype)
    e = y - target
    a = np.minimum(np.abs(e), bound)  # a * (|e| - a / 2) is both lines, and no square overflows
    return mean(a * (np.abs(e) - a / 2), np.clip(e, -bound, bound), w)


def quantile(
    y: Array,
    target: Array,
    weight: Weight = None,
    lengths: Lengths = None,
    *,
    quantiles: float | Sequence[float] = 0.5,
) -> tuple[float, Array]:
    """Mean of l = max(q * e, (q - 1) * e), e = target - y, with the derivative 0 at e = 0.

    With Q quantiles, l is the mean of theirs, and ``y`` has Q numbers for each target: the shape is
    (..., Q) for a ``target`` of (...), or (..., K Q) for one of (..., K), with as many axes.
    """
    q = np.array(quantiles, y.dtype)
    if q.ndim > 1 or q.size == 0 or not ((q > 0) & (q < 1)).all():
        raise ValueError(f"quantiles must be between 0 and 1, got {quantiles!r}")
    shape = y.shape
    if q.ndim == 1 and y.ndim == target.ndim > 0 and y.shape[-1] == len(q) * target.shape[-1]:
        y = y.reshape(*target.shape, len(q))
    y, target, w = arguments(y, target, weight, lengths, q.shape)
    if q.ndim == 1:
        target, w = (np.repeat(a[..., None], len(q), axis=-1) for a in (target, w))
    e = target - y
    slope = np.where(e > 0, -q, 1 - q) * (e != 0)
    loss, dy = mean(np.maximum(q * e, (q - 1) * e), slope, w)
    return loss, dy.reshape(shape)


def binary_cross_entropy(
    y: Array, target: Array, weight: Weight = None, lengths: Lengths = None
) -> tuple[float, Array]:
    """Mean of l = -target * log(s(y)) - (1 - target) * log(1 - s(y)), s the sigmoid.

    ``target`` is from 0 to 1. Since log(s(y)) = y - log(1 + exp(y))::

        l = log(1 + exp(y)) - target * y        dl/dy = s(y) - target
    """
    y, target, w = arguments(y, target, weight, lengths)
    if not ((target >= 0) & (target <= 1)).all():
        raise ValueError(f"target must be from 0 to 1, got {target}")
    log = np.maximum(y, 0) - target * y + np.log1p(np.exp(-np.abs(y)))  # exp cannot overflow
    return mean(log, sigmoid(y) - target, w)


def cross_entropy(
    y: Array,
    target: Integers,
    weight: Weight = None,
    lengths: Lengths = None,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> tuple[float, Array]:
    """Mean of l = -sum(p * log(softmax(y))), y (..., C) being logits, target (...) class numbers.

    With s = label_smoothing, ``p`` is 1 - s at the target's class, and s / C more at each. Targets
    that are ``ignore_index`` have the weight 0. With z = y - max(y)::

        l = log(sum(exp(z))) - (1 - s) * z[target] - s * mean(z)        dl/dy = softmax(y) - p

    With weight = class_weight[target], and no smoothing, this is PyTorch's with ``weight``.
    """
    if target.dtype.kind not in "iu":
        raise TypeError(f"target must hold integers, got {target.dtype}")
    if not 0 <= checks.number("label_smoothing", label_smoothing) <= 1:
        raise ValueError(f"label_smoothing must be from 0 to 1, got {label_smoothing!r}")
    if y.ndim == 0:
        raise ValueError("y must have shape (..., C), got ()")
    w = weights(weight, lengths, target != ignore_index, checks.real("y", y))
    C, s = y.shape[-1], label_smoothing
    logits = checks.copy("y", y, (*target.shape, C), y.dtype)
    logits[w == 0] = 0
    rows = logits.reshape(w.size, C)
    classes = checks.indices("target", np.where(w == 0, 0, target).reshape(w.size), C)
    n = np.arange(w.size)
    z = rows - rows.max(axis=1, keepdims=True)
    l = np.log(np.exp(z).sum(axis=1)) - (1 - s) * z[n, classes]
    if s > 0:  # otherwise a class may have the logit -inf
        l -= s * z.mean(axis=1)
    p = np.full_like(z, s / C)
    p[n, classes] += 1 - s
    return mean(l.reshape(w.shape), (softmax(rows) - p).reshape(y.shape), w)


def arguments(
    y: Array, target: Array, weight: Weight, lengths: Lengths, more: tuple[int, ...] = ()
) -> tuple[Array, Array, Array]:
    """Return copies of y (..., *more) and target (...), 0 where they do not count, and w."""
    dtype = checks.real("y", y)
    w = weights(weight, lengths, np.ones(target.shape, bool), dtype)
    y = checks.copy("y", y, (*target.shape, *more), dtype)
    target = checks.copy("target", target, w.shape, dtype, like="y")
    y[w == 0] = 0
    target[w == 0] = 0
    return y, target, w


def weights(weight: Weight, lengths: Lengths, wanted: Bools, dtype: np.dtype[Any]) -> Array:
    """Return w, in the shape of ``wanted``, where it may be other than 0; or raise."""
    given = np.asarray(1 if weight is None else weight)
    if given.dtype.kind not in "fiub":
        raise TypeError(f"weight must hold real numbers, got {given.dtype}")
    try:
        spread = np.broadcast_to(given.astype(dtype), wanted.shape)
    except ValueError:
        message = f"weight must broadcast to {wanted.shape}, got {given.shape}"
        raise ValueError(message) from None
    w: Array = np.where(wanted & checks.counted(lengths, wanted.shape), spread, dtype.type(0))
    if not ((w >= 0) & (w < np.inf)).all():
        raise ValueError(f"weight must be finite and not negative, got {w}")
    return w


def mean(l: Array, slope: Array, w: Array) -> tuple[float, Array]:
    """Return sum(w * l) / sum(w), and w * slope / sum(w); both 0 if nothing counts."""
    total = w.sum()
    if total == 0:
        return 0.0, np.zeros_like(slope)
    share = (w / total).reshape(w.shape + (1,) * (slope.ndim - w.ndim))
    return float((w * l).sum() / total), share * slope
