"""One LSTM layer, one direction, in plain NumPy: the specification of the fast code.

Extents: ``T`` steps, ``B`` batch rows, ``I`` inputs, ``H`` units, ``P`` projected units;
``R``, the width of ``h``, is ``P`` with a projection and ``H`` without. The rows of ``w_ih``,
``w_hh`` and the biases are four blocks of ``H``, in the order i, f, g, o. ``s`` is the logistic
sigmoid, ``*`` multiplies element by element, ``@`` is the matrix product. All arithmetic is done
in the dtype of ``x``.

Forward, for t = 0 .. T-1 (``h[-1] = h0``, ``c[-1] = c0``)::

    a[t] = x[t] @ w_ih.T + b_ih + h[t-1] @ w_hh.T + b_hh      (B, 4H), blocks a_i, a_f, a_g, a_o
    i = s(a_i)    f = s(a_f)    o = s(a_o)                    input, forget and output gate
    g = tanh(a_g)                                             candidate
    c[t] = f * c[t-1] + i * g                                 cell state, (B, H)
    m[t] = o * tanh(c[t])                                     hidden state, (B, H)
    h[t] = m[t] @ w_hr.T, or m[t] without a projection        output y[t], (B, R)

Backward, for t = T-1 .. 0, where ``dv`` is the gradient of the loss with respect to ``v``. The
last step receives ``dhn`` and ``dcn`` where the others receive the terms of step t+1::

    dh[t] = dy[t] + da[t+1] @ w_hh
    dm[t] = dh[t] @ w_hr, or dh[t] without a projection
    dc[t] = dc[t+1] * f[t+1] + dm[t] * o * (1 - tanh(c[t])**2)
    da_i = dc[t] * g * i * (1 - i)                            since s' = s * (1 - s)
    da_f = dc[t] * c[t-1] * f * (1 - f)
    da_g = dc[t] * i * (1 - g**2)                             since tanh' = 1 - tanh**2
    da_o = dm[t] * tanh(c[t]) * o * (1 - o)
    dx[t] = da[t] @ w_ih
    dw_ih = sum over t of da[t].T @ x[t]                      db_ih = db_hh = sum of da over t, b
    dw_hh = sum over t of da[t].T @ h[t-1]                    dw_hr = sum over t of dh[t].T @ m[t]
    dh0 = da[0] @ w_hh                                        dc0 = dc[0] * f[0]

With ``reverse=True`` the recurrence runs from t = T-1 to 0: t-1 and t+1 change places above,
while ``x``, ``y``, ``dy`` and ``dx`` stay in input order.

With ``lengths``, the equations hold for the rows that run: row b does where t < lengths[b]. At the
other times, its padding, a row keeps its state, so that ``hn`` and ``cn`` are those of its own last
step, and a reversed row begins at t = lengths[b] - 1. What is there in ``x`` is not read, and::

    h[t] = h[t-1]    c[t] = c[t-1]    y[t] = 0, or with padding="hold" y[lengths[b] - 1]
    dx[t] = 0                         dy[t] is not read, or with "hold" adds to dy[lengths[b] - 1]

A row of length 0 has no output to hold: its ``y`` is 0, its final state the initial one.

References
----------
S. Hochreiter, J. Schmidhuber (1997), "Long Short-Term Memory", Neural Computation 9(8):1735-1780.

F. A. Gers, J. Schmidhuber, F. Cummins (2000), "Learning to Forget: Continual Prediction with
LSTM", Neural Computation 12(10):2451-2471 (the forget gate).

H. Sak, A. Senior, F. Beaufays (2014), "Long Short-Term Memory Recurrent Neural Network
Architectures for Large Scale Acoustic Modeling", Interspeech 2014, 338-342 (the projection).
"""

from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Cache", "lstm_backward", "lstm_forward"]

Array = npt.NDArray[np.floating[Any]]


class Cache(NamedTuple):
    """What `lstm_backward` needs from `lstm_forward`: private copies, in processing order.

    Step ``k`` of the recurrence reads ``h[k]``, ``c[k]`` and writes ``h[k + 1]``, ``c[k + 1]``.
    It is the input step ``t = k``, or ``t = T - 1 - k`` when ``reverse``. Only the rows that run
    there have ``gates``.
    """

    x: Array  # (T, B, I)
    w_ih: Array  # (4H, I)
    w_hh: Array  # (4H, R)
    w_hr: Array | None  # (P, H)
    h: Array  # (T + 1, B, R), h[0] = h0
    c: Array  # (T + 1, B, H), c[0] = c0
    gates: Array  # (T, B, 4H), values of i, f, g, o
    biases: tuple[str, ...]  # which of "b_ih", "b_hh" were given
    runs: npt.NDArray[np.bool_]  # (T, B), which rows do
    reverse: bool
    hold: bool


