"""Layers of OpenVINO, as blocks or as axes that are moved."""

from __future__ import annotations

import math

import numpy as np

from ..signals import Misfit, Signal
from .constants import Step, Stored
from .file import LOOPS, Layer
from .graph import Filled, Graph, Integers, Rule, Stack, Value
from .lstm import loop_with, lstm_cell, lstm_sequence, number, read_value

__all__ = ["RULES"]

BEHIND = {
    "Sigmoid": "Sigmoid",
    "Tanh": "Tanh",
    "ReLU": "Relu",
    "Relu": "Relu",
    "SoftPlus": "Softplus",
    "SoftSign": "Softsign",
}
FLOATS = ("f16", "bf16", "f32", "f64")
MOST_NUMBERS = 64  # of a shape


# ---- what is around them


def matmul(graph: Graph, layer: Layer) -> Signal:
    weight = graph.floats(layer, 1)
    if layer.flag("transpose_a") or weight.ndim != 2:
        raise Misfit("multiplies otherwise than each row with a matrix")
    x = graph.signal(layer)
    return x.linear(weight if layer.flag("transpose_b") else weight.T, None)


def add(graph: Graph, layer: Layer) -> Signal:
    _check_broadcast(layer)
    first = isinstance(graph.value(layer), Signal)
    return graph.signal(layer, 0 if first else 1).biased(graph.floats(layer, 1 if first else 0))


def _check_broadcast(layer: Layer) -> None:
    if layer.text("auto_broadcast", "numpy") != "numpy":
        raise Misfit(f"auto_broadcast {layer.text('auto_broadcast')!r}")


def softmax(graph: Graph, layer: Layer) -> Signal:
    x = graph.signal(layer)
    return x.softmax(graph.attribute(layer, "axis", "1"))


def elu(graph: Graph, layer: Layer) -> Signal:
    return graph.signal(layer).activated(("Elu", number(layer, "alpha", "1")))


def prelu(graph: Graph, layer: Layer) -> Signal:
    slope = graph.filled(graph.value(layer, 1))
    if slope is None:
        raise Misfit("has a slope for every column")
    return graph.signal(layer).activated(("LeakyRelu", slope.number))


def gather(graph: Graph, layer: Layer) -> Value:
    if layer.text("batch_dims", "0") != "0":
        raise Misfit("gathers within each row of a batch")
    axis, found = graph.one(layer, 2), graph.value(layer)
    if isinstance(graph.value(layer, 1), Signal):
        table = graph.floats(layer, 0)
        if axis != 0 or table.ndim != 2:
            raise Misfit("gathers otherwise than rows of a table")
        return graph.signal(layer, 1).embedded(table)
    index = graph.integers(layer, 1)
    if isinstance(found, Signal):
        if index.size != 1 or index.ndim > 1:
            raise Misfit("gathers several places")
        return found.at_step(axis, int(index.item()), keep=index.ndim == 1)
    if isinstance(found, Stack):
        return _of_stack(found, index, axis)
    numbers = graph.integers(layer, 0)
    if numbers.ndim != 1 or axis not in (0, -1) or not index.size:
        raise Misfit("gathers from something else than a shape")
    if ((index < -len(numbers)) | (index >= len(numbers))).any():
        raise Misfit(f"takes places {index.tolist()} of {len(numbers)}", "it is broken")
    return numbers[index]


def _of_stack(stack: Stack, index: Integers, axis: int) -> Signal:
    """Return one of several final states: of a layer, and of a direction of it."""
    places = [(one, n) for one in stack.signals for n in range(min(one.shape[stack.axis], 2))]
    if axis != stack.axis or index.size != 1 or not -len(places) <= index.item() < len(places):
        raise Misfit("gathers otherwise than one of several states")
    one, place = places[int(index.item())]
    return one.at_step(axis, place, keep=index.ndim == 1)


def mean(graph: Graph, layer: Layer) -> Signal:
    return _pool(graph, layer, "mean")


def maximum(graph: Graph, layer: Layer) -> Signal:
    return _pool(graph, layer, "max")


def _pool(graph: Graph, layer: Layer, kind: str) -> Signal:
    return graph.signal(layer).pooled(graph.one(layer, 1), kind, layer.flag("keep_dims"))


# ---- axes


def transpose(graph: Graph, layer: Layer) -> Value:
    found, order = graph.value(layer), graph.integers(layer, 1).tolist()
    if isinstance(found, Signal):
        return found.transposed(order)
    if isinstance(found, Stack):
        signals = tuple(one.transposed(order) for one in found.signals)
        return Stack(signals, order.index(found.axis))
    shape = graph.constant_shape(found)
    if sorted(order) != [*range(len(shape))]:
        raise Misfit("its order is no permutation", "the file is broken")
    return graph.moved(found, [shape[n] for n in order])


