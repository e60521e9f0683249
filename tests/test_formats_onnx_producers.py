"""Models of ONNX as other producers write them, made by hand: what they compute, or refused."""

import numpy as np
import pytest
from support import comparisons
from support.onnx_models import lstm_arrays, make_model, make_node, run, value

from lstm_fast.formats import from_onnx

comparisons.require("ONNX Runtime", "onnx", "onnxruntime")

from onnx import numpy_helper  # noqa: E402

pytestmark = pytest.mark.no_isa

T, B, I, H, V = 5, 3, 4, 6, 9
ZERO, ONE, TWO, MINUS = (np.array([n]) for n in (0, 1, 2, -1))


def kinds(block):
    return [type(one).__name__ for one in getattr(block, "blocks", {"": block}).values()]


def model_of(
    rng, nodes, shape, output="y", D=1, opset=12, inputs=(), dtype=np.float32, **constants
):
    arrays = lstm_arrays(rng, I, H, D) | {
        **{"zero": ZERO, "one": ONE, "two": TWO, "minus": MINUS, "h": np.array([H])},
        "kernel": rng.standard_normal((H * D, 2)).astype(np.float32),
        "bias": rng.standard_normal(2).astype(np.float32),
        "table": rng.standard_normal((V, I)).astype(np.float32),
    }
    given = [value("x", shape), *inputs]
    return make_model(nodes, given, ["y"], arrays | constants, opset)


def lstm(x="X", states="- -", D=1, **attributes):
    direction = "bidirectional" if D == 2 else "forward"
    attributes = {"hidden_size": H, "direction": direction, "name": "lstm", **attributes}
    return make_node("LSTM", f"{x} W R B - {states}", "Y Yh Yc", **attributes)


# ---- keras2onnx: (B, T, I), sizes of the output from that of the input

TURNED = make_node("Transpose", "x", "X", perm=[1, 0, 2])
SIZES = [
    make_node("Shape", "x", "shape"),
    make_node("Slice", "shape one two zero", "steps"),
    make_node("Slice", "shape zero one zero", "rows"),
]


def keras2onnx(rng, D):
    """Yield models of a layer that returns all outputs or the last one; of T known or not."""
    width = np.array([D * H])
    tail = {"width": width, "directions": np.array([2]), "known": np.array([-1, T, D * H])}
    back = make_node("Transpose", "Y", "t", perm=[2, 0, 1, 3])
    of_graph = [
        make_node("Concat", "minus steps width", "s", axis=0),
        make_node("Reshape", "t s", "u"),
        make_node("Identity", "u", "y"),
    ]
    before = [*SIZES, TURNED, lstm(D=D)]
    if D == 2:
        fixed = [
            make_node("Concat", "steps two minus h", "f", axis=0),
            make_node("Reshape", "Y f", "Yf"),
            make_node("Transpose", "Yf", "t", perm=[2, 0, 1, 3]),
        ]
        yield model_of(rng, [*before, *fixed, *of_graph], ["N", "T", I], D=2, **tail), ["LSTM"]
        turned = make_node("Transpose", "Yh", "t", perm=[1, 0, 2])
        last = [*before, turned, make_node("Flatten", "t", "y", axis=1)]
    else:
        yield model_of(rng, [*before, back, *of_graph], ["N", "T", I], **tail), ["LSTM"]
        last = [*before, make_node("Reshape", "Yh known", "y")]
    of_file = [*before, back, make_node("Reshape", "t known", "y")]
    yield model_of(rng, of_file, ["N", T, I], D=D, **tail), ["LSTM"]
    known = {**tail, "known": np.array([-1, D * H])}
    yield model_of(rng, last, ["N", T, I], D=D, **known), ["LSTM", "Last"]


@pytest.mark.parametrize("D", [1, 2])
def test_keras2onnx(rng, D):
    for model, expected in keras2onnx(rng, D):
        block = from_onnx(model, verify=True)
        assert kinds(block) == expected and block.batch_first


def test_keras2onnx_with_states(rng):
    """Inputs (B, H), which become (1, B, H); and of the oldest, zeros for one row."""
    nodes = [
        TURNED,
        make_node("Reshape", "h0 state", "hh"),
        make_node("Reshape", "c0 state", "cc"),
        lstm(states="hh cc"),
        make_node("Reshape", "Yh rows", "y"),
    ]
    inputs = [value("h0", ["N", H]), value("c0", ["N", H])]
    shapes = {"state": np.array([1, -1, H]), "rows": np.array([-1, H])}
    block = from_onnx(model_of(rng, nodes, ["N", T, I], inputs=inputs, **shapes), verify=True)
    assert kinds(block) == ["LSTM", "Last"]
    zeros = np.zeros((2, 1, H), np.float32)
    nodes = [TURNED, lstm(states="hh cc", D=2), make_node("Transpose", "Y", "t", perm=[2, 0, 1, 3])]
    nodes.append(make_node("Reshape", "t known", "y"))
    constants = {"hh": zeros, "cc": zeros, "known": np.array([-1, T, 2 * H])}
    model = model_of(rng, nodes, [1, T, I], D=2, opset=8, **constants)
    assert kinds(from_onnx(model, verify=True)) == ["LSTM"]


# ---- tf2onnx: zeros of the size of the batch, numbers of words as floats