def lstm_forward(
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
    lengths: npt.ArrayLike | None = None,
    padding: Literal["zero", "hold"] = "zero",
) -> tuple[Array, tuple[Array, Array], Cache]:
    """Run one LSTM layer over a sequence; the module docstring has the equations.

    Parameters
    ----------
    x : ndarray of float32 or float64, shape (T, B, I)
        Input. T and B may be 0. Every other array must have its dtype.
    w_ih : ndarray, shape (4H, I)
        Input weights, blocks i, f, g, o.
    w_hh : ndarray, shape (4H, H), or (4H, P) with ``w_hr``
        Recurrent weights, blocks i, f, g, o.
    b_ih, b_hh : ndarray, shape (4H,), optional
        Biases, which add; absent means zero.
    h0 : ndarray, shape (B, H), or (B, P) with ``w_hr``, optional
        Initial output; absent means zero.
    c0 : ndarray, shape (B, H), optional
        Initial cell state; absent means zero.
    w_hr : ndarray, shape (P, H), optional
        Projection of the hidden state.
    reverse : bool, default False
        Run from t = T-1 to 0. ``y`` stays in input order.
    lengths : array_like of int, shape (B,), optional
        Steps of each row, from 0 to T, in any order; absent means T.
    padding : {"zero", "hold"}
        ``y`` after the last step of a row: 0, or the output of that step.

    Returns
    -------
    y : ndarray, shape (T, B, H), or (T, B, P) with ``w_hr``
        Output of every step.
    (hn, cn) : tuple of ndarray, shapes of ``h0`` and ``c0``
        State after the last step processed of each row (t = 0 when ``reverse``).
    cache : Cache
        For `lstm_backward`. It shares no memory with the arguments or the results.

    Raises
    ------
    TypeError
        If an array has another dtype than ``x``, or ``x`` is neither float32 nor float64, or
        ``lengths`` does not hold integers.
    ValueError
        If an array has another shape than the one above; nothing is broadcast. If a length is not
        from 0 to T, or ``padding`` is unknown.
    """
    dtype = x.dtype
    if dtype not in (np.float32, np.float64):
        raise TypeError(f"x must be float32 or float64, got {dtype}")
    if x.ndim != 3:
        raise ValueError(f"x must have shape (T, B, I), got {x.shape}")
    T, B, I = x.shape
    H = w_hh.shape[0] // 4
    R = H if w_hr is None else w_hr.shape[0]

    x = _copy("x", x, (T, B, I), dtype)
    w_ih = _copy("w_ih", w_ih, (4 * H, I), dtype)
    w_hh = _copy("w_hh", w_hh, (4 * H, R), dtype)
    w_hr = None if w_hr is None else _copy("w_hr", w_hr, (R, H), dtype)
    bias = _copy_or_zeros("b_ih", b_ih, (4 * H,), dtype)
    bias += _copy_or_zeros("b_hh", b_hh, (4 * H,), dtype)
    biases = tuple(name for name, b in (("b_ih", b_ih), ("b_hh", b_hh)) if b is not None)

    runs = _runs(lengths, T, B)
    if padding not in ("zero", "hold"):
        raise ValueError(f"padding must be 'zero' or 'hold', got {padding!r}")

    h = np.empty((T + 1, B, R), dtype)
    c = np.empty((T + 1, B, H), dtype)
    gates = np.empty((T, B, 4 * H), dtype)
    h[0] = _copy_or_zeros("h0", h0, (B, R), dtype)
    c[0] = _copy_or_zeros("c0", c0, (B, H), dtype)
    x, runs = (x[::-1], runs[::-1]) if reverse else (x, runs)

    for k in range(T):
        r = runs[k]
        a = x[k, r] @ w_ih.T + h[k, r] @ w_hh.T + bias
        a_i, a_f, a_g, a_o = np.split(a, 4, axis=1)
        i, f, g, o = _sigmoid(a_i), _sigmoid(a_f), np.tanh(a_g), _sigmoid(a_o)
        h[k + 1], c[k + 1] = h[k], c[k]
        c[k + 1, r] = f * c[k, r] + i * g
        m = o * np.tanh(c[k + 1, r])
        h[k + 1, r] = m if w_hr is None else m @ w_hr.T
        gates[k, r] = np.concatenate((i, f, g, o), axis=1)

    y = np.where(runs[:, :, None], h[1:], dtype.type(0))
    cache = Cache(x, w_ih, w_hh, w_hr, h, c, gates, biases, runs, reverse, padding == "hold")
    y, runs = (y[::-1].copy(), runs[::-1]) if reverse else (y, runs)
    for t in range(1, T if padding == "hold" else 0):
        y[t, ~runs[t]] = y[t - 1, ~runs[t]]
    return y, (h[T].copy(), c[T].copy()), cache


