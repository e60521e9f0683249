"""An LSTM as a model of ONNX, for the packages that run one."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["onnx_model"]

Array = npt.NDArray[np.floating[Any]]


def onnx_model(state_dict: Mapping[str, Array], ragged: bool = False) -> bytes:
    """Return a model of ONNX ``LSTM`` nodes, one for each layer: x, h0, c0 to y, hn, cn.

    T and B are free; y has ONNX's shape (T, D, B, H); `ragged` adds an input ``lengths``. ONNX
    orders the gates i, o, f, g, has a leading axis of directions in the weights, and keeps both
    biases in one row of 8H.
    """
    onnx, helper = import_module("onnx"), import_module("onnx.helper")
    rows, I = state_dict["weight_ih_l0"].shape
    H = rows // 4
    ends = ["", "_reverse"] if "weight_ih_l0_reverse" in state_dict else [""]
    layers = sum(name.startswith("weight_ih") for name in state_dict) // len(ends)
    tensors: dict[str, Any] = {}
    if layers > 1:
        tensors = {"shape": np.array([0, 0, len(ends) * H]), "axis": np.array([0])}

    def stacked(layer: int, *names: str) -> Array:
        """Return an array of ONNX: by direction, gates reordered, the arrays of `names` joined."""
        directions = []
        for end in ends:
            blocks = []
            for name in names:
                i, f, g, o = np.split(state_dict[f"{name}_l{layer}{end}"], 4)
                blocks += [i, o, f, g]
            directions.append(np.concatenate(blocks))
        return np.stack(directions)

    nodes = []
    for n in range(layers):
        tensors[f"w{n}"], tensors[f"r{n}"] = stacked(n, "weight_ih"), stacked(n, "weight_hh")
        tensors[f"b{n}"] = stacked(n, "bias_ih", "bias_hh")
        last = n == layers - 1
        states = [f"h0_{n}", f"c0_{n}"] if layers > 1 else ["h0", "c0"]
        if layers > 1:
            tensors[f"low{n}"] = np.array([n * len(ends)])
            tensors[f"high{n}"] = np.array([(n + 1) * len(ends)])
            nodes += [
                helper.make_node("Slice", [whole, f"low{n}", f"high{n}", "axis"], [part])
                for whole, part in zip(("h0", "c0"), states, strict=True)
            ]
        inputs = [f"y{n - 1}" if n else "x", f"w{n}", f"r{n}", f"b{n}"]
        results = [
            "y" if last else f"raw{n}",
            *(f"{s}{n}" * (layers > 1) or s for s in ("hn", "cn")),
        ]
        nodes.append(
            helper.make_node(
                "LSTM",
                [*inputs, "lengths" if ragged else "", *states],
                results,
                hidden_size=H,
                direction="bidirectional" if len(ends) == 2 else "forward",
            )
        )
        if not last:
            nodes.append(helper.make_node("Transpose", [f"raw{n}"], [f"t{n}"], perm=[0, 2, 1, 3]))
            nodes.append(helper.make_node("Reshape", [f"t{n}", "shape"], [f"y{n}"]))
    if layers > 1:
        nodes += [
            helper.make_node("Concat", [f"{s}{n}" for n in range(layers)], [s], axis=0)
            for s in ("hn", "cn")
        ]

    def values(**shapes: list[int | str]) -> list[Any]:
        make = helper.make_tensor_value_info
        return [make(name, onnx.TensorProto.FLOAT, shape) for name, shape in shapes.items()]

    state: list[int | str] = [layers * len(ends), "B", H]
    inputs = values(x=["T", "B", I], h0=state, c0=state)
    if ragged:
        lengths = helper.make_tensor_value_info("lengths", onnx.TensorProto.INT32, ["B"])
        inputs.append(lengths)
    graph = helper.make_graph(
        nodes,
        "lstm",
        inputs,
        values(y=["T", len(ends), "B", H], hn=state, cn=state),
        [onnx.numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    # Opset 14 and IR 8, of 2021, are read by every ONNX Runtime since 1.10.
    opsets = [helper.make_opsetid("", 14)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return bytes(model.SerializeToString())
