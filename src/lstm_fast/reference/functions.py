"""Functions of the equations: activations, clamp, norm, softmax, padding; and types."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating[Any]]
Bools = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.integer[Any]]
Lengths = npt.ArrayLike | None
Grads = dict[str, Array]
Activation = str | tuple[str] | tuple[str, float] | tuple[str, float, float]


class Function(NamedTuple):
    """An activation function, one of `FUNCTIONS`."""

    name: str
    constants: tuple[float, ...]  # alpha, beta, as many as it has

    def __call__(self, x: Array) -> Array:
        """Return the value at ``x``."""
        return FUNCTIONS[self.name](x, *self.constants)

    def derivative(self, x: Array, y: Array) -> Array:
        """Return the derivative at ``x``, where the value is ``y``."""
        return DERIVATIVES[self.name](x, y, *self.constants).astype(x.dtype)


class Norm(NamedTuple):
    """What `normalize` returns for N rows of n elements."""

    value: Array  # (N, n)
    scale: Array  # (N, 1), 1 / sqrt(var + eps)


def sigmoid(x: Array) -> Array:
    """Return 1 / (1 + exp(-x)); exp only sees -abs(x), so that it cannot overflow."""
    e = np.exp(-np.abs(x))
    s: Array = np.where(x >= 0, 1, e) / (1 + e)
    return s


# ONNX's, with alpha and beta where there are some. NaN stays NaN.
FUNCTIONS: dict[str, Callable[..., Array]] = {
    "Sigmoid": sigmoid,
    "Tanh": np.tanh,
    "Relu": lambda x: np.maximum(x, 0),
    "HardSigmoid": lambda x, alpha, beta: np.clip(alpha * x + beta, 0, 1),
    "Softsign": lambda x: x / (1 + np.abs(x)),
    "Softplus": lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),  # log(1 + exp(x))
    "Elu": lambda x, alpha: np.where(x >= 0, x, alpha * np.expm1(np.minimum(x, 0))),
    "LeakyRelu": lambda x, alpha: np.where(x >= 0, x, alpha * x),
    "ThresholdedRelu": lambda x, alpha: np.where(x < alpha, 0, x),
    "ScaledTanh": lambda x, alpha, beta: alpha * np.tanh(beta * x),
    "Affine": lambda x, alpha, beta: alpha * x + beta,
}
# The derivative at x, where the function's value is y; at a kink, that of one side.
DERIVATIVES: dict[str, Callable[..., Array]] = {
    "Sigmoid": lambda x, y: y * (1 - y),
    "Tanh": lambda x, y: 1 - y**2,
    "Relu": lambda x, y: np.where(x > 0, 1, 0),
    "HardSigmoid": lambda x, y, alpha, beta: np.where((y > 0) & (y < 1), alpha, 0),
    "Softsign": lambda x, y: 1 / (1 + np.abs(x)) ** 2,
    "Softplus": lambda x, y: sigmoid(x),
    "Elu": lambda x, y, alpha: np.where(x >= 0, 1, alpha * np.exp(np.minimum(x, 0))),
    "LeakyRelu": lambda x, y, alpha: np.where(x >= 0, 1, alpha),
    "ThresholdedRelu": lambda x, y, alpha: np.where(x < alpha, 0, 1),
    "ScaledTanh": lambda x, y, alpha, beta: alpha * beta * (1 - np.tanh(beta * x) ** 2),
    "Affine": lambda x, y, alpha, beta: np.full_like(x, alpha),
}
# alpha and beta where they are not given
CONSTANTS: dict[str, tuple[float, ...]] = dict.fromkeys(FUNCTIONS, ()) | {
    "HardSigmoid": (0.2, 0.5),
    "Elu": (1.0,),
    "LeakyRelu": (0.01,),
    "ThresholdedRelu": (1.0,),
    "ScaledTanh": (1.0, 1.0),
    "Affine": (1.0, 0.0),
}


def unless_beyond(limit: Any, value: Array, gradient: Array) -> Array:
    """Return the gradient of clamp(value, limit): that of the result, or 0 beyond the limit."""
    return np.where(np.abs(value) > limit, 0, gradient)


GATE_EPS = 1e-8  # of layer norm of each gate, as in TensorFlow Lite


def normalize(v: Array, eps: float = 1e-5) -> Norm:
    """Return LN(v), of each row, and the factor in it."""
    centred = v - v.mean(axis=1, keepdims=True)
    scale = 1 / np.sqrt((centred**2).mean(axis=1, keepdims=True) + eps)
    return Norm(centred * scale, scale)


def normalize_backward(dw: Array, norm: Norm) -> Array:
    """Return the gradient of v from that of w = LN(v)."""
    w, scale = norm
    mean_dw = dw.mean(axis=1, keepdims=True)
    mean_dw_w = (dw * w).mean(axis=1, keepdims=True)
    dv: Array = (dw - mean_dw - w * mean_dw_w) * scale
    return dv


def softmax(v: Array) -> Array:
    """Return exp(v) / sum(exp(v)), of each row; exp only sees v - max(v), so it cannot overflow."""
    e = np.exp(v - v.max(axis=1, keepdims=True))
    y: Array = e / e.sum(axis=1, keepdims=True)
    return y


def softmax_gradient(dy: Array, y: Array) -> Array:
    """Return the gradient of v from that of y = softmax(v)."""
    dv: Array = y * (dy - (dy * y).sum(axis=1, keepdims=True))
    return dv


def hold(y: Array, runs: Bools) -> None:
    """Repeat in ``y``, in input order, the output of the last time at which a row ran."""
    for t in range(1, len(y)):
        y[t, ~runs[t]] = y[t - 1, ~runs[t]]


def hold_backward(dy: Array, runs: Bools) -> None:
    """Add the gradients of repeated outputs to those of the outputs."""
    for t in reversed(range(1, len(dy))):
        dy[t - 1, ~runs[t]] += dy[t, ~runs[t]]


def pad(rows: Array, lengths: npt.NDArray[np.intp]) -> Array:
    """Return sequences that come one after the other as (T, B, columns), with zeros after each."""
    x = np.zeros((max(lengths, default=0), len(lengths), rows.shape[1]), rows.dtype)
    x.swapaxes(0, 1)[np.arange(len(x)) < lengths[:, None]] = rows
    return x


def concatenate(x: Array, lengths: npt.NDArray[np.intp]) -> Array:
    """Return the sequences of (T, B, columns) one after the other, without their padding."""
    rows: Array = x.swapaxes(0, 1)[np.arange(len(x)) < lengths[:, None]]
    return rows