def lstm_backward(
    dy: Array | None, dhn: Array | None, dcn: Array | None, cache: Cache
) -> tuple[Array, tuple[Array, Array], dict[str, Array]]:
    """Differentiate `lstm_forward`: from gradients of its results to those of its arguments.

    Parameters
    ----------
    dy : ndarray, shape (T, B, H), or (T, B, P) with a projection, or None
        Gradient of the loss with respect to ``y``; None means zero, here and below.
    dhn, dcn : ndarray, shapes of ``h0`` and ``c0``, or None
        Gradients with respect to the final state. Since ``hn`` is also a row of ``y``, ``dhn``
        adds to that row of ``dy``.
    cache : Cache
        From `lstm_forward`; left unchanged, so it may serve again.

    Returns
    -------
    dx : ndarray, shape (T, B, I)
        Gradient with respect to ``x``, in input order.
    (dh0, dc0) : tuple of ndarray, shapes of ``h0`` and ``c0``
        Gradients with respect to the initial state.
    grads : dict of str to ndarray
        Gradients of "w_ih" and "w_hh" and, where they were given, "b_ih", "b_hh" and "w_hr",
        summed over the batch. No two share memory.

    Raises
    ------
    TypeError, ValueError
        As in `lstm_forward`.
    """
    x, w_ih, w_hh, w_hr, h, c, gates, biases, runs, reverse, hold = cache
    dtype = x.dtype
    T, B, R = h[1:].shape
    H = c.shape[2]

    dy = _copy_or_zeros("dy", dy, (T, B, R), dtype)
    dh = _copy_or_zeros("dhn", dhn, (B, R), dtype)
    dc = _copy_or_zeros("dcn", dcn, (B, H), dtype)
    dx = np.zeros_like(x)
    dw_ih = np.zeros_like(w_ih)
    dw_hh = np.zeros_like(w_hh)
    dw_hr = np.zeros((R, H), dtype)
    db = np.zeros(4 * H, dtype)
    if hold:
        padded = ~(runs[::-1] if reverse else runs)
        for t in reversed(range(1, T)):
            dy[t - 1, padded[t]] += dy[t, padded[t]]
    dy = dy[::-1] if reverse else dy

    for k in reversed(range(T)):
        r = runs[k]
        i, f, g, o = np.split(gates[k, r], 4, axis=1)
        tanh_c = np.tanh(c[k + 1, r])
        dh_r = dh[r] + dy[k, r]
        dm = dh_r if w_hr is None else dh_r @ w_hr
        dc_r = dc[r] + dm * o * (1 - tanh_c**2)
        da_i = dc_r * g * i * (1 - i)
        da_f = dc_r * c[k, r] * f * (1 - f)
        da_g = dc_r * i * (1 - g**2)
        da_o = dm * tanh_c * o * (1 - o)
        da = np.concatenate((da_i, da_f, da_g, da_o), axis=1)
        dx[k, r] = da @ w_ih
        dw_ih += da.T @ x[k, r]
        dw_hh += da.T @ h[k, r]
        if w_hr is not None:
            dw_hr += dh_r.T @ (o * tanh_c)
        db += da.sum(axis=0)
        dh[r] = da @ w_hh
        dc[r] = dc_r * f

    grads = {"w_ih": dw_ih, "w_hh": dw_hh}
    grads.update({name: db.copy() for name in biases})
    if w_hr is not None:
        grads["w_hr"] = dw_hr
    return (dx[::-1].copy() if reverse else dx), (dh, dc), grads


def _runs(lengths: npt.ArrayLike | None, T: int, B: int) -> npt.NDArray[np.bool_]:
    """Return which rows run at each time, (T, B), or raise if ``lengths`` is wrong."""
    rows = np.full(B, T) if lengths is None else np.array(lengths)
    if np.ma.isMaskedArray(lengths) or (rows.size > 0 and rows.dtype.kind not in "iu"):
        raise TypeError(f"lengths must hold integers, got {rows.dtype}")
    if rows.shape != (B,):
        raise ValueError(f"lengths must have shape {(B,)}, got {rows.shape}")
    if not ((rows >= 0) & (rows <= T)).all():
        raise ValueError(f"lengths must be from 0 to {T}, got {rows}")
    runs: npt.NDArray[np.bool_] = np.arange(T)[:, None] < rows
    return runs


def _sigmoid(a: Array) -> Array:
    """Return 1 / (1 + exp(-a)); exp only sees -abs(a), so that it cannot overflow."""
    e = np.exp(-np.abs(a))
    s: Array = np.where(a >= 0, 1, e) / (1 + e)
    return s


def _copy(name: str, value: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return a C-ordered copy of ``value``, or raise if its dtype or shape is another."""
    copy = np.array(value, order="C")
    if copy.dtype != dtype:
        raise TypeError(f"{name} must be {dtype} like x, got {copy.dtype}")
    if copy.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {copy.shape}")
    return copy


def _copy_or_zeros(
    name: str, value: Array | None, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Array:
    """As `_copy`, with zeros for None."""
    return np.zeros(shape, dtype) if value is None else _copy(name, value, shape, dtype)
