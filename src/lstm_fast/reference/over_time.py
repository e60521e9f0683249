"""Blocks that read all steps of a batch row, as in the docstring of `blocks`."""

from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from . import checks
from .functions import Array, Grads, Integers, Lengths, softmax, softmax_gradient


def steps_of(
    name: str, x: Array, lengths: Lengths
) -> tuple[tuple[int, int, int], npt.NDArray[np.intp]]:
    """Return T, B, F, and how many steps each batch row has, (B,), or raise."""
    if x.ndim != 3:
        raise ValueError(f"{name} must have shape (T, B, F), got {x.shape}")
    T, B, F = x.shape
    return (T, B, F), checks.runs(lengths, None, T, B).sum(axis=0)


class Last(NamedTuple):
    """What `last_backward` needs."""

    shape: tuple[int, int, int]  # of x
    dtype: np.dtype[Any]
    steps: Integers  # (B,)
    parts: list[tuple[slice, bool]]


def last_forward(
    x: Array, directions: int = 1, *, reverse: bool = False, lengths: Lengths = None
) -> tuple[Array, Last]:
    """Return the last output of each direction: of batch row b, which has n > 0 steps::

        y[b] = x[n-1, b], or with reverse x[0, b]                 one direction
        y[b, :H] = x[n-1, b, :H]    y[b, H:] = x[0, b, H:]        two: forward beside reverse

    and zeros if n = 0.

    Parameters
    ----------
    x : ndarray of float32 or float64, shape (T, B, F), F = directions * H
        Input.
    directions : {1, 2}
        How many ``x`` has the outputs of.
    reverse : bool, default False
        The one direction runs from t = n-1 to 0.
    lengths : array_like of int, shape (B,), optional
        Steps of each batch row.

    Returns
    -------
    y : ndarray, shape (B, F)
    cache : Last
    """
    dtype = checks.real("x", x)
    (T, B, F), steps = steps_of("x", x, lengths)
    if directions not in (1, 2) or (directions == 2 and reverse):
        raise ValueError(f"directions must be 1, or 2 without reverse, got {directions}")
    if F % directions:
        raise ValueError(f"x must have columns for {directions} directions, got {F}")
    H = F // 2
    parts = [(slice(0, F), reverse)]
    if directions == 2:
        parts = [(slice(0, H), False), (slice(H, F), True)]
    y = np.zeros((B, F), dtype)
    for b, n in enumerate(steps):
        for columns, ends_at_0 in parts if n > 0 else []:
            y[b, columns] = x[0 if ends_at_0 else n - 1, b, columns]
    return y, Last((T, B, F), dtype, steps, parts)


def last_backward(dy: Array, cache: Last) -> tuple[Array, Grads]:
    """Return dx, which is dy[b] where y[b] comes from, and 0 elsewhere."""
    shape, dtype, steps, parts = cache
    dy = checks.copy("dy", dy, shape[1:], dtype)
    dx = np.zeros(shape, dtype)
    for b, n in enumerate(steps):
        for columns, ends_at_0 in parts if n > 0 else []:
            dx[0 if ends_at_0 else n - 1, b, columns] = dy[b, columns]
    return dx, {}


class Pool(NamedTuple):
    """What `pool_backward` needs."""

    shape: tuple[int, int, int]  # of x
    dtype: np.dtype[Any]
    steps: Integers  # (B,)
    at: Integers | None  # (B, F), where the largest is


def pool_forward(
    x: Array, kind: Literal["mean", "max"] = "mean", *, lengths: Lengths = None
) -> tuple[Array, Pool]:
    """Return the mean, or the largest, of x[:n, b] in each column; zeros if row b has no step.

    Parameters
    ----------
    x : ndarray of float32 or float64, shape (T, B, F)
        Input.
    kind : {"mean", "max"}
        Which of them.
    lengths : array_like of int, shape (B,), optional
        Steps of each batch row.

    Returns
    -------
    y : ndarray, shape (B, F)
    cache : Pool
    """
    dtype = checks.real("x", x)
    (T, B, F), steps = steps_of("x", x, lengths)
    if kind not in ("mean", "max"):
        raise ValueError(f"kind must be 'mean' or 'max', got {kind!r}")
    y = np.zeros((B, F), dtype)
    at = np.zeros((B, F), np.intp)
    for b, n in enumerate(steps):
        if n > 0 and kind == "mean":
            y[b] = x[:n, b].mean(axis=0)
        elif n > 0:
            at[b] = x[:n, b].argmax(axis=0)
            y[b] = x[at[b], b, np.arange(F)]
    return y, Pool((T, B, F), dtype, steps, at if kind == "max" else None)


def pool_backward(dy: Array, cache: Pool) -> tuple[Array, Grads]:
    """Return dx: dy[b] / n at all n steps of row b, or dy[b] at the first of the largest."""
    (T, B, F), dtype, steps, at = cache
    dy = checks.copy("dy", dy, (B, F), dtype)
    dx = np.zeros((T, B, F), dtype)
    for b, n in enumerate(steps):
        if n > 0 and at is None:
            dx[:n, b] = dy[b] / dtype.type(n)
        elif n > 0 and at is not None:
            dx[at[b], b, np.arange(F)] = dy[b]
    return dx, {}


