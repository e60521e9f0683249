"""Blocks that change the numbers of a row: `Activation`, `Softmax`, `LayerNorm`, `Dropout`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..engine import Array
from ..engine.rows import (
    activate,
    activate_backward,
    layer_norm,
    layer_norm_backward,
    softmax,
    softmax_backward,
)
from ..engine.runtime.arithmetic import DefaultArithmetic
from ..network import checks, options
from .rows import RowBlock

__all__ = ["Activation", "Dropout", "LayerNorm", "Softmax"]


class Activation(RowBlock):
    """A function of every number.

    Parameters
    ----------
    function : str or (str, alpha, beta)
        By ONNX's name, as the activations of `LSTM`: Relu, Tanh, Sigmoid, HardSigmoid, Softsign,
        Softplus, Elu, LeakyRelu, ThresholdedRelu, ScaledTanh, Affine.
    batch_first : bool
        x is (B, T, columns) where lengths are given, instead of (T, B, columns).
    dtype : numpy.float32 or numpy.float64

    Examples
    --------
    >>> Activation("Relu")(np.array([-1.0, 2.0], np.float32))[0]
    array([0., 2.], dtype=float32)
    """

    _keeps_x = True

    def __init__(
        self,
        function: options.Activation,
        *,
        batch_first: bool = False,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        self.function = function
        number, alpha, beta = options.function("function", function)
        self._function = [*options.FUNCTIONS][number], alpha, beta
        self._set_up({}, dtype, batch_first)

    def _infer(self, x: Array) -> Array:
        return activate(*self._function, x)

    def _train(self, x: Array) -> tuple[Array, Any]:
        return self._infer(x), x

    def _differentiate(self, dy: Array, inside: Any) -> tuple[Array, dict[str, Array]]:
        return activate_backward(*self._function, inside, dy), {}

    def _options(self) -> dict[str, Any]:
        return {"function": self.function, "batch_first": self.batch_first, "dtype": self.dtype}


class Softmax(RowBlock):
    """exp(x) over its sum, of every row.

    In training `CrossEntropy` takes what is before it, and needs no `Softmax`.

    Parameters
    ----------
    batch_first : bool
        x is (B, T, columns) where lengths are given, instead of (T, B, columns).
    dtype : numpy.float32 or numpy.float64
    """

    def __init__(self, *, batch_first: bool = False, dtype: npt.DTypeLike = np.float32) -> None:
        self._set_up({}, dtype, batch_first)

    def _infer(self, x: Array) -> Array:
        return softmax(x)

    def _train(self, x: Array) -> tuple[Array, Any]:
        y = softmax(x)
        return y, y.copy()

    def _differentiate(self, dy: Array, inside: Any) -> tuple[Array, dict[str, Array]]:
        return softmax_backward(dy, inside), {}

    def _options(self) -> dict[str, Any]:
        return {"batch_first": self.batch_first, "dtype": self.dtype}


class LayerNorm(RowBlock):
    """Every row less its mean, over its standard deviation, times weight, plus bias.

    Names, shapes and initial values are those of ``torch.nn.LayerNorm``.

    Parameters
    ----------
    columns : int
        Of the rows.
    eps : float
        Added to the variance.
    bias : bool
        Whether there is a bias.
    batch_first : bool
        x is (B, T, columns) where lengths are given, instead of (T, B, columns).
    dtype : numpy.float32 or numpy.float64
    """

    def __init__(
        self,
        columns: int,
        eps: float = 1e-5,
        bias: bool = True,
        *,
        batch_first: bool = False,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        self.columns = checks.integer("columns", columns, 1)
        self.eps = checks.number("eps", eps)
        if not self.eps >= 0:
            raise ValueError(f"eps: expected at least 0, got {eps}")
        of = checks.real_dtype("dtype", dtype)
        checks.affordable("columns", 2 * self.columns, of)
        values = {"weight": np.ones(self.columns, of)}
        if checks.boolean("bias", bias):
            values["bias"] = np.zeros(self.columns, of)
        self._set_up(values, of, batch_first)

    def _infer(self, x: Array) -> Array:
        return self._train(x)[0]

    def _train(self, x: Array) -> tuple[Array, Any]:
        values = self._values.state_dict()
        weight = values["weight"]
        y, normal, scale = layer_norm(x, weight, values.get("bias"), self.eps)
        return y, (normal, scale, weight)

    def _differentiate(self, dy: Array, inside: Any) -> tuple[Array, dict[str, Array]]:
        dx, *grads = layer_norm_backward(dy, *inside)
        return dx, dict(zip(self._values.names, grads, strict=False))

    @property
    def _columns(self) -> int:
        return self.columns

    def _options(self) -> dict[str, Any]:
        return {
            "columns": self.columns,
            "eps": self.eps,
            "bias": "bias" in self._values,
            "batch_first": self.batch_first,
            "dtype": self.dtype,
        }


class Dropout(RowBlock):
    """In `forward`, each number is 0 with probability `rate`, and otherwise over 1 - rate.

    In inference nothing changes.

    Parameters
    ----------
    rate : float
        From 0 to 1. May be set.
    batch_first : bool
        x is (B, T, columns) where lengths are given, instead of (T, B, columns).
    dtype : numpy.float32 or numpy.float64
    seed : int or numpy.random.Generator, optional
        Source of what is drawn.
    """

    def __init__(
        self,
        rate: float = 0.5,
        *,
        batch_first: bool = False,
        dtype: npt.DTypeLike = np.float32,
        seed: int | np.random.Generator | None = None,
    ) -> None:
        self.rate = rate
        self._rng = checks.generator("seed", seed)
        self._set_up({}, dtype, batch_first)

    @property
    def rate(self) -> float:
        """Probability of a 0. May be set."""
        return self._rate

    @rate.setter
    def rate(self, rate: float) -> None:
        self._rate = checks.fraction("rate", rate)

    @property
    def _generators(self) -> dict[str, np.random.Generator]:
        return {"": self._rng}

    def _infer(self, x: Array) -> Array:
        return x.copy()

    def _train(self, x: Array) -> tuple[Array, Any]:
        with DefaultArithmetic():
            kept = self._rng.random(x.shape, np.float32) >= self._rate
            scale = self.dtype.type(1 / (1 - self._rate) if self._rate < 1 else 0)
            mask = np.where(kept, scale, self.dtype.type(0))
            return x * mask, mask

    def _differentiate(self, dy: Array, inside: Any) -> tuple[Array, dict[str, Array]]:
        with DefaultArithmetic():
            return dy * inside, {}

    def _options(self) -> dict[str, Any]:
        return {"rate": self.rate, "batch_first": self.batch_first, "dtype": self.dtype}