def reshape(graph: Graph, layer: Layer) -> Value:
    found, target = graph.value(layer), graph.integers(layer, 1).ravel().tolist()
    shape = found.shape if isinstance(found, Signal) else graph.shape_of(found)
    if layer.flag("special_zero"):
        if any(n == 0 and place >= len(shape) for place, n in enumerate(target)):
            raise Misfit("keeps an axis that is not there", "the file is broken")
        target = [shape[place] if n == 0 else n for place, n in enumerate(target)]
    if isinstance(found, Signal):
        return found.reshaped(target)
    if isinstance(found, np.ndarray):
        return graph.sized(found, target)
    return graph.moved(found, target)


def squeeze(graph: Graph, layer: Layer) -> Value:
    found = graph.value(layer)
    shape = found.shape if isinstance(found, Signal) else graph.shape_of(found)
    axes = {n for n, extent in enumerate(shape) if extent == 1}
    if len(layer.inputs) > 1:
        given = {n % len(shape) for n in graph.integers(layer, 1).ravel().tolist() if shape}
        if not given <= axes:
            raise Misfit(f"takes axes {sorted(given)} of shape {shape} away")
        axes = given
    return graph.regrouped(found, [n for axis, n in enumerate(shape) if axis not in axes])


def unsqueeze(graph: Graph, layer: Layer) -> Value:
    found = graph.value(layer)
    shape = [*(found.shape if isinstance(found, Signal) else graph.shape_of(found))]
    axes = graph.integers(layer, 1).ravel().tolist()
    total = len(shape) + len(axes)
    for axis in sorted(n % total for n in axes):
        shape.insert(axis, 1)
    return graph.regrouped(found, shape)


def result(graph: Graph, layer: Layer) -> Value:
    return graph.value(layer)


def convert(graph: Graph, layer: Layer) -> Value:
    found, target = graph.value(layer), layer.text("destination_type")
    if isinstance(found, Signal) and found.parts and target not in FLOATS:
        raise Misfit(f"rounds to {target}")
    if isinstance(found, Stored) and target in FLOATS:
        return found.after(Step("Convert"))
    return found


def concat(graph: Graph, layer: Layer) -> Value:
    axis = graph.attribute(layer, "axis", "0")
    first = graph.value(layer)
    if isinstance(first, Signal):
        signals = tuple(graph.signal(layer, place) for place in range(len(layer.inputs)))
        if first.axis(axis) < len(first.axes) - 1:
            return Stack(signals, first.axis(axis))
        if len(signals) != 2:
            raise Misfit(f"puts {len(signals)} outputs side by side")
        return first.beside(signals[1], axis)
    parts = [graph.integers(layer, place) for place in range(len(layer.inputs))]
    if not 0 < sum(one.size for one in parts) <= MOST_NUMBERS or any(p.ndim != 1 for p in parts):
        raise Misfit("puts other things than two directions or a shape together")
    return np.concatenate(parts)


def strided_slice(graph: Graph, layer: Layer) -> Value:
    masks = [layer.text(name) for name in ("ellipsis_mask", "new_axis_mask")]
    if any("1" in mask for mask in masks):
        raise Misfit("slices with an ellipsis or new axes")
    begin, end = (graph.integers(layer, place).ravel().tolist() for place in (1, 2))
    step = graph.integers(layer, 3).ravel().tolist() if len(layer.inputs) > 3 else [1] * len(begin)
    if not len(begin) == len(end) == len(step):
        raise Misfit("slices with different numbers of axes", "the file is broken")
    flags = {}
    for name in ("begin_mask", "end_mask", "shrink_axis_mask"):
        given = [part.strip() == "1" for part in layer.text(name).split(",")]
        flags[name] = given + [False] * len(begin)
    found = graph.value(layer)
    for axis in reversed(range(len(begin))):
        start = None if flags["begin_mask"][axis] else begin[axis]
        stop = None if flags["end_mask"][axis] else end[axis]
        shrink = flags["shrink_axis_mask"][axis]
        found = _sliced(found, axis, start, stop, step[axis], shrink)
    return found


def slice_(graph: Graph, layer: Layer) -> Value:
    starts, stops, steps = (graph.integers(layer, place).ravel().tolist() for place in (1, 2, 3))
    axes = [*range(len(starts))]
    if len(layer.inputs) > 4:
        axes = graph.integers(layer, 4).ravel().tolist()
    if not len(starts) == len(stops) == len(steps) == len(axes):
        raise Misfit("slices with different numbers of axes", "the file is broken")
    found = graph.value(layer)
    for axis, start, stop, step in zip(axes, starts, stops, steps, strict=True):
        found = _sliced(found, axis, start, stop, step, False)
    return found


