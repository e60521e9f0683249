"""`Attention`: what a query finds in the outputs of an encoder."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..engine import Array
from ..engine.matrix import multiply, pack
from ..engine.rows import softmax, softmax_backward
from ..engine.runtime.arithmetic import DefaultArithmetic
from ..network import checks
from .rows import Kept, kept_in

__all__ = ["Attention"]


class Attention:
    """Dot products of a query with a memory, softmax, and the mean of the memory by these weights.

    ::

        weights = softmax(scale * query memory^T)        context = weights memory

    Luong's "dot" (Effective approaches to attention-based neural machine translation, 2015). It has
    two inputs, so it stands in a `Model` and in no `Sequential`; its gradients are those of both.

    Parameters
    ----------
    scale : float
        Of the products; 1 / sqrt(columns) in a transformer.
    batch_first : bool
        Arrays are (B, T, columns) instead of (T, B, columns).
    dtype : numpy.float32 or numpy.float64
    """

    def __init__(
        self,
        scale: float = 1.0,
        *,
        batch_first: bool = False,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        self.scale = checks.number("scale", scale)
        self.dtype = checks.real_dtype("dtype", dtype)
        self.batch_first = checks.boolean("batch_first", batch_first)

    def __call__(
        self, query: Array, memory: Array, *, lengths: npt.ArrayLike | None = None
    ) -> Array:
        """Return what the query finds.

        Parameters
        ----------
        query : ndarray, shape (Tq, B, columns), or (B, Tq, columns) with `batch_first`
            What asks: as a decoder's outputs.
        memory : ndarray, shape (Tm, B, columns), or (B, Tm, columns)
            What is asked: as an encoder's outputs.
        lengths : array_like of int, shape (B,), optional
            Steps of each memory: what comes after is not read. With none, its context is 0.

        Returns
        -------
        context : ndarray, shape of query
        """
        return self.forward(query, memory, lengths=lengths)[0]

    def forward(
        self, query: Array, memory: Array, *, lengths: npt.ArrayLike | None = None
    ) -> tuple[Array, Kept]:
        """As a call, and return a cache for `backward` besides."""
        q, m, steps = self._all_given(query, memory, lengths)
        context = np.zeros(q.shape, self.dtype)
        inside = []
        for b, n in enumerate(steps):
            one, of = q[:, b], m[:n, b]
            weights = self._weights(one, of)
            if n:
                context[:, b] = multiply(weights, pack(of))
            inside.append((one.copy(), of.copy(), weights))
        return self._as_given(context), Kept(self, (q.shape, m.shape, tuple(inside)))

    def weights(
        self, query: Array, memory: Array, *, lengths: npt.ArrayLike | None = None
    ) -> Array:
        """Return the weights, (B, Tq, Tm), of a call with these arguments: 0 beyond lengths."""
        q, m, steps = self._all_given(query, memory, lengths)
        found = np.zeros((len(steps), len(q), len(m)), self.dtype)
        for b, n in enumerate(steps):
            found[b, :, :n] = self._weights(q[:, b], m[:n, b])
        return found

    def backward(self, dcontext: Array, cache: Kept) -> tuple[Array, Array]:
        """Return the gradients of query and memory.

        Parameters
        ----------
        dcontext : ndarray, shape of query
            Gradient of what `forward` returned.
        cache
            From `forward` of this block.
        """
        *shapes, inside = kept_in(cache, self)
        dy = self._given("dcontext", dcontext)
        if dy.shape != shapes[0]:
            raise ValueError(f"dcontext: expected the shape of query, got {dcontext.shape}")
        dq, dm = (np.zeros(shape, self.dtype) for shape in shapes)
        for b, (one, of, weights) in enumerate(inside):
            n = len(of)
            if n:
                d = checks.in_order(dy[:, b])
                dscores = softmax_backward(multiply(d, pack(of.T)), weights)
                with DefaultArithmetic():
                    dscores *= self.dtype.type(self.scale)
                dq[:, b] = multiply(dscores, pack(of))
                dm[:n, b] = multiply(weights.T, pack(d))
                dm[:n, b] += multiply(dscores.T, pack(one))
        return self._as_given(dq), self._as_given(dm)

    def _weights(self, query: Array, memory: Array) -> Array:
        """Return the weights of the steps of one memory, (Tq, n)."""
        if not len(memory):
            return np.zeros((len(query), 0), self.dtype)
        scores = multiply(query, pack(memory.T))
        with DefaultArithmetic():
            scores *= self.dtype.type(self.scale)
        return softmax(scores)

    def _all_given(
        self, query: Any, memory: Any, lengths: Any
    ) -> tuple[Array, Array, npt.NDArray[np.intp]]:
        """Return both, time first, and the steps of each memory."""
        q, m = self._given("query", query), self._given("memory", memory)
        if q.shape[1:] != m.shape[1:]:
            raise ValueError(f"memory: expected the B and columns of query, {query.shape}")
        T, B, _ = m.shape
        return q, m, np.full(B, T) if lengths is None else checks.lengths("lengths", lengths, T, B)

    def _given(self, name: str, value: Any) -> Array:
        array = checks.real(name, value, self.dtype)
        if array.ndim != 3:
            axes = "B, T" if self.batch_first else "T, B"
            raise ValueError(f"{name}: expected shape ({axes}, columns), got {array.shape}")
        return array.swapaxes(0, 1) if self.batch_first else array

    def _as_given(self, array: Array) -> Array:
        return array.swapaxes(0, 1) if self.batch_first else array

    def __repr__(self) -> str:
        words = f"scale={self.scale}, batch_first={self.batch_first}, dtype={self.dtype}"
        return f"Attention({words})"
