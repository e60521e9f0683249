"""`Linear`: a product with a matrix of weights."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..engine import Array
from ..engine.matrix import Packed, multiply, pack, sum_rows
from ..engine.runtime.arithmetic import DefaultArithmetic
from ..network import checks
from ..network.parameters import Parameters
from .rows import Derived, RowBlock

__all__ = ["Linear"]


class _Weights(NamedTuple):
    """The parameters of now: weights packed for y, and for dx."""

    of_y: Packed
    of_dx: Packed
    bias: Array | None


class Linear(RowBlock):
    """y = x W^T + b, of every row.

    Names, shapes and initial values are those of ``torch.nn.Linear``.

    Parameters
    ----------
    input_size : int
        Features of the input, I.
    output_size : int
        Features of the output, O.
    bias : bool
        Whether there is b.
    batch_first : bool
        x is (B, T, I) where lengths are given, instead of (T, B, I).
    dtype : numpy.float32 or numpy.float64
        Of the parameters, and of all that is passed and returned.
    seed : int or numpy.random.Generator, optional
        Source of the initial parameters, uniform from -1 / sqrt(I) to 1 / sqrt(I).

    Attributes
    ----------
    weight : ndarray, shape (O, I)
    bias : ndarray, shape (O,), or None
        Read-only views of the parameters.

    Examples
    --------
    >>> head = Linear(16, 3, seed=0)
    >>> y, _ = head(np.zeros((7, 2, 16), np.float32))
    >>> y.shape
    (7, 2, 3)
    """

    _keeps_x = True

    def __init__(
        self,
        input_size: int,
        output_size: int,
        bias: bool = True,
        *,
        batch_first: bool = False,
        dtype: npt.DTypeLike = np.float32,
        seed: int | np.random.Generator | None = None,
    ) -> None:
        self.input_size = checks.integer("input_size", input_size, 1)
        self.output_size = checks.integer("output_size", output_size, 1)
        shapes: dict[str, tuple[int, ...]] = {"weight": (self.output_size, self.input_size)}
        if checks.boolean("bias", bias):
            shapes["bias"] = (self.output_size,)
        of = checks.real_dtype("dtype", dtype)
        checks.affordable("output_size", sum(map(math.prod, shapes.values())), of)
        rng = checks.generator("seed", seed)

        def draw() -> dict[str, Array]:
            with DefaultArithmetic():
                bound = 1 / math.sqrt(self.input_size)
                return {k: rng.uniform(-bound, bound, s).astype(of) for k, s in shapes.items()}

        self._set_up(Parameters.first(shapes, of, draw), of, batch_first)
        self._packed = Derived(self._values, self._pack)

    @property
    def weight(self) -> Array:
        """W, (O, I), read-only."""
        return self._values["weight"]

    @property
    def bias(self) -> Array | None:
        """b, (O,), read-only, or None."""
        return self._values.get("bias")

    def _pack(self) -> _Weights:
        values = dict(self._values.items())
        weight, bias = values["weight"], values.get("bias")
        return _Weights(pack(weight.T), pack(weight), None if bias is None else bias.copy())

    def _infer(self, x: Array) -> Array:
        weights = self._packed.current()
        return multiply(x, weights.of_y, weights.bias)

    def _train(self, x: Array) -> tuple[Array, Any]:
        weights = self._packed.current()
        return multiply(x, weights.of_y, weights.bias), (x, weights)

    def _differentiate(self, dy: Array, inside: Any) -> tuple[Array, dict[str, Array]]:
        x, weights = inside
        grads = {"weight": multiply(dy.T, pack(x))}
        if weights.bias is not None:
            grads["bias"] = sum_rows(dy)
        return multiply(dy, weights.of_dx), grads

    @property
    def _columns(self) -> int:
        return self.input_size

    def _options(self) -> dict[str, Any]:
        return {
            "input_size": self.input_size,
            "output_size": self.output_size,
            "bias": self.bias is not None,
            "batch_first": self.batch_first,
            "dtype": self.dtype,
        }

    def _shape_after(self, shape: tuple[Any, ...]) -> tuple[Any, ...]:
        return *shape[:-1], self.output_size
