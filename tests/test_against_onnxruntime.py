"""Every implementation against ONNX Runtime's LSTM, in float32: random nodes, sizes and values.

All options are the same but for these, of ONNX Runtime: the final state of a row without steps is
0; alpha and beta of Affine, ScaledTanh and ThresholdedRelu are 0 if not given; ThresholdedRelu is 0
at its threshold; Softplus overflows above 88.
"""

from functools import cache

import numpy as np
import pytest
from support import comparisons
from support.comparing import assert_close
from support.comparisons import every_implementation
from support.networks import draw_network
from support.onnx_nodes import CONSTANTS, INPUTS, OUTPUTS, UNBOUNDED, run_onnx_node
from support.ragged import LENGTHS

from bench.onnx_model import onnx_model
from lstm_fast import LSTM

comparisons.require("ONNX Runtime", "onnx", "onnxruntime")

BLOCKS, CONFIGURATIONS = 20, 80
# Relative to the largest element of an array: three times the largest difference in 3,000 nodes,
# that of ONNX Runtime from float64. No value is so near to the threshold of a ThresholdedRelu, 1e-4
# away at least, that rounding decides.
TOLERANCE = 1e-5

SIZES = [*range(1, 10), 15, 16, 17]  # H
# Both sides of every kink are in reach, and steps do not grow without bound.
RANGES = {
    "HardSigmoid": [(0.1, 0.6), (0.2, 0.8)],
    "Elu": [(0.3, 1.5)],
    "LeakyRelu": [(-0.3, 0.5)],
    "ThresholdedRelu": [(-0.5, 0.8)],
    "ScaledTanh": [(-1.3, 1.3), (-1.3, 1.3)],
    "Affine": [(-0.8, 0.8), (-0.5, 0.5)],
}
FUNCTIONS = ["Sigmoid", "Tanh", "Relu", "Softsign", "Softplus", *CONSTANTS]
WITHOUT_DEFAULTS = {"ThresholdedRelu", "ScaledTanh", "Affine"}


def random_activations(rng, D):
    """Return attributes: names, and lists of alpha and beta, whole, cut short or absent.

    Those of `WITHOUT_DEFAULTS` are always given: ONNX Runtime takes 0 for what is not.
    """
    names = [str(name) for name in rng.choice(FUNCTIONS, 3 * D)]
    found = {"activations": names}
    for n, kind in enumerate(["alpha", "beta"]):
        takers = [name for name in names if len(RANGES.get(name, ())) > n]
        while rng.random() < 0.4 and takers and takers[-1] not in WITHOUT_DEFAULTS:
            takers.pop()
        if takers:
            values = [rng.uniform(*RANGES[name][n]) for name in takers]
            found[f"activation_{kind}"] = np.float32(values).tolist()
    return found


def random_node(block, n):
    """Return attributes of a node, arrays by name of input, and which of these are constants."""
    rng = np.random.default_rng((block, n))
    T, B, I, H = (int(rng.choice(s)) for s in (range(1, 7), range(1, 5), range(1, 6), SIZES))
    attributes = {"hidden_size": H, "direction": ["forward", "reverse", "bidirectional"][n % 3]}
    D = 2 if n % 3 == 2 else 1
    if rng.random() < 0.4:
        attributes["clip"] = float(np.float32(rng.uniform(0.2, 1.5)))
    if rng.random() < 0.4:
        attributes["input_forget"] = 1
    if rng.random() < 0.7:
        attributes |= random_activations(rng, D)
        if "clip" not in attributes and UNBOUNDED & {*attributes["activations"][::3]}:
            T = min(T, 2)
    shapes = {"X": (T, B, I), "W": (D, 4 * H, I), "R": (D, 4 * H, H)}
    optional = {"B": (D, 8 * H), "initial_h": (D, B, H), "initial_c": (D, B, H), "P": (D, 3 * H)}
    shapes |= {name: shape for name, shape in optional.items() if rng.random() < 0.6}
    arrays = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    for name in ("W", "R", "P"):
        if name in arrays:
            arrays[name] *= np.float32(0.8 / np.sqrt(shapes[name][-1] if name != "P" else 1))
    if rng.random() < 0.6:
        lengths = rng.integers(0, T, B, endpoint=True, dtype=np.int32)
        lengths[rng.integers(B)] = 0
        arrays["sequence_lens"] = lengths
    # ONNX Runtime packs constant weights in advance, on a path of its own.
    constants = {name for name in ("W", "R", "B", "P") if name in arrays and rng.random() < 0.5}
    return attributes, arrays, constants


@cache  # they are the same for every implementation
def run_onnxruntime(block, n):
    """Return a random node, and what ONNX Runtime computes, by name of output."""
    import onnx
    import onnxruntime

    attributes, arrays, constants = random_node(block, n)
    helper, kind = onnx.helper, onnx.helper.np_dtype_to_tensor_dtype
    names = [name if name in arrays else "" for name in INPUTS]
    node = helper.make_node("LSTM", names, OUTPUTS, **attributes)
    graph = helper.make_graph(
        [node],
        "lstm",
        [
            helper.make_tensor_value_info(name, kind(array.dtype), array.shape)
            for name, array in arrays.items()
            if name not in constants
        ],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in OUTPUTS],
        [onnx.numpy_helper.from_array(arrays[name], name) for name in sorted(constants)],
    )
    # Opset 14 and IR 8, of 2021, are read by every ONNX Runtime since 1.10.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feeds = {name: array for name, array in arrays.items() if name not in constants}
    return node, dict(zip(OUTPUTS, session.run(OUTPUTS, feeds), strict=True))


@every_implementation
@pytest.mark.parametrize("block", range(BLOCKS))
def test_results_are_onnx_runtimes(implementation, block):
    for n in range(CONFIGURATIONS):
        attributes, arrays, _ = random_node(block, n)
        node, expected = run_onnxruntime(block, n)
        for dtype in ("float32", "float64"):
            actual = run_onnx_node(implementation, node, arrays, dtype)
            if "sequence_lens" in arrays:
                # The final state of a row without steps is the initial one here.
                ran = arrays["sequence_lens"] > 0
                actual, expected = (
                    results | {k: results[k] * ran[:, None] for k in ("Y_h", "Y_c")}
                    for results in (actual, expected)
                )
            where = f"{n=} {dtype} {attributes} {[*arrays]}"
            assert_close(actual, expected, TOLERANCE, floor=1, where=where)


def test_lengths_are_those_of_onnx_runtime(rng):
    """Both directions, rows of length 0 included; it gives these a state of zeros."""
    import onnxruntime

    for settings in ({}, {"bidirectional": True}, {"bidirectional": True, "num_layers": 3}):
        lstm = LSTM(5, 9, **settings, seed=0)
        session = onnxruntime.InferenceSession(
            onnx_model(lstm.state_dict(), ragged=True), providers=["CPUExecutionProvider"]
        )
        for kind, make in LENGTHS.items():
            (x, h0, c0, *_), lengths = draw_network(rng, lstm, 7, 6), make(rng, 7, 6)
            given = {"x": x, "h0": h0, "c0": c0, "lengths": lengths.astype(np.int32)}
            y, hn, cn = session.run(["y", "hn", "cn"], given)
            ran = lengths > 0
            expected = {"y": y.swapaxes(1, 2).reshape(7, 6, -1)}
            expected |= {"hn": hn[:, ran], "cn": cn[:, ran]}
            y, (hn, cn) = lstm(x, (h0, c0), lengths=lengths)
            actual = {"y": y, "hn": hn[:, ran], "cn": cn[:, ran]}
            assert_close(actual, expected, TOLERANCE, where=kind)
