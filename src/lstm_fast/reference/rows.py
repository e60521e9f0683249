"""Blocks that compute each row by itself, as in the docstring of `blocks`.

``counted``, (...), says which rows of (..., F) there are. These N are taken out as (N, F), and the
results put back among zeros.
"""

from typing import Any, NamedTuple

import numpy as np

from . import checks
from .functions import (
    Activation,
    Array,
    Bools,
    Function,
    Grads,
    Integers,
    Lengths,
    Norm,
    normalize,
    normalize_backward,
    softmax,
    softmax_gradient,
)


def rows_of(x: Array, lengths: Lengths) -> tuple[Bools, int]:
    """Return which rows of (..., F) count, and F."""
    if x.ndim == 0:
        raise ValueError("x must have shape (..., F), got ()")
    return checks.counted(lengths, x.shape[:-1]), x.shape[-1]


def take(name: str, value: Array, counted: Bools, columns: int, dtype: np.dtype[Any]) -> Array:
    """Return the rows (N, columns) that count, or raise if the dtype or shape is another."""
    rows: Array = checks.copy(name, value, (*counted.shape, columns), dtype)[counted]
    return rows


def put(rows: Array, counted: Bools) -> Array:
    """Return (..., columns) with these rows where they count, and zeros."""
    whole = np.zeros((*counted.shape, rows.shape[1]), rows.dtype)
    whole[counted] = rows
    return whole


class Linear(NamedTuple):
    """What `linear_backward` needs."""

    x: Array  # (N, I)
    weight: Array  # (O, I)
    bias: bool
    counted: Bools  # (...)


def linear_forward(
    x: Array, weight: Array, bias: Array | None = None, *, lengths: Lengths = None
) -> tuple[Array, Linear]:
    """Return y = x @ weight.T + bias, of each row.

    Parameters
    ----------
    x : ndarray of float32 or float64, shape (..., I)
        Input.
    weight : ndarray, shape (O, I)
        Weights.
    bias : ndarray, shape (O,), optional
        Absent means zero.
    lengths : array_like of int, shape (B,), optional
        Steps of each batch row.

    Returns
    -------
    y : ndarray, shape (..., O)
    cache : Linear
    """
    dtype = checks.real("x", x)
    if weight.ndim != 2:
        raise ValueError(f"weight must have shape (O, I), got {weight.shape}")
    O, I = weight.shape
    counted = checks.counted(lengths, x.shape[:-1])
    rows = take("x", x, counted, I, dtype)
    weight = checks.copy("weight", weight, (O, I), dtype)
    b = checks.copy_or_zeros("bias", bias, (O,), dtype)
    return put(rows @ weight.T + b, counted), Linear(rows, weight, bias is not None, counted)


def linear_backward(dy: Array, cache: Linear) -> tuple[Array, Grads]:
    """Return dx = dy @ weight, and of rows n: dweight = sum dy[n].T x[n], dbias = sum dy[n]."""
    x, weight, bias, counted = cache
    dy = take("dy", dy, counted, len(weight), x.dtype)
    grads: Grads = {"weight": dy.T @ x}
    if bias:
        grads["bias"] = dy.sum(axis=0)
    return put(dy @ weight, counted), grads


class Embedding(NamedTuple):
    """What `embedding_backward` needs."""

    x: Integers  # (N,)
    shape: tuple[int, int]  # of weight
    dtype: np.dtype[Any]
    padding_index: int | None
    counted: Bools  # (...)


def embedding_forward(
    x: Integers, weight: Array, padding_index: int | None = None, *, lengths: Lengths = None
) -> tuple[Array, Embedding]:
    """Return y = weight[x], a row of a table for every number.

    Parameters
    ----------
    x : ndarray of int, shape (...)
        From 0 to V-1.
    weight : ndarray of float32 or float64, shape (V, E)
        The table.
    padding_index : int, optional
        The row of ``weight`` whose gradient is 0.
    lengths : array_like of int, shape (B,), optional
        Steps of each batch row.

    Returns
    -------
    y : ndarray, shape (..., E)
    cache : Embedding
    """
    dtype = checks.real("weight", weight)
    if weight.ndim != 2:
        raise ValueError(f"weight must have shape (V, E), got {weight.shape}")
    V, E = weight.shape
    if padding_index is not None and not 0 <= padding_index < V:
        raise ValueError(f"padding_index must be from 0 to {V - 1}, got {padding_index}")
    counted = checks.counted(lengths, x.shape)
    numbers = checks.indices("x", x[counted], V)
    y = put(weight[numbers], counted)
    return y, Embedding(numbers, (V, E), dtype, padding_index, counted)


def embedding_backward(dy: Array, cache: Embedding) -> tuple[None, Grads]:
    """Return None for x, and dweight[v] = sum of dy[n] where x[n] = v; 0 for padding_index."""
    x, (V, E), dtype, padding_index, counted = cache
    dweight = np.zeros((V, E), dtype)
    np.add.at(dweight, x, take("dy", dy, counted, E, dtype))
    if padding_index is not None:
        dweight[padding_index] = 0
    return None, {"weight": dweight}


class Dropout(NamedTuple):
    """What `dropout_backward` needs."""

    mask: Array  # (N, F)
    counted: Bools  # (...)


