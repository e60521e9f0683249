"""One layer in one direction with weights of lower precision, rounded where the kernels round.

All arithmetic is that of float32. `Rounded` matrices are multiplied as ``inputs`` says::

    bfloat16, float32    p = fma(x[k], w[k], p) in ascending k, in pieces of 256 terms, from p = 0
                         x w' = (p_0 * scale + p_1 * scale) + ...      without scale for bfloat16
    int8                 x w' = float32(sum of q[k] w[k]) * row_scale * scale       an exact sum

where x is first rounded to bfloat16, left as it is, or replaced by integers q and a scale for each
of its rows. x[t] is multiplied as ``inputs``, h and what is projected as ``weights``::

    a[t] = h[t-1] w_hh' + (x[t] w_ih' + (b_ih + b_hh))
    c[t] = fma(f, c[t-1], i * g)
    h[t] = o * tanh(c[t]), or (o * tanh(c[t])) w_hr'

Without `fused`, fma(a, b, c) is a * b + c, which rounds twice.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from .functions import Array
from .functions import sigmoid as plain_sigmoid

__all__ = ["Rounded", "bfloat16", "fma", "int8_rows", "lstm_quantized", "product", "rounded"]

Inputs = Literal["bfloat16", "int8", "float32"]
Weights = Literal["int8", "bfloat16"]
MultiplyAdd = Callable[[Array, Array, Array], Array]

PIECE = 256  # terms of a sum in one accumulator
NEXT_TO_NOTHING = np.float32(2.0**-100)  # rows up to it are zeros in 8 bits


class Rounded(NamedTuple):
    """A matrix of weights (N, K) in lower precision: ``values`` times ``scale`` of each row."""

    values: Array  # (N, K) float32: integers from -127 to 127, or bfloat16
    scale: Array | None  # (N,); None: 1


def bfloat16(x: Array) -> Array:
    """Return the nearest bfloat16 numbers as float32, ties to even, too large ones infinite."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    nearest = bits + np.uint32(0x7FFF) + (bits >> 16 & 1)
    quiet = bits | np.uint32(0x00400000)
    return (np.where(np.isnan(x), quiet, nearest) & np.uint32(0xFFFF0000)).view(np.float32)


def rounded(w: Array, weights: Weights) -> Rounded:
    """Return a matrix (N, K) of finite float32 in lower precision.

    int8: with scale = max(abs(w)) / 127 of each row, the nearest integers of w / scale.
    """
    if weights == "bfloat16":
        return Rounded(bfloat16(w), None)
    scale = np.abs(w).max(axis=1) / np.float32(127)
    divisor = np.where(scale > 0, scale, np.float32(1))
    return Rounded(np.clip(np.rint(w / divisor[:, None]), -127, 127), scale)


def int8_rows(x: Array) -> tuple[npt.NDArray[np.int64], Array]:
    """Return the nearest integers of x / scale, (B, K), and the scale of each row, (B,).

    scale = max(abs(x)) / 127, or 0 where that maximum is at most 2^-100. Where a row is not
    finite, its scale is NaN.
    """
    most = np.abs(x).max(axis=1)
    plain = np.isfinite(most) & (most > NEXT_TO_NOTHING)
    inverse = np.float32(127) / np.where(plain, most, np.float32(1))
    scaled = np.where(plain[:, None], x, np.float32(0)) * inverse[:, None]
    nothing = np.where(np.isfinite(most), np.float32(0), np.float32(np.nan))
    return np.rint(scaled).astype(np.int64), np.where(plain, most / np.float32(127), nothing)


def fma(a: Array, b: Array, c: Array) -> Array:
    """Return a b + c of float32, rounded once.

    The product is exact in float64. The sum is rounded there to odd: where it is inexact, to that
    of both neighbours whose last bit is 1. Rounding this to float32 gives what rounding the exact
    sum does: S. Boldo, G. Melquiond (2008), "Emulation of FMA and Correctly Rounded Sums", IEEE
    Transactions on Computers 57(4):462-471.
    """
    p, c = np.asarray(a, np.float64) * b, np.asarray(c, np.float64)
    s = p + c
    part = s - p
    error = (p - (s - part)) + (c - part)  # exact: D. E. Knuth's TwoSum
    even = s.view(np.int64) & 1 == 0
    inexact = np.isfinite(s) & (error != 0)
    odd = np.where(inexact & even, np.nextafter(s, np.copysign(np.inf, error)), s)
    return odd.astype(np.float32)


