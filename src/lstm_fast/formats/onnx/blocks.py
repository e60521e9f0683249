"""Operators of ONNX that are blocks of the package."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ... import nn
from ...network.block import Block
from ...network.options import FUNCTIONS, Activation
from .. import cells
from .layout import (
    LAYOUTS,
    Operator,
    Value,
    is_time,
    pool_step,
    value_of,
    without,
    without_time,
)
from .shapes import size_of
from .values import (
    Atom,
    Chain,
    Filled,
    Group,
    LinearStep,
    LSTMStep,
    Signal,
    Stack,
    Step,
    joined,
)

__all__ = ["OPERATORS"]

AnyArray = npt.NDArray[Any]

# Functions that are operators, too, with the names of their numbers.
ACTIVATIONS: dict[str, tuple[str, ...]] = {
    "Sigmoid": (),
    "Tanh": (),
    "Relu": (),
    "HardSigmoid": ("alpha", "beta"),
    "Softsign": (),
    "Softplus": (),
    "Elu": ("alpha",),
    "LeakyRelu": ("alpha",),
    "ThresholdedRelu": ("alpha",),
}
MERGES = {"ReduceSum": "sum", "ReduceMean": "ave", "ReduceProd": "mul"}
POOLS = {"ReduceMean": "mean", "ReduceMax": "max"}


def _rows(x: Any) -> Signal:
    if not isinstance(x, Signal) or not x.rows:
        raise ValueError("takes other axes than that of the columns of a block")
    return x


def _constant(x: Any) -> AnyArray:
    if not isinstance(x, np.ndarray) or x.dtype.kind != "f":
        raise ValueError("has something computed where weights are expected")
    return x


def _after(x: Signal, step: Any, columns: Group | None = None) -> Signal:
    """Return a signal after a block that computes rows."""
    columns = x.columns if columns is None else columns
    axes = (*x.axes[:-1], columns)
    return replace(x, chain=Chain(x.chain, step), axes=axes, columns=columns)


def _changed(x: Signal, step: Any) -> Signal:
    """Return a signal whose last block is this one instead."""
    assert x.chain is not None
    return replace(x, chain=Chain(x.chain.before, step))


# ---- functions


def _activated(op: Operator, x: Signal, function: Activation) -> Signal:
    def make(batch_first: bool, dtype: Any) -> Block:
        return nn.Activation(function, batch_first=batch_first, dtype=dtype)

    return _after(x, Step(op.name, "Activation", "", make, str(function)))


def _activation(op: Operator, x: Any) -> Signal:
    defaults = FUNCTIONS[op.kind]
    numbers = [
        float(op.attributes.number(name, default))
        for name, default in zip(ACTIVATIONS[op.kind], defaults, strict=True)
    ]
    plain = tuple(numbers) == defaults
    function: Any = op.kind if plain else (op.kind, *numbers)
    return _activated(op, _rows(x), function)


def _softmax(op: Operator, x: Any) -> Signal:
    x = _rows(x)
    axis = op.attributes.integer("axis", 1 if op.version < 13 else -1)
    if axis not in (-1, len(x.axes) - 1):
        raise ValueError(f"has axis {axis} of {len(x.axes)}: only the last one can be read")

    def make(batch_first: bool, dtype: Any) -> Block:
        return nn.Softmax(batch_first=batch_first, dtype=dtype)

    return _after(x, Step(op.name, "Softmax", "", make))


def _dropout(op: Operator, x: Any, rate: Any = None, training: Any = None) -> Value:
    op.attributes.number("ratio")
    op.attributes.integer("seed")
    tests = op.attributes.integer("is_test", 0)
    trains = training is not None and not (isinstance(training, np.ndarray) and not training.any())
    if trains or (op.version < 7 and not tests):
        raise ValueError("is in training mode")
    return value_of(x)


def _layer_norm(op: Operator, x: Any, scale: Any, bias: Any = None) -> Signal:
    x = _rows(x)
    axis = op.attributes.integer("axis", -1)
    eps = float(op.attributes.number("epsilon", 1e-5))
    op.attributes.integer("stash_type")
    weight = _constant(scale)
    offset = None if bias is None else _constant(bias)
    columns = weight.size
    if axis not in (-1, len(x.axes) - 1) or weight.shape != (columns,):
        raise ValueError(f"has axis {axis}: only the last one can be read")
    if size_of(x.columns) not in (None, columns) or (offset is not None and offset.size != columns):
        raise ValueError(f"has {columns} columns")

    def make(batch_first: bool, dtype: Any) -> Block:
        block = nn.LayerNorm(columns, eps, offset is not None, batch_first=batch_first, dtype=dtype)
        block.load_state_dict({"weight": weight} | ({} if offset is None else {"bias": offset}))
        return block

    count = columns * (1 if offset is None else 2)
    return _after(x, Step(op.name, "LayerNorm", str(columns), make, f"eps {eps:g}", count))


# ---- products


def _multiplied(op: Operator, x: Signal, weight: AnyArray, bias: AnyArray | None) -> Signal:
    O, I = weight.shape
    if size_of(x.columns) not in (None, I) or not weight.size:
        raise ValueError(f"has weights of {I} columns for {size_of(x.columns)}")
    step = LinearStep(op.name, weight, bias)
    return _after(x, step, (Atom(f"{op.name}.columns", O),))


def _matmul(op: Operator, x: Any, weight: Any) -> Signal:
    if isinstance(x, np.ndarray) or _constant(weight).ndim != 2:
        raise ValueError("is no product of rows with a matrix")
    return _multiplied(op, _rows(x), weight.T, None)


def _gemm(op: Operator, x: Any, weight: Any, bias: Any = None) -> Signal:
    x, weight = _rows(x), _constant(weight)
    alpha, beta = (float(op.attributes.number(name, 1.0)) for name in ("alpha", "beta"))
    op.attributes.integer("broadcast")
    if op.attributes.integer("transA", 0) or weight.ndim != 2 or len(x.axes) != 2:
        raise ValueError("is no product of rows with a matrix")
    weight = weight if op.attributes.integer("transB", 0) else weight.T
    if bias is not None:
        bias = _vector(_constant(bias), len(weight), 2)
        bias = bias if beta == 1 else bias * bias.dtype.type(beta)
    return _multiplied(op, x, weight if alpha == 1 else weight * weight.dtype.type(alpha), bias)


def _vector(array: AnyArray, columns: int | None, rank: int) -> AnyArray:
    """Return what is added to every row: as many numbers as there are columns."""
    row = array.size == 1 or (array.size == columns and array.shape[-1] == columns)
    if columns is None or not row or array.ndim > rank:
        raise ValueError(f"adds an array of shape {array.shape} to rows of {columns}")
    return np.ascontiguousarray(np.broadcast_to(array.ravel(), (columns,)))


def _embedding(op: Operator, table: AnyArray, x: Signal) -> Signal:
    V, E = _constant(table).shape
    if op.attributes.integer("axis", 0) != 0 or not x.integer or x.chain:
        raise ValueError("takes no rows of a table by numbers of the input")

    def make(batch_first: bool, dtype: Any) -> Block:
        return cells.embedding(table, batch_first=batch_first, dtype=dtype)

    columns = (Atom(f"{op.name}.columns", E),)
    step = Step(op.name, "Embedding", f"{V} -> {E}", make, "", V * E, V)
    return replace(
        x, chain=Chain(x.chain, step), axes=(*x.axes, columns), columns=columns, integer=False
    )


def _gather(op: Operator, x: Any, at: Any) -> Any:
    if isinstance(x, np.ndarray) and isinstance(at, Signal):
        return _embedding(op, x, at)
    return LAYOUTS["Gather"](op, x, at)


# ---- sums, and scalars


def _affine(op: Operator, x: Any, alpha: float, beta: float) -> Signal:
    return _activated(op, _rows(x), ("Affine", alpha, beta))


def _scalar(x: Any) -> float | None:
    if isinstance(x, np.ndarray) and x.size == 1 and x.ndim <= 1 and x.dtype.kind in "fiu":
        return float(x.item())
    return None


def _arithmetic(op: Operator, a: Any, b: Any) -> Signal:
    """Add, Sub, Mul, Div: of a bias, of both directions, of a residual connection, of scalars."""
    for name in ("axis", "broadcast"):  # before version 7
        if op.attributes.integer(name):
            raise ValueError(f"has {name}")
    values = isinstance(a, Signal), isinstance(b, Signal)
    if all(values):
        return _both(op, a, b)
    if not any(values):
        raise ValueError("has no output of a block")
    x, other = (a, b) if values[0] else (b, a)
    last = x.last
    if op.kind == "Add" and isinstance(last, LinearStep) and last.bias is None:
        bias = _vector(_constant(other), len(last.weight), len(_rows(x).axes))
        return _changed(x, replace(last, bias=bias))
    number = _scalar(other.value if isinstance(other, Filled) else other)
    if number is None:
        raise ValueError("has another number for each column, and stands after no product")
    if op.kind in ("Add", "Sub"):
        if op.kind == "Sub" and values[1]:
            return _affine(op, x, -1.0, number)
        return _affine(op, x, 1.0, number if op.kind == "Add" else -number)
    if op.kind == "Div" and (values[1] or number == 0):
        raise ValueError("divides by what is computed, or by 0")
    return _affine(op, x, number if op.kind == "Mul" else 1 / number, 0.0)


def _both(op: Operator, a: Signal, b: Signal) -> Signal:
    """Return the sum or product of both directions, or the sum of output and input of an LSTM."""
    if a.direction is not None and op.kind in ("Add", "Mul"):
        first, second = sorted((a, b), key=lambda x: x.direction or 0)
        return joined([first, second], "sum" if op.kind == "Add" else "mul")
    if op.kind == "Add":
        for above, below in ((a, b), (b, a)):
            last = above.last
            alike = above.axes[:-1] == below.axes[:-1] and above.rows and below.rows
            sizes = size_of(above.columns), size_of(below.columns)
            if (
                isinstance(last, LSTMStep)
                and not last.residual
                and above.chain is not None
                and above.chain.before is below.chain
                and alike
                and sizes[0] == sizes[1] is not None
            ):
                return _changed(above, replace(last, residual=True))
    raise ValueError("combines two values that are computed")


# ---- over time


def _reduce(op: Operator, x: Any, given: Any = None) -> Value:
    x = value_of(x)
    axes = op.attributes.integers("axes") if given is None else [int(n) for n in given]
    keep = op.attributes.integer("keepdims", 1)
    op.attributes.integer("noop_with_empty_axes")
    rank = len(x.axes)
    if axes is None or len(axes) != 1 or not -rank <= axes[0] < rank:
        raise ValueError(f"has axes {axes}: one is needed")
    axis = axes[0] % rank
    if isinstance(x, Stack) and axis == x.axis and op.kind in MERGES:
        merged = joined(x.parts, MERGES[op.kind])
        return merged.moved([*merged.axes[:axis], (), *merged.axes[axis:]]) if keep else merged
    if not is_time(x, axis) or op.kind not in POOLS:
        raise ValueError(f"is over axis {axis}, not over time")
    pooled = without_time(op.name, x, pool_step(op, POOLS[op.kind]))
    return pooled if keep else without(pooled, [axis])


def _global_pool(op: Operator, x: Any) -> Value:
    """Over the last axis of (batch, columns, time)."""
    if not isinstance(x, Signal) or len(x.axes) != 3 or not is_time(x, 2):
        raise ValueError("is not over time")
    return without_time(op.name, x, pool_step(op, "mean" if "Average" in op.kind else "max"))


OPERATORS: dict[str, Callable[..., Any]] = {
    **LAYOUTS,
    **{kind: _activation for kind in ACTIVATIONS},
    **{kind: _arithmetic for kind in ("Add", "Sub", "Mul", "Div")},
    **{kind: _reduce for kind in (*MERGES, *POOLS)},
    "Dropout": _dropout,
    "Gather": _gather,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "LayerNormalization": _layer_norm,
    "MatMul": _matmul,
    "Softmax": _softmax,
}
