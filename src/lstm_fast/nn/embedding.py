"""`Embedding`: rows of a table, by their numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ..engine import Array
from ..engine.rows import add_rows_at, take_rows
from ..engine.runtime.arithmetic import DefaultArithmetic
from ..network import checks
from ..network.block import Block
from ..network.parameters import Parameters, lock
from .rows import Kept, Rows, kept_in, no_state, written

__all__ = ["Embedding"]

Indices = npt.NDArray[np.intp]


class Embedding(Block):
    """A row of a table for every number.

    Names, shapes and initial values are those of ``torch.nn.Embedding``.

    Parameters
    ----------
    vocabulary : int
        Rows of the table, V: numbers are from 0 to V - 1.
    columns : int
        Of the table and of the output, E.
    padding_index : int, optional
        This row begins as zeros and has no gradient.
    batch_first : bool
        x is (B, T) where lengths are given, instead of (T, B).
    dtype : numpy.float32 or numpy.float64
        Of the table and the output.
    seed : int or numpy.random.Generator, optional
        Source of the table, drawn from a standard normal distribution.

    Attributes
    ----------
    weight : ndarray, shape (V, E)
        Read-only view of the table.

    Examples
    --------
    >>> embed = Embedding(10, 4, seed=0)
    >>> y, _ = embed(np.array([[1, 2], [9, 0]]))
    >>> y.shape
    (2, 2, 4)
    """

    def __init__(
        self,
        vocabulary: int,
        columns: int,
        padding_index: int | None = None,
        *,
        batch_first: bool = False,
        dtype: npt.DTypeLike = np.float32,
        seed: int | np.random.Generator | None = None,
    ) -> None:
        self.vocabulary = checks.integer("vocabulary", vocabulary, 1)
        self.columns = checks.integer("columns", columns, 1)
        self.dtype = checks.real_dtype("dtype", dtype)
        self.batch_first = checks.boolean("batch_first", batch_first)
        if padding_index is not None:
            padding_index = checks.integer("padding_index", padding_index, 0)
            if padding_index >= self.vocabulary:
                raise ValueError(f"padding_index: expected less than {vocabulary}")
        self.padding_index = padding_index
        checks.affordable("vocabulary", self.vocabulary * self.columns, self.dtype)
        rng = checks.generator("seed", seed)
        shape = self.vocabulary, self.columns

        def draw() -> dict[str, Array]:
            with DefaultArithmetic():
                table = rng.standard_normal(shape).astype(self.dtype)
            if padding_index is not None:
                table[padding_index] = 0
            return {"weight": table}

        self._values = Parameters.first({"weight": shape}, self.dtype, draw)

    @property
    def _parameters(self) -> Parameters:
        return self._values

    @property
    def weight(self) -> Array:
        """The table, (V, E), read-only."""
        return self._values["weight"]

    def __call__(
        self, x: Any, state: None = None, *, lengths: npt.ArrayLike | None = None
    ) -> tuple[Array, None]:
        """Look numbers up.

        Parameters
        ----------
        x : array_like of int
            Any shape; (T, B) with `lengths`, or (B, T) with `batch_first`, or (T,) of one sequence.
        state : None
            There is none.
        lengths : array_like of int, shape (B,), optional
            Time steps of each sequence: what comes after is not read, and is 0 in the output.

        Returns
        -------
        y : ndarray, shape (*x.shape, E)
        None

        Raises
        ------
        TypeError
            If `x` does not hold integers.
        ValueError
            If a number is not from 0 to V - 1, or a shape is wrong.
        """
        shape, numbers, at = self._numbers(x, state, lengths)
        return self._rows(shape, numbers, at), None

    def forward(
        self, x: Any, state: None = None, *, lengths: npt.ArrayLike | None = None
    ) -> tuple[Array, None, Kept]:
        """As a call, and return a cache for `backward` besides."""
        shape, numbers, at = self._numbers(x, state, lengths)
        return self._rows(shape, numbers, at), None, Kept(self, (shape, numbers, at))

    def backward(
        self, dy: Array | None, dstate: None, cache: Kept
    ) -> tuple[None, None, dict[str, Array]]:
        """Return None for x and a state, and the gradient of the table: see `Linear.backward`."""
        shape, numbers, at = kept_in(cache, self)
        table = np.zeros((self.vocabulary, self.columns), self.dtype)
        if dy is not None:
            dy = checks.shaped("dy", dy, self.dtype, (*shape, self.columns), "shape of y")
            rows = dy.reshape(-1, self.columns)
            add_rows_at(table, numbers, rows if at is None else rows[at])
            if self.padding_index is not None:
                table[self.padding_index] = 0
        return None, None, {"weight": table}

    def _numbers(
        self, x: Any, state: Any, lengths: Any
    ) -> tuple[tuple[int, ...], Indices, Indices | None]:
        """Return the shape of x, its numbers within lengths, and where these are; None: all."""
        no_state(state)
        checks.unmasked("x", x)
        numbers = np.asarray(x)
        if numbers.size == 0 and not isinstance(x, np.ndarray):
            numbers = numbers.astype(np.intp)
        if numbers.dtype.kind not in "iu":
            raise TypeError(f"x: expected integers, got {numbers.dtype}")
        valid = Rows(numbers.shape, lengths, self.batch_first).valid
        at = None if valid is None else np.flatnonzero(valid)
        flat = numbers.reshape(-1) if at is None else numbers.reshape(-1)[at]
        if flat.size and not 0 <= flat.min() <= flat.max() < self.vocabulary:
            raise ValueError(
                f"x: expected 0 to {self.vocabulary - 1}, got {flat.min()} to {flat.max()}"
            )
        return numbers.shape, flat.astype(np.intp), at

    def _rows(self, shape: tuple[int, ...], numbers: Indices, at: Indices | None) -> Array:
        with lock():  # nobody writes meanwhile
            rows = take_rows(self._values["weight"], numbers)
        if at is not None:
            found = np.zeros((math.prod(shape), self.columns), self.dtype)
            found[at] = rows
            rows = found
        return rows.reshape(*shape, self.columns)

    def _options(self) -> dict[str, Any]:
        return {
            "vocabulary": self.vocabulary,
            "columns": self.columns,
            "padding_index": self.padding_index,
            "batch_first": self.batch_first,
            "dtype": self.dtype,
        }

    def _shape_after(self, shape: tuple[Any, ...]) -> tuple[Any, ...]:
        return *shape, self.columns

    def __repr__(self) -> str:
        return written(self)
