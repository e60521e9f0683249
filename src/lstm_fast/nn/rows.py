"""The rows of a batch that a block computes, and blocks that compute each row by itself."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from ..engine import Array
from ..engine.packing import Packing, packing_of
from ..network import checks
from ..network.block import Block
from ..network.parameters import Parameters, lock

__all__ = ["Derived", "Kept", "RowBlock", "Rows"]

T = TypeVar("T")


class Rows:
    """Which rows of an array there are: all, or the steps within `lengths`.

    Parameters
    ----------
    shape : tuple of int
        All axes of the array but its last. Where there are lengths: (T, B) or (B, T), or (T,) of
        one sequence.
    lengths : array_like of int, shape (B,), optional
    batch_first : bool

    Attributes
    ----------
    packing : Packing or None
        Of a ragged batch: then rows come in its order.
    """

    def __init__(
        self, shape: tuple[int, ...], lengths: npt.ArrayLike | None, batch_first: bool
    ) -> None:
        self.shape, self._swapped = shape, batch_first and len(shape) == 2
        self.packing: Packing | None = None
        if lengths is not None:
            if len(shape) not in (1, 2):
                axes = "B, T" if batch_first else "T, B"
                raise ValueError(
                    f"lengths: go with axes ({axes}, ...), or (T, ...) of one sequence, got "
                    f"{len(shape) + 1} axes"
                )
            self._T, B = reversed(shape) if self._swapped else (*shape, 1)[:2]
            self._lengths = checks.lengths("lengths", lengths, self._T, B)
            self.packing = packing_of(self._lengths, None, self._T, False)

    def take(self, x: Array) -> Array:
        """Return the rows of an array as (N, columns), in C order."""
        if self.packing is None:
            return checks.in_order(x.reshape(math.prod(self.shape), x.shape[-1]))
        if len(self.shape) == 1:
            return self.packing.pack(x[:, None])
        return self.packing.pack(x.swapaxes(0, 1) if self._swapped else x)

    def put(self, rows: Array) -> Array:
        """Return an array of the user's shape with these rows, and 0 where there is no step."""
        if self.packing is None:
            return rows.reshape(*self.shape, rows.shape[1])
        return self._as_given(self.packing.unpack_gradient(rows))

    @property
    def valid(self) -> npt.NDArray[np.bool_] | None:
        """Where there is a step, in the user's shape; None: everywhere."""
        if self.packing is None:
            return None
        return self._as_given(np.arange(self._T)[:, None] < self._lengths)

    def _as_given(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return (T, B, ...) in the user's shape."""
        if len(self.shape) == 1:
            return array[:, 0]
        return array.swapaxes(0, 1) if self._swapped else array


class Kept:
    """What a block keeps for backward. Opaque, but for its size.

    Parameters
    ----------
    owner : object
        The block that may use it.
    inside : tuple
        Of what it needs: arrays, caches, tuples of such, and other things.
    """

    __slots__ = ("_inside", "_owner")

    def __init__(self, owner: object, inside: tuple[Any, ...]) -> None:
        self._owner, self._inside = owner, inside

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays in it."""
        return _nbytes(self._inside)

    def __reduce__(self) -> Any:
        raise TypeError("a cache can be neither pickled nor copied")


def _nbytes(thing: Any) -> int:
    if isinstance(thing, tuple):
        return sum(map(_nbytes, thing))
    return getattr(thing, "nbytes", 0)


class Derived(Generic[T]):
    """What is computed from parameters, and kept until they are written.

    Parameters
    ----------
    parameters : Parameters
    make : callable
        Returns it, from the parameters as they are.
    """

    def __init__(self, parameters: Parameters, make: Callable[[], T]) -> None:
        self._parameters, self._make = parameters, make
        self._kept: tuple[int, T] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None}

    def current(self) -> T:
        """Return it for the parameters of now."""
        with lock():
            parameters = self._parameters
            while True:
                version = parameters.version.number
                if self._kept is not None and self._kept[0] == version:
                    return self._kept[1]
                made = self._make()
                if parameters.version.number == version:  # no signal handler has written meanwhile
                    break
            if parameters.settled:
                self._kept = version, made
            return made


class RowBlock(Block):
    """A block that computes the output of each row, (columns,), from the same row of its input.

    Parameters
    ----------
    values : dict of str to ndarray
        Its parameters.
    dtype : dtype
        Of the parameters, and of what is passed and returned.
    batch_first : bool
        x is (B, T, columns) where lengths are given, instead of (T, B, columns).
    """

    _values: Parameters
    _keeps_x = False  # whether `_train` keeps x

    def _set_up(
        self, values: Parameters | dict[str, Array], dtype: npt.DTypeLike, batch_first: bool
    ) -> None:
        self.dtype = checks.real_dtype("dtype", dtype)
        self.batch_first = checks.boolean("batch_first", batch_first)
        self._values = values if isinstance(values, Parameters) else Parameters(values)

    @property
    def _parameters(self) -> Parameters:
        return self._values

    # ---- what each kind of block computes, of rows (N, columns)

    @abstractmethod
    def _infer(self, x: Array) -> Array:
        """Return y in inference."""

    @abstractmethod
    def _train(self, x: Array) -> tuple[Array, Any]:
        """Return y in training, and what `_differentiate` needs."""

    @abstractmethod
    def _differentiate(self, dy: Array, inside: Any) -> tuple[Array, dict[str, Array]]:
        """Return dx and the gradients of the parameters."""

    @property
    def _columns(self) -> int | None:
        """Columns that x has to have; None: any."""
        return None

    # ---- as users call it

    def __call__(
        self, x: Array, state: None = None, *, lengths: npt.ArrayLike | None = None
    ) -> tuple[Array, None]:
        """Compute in inference.

        Parameters
        ----------
        x : ndarray, shape (..., columns)
            (T, B, columns) with `lengths`, or (B, T, columns) with `batch_first`, or (T, columns)
            of one sequence.
        state : None
            There is none.
        lengths : array_like of int, shape (B,), optional
            Time steps of each sequence: what comes after is not read, and is 0 in the output.

        Returns
        -------
        y : ndarray, shape (..., columns of the output)
        None

        Raises
        ------
        TypeError
            If `x` has another dtype or is no array.
        ValueError
            If a shape or value is wrong.
        """
        rows, given = self._given(x, state, lengths)
        return rows.put(self._infer(given)), None

    def forward(
        self, x: Array, state: None = None, *, lengths: npt.ArrayLike | None = None
    ) -> tuple[Array, None, Kept]:
        """Compute in training: as a call, and return a cache for `backward` besides."""
        return self._forward(x, state, lengths, False)

    def _forward(self, x: Any, state: Any, lengths: Any, owned: bool) -> tuple[Array, None, Kept]:
        rows, given = self._given(x, state, lengths)
        if self._keeps_x and not owned and np.may_share_memory(given, x):
            given = given.copy()
        y, inside = self._train(given)
        return rows.put(y), None, Kept(self, (rows, y.shape[1], inside))

    def backward(
        self, dy: Array | None, dstate: None, cache: Kept
    ) -> tuple[Array, None, dict[str, Array]]:
        """Return the gradients of a scalar loss for the input and the parameters.

        Parameters
        ----------
        dy : ndarray, shape of y, or None for zeros
            Gradient of y.
        dstate : None
            There is none.
        cache
            From `forward` of this block. It is not changed and may be used again.

        Returns
        -------
        dx : ndarray, shape of x
        None
        grads : dict
            Keys and shapes of `state_dict`.
        """
        rows, columns, inside = kept_in(cache, self)
        shape = (*rows.shape, columns)
        if dy is None:
            dy = np.zeros(shape, self.dtype)
        dy = checks.real("dy", dy, self.dtype)
        if dy.shape != shape:
            raise ValueError(f"dy: expected the shape of y, {shape}, got {dy.shape}")
        dx, grads = self._differentiate(rows.take(dy), inside)
        return rows.put(dx), None, grads

    def _given(self, x: Any, state: Any, lengths: Any) -> tuple[Rows, Array]:
        no_state(state)
        x = checks.real("x", x, self.dtype)
        columns = self._columns
        if x.ndim == 0 or (columns is not None and x.shape[-1] != columns):
            wanted = "columns" if columns is None else columns
            raise ValueError(f"x: expected shape (..., {wanted}), got {x.shape}")
        rows = Rows(x.shape[:-1], lengths, self.batch_first)
        return rows, rows.take(x)

    def _shape_after(self, shape: tuple[Any, ...]) -> tuple[Any, ...]:
        return shape

    def __repr__(self) -> str:
        return written(self)


def no_state(state: Any) -> None:
    """Raise where a state is passed to a block that has none."""
    if state is not None:
        raise ValueError(f"state: this block has none, got {type(state).__name__}")


def kept_in(cache: Any, block: object) -> tuple[Any, ...]:
    """Return what a cache of this block has inside."""
    if not isinstance(cache, Kept):
        raise TypeError(f"cache: expected what forward returned, got {type(cache).__name__}")
    if cache._owner is not block:
        raise ValueError(f"cache: comes from another {type(block).__name__}")
    return cache._inside


def written(block: Block) -> str:
    """Return a block as its constructor is called."""
    words = [
        f"{name}={value.name if isinstance(value, np.dtype) else repr(value)}"
        for name, value in block._options().items()
    ]
    return f"{type(block).__name__}({', '.join(words)})"
