"""What ONNX Runtime computes of a model, to compare with what was read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...engine import Array
from ..reports import refusal
from .graph import TYPES
from .lstm import Node
from .values import Signal, Stack, Step
from .walk import Walk

__all__ = ["run_model", "run_nodes"]

T, B = 5, 3  # of the inputs, where the model leaves them open


def run_model(source: Any, walk: Walk, output: str, signal: Signal) -> tuple[Array, Array]:
    """Return an input, and the output of this name for it, in the shape that a block gives it.

    States are zeros, lengths those of whole sequences.
    """
    rng = np.random.default_rng(0)
    open_sizes = dict(zip((atom.name for atom in signal.order), (T, B), strict=False))
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
            numbers: Any = rng.standard_normal(shape)
            if dtype.kind in "iu":
                first = signal.steps[0]
                vocabulary = first.rows_of_table if isinstance(first, Step) else 1
                numbers = rng.integers(0, vocabulary, shape)
            feeds[given.name] = numbers.astype(dtype)
        elif dtype.kind in "iu":  # lengths
            feeds[given.name] = np.full(shape, signal.order[0].size or T, dtype)
        else:
            feeds[given.name] = np.zeros(shape, dtype)
    y = _results(source, source, [output], feeds)[0]
    value = walk.outputs[output]
    if isinstance(value, Stack):
        y = np.moveaxis(y, value.axis, -2)
        y = y.reshape(*y.shape[:-2], -1)
        value = value.parts[0]
    y = y.reshape([size for size, group in zip(y.shape, value.axes, strict=True) if group])
    return feeds[signal.root], y


def run_nodes(source: Any, nodes: Sequence[Node]) -> tuple[Array, Array]:
    """Return an input, and what these nodes give one after the other."""
    import onnx

    rng = np.random.default_rng(0)
    helper = onnx.helper
    first = y = rng.standard_normal((T, B, nodes[0].input_size)).astype(nodes[0].dtype)
    for node in nodes:
        proto = onnx.NodeProto()
        proto.CopyFrom(node.proto)
        keys = [*node.keys]
        del proto.input[:], proto.output[:]
        proto.input.extend(key if key == "X" or key in node.arrays else "" for key in keys)
        proto.output.append("Y")
        kind = helper.np_dtype_to_tensor_dtype(y.dtype)
        graph = helper.make_graph(
            [proto],
            "lstm",
            [helper.make_tensor_value_info("X", kind, y.shape)],
            [helper.make_tensor_value_info("Y", kind, None)],
            [onnx.numpy_helper.from_array(array, key) for key, array in node.arrays.items()],
        )
        opsets = [helper.make_opsetid("", 14), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        of_directions = _results(source, model, ["Y"], {"X": y})[0]  # (T, D, B, H)
        y = of_directions.swapaxes(1, 2).reshape(T, B, -1)
    return (first.swapaxes(0, 1), y.swapaxes(0, 1)) if nodes[0].batch_first else (first, y)


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