def dropout_forward(x: Array, mask: Array, *, lengths: Lengths = None) -> tuple[Array, Dropout]:
    """Return y = x * mask.

    Parameters
    ----------
    x : ndarray of float32 or float64, shape (..., F)
        Input.
    mask : ndarray, shape (..., F)
        In training, 0 with probability p and else 1 / (1 - p).
    lengths : array_like of int, shape (B,), optional
        Steps of each batch row.

    Returns
    -------
    y : ndarray, shape (..., F)
    cache : Dropout
    """
    dtype = checks.real("x", x)
    counted, F = rows_of(x, lengths)
    m = take("mask", mask, counted, F, dtype)
    return put(take("x", x, counted, F, dtype) * m, counted), Dropout(m, counted)


def dropout_backward(dy: Array, cache: Dropout) -> tuple[Array, Grads]:
    """Return dx = dy * mask."""
    mask, counted = cache
    return put(take("dy", dy, counted, mask.shape[1], mask.dtype) * mask, counted), {}


class LayerNorm(NamedTuple):
    """What `layer_norm_backward` needs."""

    norm: Norm
    weight: Array  # (F,)
    bias: bool
    counted: Bools  # (...)


def layer_norm_forward(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    eps: float = 1e-5,
    lengths: Lengths = None,
) -> tuple[Array, LayerNorm]:
    """Return y = LN(x) * weight + bias, LN(v) = (v - mean(v)) / sqrt(var(v) + eps), of each row.

    Parameters
    ----------
    x : ndarray of float32 or float64, shape (..., F)
        Input.
    weight : ndarray, shape (F,)
        Gains.
    bias : ndarray, shape (F,), optional
        Absent means zero.
    eps : float
        Added to the variance.
    lengths : array_like of int, shape (B,), optional
        Steps of each batch row.

    Returns
    -------
    y : ndarray, shape (..., F)
    cache : LayerNorm
    """
    dtype = checks.real("x", x)
    counted, F = rows_of(x, lengths)
    weight = checks.copy("weight", weight, (F,), dtype)
    b = checks.copy_or_zeros("bias", bias, (F,), dtype)
    norm = normalize(take("x", x, counted, F, dtype), eps)
    cache = LayerNorm(norm, weight, bias is not None, counted)
    return put(norm.value * weight + b, counted), cache


def layer_norm_backward(dy: Array, cache: LayerNorm) -> tuple[Array, Grads]:
    """Return, with w = LN(x) and dw = dy * weight, of rows n::

    dx = (dw - mean(dw) - w * mean(dw * w)) / sqrt(var(x) + eps)
    dweight = sum dy[n] * w[n]        dbias = sum dy[n]
    """
    norm, weight, bias, counted = cache
    dy = take("dy", dy, counted, len(weight), weight.dtype)
    grads: Grads = {"weight": (dy * norm.value).sum(axis=0)}
    if bias:
        grads["bias"] = dy.sum(axis=0)
    return put(normalize_backward(dy * weight, norm), counted), grads


class Activated(NamedTuple):
    """What `activation_backward` needs."""

    function: Function
    x: Array  # (N, F), as y
    y: Array
    counted: Bools  # (...)


def activation_forward(
    x: Array, function: Activation, *, lengths: Lengths = None
) -> tuple[Array, Activated]:
    """Return y = function(x).

    Parameters
    ----------
    x : ndarray of float32 or float64, shape (..., F)
        Input.
    function : str or (str, alpha) or (str, alpha, beta)
        By ONNX's name; see `FUNCTIONS`, `CONSTANTS`.
    lengths : array_like of int, shape (B,), optional
        Steps of each batch row.

    Returns
    -------
    y : ndarray, shape (..., F)
    cache : Activated
    """
    dtype = checks.real("x", x)
    counted, F = rows_of(x, lengths)
    f = checks.function("function", function)
    rows = take("x", x, counted, F, dtype)
    y = f(rows)
    return put(y, counted), Activated(f, rows, y, counted)


def activation_backward(dy: Array, cache: Activated) -> tuple[Array, Grads]:
    """Return dx = dy * function'(x); at a kink, that of one side."""
    function, x, y, counted = cache
    dy = take("dy", dy, counted, x.shape[1], x.dtype)
    return put(dy * function.derivative(x, y), counted), {}


class Softmax(NamedTuple):
    """What `softmax_backward` needs."""

    y: Array  # (N, F)
    counted: Bools  # (...)


def softmax_forward(x: Array, *, lengths: Lengths = None) -> tuple[Array, Softmax]:
    """Return y = exp(x) / sum(exp(x)), of each row.

    Parameters
    ----------
    x : ndarray of float32 or float64, shape (..., F)
        Input.
    lengths : array_like of int, shape (B,), optional
        Steps of each batch row.

    Returns
    -------
    y : ndarray, shape (..., F)
    cache : Softmax
    """
    dtype = checks.real("x", x)
    counted, F = rows_of(x, lengths)
    y = softmax(take("x", x, counted, F, dtype))
    return put(y, counted), Softmax(y, counted)


def softmax_backward(dy: Array, cache: Softmax) -> tuple[Array, Grads]:
    """Return dx = y * (dy - sum(dy * y)), of each row."""
    y, counted = cache
    dy = take("dy", dy, counted, y.shape[1], y.dtype)
    return put(softmax_gradient(dy, y), counted), {}
