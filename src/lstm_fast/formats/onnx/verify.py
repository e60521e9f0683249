"""What ONNX Runtime computes of a model, to compare with what was read."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from ...engine import Array
from ..reports import refusal
from .graph import TYPES
from .lstm import Node
from .states import arrays_of, of_layers
from .values import AnyStep, LSTMStep, Signal, Stack, Step
from .walk import Walk

__all__ = ["run_model", "run_nodes"]

T, B = 5, 3  # of the inputs, where the model leaves them open


def run_model(
    source: Any,
    walk: Walk,
    output: str,
    signal: Signal,
    groups: Mapping[str, Sequence[AnyStep]],
) -> tuple[Array, Array, Any]:
    """Return an input, the output of this name for it, in the shape that a block gives it, a state.

    The state is what the block takes: None, if the graph has no inputs for it. Lengths are those of
    whole sequences.
    """
    rng = np.random.default_rng(0)
    open_sizes = {a.name: a.size or n for a, n in zip(signal.order, (T, B), strict=False)}
    layers = {
        name: [step for step in steps if isinstance(step, LSTMStep)]
        for name, steps in groups.items()
    }
    for step in chain(*layers.values()):
        for row in (*step.h, *step.c):
            for n, size in row.sizes(step.node.hidden_size).items():
                axis = f"{row.root}.{n}"
                open_sizes[axis] = max(size, open_sizes.get(axis, 0))
    named: dict[str, int] = {}  # sizes that the model has names for
    feeds: dict[str, Array] = {}
    for given in sorted(walk.inputs, key=lambda one: one.name != signal.root):
        tensor = given.type.tensor_type
        shape = []
        for n, dim in enumerate(tensor.shape.dim):
            size = named.get(dim.dim_param) or open_sizes.get(f"{given.name}.{n}", B)
            size = dim.dim_value if dim.dim_value > 0 else size
            if dim.dim_param:
                named[dim.dim_param] = size
            shape.append(size)
        dtype = np.dtype(TYPES[tensor.elem_type][0])
        if given.name == signal.root:
            x: Any = rng.standard_normal(shape).astype(dtype)
            first = signal.steps[0]
            if isinstance(first, Step) and first.rows_of_table:
                x = rng.integers(0, first.rows_of_table, shape)
            feeds[given.name] = x.astype(dtype)
        elif dtype.kind in "iu":  # lengths
            feeds[given.name] = np.full(shape, signal.order[0].size or T, dtype)
        else:
            feeds[given.name] = rng.uniform(-1, 1, shape).astype(dtype)  # states
    y = _results(source, source, [output], feeds)[0]
    value = walk.outputs[output]
    if isinstance(value, Stack):
        y = np.moveaxis(y, value.axis, -2)
        y = y.reshape(*y.shape[:-2], -1)
        value = value.parts[0]
    y = y.reshape([size for size, group in zip(y.shape, value.axes, strict=True) if group])
    states = {name: arrays_of(steps, feeds) for name, steps in layers.items() if steps}
    state = states if len(groups) > 1 else next(iter(states.values()))
    return x, y, state


def run_nodes(source: Any, nodes: Sequence[Node]) -> tuple[Array, Array, Any]:
    """Return an input, what these nodes give one after the other, and the state before."""
    import onnx

    rng = np.random.default_rng(0)
    helper = onnx.helper
    first = y = rng.standard_normal((T, B, nodes[0].input_size)).astype(nodes[0].dtype)
    states: dict[str, list[Array]] = {"initial_h": [], "initial_c": []}
    for node in nodes:
        proto = onnx.NodeProto()
        proto.CopyFrom(node.proto)
        keys, arrays = [*node.keys], {**node.arrays}
        for key, found in states.items():
            shape = (len(node.directions), B, node.hidden_size)
            found.append(rng.uniform(-1, 1, shape).astype(node.dtype))
            arrays[key] = found[-1].swapaxes(0, 1) if node.batch_first else found[-1]
        del proto.input[:], proto.output[:]
        proto.input.extend(key if key == "X" or key in arrays else "" for key in keys)
        proto.output.append("Y")
        kind = helper.np_dtype_to_tensor_dtype(y.dtype)
        graph = helper.make_graph(
            [proto],
            "lstm",
            [helper.make_tensor_value_info("X", kind, y.shape)],
            [helper.make_tensor_value_info("Y", kind, None)],
            [onnx.numpy_helper.from_array(array, key) for key, array in arrays.items()],
        )
        opsets = [helper.make_opsetid("", 14), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        of_directions = _results(source, model, ["Y"], {"X": y})[0]  # (T, D, B, H)
        y = of_directions.swapaxes(1, 2).reshape(T, B, -1)
    state = tuple(of_layers(arrays) for arrays in states.values())
    if nodes[0].batch_first:
        first, y = first.swapaxes(0, 1), y.swapaxes(0, 1)
    return first, y, state


def _is_path(source: Any) -> bool:
    return isinstance(source, str | os.PathLike)


def _results(source: Any, model: Any, outputs: list[str], feeds: dict[str, Array]) -> list[Any]:
    try:
        import onnxruntime
    except ImportError:
        raise ImportError("verify=True runs ONNX Runtime: pip install onnxruntime") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    given = os.fspath(model) if _is_path(model) else model.SerializeToString()
    try:
        session = onnxruntime.InferenceSession(given, options, ["CPUExecutionProvider"])
        return list(session.run(outputs, feeds))
    except Exception as error:  # it has kinds of its own
        found = f"ONNX Runtime does not run it ({error})"
        raise refusal(source, "verify", found, "pass a recorded (x, y)") from None