class Flatten(NamedTuple):
    """What `flatten_backward` needs."""

    shape: tuple[int, int, int]  # of x
    dtype: np.dtype[Any]
    steps: Integers  # (B,)


def flatten_forward(x: Array, *, lengths: Lengths = None) -> tuple[Array, Flatten]:
    """Return all steps of each batch row side by side, zeros where it has none.

    Parameters
    ----------
    x : ndarray of float32 or float64, shape (T, B, F)
        Input.
    lengths : array_like of int, shape (B,), optional
        Steps of each batch row.

    Returns
    -------
    y : ndarray, shape (B, T F)
        y[b, t F + k] = x[t, b, k].
    cache : Flatten
    """
    dtype = checks.real("x", x)
    (T, B, F), steps = steps_of("x", x, lengths)
    y = np.zeros((B, T * F), dtype)
    for b, n in enumerate(steps):
        y[b, : n * F] = x[:n, b].ravel()
    return y, Flatten((T, B, F), dtype, steps)


def flatten_backward(dy: Array, cache: Flatten) -> tuple[Array, Grads]:
    """Return dx: dx[t, b, k] = dy[b, t F + k], and 0 where row b has no step t."""
    (T, B, F), dtype, steps = cache
    dy = checks.copy("dy", dy, (B, T * F), dtype)
    dx = np.zeros((T, B, F), dtype)
    for b, n in enumerate(steps):
        dx[:n, b] = dy[b, : n * F].reshape(n, F)
    return dx, {}


class Attention(NamedTuple):
    """What `attention_backward` needs."""

    query: Array  # (Tq, B, F)
    memory: Array  # (Tm, B, F)
    weights: Array  # (B, Tq, Tm)
    steps: Integers  # (B,), of the memory
    scale: float


def attention_forward(
    query: Array, memory: Array, scale: float = 1.0, *, lengths: Lengths = None
) -> tuple[tuple[Array, Array], Attention]:
    """Return what each query finds in the memory: of batch row b, whose memory has n steps::

        weights[b, :, :n] = softmax(scale * query[:, b] @ memory[:n, b].T), of each row
        context[:, b] = weights[b, :, :n] @ memory[:n, b]

    and zeros if n = 0.

    Parameters
    ----------
    query : ndarray of float32 or float64, shape (Tq, B, F)
        What asks, as outputs of a decoder.
    memory : ndarray, shape (Tm, B, F)
        What is asked, as those of an encoder.
    scale : float
        Multiplies the products.
    lengths : array_like of int, shape (B,), optional
        Steps of the memory.

    Returns
    -------
    (context, weights) : tuple of ndarray, shapes (Tq, B, F) and (B, Tq, Tm)
    cache : Attention
    """
    dtype = checks.real("query", query)
    (Tq, B, F), _ = steps_of("query", query, None)
    (Tm, _, _), _ = steps_of("memory", memory, None)
    query = checks.copy("query", query, (Tq, B, F), dtype)
    memory = checks.copy("memory", memory, (Tm, B, F), dtype, like="query")
    steps = checks.runs(lengths, None, Tm, B).sum(axis=0)
    scale = checks.number("scale", scale)
    context = np.zeros((Tq, B, F), dtype)
    weights = np.zeros((B, Tq, Tm), dtype)
    for b, n in enumerate(steps):
        if n > 0:
            q, m = query[:, b], memory[:n, b]
            weights[b, :, :n] = softmax(q @ m.T * scale)
            context[:, b] = weights[b, :, :n] @ m
    return (context, weights.copy()), Attention(query, memory, weights, steps, scale)


def attention_backward(
    dy: tuple[Array, Array | None], cache: Attention
) -> tuple[tuple[Array, Array], Grads]:
    """Return (dquery, dmemory): of batch row b, with w = weights[b] and s = query @ memory.T::

        dw = dcontext @ memory.T + dweights
        ds = scale * w * (dw - sum(dw * w)), of each row
        dquery = ds @ memory        dmemory = w.T @ dcontext + ds.T @ query

    ``dy`` is (dcontext, dweights), of which the second may be None, which means zero.
    """
    query, memory, weights, steps, scale = cache
    dtype = query.dtype
    dcontext = checks.copy("dcontext", dy[0], query.shape, dtype, like="query")
    dweights = checks.copy_or_zeros("dweights", dy[1], weights.shape, dtype)
    dquery, dmemory = np.zeros_like(query), np.zeros_like(memory)
    for b, n in enumerate(steps):
        if n > 0:
            q, m, w, d = query[:, b], memory[:n, b], weights[b, :, :n], dcontext[:, b]
            ds = softmax_gradient(d @ m.T + dweights[b, :, :n], w) * scale
            dquery[:, b] = ds @ m
            dmemory[:n, b] = w.T @ d + ds.T @ q
    return (dquery, dmemory), {}