@pytest.mark.parametrize("fill", ["ConstantOfShape", "Expand", "Tile"])
def test_tf2onnx(rng, fill):
    zeros = {
        "ConstantOfShape": make_node("ConstantOfShape", "size", "z"),
        "Expand": make_node("Expand", "none size", "z"),
        "Tile": make_node("Tile", "row repeats", "z"),
    }[fill]
    nodes = [
        make_node("Cast", "x", "words", to=6),
        make_node("Gather", "table words", "embedded", axis=0),
        make_node("Shape", "embedded", "shape"),
        make_node("Cast", "shape", "shape32", to=6),
        make_node("Slice", "shape32 zero one zero", "n"),
        make_node("Squeeze", "n", "scalar", axes=[0]),
        make_node("Unsqueeze", "scalar", "again", axes=[0]),
        make_node("Concat", "again width", "size32", axis=0),
        make_node("Cast", "size32", "size", to=7),
        make_node("Cast", "n", "n64", to=7),
        make_node("Concat", "n64 one", "repeats", axis=0),
        zeros,
        make_node("Unsqueeze", "z", "state", axes=[0]),
        make_node("Transpose", "embedded", "X", perm=[1, 0, 2]),
        lstm(states="state state"),
        make_node("Squeeze", "Y", "s", axes=[1]),
        make_node("Transpose", "s", "t", perm=[1, 0, 2]),
        *dense("t"),
    ]
    constants = {"width": np.array([H], np.int32), "none": np.zeros((), np.float32)}
    constants |= {"row": np.zeros((1, H), np.float32), "out": TWO, "both": np.array([0, 1])}
    model = model_of(rng, nodes, ["N", "T"], **constants)
    block = from_onnx(model, verify=True)
    assert kinds(block) == ["Embedding", "LSTM", "Linear"] and block.batch_first
    words = rng.integers(0, V, (B, T))
    expected = run(model, {"x": words.astype(np.float32)})[0]
    np.testing.assert_allclose(block(words)[0], expected, 0, 1e-6)


def dense(x):
    """Keras's Dense of three axes, as TensorFlow's tensordot: rows, and back."""
    return [
        make_node("Shape", x, "dshape"),
        make_node("Gather", "dshape both", "free", axis=0),
        make_node("ReduceProd", "free", "count", axes=[0], keepdims=0),
        make_node("Unsqueeze", "count", "counted", axes=[0]),
        make_node("Concat", "counted h", "rows", axis=0),
        make_node("Reshape", f"{x} rows", "flat"),
        make_node("MatMul", "flat kernel", "product"),
        make_node("Concat", "free out", "whole", axis=0),
        make_node("Reshape", "product whole", "dense"),
        make_node("Add", "dense bias", "y"),
    ]


# ---- PyTorch before 1.0


def test_constant_fill(rng):
    """The oldest operator for zeros, which ONNX Runtime has no more; sizes as doubles."""

    def constant(name, number):
        tensor = numpy_helper.from_array(np.array(number, np.float64))
        return make_node("Constant", "", name, value=tensor)

    nodes = [
        constant("a", 1.0),
        make_node("Cast", "a", "one64", to=7),
        make_node("Shape", "x", "shape"),
        make_node("Gather", "shape one64", "n", axis=0),
        constant("b", float(H)),
        make_node("Cast", "b", "h64", to=7),
        *(make_node("Unsqueeze", name, f"{name}u", axes=[0]) for name in ("one64", "n", "h64")),
        make_node("Concat", "one64u nu h64u", "size", axis=0),
        make_node("ConstantFill", "size", "state", dtype=1, input_as_shape=1, value=0.0),
    ]
    after = [make_node("Squeeze", "Y", "y", axes=[1])]
    states = {"states": "state state"}
    model = model_of(rng, [*nodes, lstm("x", **states), *after], ["T", "N", I], opset=7)
    block = from_onnx(model)
    del model.graph.node[: len(nodes)]
    del model.graph.node[0].input[5:]
    x = rng.standard_normal((T, B, I), np.float32)
    np.testing.assert_allclose(block(x)[0], run(model, {"x": x})[0], 0, 1e-6)
    nodes[-1] = make_node("ConstantFill", "size", "state", input_as_shape=1, value=0.5)
    model = model_of(rng, [*nodes, lstm("x", **states), *after], ["T", "N", I], opset=7)
    with pytest.raises(ValueError, match="initial_h: is constant and not 0"):
        from_onnx(model)


# ---- a size that an exporter fixed


def reshape_after(rng, target, shape=("T", "N", I), D=1):
    nodes = [
        lstm("x", D=D),
        make_node("Transpose", "Y", "t", perm=[0, 2, 1, 3]),
        make_node("Reshape", "t target", "y"),
    ]
    return model_of(rng, nodes, [*shape], D=D, opset=17, target=np.array(target))


@pytest.mark.parametrize("D", [1, 2])
def test_one_open_size_is_fixed(rng, D):
    """As PyTorch's exporter does with T, where it is open."""
    for target in ([7, -1, D * H], [7, 0, D * H], [-1, 2, D * H]):
        block = from_onnx(reshape_after(rng, target, D=D), verify=True)
        assert block.hidden_size == H


@pytest.mark.parametrize("target", [[7, 2, H], [14, H], [14, -1], [7, -1, 2 * H], [2, 7, -1, H]])
def test_sizes_that_leave_a_doubt(rng, target):
    with pytest.raises(ValueError, match="Reshape 'y'"):
        from_onnx(reshape_after(rng, target))
