"""Operators of TensorFlow Lite, as blocks or as axes that are moved."""

from __future__ import annotations

import numpy as np

from ..signals import Misfit, Signal
from .file import Operator
from .graph import Graph, Rule, Value
from .lstm import FUSED, one_direction, two_directions

__all__ = ["RULES"]


def _fused(signal: Signal, operator: Operator, field: int = 0) -> Signal:
    function = operator.option(field)
    if function not in FUSED:
        raise Misfit(f"activation function {function}")
    return signal.activated(FUSED[function])


def fully_connected(graph: Graph, operator: Operator) -> Signal:
    x = graph.signal(operator)
    hybrid = graph.is_hybrid(operator)
    weight, bias = graph.needed(operator, 1, hybrid), graph.array(operator, 2)
    if weight.ndim != 2 or operator.option(1):
        raise Misfit("has weights in another form than (outputs, inputs)")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise Misfit(f"has a bias of shape {bias.shape}", "the file is broken")
    if not operator.option(2, "?", False) or x.shape[-1] != weight.shape[1]:
        x = x.reshaped([-1, weight.shape[1]])
    return _fused(x.linear(weight, bias), operator)


def matmul(graph: Graph, operator: Operator) -> Signal:
    x, weight = graph.signal(operator), graph.needed(operator, 1)
    if operator.option(0, "?", False) or weight.ndim != 2:
        raise Misfit("multiplies otherwise than each row with a matrix")
    return x.linear(weight if operator.option(1, "?", False) else weight.T, None)


def add(graph: Graph, operator: Operator) -> Signal:
    first = isinstance(graph.values.get(operator.input(0)), Signal)
    x = graph.signal(operator, 0 if first else 1)
    return _fused(x.biased(graph.needed(operator, 1 if first else 0)), operator)


def multiply(graph: Graph, operator: Operator) -> Signal:
    first = isinstance(graph.values.get(operator.input(0)), Signal)
    x = graph.signal(operator, 0 if first else 1)
    return _fused(x.scaled(graph.needed(operator, 1 if first else 0)), operator)


def softmax(graph: Graph, operator: Operator) -> Signal:
    if operator.option(0, "f") != 1:
        raise Misfit(f"beta is {operator.option(0, 'f')}, not 1")
    return graph.signal(operator).softmax()


def leaky_relu(graph: Graph, operator: Operator) -> Signal:
    return graph.signal(operator).activated(("LeakyRelu", operator.option(0, "f")))


def cast(graph: Graph, operator: Operator) -> Value:
    found = graph.values.get(operator.input(0))
    if found is None:
        raise Misfit("changes the type of a constant")
    target = graph.file.dtype(operator.outputs[0])
    if isinstance(found, Signal) and found.parts and not target.startswith("float"):
        raise Misfit(f"rounds to {target}")
    return found


def unchanged(graph: Graph, operator: Operator) -> Value | None:
    number = operator.input(0)
    if number in graph.values:
        return graph.values[number]
    if number < 0 or graph.file.dtype(number) != "float16":
        raise Misfit("changes the type of a constant")
    graph.same[operator.outputs[0]] = number
    return None


def gather(graph: Graph, operator: Operator) -> Signal:
    axis = operator.option(0, "i")
    if operator.option(1, "i"):
        raise Misfit("gathers within each row of a batch")
    if not isinstance(graph.values.get(operator.input(0)), Signal):
        return _embedding(graph, operator, axis)
    index = graph.integers(operator, 1)
    if index.size != 1:
        raise Misfit("gathers several places")
    return graph.signal(operator).at_step(axis, int(index.item()), keep=index.ndim == 1)


def _embedding(graph: Graph, operator: Operator, axis: int) -> Signal:
    numbers, table = graph.signal(operator, 1), graph.needed(operator, 0)
    if axis != 0 or table.ndim != 2:
        raise Misfit("gathers otherwise than rows of a table")
    return numbers.embedded(table)


def fill(graph: Graph, operator: Operator) -> None:
    """Zeros for states, where a file does not say the number of rows."""
    number = operator.input(1)
    constant = number not in graph.values and graph.file.is_constant(number)
    if not (constant and graph.file.is_zero(number)):
        raise Misfit("fills a tensor with something else than zeros")
    graph.zeros.add(operator.outputs[0])


def zeros_like(graph: Graph, operator: Operator) -> None:
    graph.zeros.add(operator.outputs[0])


# ---- axes


def reshape(graph: Graph, operator: Operator) -> Signal:
    x = graph.signal(operator)
    if len(operator.inputs) > 1:
        return x.reshaped(graph.integers(operator, 1).tolist())
    shape = None if operator.options is None else operator.options.vector(0, "i", 8)
    if shape is None:
        raise Misfit("says no shape", "the file is broken")
    return x.reshaped(shape.tolist())


def squeeze(graph: Graph, operator: Operator) -> Signal:
    x = graph.signal(operator)
    given = None if operator.options is None else operator.options.vector(0, "i", 8)
    axes = {n for n, extent in enumerate(x.shape) if extent == 1}
    if given is not None and len(given):
        wanted = {x.axis(n) for n in given.tolist()}
        if wanted - axes:
            raise Misfit(f"takes axes of shape {x.shape} away")
        axes = wanted
    return x.reshaped([n for axis, n in enumerate(x.shape) if axis not in axes])


def expand(graph: Graph, operator: Operator) -> Signal:
    x = graph.signal(operator)
    axis = int(graph.integers(operator, 1).item())
    shape = [*x.shape]
    shape.insert(axis + len(shape) + 1 if axis < 0 else axis, 1)
    return x.reshaped(shape)


