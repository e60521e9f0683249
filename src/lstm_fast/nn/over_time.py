"""Blocks that make one row of all time steps: `Last`, `Pool` and `Flatten`."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt

from ..engine import Array
from ..engine.runtime.arithmetic import DefaultArithmetic
from ..network import checks
from ..network.block import Block
from ..network.parameters import Parameters
from .rows import Kept, kept_in, no_state, written

__all__ = ["Flatten", "Last", "Pool"]


class _OverTime(Block):
    """What all have in common: (T, B, columns) becomes one row of each sequence."""

    keeps_time = False

    def _set_up(self, dtype: npt.DTypeLike, batch_first: bool) -> None:
        self.dtype = checks.real_dtype("dtype", dtype)
        self.batch_first = checks.boolean("batch_first", batch_first)
        self._values = Parameters({})

    @property
    def _parameters(self) -> Parameters:
        return self._values

    @abstractmethod
    def _take(self, x: Array, lengths: npt.NDArray[np.intp]) -> tuple[Array, Any]:
        """Return y, a row of each sequence, of x (T, B, columns), and what `_put` needs."""

    @abstractmethod
    def _put(self, dx: Array, dy: Array, lengths: npt.NDArray[np.intp], inside: Any) -> None:
        """Write the gradient of x to zeros, (T, B, columns)."""

    def __call__(
        self, x: Array, state: None = None, *, lengths: npt.ArrayLike | None = None
    ) -> tuple[Array, None]:
        """Compute.

        Parameters
        ----------
        x : ndarray, shape (T, B, columns), or (B, T, columns) with `batch_first`
            Or (T, columns) of one sequence.
        state : None
            There is none.
        lengths : array_like of int, shape (B,), optional
            Time steps of each sequence: what comes after is not read.

        Returns
        -------
        y : ndarray, shape (B, columns), or (columns,) of one sequence
            Zeros for a sequence of length 0.
        None

        Raises
        ------
        TypeError
            If `x` has another dtype or is no array.
        ValueError
            If a shape or value is wrong.
        """
        y, _, _ = self.forward(x, state, lengths=lengths)
        return y, None

    def forward(
        self, x: Array, state: None = None, *, lengths: npt.ArrayLike | None = None
    ) -> tuple[Array, None, Kept]:
        """As a call, and return a cache for `backward` besides."""
        no_state(state)
        x = checks.real("x", x, self.dtype)
        if x.ndim not in (2, 3):
            axes = "B, T" if self.batch_first else "T, B"
            raise ValueError(f"x: expected shape ({axes}, columns) or (T, columns), got {x.shape}")
        given = self._time_major(x)
        T, B, _ = given.shape
        steps = np.full(B, T) if lengths is None else checks.lengths("lengths", lengths, T, B)
        with DefaultArithmetic():
            y, inside = self._take(given, steps)
        return y if x.ndim == 3 else y[0], None, Kept(self, (x.shape, steps, inside))

    def backward(
        self, dy: Array | None, dstate: None, cache: Kept
    ) -> tuple[Array, None, dict[str, Array]]:
        """Return the gradient of x, None for a state, no others: see `Linear.backward`."""
        shape, lengths, inside = kept_in(cache, self)
        dx = np.zeros(shape, self.dtype)
        if dy is not None:
            inner = self._time_major(dx)
            columns = self._shape_after(shape)[-1]
            B = (inner.shape[1],) if dx.ndim == 3 else ()
            dy = checks.shaped("dy", dy, self.dtype, (*B, columns), "shape of y")
            with DefaultArithmetic():
                self._put(inner, dy if dx.ndim == 3 else dy[None], lengths, inside)
        return dx, None, {}

    def _time_major(self, x: Array) -> Array:
        if x.ndim == 2:
            return x[:, None]
        return x.swapaxes(0, 1) if self.batch_first else x

    def _shape_after(self, shape: tuple[Any, ...]) -> tuple[Any, ...]:
        return *(shape[:1] if self.batch_first else shape[1:2])[: len(shape) - 2], shape[-1]

    def __repr__(self) -> str:
        return written(self)


class Last(_OverTime):
    """The last output of each direction: at the end of a sequence, and for reverse at its start.

    Parameters
    ----------
    directions : {1, 2}
        Whether x has the outputs of one direction, or of two side by side, as a bidirectional
        `LSTM` gives them: the forward half is taken at a row's last step, the reverse half at its
        first.
    reverse : bool
        The one direction runs from the end of the sequence to its start, as an `LSTM` with
        ``reverse=True``.
    batch_first : bool
        x is (B, T, columns) instead of (T, B, columns).
    dtype : numpy.float32 or numpy.float64
    """

    def __init__(
        self,
        directions: int = 1,
        reverse: bool = False,
        *,
        batch_first: bool = False,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        self.directions = checks.integer("directions", directions, 1)
        self.reverse = checks.boolean("reverse", reverse)
        if self.directions > 2:
            raise ValueError(f"directions: expected 1 or 2, got {directions}")
        if self.directions == 2 and self.reverse:
            raise ValueError("reverse: goes with one direction")
        self._set_up(dtype, batch_first)

    def _parts(self, columns: int) -> list[tuple[slice, bool]]:
        """Return the columns of each direction, and whether it ends at the first step."""
        if self.directions == 1:
            return [(slice(0, columns), self.reverse)]
        if columns % 2:
            raise ValueError(f"x: expected an even number of columns, got {columns}")
        return [(slice(0, columns // 2), False), (slice(columns // 2, columns), True)]

    def _take(self, x: Array, lengths: npt.NDArray[np.intp]) -> tuple[Array, Any]:
        y = np.zeros(x.shape[1:], self.dtype)
        some = np.nonzero(lengths)[0]
        for columns, at_start in self._parts(x.shape[2]):
            y[some, columns] = x[0 * some if at_start else lengths[some] - 1, some, columns]
        return y, None

    def _put(self, dx: Array, dy: Array, lengths: npt.NDArray[np.intp], inside: Any) -> None:
        some = np.nonzero(lengths)[0]
        for columns, at_start in self._parts(dx.shape[2]):
            dx[0 * some if at_start else lengths[some] - 1, some, columns] = dy[some, columns]

    def _options(self) -> dict[str, Any]:
        return {
            "directions": self.directions,
            "reverse": self.reverse,
            "batch_first": self.batch_first,
            "dtype": self.dtype,
        }


class Pool(_OverTime):
    """The mean or the largest value of every column over the steps of a sequence.

    Parameters
    ----------
    kind : {"mean", "max"}
        Of equal largest values the first has the gradient.
    batch_first : bool
        x is (B, T, columns) instead of (T, B, columns).
    dtype : numpy.float32 or numpy.float64
    """

    def __init__(
        self,
        kind: str = "mean",
        *,
        batch_first: bool = False,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        self.kind = checks.one_of("kind", kind, ("mean", "max"))
        self._set_up(dtype, batch_first)

    def _take(self, x: Array, lengths: npt.NDArray[np.intp]) -> tuple[Array, Any]:
        within = (np.arange(len(x))[:, None] < lengths)[..., None]
        if self.kind == "mean":
            total = np.add.reduce(x, axis=0, where=within, dtype=self.dtype)
            return total / np.maximum(lengths, 1).astype(self.dtype)[:, None], None
        if len(x) == 0:
            return np.zeros(x.shape[1:], self.dtype), np.zeros(x.shape[1:], np.intp)
        at = np.where(within, x, -np.inf).argmax(axis=0)
        y = np.take_along_axis(x, at[None], axis=0)[0]
        return np.where(lengths[:, None] > 0, y, self.dtype.type(0)), at

    def _put(self, dx: Array, dy: Array, lengths: npt.NDArray[np.intp], inside: Any) -> None:
        if self.kind == "mean":
            share = dy / np.maximum(lengths, 1).astype(self.dtype)[:, None]
            within = (np.arange(len(dx))[:, None] < lengths)[..., None]
            np.copyto(dx, share, where=within)
        elif len(dx):
            some = np.nonzero(lengths)[0]
            columns = np.arange(dy.shape[1])
            dx[inside[some], some[:, None], columns] = dy[some]

    def _options(self) -> dict[str, Any]:
        return {"kind": self.kind, "batch_first": self.batch_first, "dtype": self.dtype}


class Flatten(_OverTime):
    """All steps of a sequence side by side: T times as many columns, those of the first step first.

    What comes after it has the columns of one T: sequences have this many steps, or `lengths`, with
    zeros for the steps that are not there.

    Parameters
    ----------
    batch_first : bool
        x is (B, T, columns) instead of (T, B, columns).
    dtype : numpy.float32 or numpy.float64
    """

    def __init__(self, *, batch_first: bool = False, dtype: npt.DTypeLike = np.float32) -> None:
        self._set_up(dtype, batch_first)

    def _take(self, x: Array, lengths: npt.NDArray[np.intp]) -> tuple[Array, Any]:
        T, B, columns = x.shape
        within = np.arange(T) < lengths[:, None]
        y = np.where(within[..., None], x.swapaxes(0, 1), self.dtype.type(0))
        return y.reshape(B, T * columns), None

    def _put(self, dx: Array, dy: Array, lengths: npt.NDArray[np.intp], inside: Any) -> None:
        T, B, columns = dx.shape
        within = np.arange(T)[:, None] < lengths
        steps = dy.reshape(B, T, columns).swapaxes(0, 1)
        np.copyto(dx, steps, where=within[..., None])

    def _shape_after(self, shape: tuple[Any, ...]) -> tuple[Any, ...]:
        *B, columns = super()._shape_after(shape)
        T = shape[1] if self.batch_first and len(shape) == 3 else shape[0]
        known = isinstance(T, int) and isinstance(columns, int)
        return *B, T * columns if known else f"{T} {columns}"

    def _options(self) -> dict[str, Any]:
        return {"batch_first": self.batch_first, "dtype": self.dtype}