def multiply_add(a: Array, b: Array, c: Array) -> Array:
    """Return a b + c of float32, rounded twice."""
    return a * b + c


def product(x: Array, w: Rounded, inputs: Inputs, add: MultiplyAdd) -> Array:
    """Return x w', (B, N), of x (B, K) and w (N, K)."""
    if inputs == "int8":
        assert w.scale is not None
        q, row_scale = int8_rows(x)
        sums = q @ w.values.astype(np.int64).T
        return sums.astype(np.float32) * row_scale[:, None] * w.scale
    x = bfloat16(x) if inputs == "bfloat16" else x
    total: Array | None = None
    for first in range(0, x.shape[1], PIECE):
        piece: Array = np.zeros((len(x), len(w.values)), np.float32)
        for k in range(first, min(first + PIECE, x.shape[1])):
            piece = add(x[:, k, None], w.values[:, k], piece)
        if w.scale is not None:
            piece = piece * w.scale
        total = piece if total is None else total + piece
    assert total is not None
    return total


def lstm_quantized(
    x: Array,
    w_ih: Array,
    w_hh: Array,
    b_ih: Array | None = None,
    b_hh: Array | None = None,
    h0: Array | None = None,
    c0: Array | None = None,
    *,
    w_hr: Array | None = None,
    reverse: bool = False,
    weights: Weights = "int8",
    inputs: Inputs = "bfloat16",
    sigmoid: Callable[[Array], Array] = plain_sigmoid,
    tanh: Callable[[Array], Array] = np.tanh,
    fused: bool = True,
) -> tuple[Array, tuple[Array, Array]]:
    """Run one LSTM layer over a sequence; the module docstring has the equations.

    Parameters
    ----------
    x, w_ih, w_hh, b_ih, b_hh, h0, c0, w_hr, reverse
        As of `lstm_forward`, all of float32; weights finite, and not yet rounded.
    weights : {"int8", "bfloat16"}
        What they are rounded to.
    inputs : {"bfloat16", "int8", "float32"}
        What x is multiplied as; "bfloat16" with such weights.
    sigmoid, tanh : callable
        Of arrays of float32.
    fused : bool
        Whether fma rounds once.

    Returns
    -------
    y : ndarray, shape (T, B, H), or (T, B, P) with ``w_hr``
    (hn, cn) : tuple of ndarray
    """
    T, B, I = x.shape
    H = len(w_ih) // 4
    R = w_hh.shape[1]
    add = fma if fused else multiply_add
    zeros = np.zeros(4 * H, np.float32)
    bias = (zeros if b_ih is None else b_ih) + (zeros if b_hh is None else b_hh)
    h = np.zeros((B, R), np.float32) if h0 is None else h0
    c = np.zeros((B, H), np.float32) if c0 is None else c0
    of_h = rounded(w_hh, weights)
    of_m = None if w_hr is None else rounded(w_hr, weights)
    of_x = product(x.reshape(T * B, I), rounded(w_ih, weights), inputs, add)
    x_part = (of_x + bias).reshape(T, B, 4 * H)
    y = np.empty((T, B, R), np.float32)
    for t in reversed(range(T)) if reverse else range(T):
        a = product(h, of_h, weights, add) + x_part[t]
        a_i, a_f, a_g, a_o = (np.ascontiguousarray(part) for part in np.split(a, 4, axis=1))
        i, f, g, o = sigmoid(a_i), sigmoid(a_f), tanh(a_g), sigmoid(a_o)
        c = add(f, c, i * g)
        h = o * tanh(c)
        if of_m is not None:
            h = product(h, of_m, weights, add)
        y[t] = h
    return y, (h.copy(), c.copy())