def transpose(graph: Graph, operator: Operator) -> Signal:
    return graph.signal(operator).transposed(graph.integers(operator, 1).tolist())


def reverse(graph: Graph, operator: Operator) -> Signal:
    axes = graph.integers(operator, 1)
    if axes.size != 1:
        raise Misfit("reverses several axes")
    return graph.signal(operator).reversed(int(axes.item()))


def concatenation(graph: Graph, operator: Operator) -> Signal:
    if len(operator.inputs) != 2 or operator.option(1):
        raise Misfit("puts other things than two directions of an LSTM side by side")
    return graph.signal(operator).beside(graph.signal(operator, 1), operator.option(0, "i"))


def mean(graph: Graph, operator: Operator) -> Signal:
    return _pool(graph, operator, "mean")


def maximum(graph: Graph, operator: Operator) -> Signal:
    return _pool(graph, operator, "max")


def _pool(graph: Graph, operator: Operator, kind: str) -> Signal:
    axes = graph.integers(operator, 1)
    if axes.size != 1:
        raise Misfit("pools over several axes")
    keep = operator.option(0, "?", False)
    return graph.signal(operator).pooled(int(axes.item()), kind, keep)


def sliced(graph: Graph, operator: Operator) -> Signal:
    x = graph.signal(operator)
    begin, size = (graph.integers(operator, place).tolist() for place in (1, 2))
    if not len(begin) == len(size) == len(x.axes):
        raise Misfit("slices other axes than there are", "the file is broken")
    for axis, (start, count) in enumerate(zip(begin, size, strict=True)):
        if start == 0 and count in (-1, x.shape[axis]):
            continue
        if count not in (1, -1):
            raise Misfit("slices otherwise than the last step")
        if count == -1 and start != x.shape[axis] - 1:
            raise Misfit("slices otherwise than the last step")
        x = x.at_step(axis, start, keep=True)
    return x


def strided_slice(graph: Graph, operator: Operator) -> Value:
    begin, end, stride = (graph.integers(operator, place).tolist() for place in (1, 2, 3))
    begins, ends, ellipsis, new, shrink, offset = (operator.option(n, "i") for n in range(6))
    if ellipsis or new or offset or not len(begin) == len(end) == len(stride):
        raise Misfit("slices with an ellipsis or new axes")
    found = graph.values.get(operator.input(0))
    if isinstance(found, np.ndarray):
        if found.ndim != 1 or len(begin) != 1 or 0 in stride:
            raise Misfit("slices a shape otherwise than along its axis")
        if shrink & 1 and not -len(found) <= begin[0] < len(found):
            raise Misfit(f"takes place {begin[0]} of a shape", "the file is broken")
        places = slice(None if begins & 1 else begin[0], None if ends & 1 else end[0], stride[0])
        return np.asarray(found[begin[0] if shrink & 1 else places])
    x = graph.signal(operator)
    if len(begin) > len(x.axes):
        raise Misfit("slices more axes than there are", "the file is broken")
    for axis in reversed(range(len(begin))):
        bit, extent = 1 << axis, x.shape[axis]
        starts = bool(begins & bit) or begin[axis] in (0, -extent)
        if shrink & bit:
            x = x.at_step(axis, begin[axis])
        elif stride[axis] == -1 and begins & bit and ends & bit:
            x = x.reversed(axis)
        elif stride[axis] != 1:
            raise Misfit(f"takes every {stride[axis]}th place")
        elif starts and (ends & bit or end[axis] >= extent):
            continue
        elif begin[axis] in (-1, extent - 1) and (ends & bit or end[axis] >= extent):
            x = x.at_step(axis, -1, keep=True)
        elif starts and end[axis] == 1:
            x = x.at_step(axis, 0, keep=True)
        else:
            raise Misfit("slices otherwise than the first or the last step")
    return x


# ---- shapes


def shape(graph: Graph, operator: Operator) -> Value:
    return np.array(graph.signal(operator).shape, np.int64)


def pack(graph: Graph, operator: Operator) -> Value:
    parts = [graph.integers(operator, place) for place in range(len(operator.inputs))]
    if not 0 < len(parts) <= 8 or operator.option(1, "i") or any(one.ndim for one in parts):
        raise Misfit("packs other things than numbers of a shape")
    return np.stack(parts)


# ---- all of them


def _activation(function: str) -> Rule:
    return lambda graph, operator: graph.signal(operator).activated(function)


RULES: dict[str, Rule] = {
    "UNIDIRECTIONAL_SEQUENCE_LSTM": one_direction,
    "BIDIRECTIONAL_SEQUENCE_LSTM": two_directions,
    "FULLY_CONNECTED": fully_connected,
    "BATCH_MATMUL": matmul,
    "ADD": add,
    "MUL": multiply,
    "FILL": fill,
    "ZEROS_LIKE": zeros_like,
    "SOFTMAX": softmax,
    "LOGISTIC": _activation("Sigmoid"),
    "TANH": _activation("Tanh"),
    "RELU": _activation("Relu"),
    "ELU": _activation("Elu"),
    "LEAKY_RELU": leaky_relu,
    "QUANTIZE": unchanged,
    "DEQUANTIZE": unchanged,
    "CAST": cast,
    "GATHER": gather,
    "RESHAPE": reshape,
    "SQUEEZE": squeeze,
    "EXPAND_DIMS": expand,
    "TRANSPOSE": transpose,
    "REVERSE_V2": reverse,
    "CONCATENATION": concatenation,
    "MEAN": mean,
    "REDUCE_MAX": maximum,
    "SLICE": sliced,
    "STRIDED_SLICE": strided_slice,
    "SHAPE": shape,
    "PACK": pack,
}
