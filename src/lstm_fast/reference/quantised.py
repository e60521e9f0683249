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

Without `fused`, fma(a, b, c) is a * b + c, which rounds twice. With an `instruction`, products with
x of bfloat16 are those of a CPU that has it, which takes n terms at a time,
p = instruction(x[k : k + n], w[k : k + n], p): two with `vdpbf16ps` or `bfdot`, and 32 with
`tdpbf16ps`, which has one piece where there is no scale.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from .functions import Array
from .functions import sigmoid as plain_sigmoid

__all__ = [
    *("Rounded", "bfdot", "bfloat16", "fma", "int8_rows", "lstm_quantized", "product", "rounded"),
    *("tdpbf16ps", "vdpbf16ps"),
]

Inputs = Literal["bfloat16", "int8", "float32"]
Weights = Literal["int8", "bfloat16"]
MultiplyAdd = Callable[[Array, Array, Array], Array]

PIECE = 256  # terms of a sum in one accumulator
SMALLEST = np.finfo(np.float32).tiny  # that is no denormal
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

    The product is exact in float64, and rounding the sum there to odd and then to float32 gives
    what rounding the exact sum does: S. Boldo, G. Melquiond (2008), "Emulation of FMA and Correctly
    Rounded Sums", IEEE Transactions on Computers 57(4):462-471.
    """
    return odd_sum(np.asarray(a, np.float64) * b, c).astype(np.float32)


def odd_sum(a: Array, b: Array) -> Array:
    """Return a + b in float64, where inexact that of both neighbours whose last bit is 1."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    s: Array = np.asarray(a + b)
    part = s - a
    error = (a - (s - part)) + (b - part)  # exact: D. E. Knuth's TwoSum
    even = s.view(np.int64) & 1 == 0
    inexact = np.isfinite(s) & (error != 0)
    return np.where(inexact & even, np.nextafter(s, np.copysign(np.inf, error)), s)


def multiply_add(a: Array, b: Array, c: Array) -> Array:
    """Return a b + c of float32, rounded twice."""
    return a * b + c


def flushed(x: Array) -> Array:
    """Return x with zeros for denormals of float32."""
    return np.where(np.abs(x) < SMALLEST, np.copysign(x.dtype.type(0), x), x)


def vdpbf16ps(x: Array, w: Array, s: Array) -> Array:
    """Return s + x w' of pairs of bfloat16, (..., 2), as AVX512_BF16 does.

    The second product is added first. Denormals are 0, before and after each of both operations
    (Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, VDPBF16PS).
    """
    for k in (1, 0):
        s = flushed(fma(flushed(x[..., k]), flushed(w[..., k]), s))
    return s


def bfdot(x: Array, w: Array, s: Array) -> Array:
    """Return s + x w' of pairs of bfloat16, (..., 2), as Arm's FEAT_BF16 does.

    Products, their sum and the last sum are rounded to odd, and denormals are 0, before and after
    each operation (Arm Architecture Reference Manual, BFDotAdd).
    """
    products = [
        odd_float32(flushed(x[..., k]).astype(np.float64) * flushed(w[..., k])) for k in (0, 1)
    ]
    return odd_float32(odd_sum(s, odd_float32(odd_sum(*products))))


def tdpbf16ps(x: Array, w: Array, s: Array) -> Array:
    """Return s + x w' of rows of 32 bfloat16, (..., 32), as AMX does.

    Terms of even and of odd number have a sum each, from 0 on; s is added to the sum of both.
    Denormals are 0, before and after each operation (Intel 64 and IA-32 Architectures Software
    Developer's Manual, volume 2, TDPBF16PS).
    """
    even = odd = np.zeros(np.broadcast_shapes(x.shape, w.shape)[:-1], np.float32)
    x, w = flushed(x), flushed(w)
    for k in range(0, 32, 2):
        even = flushed(fma(x[..., k], w[..., k], even))
        odd = flushed(fma(x[..., k + 1], w[..., k + 1], odd))
    return flushed(s + flushed(even + odd))


def odd_float32(x: Array) -> Array:
    """Return float64 rounded to float32: to odd, to infinity where too large, denormals to 0."""
    dropped = np.int64((1 << 29) - 1)  # of 52 bits 23 stay
    bits = np.ascontiguousarray(x).view(np.int64)
    odd = (bits & ~dropped | np.where(bits & dropped, dropped + 1, 0)).view(np.float64)
    return flushed(np.where(np.isfinite(x), odd, x).astype(np.float32))


def product(
    x: Array, w: Rounded, inputs: Inputs, add: MultiplyAdd, instruction: MultiplyAdd | None = None
) -> Array:
    """Return x w', (B, N), of x (B, K) and w (N, K)."""
    if inputs == "int8":
        assert w.scale is not None
        q, row_scale = int8_rows(x)
        sums = q @ w.values.astype(np.int64).T
        return sums.astype(np.float32) * row_scale[:, None] * w.scale
    x, values = bfloat16(x) if inputs == "bfloat16" else x, w.values
    if inputs == "float32":
        instruction = None
    terms = 1 if instruction is None else 32 if instruction is tdpbf16ps else 2
    whole = instruction is tdpbf16ps and w.scale is None
    of_piece = x.shape[1] + terms if whole else PIECE
    x, values = (np.pad(m, ((0, 0), (0, -m.shape[1] % terms))) for m in (x, values))
    total: Array | None = None
    for first in range(0, x.shape[1], of_piece):
        piece: Array = np.zeros((len(x), len(values)), np.float32)
        for k in range(first, min(first + of_piece, x.shape[1]), terms):
            if instruction is None:
                piece = add(x[:, k, None], values[:, k], piece)
            else:
                piece = instruction(x[:, None, k : k + terms], values[:, k : k + terms], piece)
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
    instruction: MultiplyAdd | None = None,
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
    instruction : {vdpbf16ps, bfdot, tdpbf16ps}, optional
        What multiplies bfloat16.

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
    of_x = product(x.reshape(T * B, I), rounded(w_ih, weights), inputs, add, instruction)
    x_part = (of_x + bias).reshape(T, B, 4 * H)
    y = np.empty((T, B, R), np.float32)
    for t in reversed(range(T)) if reverse else range(T):
        a = product(h, of_h, weights, add, instruction) + x_part[t]
        a_i, a_f, a_g, a_o = (np.ascontiguousarray(part) for part in np.split(a, 4, axis=1))
        i, f, g, o = sigmoid(a_i), sigmoid(a_f), tanh(a_g), sigmoid(a_o)
        c = add(f, c, i * g)
        h = o * tanh(c)
        if of_m is not None:
            h = product(h, of_m, weights, add, instruction)
        y[t] = h
    return y, (h.copy(), c.copy())