def _sliced(
    found: Value, axis: int, start: int | None, stop: int | None, step: int, shrink: bool
) -> Value:
    if not isinstance(found, Signal):
        if not isinstance(found, np.ndarray) or found.ndim != 1 or axis != 0 or step == 0:
            raise Misfit("slices something else than a shape")
        part = found[start:stop:step]
        if shrink and len(part) != 1:
            raise Misfit("slices a shape at no place", "the file is broken")
        return part.reshape(()) if shrink else part
    extent = found.shape[found.axis(axis)]
    ends = stop is None or stop >= extent
    starts = start in (None, 0, -extent)
    if step == -1 and start in (None, -1, extent - 1) and (stop is None or stop < -extent):
        return found.reversed(axis)
    if step != 1:
        raise Misfit(f"takes every {step}th place")
    if shrink and start is not None:
        return found.at_step(axis, start)
    if starts and ends:
        return found
    if start in (-1, extent - 1) and ends:
        return found.at_step(axis, -1, keep=True)
    if starts and stop in (1, 1 - extent):
        return found.at_step(axis, 0, keep=True)
    raise Misfit("slices otherwise than the first or the last step")


# ---- shapes, and constants of one number


def shape(graph: Graph, layer: Layer) -> Value:
    return np.array(graph.shape_of(graph.value(layer)), np.int64)


def broadcast(graph: Graph, layer: Layer) -> Value:
    found = graph.filled(graph.value(layer))
    target = graph.integers(layer, 1).ravel().tolist()
    if found is None or any(n < 1 for n in target):
        raise Misfit("repeats several numbers")
    return Filled(found.number, tuple(target))


def split(graph: Graph, layer: Layer) -> Value:
    """Return each part of a tensor of one number, all of them alike."""
    found, axis = graph.value(layer), graph.one(layer, 1)
    shape = [*graph.constant_shape(found)]
    parts = graph.attribute(layer, "num_splits", "0")
    if not -len(shape) <= axis < len(shape) or not 0 < parts <= 1024 or shape[axis] % parts:
        raise Misfit("splits into parts of different sizes")
    shape[axis] //= parts
    made = graph.moved(found, shape)
    for place in range(1, parts):
        graph.values[layer.number, place] = made
    return made


# ---- weights that are computed from constants


def subtract(graph: Graph, layer: Layer) -> Value:
    return _from_constants(graph, layer, (0, 1))


def multiply(graph: Graph, layer: Layer) -> Value:
    _check_broadcast(layer)
    for place in (0, 1):
        x = graph.value(layer, place)
        if isinstance(x, Signal):
            return x.scaled(graph.floats(layer, 1 - place))
    sizes = [math.prod(graph.constant_shape(graph.value(layer, place))) for place in (0, 1)]
    return _from_constants(graph, layer, (1, 0) if sizes[1] > sizes[0] else (0, 1))


def fake_quantize(graph: Graph, layer: Layer) -> Value:
    if isinstance(graph.value(layer), Signal):
        raise Misfit("rounds what is computed from the input", "only weights may be rounded")
    levels = graph.attribute(layer, "levels", "0")
    if not 2 <= levels <= 2**16:
        raise Misfit(f"has {levels} levels", "the file is broken")
    return _from_constants(graph, layer, (0, 1, 2, 3, 4), levels)


def _from_constants(graph: Graph, layer: Layer, places: tuple[int, ...], levels: int = 0) -> Stored:
    _check_broadcast(layer)
    found = [graph.value(layer, place) for place in places]
    constants = [one for one in found if isinstance(one, Stored)]
    if len(constants) < len(found):
        raise Misfit("computes otherwise than weights from constants", "it cannot be read")
    return constants[0].after(Step(layer.kind, tuple(constants[1:]), levels))


# ---- all of them


def _activation(function: str) -> Rule:
    return lambda graph, layer: graph.signal(layer).activated(function)


RULES: dict[str, Rule] = {
    "LSTMSequence": lstm_sequence,
    "LSTMCell": lstm_cell,
    "ReadValue": read_value,
    "Subtract": subtract,
    "Multiply": multiply,
    "FakeQuantize": fake_quantize,
    "MatMul": matmul,
    "Add": add,
    "SoftMax": softmax,
    "Softmax": softmax,
    "Elu": elu,
    "PReLU": prelu,
    "Gather": gather,
    "ReduceMean": mean,
    "ReduceMax": maximum,
    "Transpose": transpose,
    "Reshape": reshape,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Convert": convert,
    "Concat": concat,
    "StridedSlice": strided_slice,
    "Slice": slice_,
    "ShapeOf": shape,
    "Broadcast": broadcast,
    "Split": split,
    "Result": result,
    **{kind: _activation(name) for kind, name in BEHIND.items()},
}
RULES |= dict.fromkeys(LOOPS, loop_with(RULES))
