"""`from_tflite`: files made by hand, and of other people; against the equations and LiteRT."""

import itertools
import zlib

import numpy as np
import pytest
from support.comparing import assert_close
from support.hostile import changed, read_all, truncated
from support.models import model
from support.processes import run_python
from support.tflite_models import Graph

import lstm_fast as lf
from lstm_fast import nn
from lstm_fast.formats import from_tflite
from lstm_fast.formats.tflite import inspect

pytestmark = pytest.mark.no_isa

T, B, I, H, P = 5, 2, 3, 4, 2
GATES = "ifgo"
ONE, TWO = "UNIDIRECTIONAL_SEQUENCE_LSTM", "BIDIRECTIONAL_SEQUENCE_LSTM"
TANH = ("b", 4)


def drawn(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32) / 2


def number(kind, value):
    from support.tflite_models import Number

    return Number(kind, value)


def weights(
    rng, columns=I, units=H, *, coupled=False, peephole=False, projected=0, layer_norm=False
):
    """Return the tensors of one direction by name, as TFLite has them."""
    found = {}
    for gate in GATES[1:] if coupled else GATES:
        found[f"x{gate}"] = drawn(rng, units, columns)
        found[f"h{gate}"] = drawn(rng, units, projected or units)
        found[f"b{gate}"] = drawn(rng, units)
        if peephole and gate != "g":
            found[f"c{gate}"] = drawn(rng, units)
        if layer_norm:
            found[f"n{gate}"] = 1 + drawn(rng, units)
    if projected:
        found["projection"] = drawn(rng, projected, units)
    return found


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


def before(w, gate, x, h, c):
    """Return what a gate is a function of: sums and peepholes, normalised if it has gains."""
    s = x @ w[f"x{gate}"].T + h @ w[f"h{gate}"].T + w.get(f"c{gate}", 0) * c
    if f"n{gate}" in w:
        s = s - s.mean(axis=1, keepdims=True)
        s = s / np.sqrt(np.square(s).mean(axis=1, keepdims=True) + 1e-8) * w[f"n{gate}"]
    return s + w[f"b{gate}"]


def expected(w, x, h, c, *, clip=0.0, function=np.tanh):
    """Return the outputs for x (T, B, I) and the states after it, by TFLite's equations."""
    outputs = []
    for step in x:
        f = sigmoid(before(w, "f", step, h, c))
        i = sigmoid(before(w, "i", step, h, c)) if "xi" in w else 1 - f
        c = f * c + i * function(before(w, "g", step, h, c))
        c = np.clip(c, -clip, clip) if clip else c
        o = sigmoid(before(w, "o", step, h, c))
        h = o * function(c)
        h = h @ w["projection"].T if "projection" in w else h
        outputs.append(h)
    return np.stack(outputs), h, c


def tensors_of(graph, w, constant):
    """Return the 17 tensors of a direction, -1 where one is left out, and no projection bias."""
    names = [f"x{g}" for g in GATES] + [f"h{g}" for g in GATES] + ["ci", "cf", "co"]
    names += [f"b{g}" for g in GATES] + ["projection"]
    return [constant(graph, w[name], name) if name in w else -1 for name in names] + [-1]


def plain(graph, array, name):
    return graph.constant(array)


def states(graph, w, batch=B):
    units, outputs = w["hf"].shape
    return [graph.tensor((batch, n), variable=True) for n in (outputs, units)]


def add_lstm(
    graph, x, w, *, constant=plain, time_major=False, clip=0.0, function=4, batch=B, given=None
):
    """Add an LSTM of one direction, and return its output."""
    begin = states(graph, w, batch) if given is None else given
    gains = [constant(graph, w[name], name) if (name := f"n{g}") in w else -1 for g in GATES]
    inputs = [x, *tensors_of(graph, w, constant), *begin, *gains]
    shape = (T, batch, len(w["hf"][0])) if time_major else (batch, T, len(w["hf"][0]))
    y = graph.tensor(shape)
    options = {0: number("b", function), 1: number("f", clip), 3: number("?", time_major)}
    graph.operator(ONE, inputs, [y], options)
    return y


def write(tmp_path, graph, inputs, outputs):
    path = tmp_path / "model.tflite"
    path.write_bytes(graph.written(inputs, outputs))
    return path


def one_lstm(tmp_path, w, **options):
    graph = Graph()
    time_major = options.get("time_major")
    columns = w["xf"].shape[1]
    x = graph.tensor((T, B, columns) if time_major else (B, T, columns))
    return write(tmp_path, graph, [x], [add_lstm(graph, x, w, **options)])


def litert(path, *inputs):
    """Return what LiteRT gives for one input after another, its states going on."""
    interpreters = pytest.importorskip(
        "ai_edge_litert.interpreter", reason="no LiteRT: pip install ai-edge-litert"
    )
    interpreter = interpreters.Interpreter(str(path))
    interpreter.allocate_tensors()
    outputs = []
    for x in inputs:
        given = interpreter.get_input_details()[0]
        interpreter.set_tensor(given["index"], x.astype(given["dtype"]))
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
    return outputs


def swapped(x):
    return x.swapaxes(0, 1)


VARIANTS = {
    "plain": {},
    "coupled": {"coupled": True},
    "peephole": {"peephole": True},
    "coupled peephole": {"coupled": True, "peephole": True},
    "projected": {"projected": P},
    "all": {"coupled": True, "peephole": True, "projected": P},
}
# The operator of two directions has no layer norm.
ONE_DIRECTION = VARIANTS | {
    f"{name}, layer norm": options | {"layer_norm": True} for name, options in VARIANTS.items()
}


# ---- the LSTM, by the equations


@pytest.mark.parametrize("name", ONE_DIRECTION)
@pytest.mark.parametrize("time_major", [False, True])
def test_variants_by_the_equations(tmp_path, rng, name, time_major):
    w = weights(rng, **ONE_DIRECTION[name])
    lstm = from_tflite(one_lstm(tmp_path, w, time_major=time_major, clip=0.4))
    assert isinstance(lstm, lf.LSTM) and lstm.batch_first is not time_major
    assert lstm.layer_norm == ("gates" if "layer norm" in name else False)
    x, h, c = drawn(rng, T, B, I), drawn(rng, B, w["hf"].shape[1]), drawn(rng, B, H)
    y, hn, cn = expected(w, x, h, c, clip=0.4)
    actual, (h1, c1) = lstm(x if time_major else swapped(x), (h[None], c[None]))
    actual = actual if time_major else swapped(actual)
    assert_close([actual, h1[0], c1[0]], [y, hn, cn], 1e-6, dtype=np.float32)


@pytest.mark.parametrize(
    ("number_", "function"), [(1, lambda v: np.maximum(v, 0)), (0, lambda v: v)]
)
def test_fused_functions(tmp_path, rng, number_, function):
    w = weights(rng)
    lstm = from_tflite(one_lstm(tmp_path, w, function=number_))
    x, h, c = drawn(rng, T, B, I), drawn(rng, B, H), drawn(rng, B, H)
    y = expected(w, x, h, c, function=function)[0]
    assert_close([swapped(lstm(swapped(x), (h[None], c[None]))[0])], [y], 1e-6)


def quantised(dtype, per_row):
    """Return how constants are added: matrices in 8 bits; and what they are then, by name."""
    real = {}

    def constant(graph, array, name):
        if array.ndim < 2:
            real[name] = array
            return graph.constant(array)
        scale = np.abs(array).max(axis=1 if per_row else None) / 127
        steps = np.round(array / (scale[:, None] if per_row else scale)).astype(np.int8)
        real[name] = steps * np.float32(scale[:, None] if per_row else scale)
        return graph.constant(steps.view(dtype), scale=scale)

    return constant, real


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize(("dtype", "per_row"), [("int8", False), ("int8", True), ("uint8", False)])
def test_hybrid_weights(tmp_path, rng, dtype, per_row, layer_norm):
    constant, real = quantised(dtype, per_row)
    w = weights(rng, layer_norm=layer_norm)
    lstm = from_tflite(one_lstm(tmp_path, w, constant=constant))
    x, h, c = drawn(rng, T, B, I), drawn(rng, B, H), drawn(rng, B, H)
    y = expected(real, x, h, c)[0]
    assert_close([swapped(lstm(swapped(x), (h[None], c[None]))[0])], [y], 1e-6)


def two_directions(tmp_path, forward, backward):
    graph = Graph()
    x = graph.tensor((B, T, I))
    inputs = [x, *tensors_of(graph, forward, plain), *tensors_of(graph, backward, plain)]
    inputs += [*states(graph, forward), *states(graph, backward)] + [-1] * 9
    y = graph.tensor((B, T, 2 * forward["hf"].shape[1]))
    options = {0: number("b", 4), 3: number("?", True), 4: number("?", False)}
    graph.operator(TWO, inputs, [y], options)
    return write(tmp_path, graph, [x], [y])


@pytest.mark.parametrize("name", VARIANTS)
def test_two_directions_in_one_operator(tmp_path, rng, name):
    forward, backward = (weights(rng, **VARIANTS[name]) for _ in range(2))
    path = two_directions(tmp_path, forward, backward)
    x = drawn(rng, T, B, I)
    h, c = drawn(rng, 2, B, forward["hf"].shape[1]), drawn(rng, 2, B, H)
    y = expected(forward, x, h[0], c[0])[0]
    y_back = expected(backward, x[::-1], h[1], c[1])[0][::-1]
    lstm = from_tflite(path)
    actual = swapped(lstm(swapped(x), (h, c))[0])
    assert_close([actual], [np.concatenate([y, y_back], axis=2)], 1e-6)
    with pytest.raises(AssertionError):
        assert_close([actual], [np.concatenate([y_back, y], axis=2)], 1e-6)


def turned(graph, x, shape):
    y = graph.tensor(shape)
    graph.operator("REVERSE_V2", [x, graph.constant(np.array([1], np.int32))], [y])
    return y


def last_of(graph, x, columns, index=-1):
    y = graph.tensor((B, columns))
    begin, end, stride = (np.array(v, np.int32) for v in ([0, index, 0], [0, 0, 0], [1, 1, 1]))
    inputs = [x, *map(graph.constant, (begin, end, stride))]
    options = {0: number("i", 5), 1: number("i", 5), 4: number("i", 2)}
    graph.operator("STRIDED_SLICE", inputs, [y], options)
    return y


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("last", [False, True])
def test_two_directions_as_keras_has_them(tmp_path, rng, last, layer_norm):
    """Two operators, the input and the output of one of them in reverse order."""
    forward, backward = (weights(rng, layer_norm=layer_norm) for _ in range(2))
    graph = Graph()
    x = graph.tensor((B, T, I))
    y = add_lstm(graph, x, forward)
    y_back = add_lstm(graph, turned(graph, x, (B, T, I)), backward)
    if last:
        y, y_back = last_of(graph, y, H), last_of(graph, y_back, H)
    else:
        y_back = turned(graph, y_back, (B, T, H))
    both = graph.tensor((B, 2 * H) if last else (B, T, 2 * H))
    graph.operator("CONCATENATION", [y, y_back], [both], {0: number("i", -1)})
    path = write(tmp_path, graph, [x], [both])
    x = drawn(rng, T, B, I)
    zeros = np.zeros((B, H), np.float32)
    y = expected(forward, x, zeros, zeros)[0]
    y_back = expected(backward, x[::-1], zeros, zeros)[0]
    y = np.hstack([y[-1], y_back[-1]]) if last else np.concatenate([y, y_back[::-1]], axis=2)
    read = from_tflite(path)
    actual = read(swapped(x))[0]
    assert_close([actual if last else swapped(actual)], [y], 1e-6)
    if last:
        assert read[1].directions == 2
    else:
        assert read.bidirectional
    assert_close(litert(path, swapped(x)), [y if last else swapped(y)], 1e-5)


# ---- what is around


def classifier(rng, w, second, kernel, bias, float16=False):
    """Return a graph: embedding, two LSTMs, the last step, a dense layer, softmax."""
    graph = Graph()
    x = graph.tensor((B, T), "int32", signature=(-1, -1))
    table = graph.constant(drawn(rng, 7, I))
    embedded = graph.tensor((B, T, I))
    graph.operator("GATHER", [table, x], [embedded], {})
    y = add_lstm(graph, add_lstm(graph, embedded, w), second)
    last = last_of(graph, y, H)
    weight = graph.constant(kernel.astype(np.float16) if float16 else kernel)
    if float16:
        as_float32 = graph.tensor(kernel.shape)
        graph.operator("DEQUANTIZE", [weight], [as_float32])
        weight = as_float32
    dense = graph.tensor((B, 6))
    graph.operator(
        "FULLY_CONNECTED", [last, weight, graph.constant(bias)], [dense], {0: number("b", 1)}
    )
    z = graph.tensor((B, 6))
    graph.operator("SOFTMAX", [dense], [z], {0: number("f", 1.0)})
    return graph, x, z


@pytest.mark.parametrize("float16", [False, True])
def test_a_classifier(tmp_path, rng, float16):
    w, second, kernel, bias = weights(rng), weights(rng, H), drawn(rng, 6, H), drawn(rng, 6)
    graph, x, z = classifier(rng, w, second, kernel, bias, float16)
    path = write(tmp_path, graph, [x], [z])
    read = from_tflite(path)
    kinds = [type(block).__name__ for block in read]
    assert kinds == ["Embedding", "LSTM", "LSTM", "Last", "Linear", "Activation", "Softmax"]
    numbers = rng.integers(0, 7, (B, T))
    zeros = np.zeros((B, H), np.float32)
    v = swapped(read[0].weight[numbers])
    v = expected(second, expected(w, v, zeros, zeros)[0], zeros, zeros)[0][-1]
    kernel = kernel.astype(np.float16).astype(np.float32) if float16 else kernel
    v = np.exp(np.maximum(v @ kernel.T + bias, 0))
    assert_close([read(numbers)[0]], [v / v.sum(axis=1, keepdims=True)], 1e-6)
    if not float16:  # LiteRT wants the shapes of the file
        assert_close(litert(path, numbers), [v / v.sum(axis=1, keepdims=True)], 1e-5)


def around(build):
    """Return the blocks of a graph that has an LSTM and what `build` puts behind it."""

    def made(tmp_path, rng):
        graph = Graph()
        x = graph.tensor((B, T, I))
        y = add_lstm(graph, x, weights(rng))
        return write(tmp_path, graph, [x], [build(graph, y)])

    return made


def after(kind, shape, *constants, options=None):
    def build(graph, y):
        z = graph.tensor(shape)
        graph.operator(kind, [y, *map(graph.constant, constants)], [z], options)
        return z

    return around(build)


def ints(*values):
    return np.array(values, np.int32)


MEAN = {0: number("?", False)}
BEHIND = {
    "LOGISTIC": (after("LOGISTIC", (B, T, H)), sigmoid),
    "TANH": (after("TANH", (B, T, H)), np.tanh),
    "RELU": (after("RELU", (B, T, H)), lambda y: np.maximum(y, 0)),
    "ELU": (after("ELU", (B, T, H)), lambda y: np.where(y > 0, y, np.expm1(y))),
    "LEAKY_RELU": (
        after("LEAKY_RELU", (B, T, H), options={0: number("f", 0.3)}),
        lambda y: np.where(y > 0, y, 0.3 * y),
    ),
    "GATHER": (
        after("GATHER", (B, H), np.int32(T - 1), options={0: number("i", 1)}),
        lambda y: y[:, -1],
    ),
    "GATHER first": (
        after("GATHER", (B, H), np.int32(0), options={0: number("i", 1)}),
        lambda y: y[:, 0],
    ),
    "MEAN": (after("MEAN", (B, H), ints(1), options=MEAN), lambda y: y.mean(axis=1)),
    "RESHAPE": (after("RESHAPE", (B, T * H), ints(B, -1)), lambda y: y.reshape(B, -1)),
    "RESHAPE to rows": (after("RESHAPE", (B * T, H), ints(-1, H)), lambda y: y),
    "EXPAND_DIMS": (after("EXPAND_DIMS", (B, 1, T, H), ints(1)), lambda y: y),
    "TRANSPOSE of nothing": (after("TRANSPOSE", (B, T, H), ints(0, 1, 2)), lambda y: y),
}


@pytest.mark.parametrize("name", BEHIND)
def test_operators_behind(tmp_path, rng, name):
    make, function = BEHIND[name]
    path = make(tmp_path, rng)
    read = from_tflite(path)
    x = drawn(rng, B, T, I)
    first = read if isinstance(read, lf.LSTM) else read[0]
    y, _ = first(x)
    assert_close([read(x)[0]], [function(y)], 1e-6)
    (theirs,) = litert(path, x)
    assert_close([read(x)[0].ravel()], [theirs.ravel()], 1e-5)


def test_shapes_that_are_computed(tmp_path, rng):
    """A reshape to rows and back with an extent of the batch that the graph computes."""
    kernel = drawn(rng, 2, H)

    def build(graph, y):
        shape, count, target = (
            graph.tensor((3,), "int32"),
            graph.tensor((), "int32"),
            graph.tensor((3,), "int32"),
        )
        graph.operator("SHAPE", [y], [shape])
        slice_ = [shape, *map(graph.constant, (ints(0), ints(1), ints(1)))]
        graph.operator("STRIDED_SLICE", slice_, [count], {4: number("i", 1)})
        sizes = [graph.constant(np.int32(n)) for n in (T, 2)]
        graph.operator("PACK", [count, *sizes], [target], {0: number("i", 3)})
        rows, z = graph.tensor((B * T, 2)), graph.tensor((B, T, 2))
        graph.operator("FULLY_CONNECTED", [y, graph.constant(kernel), -1], [rows])
        graph.operator("RESHAPE", [rows, target], [z])
        return z

    read = from_tflite(around(build)(tmp_path, rng))
    x = drawn(rng, B, T, I)
    assert_close([read(x)[0]], [read[0](x)[0] @ kernel.T], 1e-6)


def filled(graph, x, value=0.0):
    """Add two states that are filled, their rows counted, as where B is not fixed."""
    shape, count, target = (graph.tensor((n,) if n else (), "int32") for n in (3, 0, 2))
    begin = [graph.tensor((B, H), variable=True) for _ in range(2)]
    graph.operator("SHAPE", [x], [shape], {0: number("b", 2)})  # int32
    slice_ = [shape, *map(graph.constant, (ints(0), ints(1), ints(1)))]
    graph.operator("STRIDED_SLICE", slice_, [count], {4: number("i", 1)})
    graph.operator("PACK", [count, graph.constant(np.int32(H))], [target], {0: number("i", 2)})
    for state in begin:
        graph.operator("FILL", [target, graph.constant(np.float32(value))], [state])
    return begin


def test_as_keras_is_converted_without_a_batch_size(tmp_path, rng):
    """Zeros by FILL, cell_clip of 10, batch norm as MUL and ADD, rows in one axis."""
    w, gain, shift, kernel = weights(rng), drawn(rng, H), drawn(rng, H), drawn(rng, 2, H)
    graph = Graph()
    x = graph.tensor((B, T, I), signature=(-1, T, I))
    y = add_lstm(graph, x, w, clip=10.0, given=filled(graph, x))
    normal, shifted = graph.tensor((B, T, H)), graph.tensor((B, T, H))
    graph.operator("MUL", [y, graph.constant(gain)], [normal])
    graph.operator("ADD", [normal, graph.constant(shift)], [shifted])
    rows, z = graph.tensor((B * T, H)), graph.tensor((B * T, 2))
    graph.operator("RESHAPE", [shifted, graph.constant(ints(-1, H))], [rows])
    graph.operator("FULLY_CONNECTED", [rows, graph.constant(kernel), -1], [z])
    path = write(tmp_path, graph, [x], [z])
    read = from_tflite(path)
    x = drawn(rng, B, T, I)
    zeros = np.zeros((B, H), np.float32)
    y = swapped(expected(w, swapped(x), zeros, zeros, clip=10)[0])
    assert_close([read(x)[0]], [(y * gain + shift) @ kernel.T], 1e-6)
    again = [one.reshape(B, T, 2) for one in litert(path, x, x)]
    assert_close(again, [read(x)[0]] * 2, 1e-6)


def test_states_that_are_not_filled_with_zeros(tmp_path, rng):
    graph = Graph()
    x = graph.tensor((B, T, I))
    path = write(
        tmp_path, graph, [x], [add_lstm(graph, x, weights(rng), given=filled(graph, x, 1.0))]
    )
    with pytest.raises(ValueError, match="something else than zeros"):
        from_tflite(path)


# ---- against LiteRT


@pytest.mark.parametrize("name", ONE_DIRECTION)
@pytest.mark.parametrize("time_major", [False, True])
def test_against_litert(tmp_path, rng, name, time_major):
    path = one_lstm(tmp_path, weights(rng, **ONE_DIRECTION[name]), time_major=time_major, clip=0.4)
    lstm = from_tflite(path)
    parts = [drawn(rng, *((T, B, I) if time_major else (B, T, I))) for _ in range(2)]
    state, actual = None, []
    for part in parts:  # the second one from states that are not zero
        y, state = lstm(part, state)
        actual.append(y)
    assert_close(actual, litert(path, *parts), 1e-6)


def int8_lstm(tmp_path, w):
    """Return a file whose LSTM has integers alone: matrices, x and y of 8 bits, others of 16.

    Also what its weights are then, by name, and scales and zeros of x and y. Biases are of 32 bits
    in the units of what they add to: of products or, after a norm, 2^-10 of its gains.
    """
    graph = Graph()
    of_x, of_y = {"scale": 2 / 127, "zero": 3}, {"scale": 1 / 127, "zero": -2}
    matrices, real = quantised("int8", False)

    def unit(name, most):
        return np.abs(w[name]).max() / most

    def constant(graph, array, name):
        if array.ndim == 2:
            return matrices(graph, array, name)
        scale, dtype = unit(name, 32767), np.int16
        if name[0] == "b":
            x, gain = f"x{name[1]}", f"n{name[1]}"
            scale = unit(gain, 32767) / 1024 if gain in w else of_x["scale"] * unit(x, 127)
            dtype = np.int32
        steps = np.round(array / scale).astype(dtype)
        real[name] = steps * np.float32(scale)
        return graph.constant(steps, scale=scale)

    x = graph.tensor((B, T, I), "int8", **of_x)
    begin = [
        graph.tensor((B, H), "int8", variable=True, **of_y),
        graph.tensor((B, H), "int16", variable=True, scale=2.0**-11),
    ]
    add_lstm(graph, x, w, constant=constant, given=begin)
    y = graph.tensor((B, T, H), "int8", **of_y)
    of_norm = [graph.tensor((), "int16", scale=2.0**-12) for _ in GATES]
    graph.operators[-1][2] = np.array([y], np.int32)
    graph.operators[-1][8] = np.array([*of_norm, graph.tensor((), "int8", **of_y)], np.int32)
    return write(tmp_path, graph, [x], [y]), real, of_x, of_y


@pytest.mark.parametrize("peephole", [False, True])
@pytest.mark.parametrize("layer_norm", [False, True])
def test_integers_alone(tmp_path, rng, layer_norm, peephole):
    w = weights(rng, layer_norm=layer_norm, peephole=peephole)
    path, real, of_x, of_y = int8_lstm(tmp_path, w)
    assert_close([real[name] for name in w], [w[name] for name in w], 0.01)
    steps = rng.integers(-50, 50, (B, T, I))
    x = ((steps - of_x["zero"]) * of_x["scale"]).astype(np.float32)
    zeros = np.zeros((B, H), np.float32)
    y = swapped(expected(real, swapped(x), zeros, zeros)[0])
    assert_close([from_tflite(path)(x)[0]], [y], 1e-6)
    (theirs,) = litert(path, steps)
    theirs = (theirs.astype(np.float32) - of_y["zero"]) * of_y["scale"]
    assert_close([theirs], [y], 0.03)


@pytest.mark.parametrize("name", VARIANTS)
def test_two_directions_against_litert(tmp_path, rng, name):
    path = two_directions(tmp_path, *(weights(rng, **VARIANTS[name]) for _ in range(2)))
    x = drawn(rng, B, T, I)
    y, _ = from_tflite(path)(x)
    # LiteRT 2.3 begins this operator, in about one run of four, with states that are not zero, or
    # no numbers: with what memory has, so that one process may have the same in all runs.
    np.save(tmp_path / "x.npy", x)
    code = f"""
import numpy as np
from test_formats_tflite import litert
x = np.load({str(tmp_path / "x.npy")!r})
np.save({str(tmp_path / "y.npy")!r}, [litert({str(path)!r}, x)[0] for _ in range(10)])
"""
    theirs = [litert(path, x)[0] for _ in range(10)]
    run_python(code)
    theirs += [*np.load(tmp_path / "y.npy")]
    finite = [other for other in theirs if np.isfinite(other).all()]
    assert_close([y], [min(finite, key=lambda other: np.abs(other - y).max())], 1e-6)


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_hybrid_weights_against_litert(tmp_path, rng, dtype, layer_norm):
    """Not equal: LiteRT rounds the input and the state to 8 bits, too."""
    constant, _ = quantised(dtype, False)
    path = one_lstm(tmp_path, weights(rng, layer_norm=layer_norm), constant=constant)
    x = drawn(rng, B, T, I)
    assert_close([from_tflite(path)(x)[0]], litert(path, x), 0.02)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_hybrid_dense_layers_against_litert(tmp_path, rng, dtype):
    steps = rng.integers(-127, 128, (6, H)).astype(np.int8)

    def build(graph, y):
        z = graph.tensor((B * T, 6))
        kernel = graph.constant(steps.view(dtype), scale=0.01)
        graph.operator("FULLY_CONNECTED", [y, kernel, -1], [z])
        return z

    path = around(build)(tmp_path, rng)
    x = drawn(rng, B, T, I)
    y = from_tflite(path)(x)[0].reshape(B * T, 6)
    assert_close([y], litert(path, x), 0.02)


def test_verify(tmp_path, rng, capsys):
    path = one_lstm(tmp_path, weights(rng))
    x = drawn(rng, B, T, I)
    y = from_tflite(path)(x)[0]
    from_tflite(path, verify=(x, y))
    with pytest.raises(ValueError, match="more than rounding"):
        from_tflite(path, verify=(x, y + 0.01))
    litert(path)  # skips
    from_tflite(path, verify=True)
    assert capsys.readouterr().err.count("verified") == 2
    constant, _ = quantised("int8", False)
    with pytest.raises(ValueError, match="quantised"):
        from_tflite(one_lstm(tmp_path, weights(rng), constant=constant), verify=True)


# ---- files of other people


def grey(path):
    """Return the pixels of a PNG of 8 bits without an alpha channel, from 0 to 1."""
    data = path.read_bytes()
    at, chunks = 8, {}
    while at < len(data):
        size, kind = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        chunks[kind] = chunks.get(kind, b"") + data[at + 8 : at + 8 + size]
        at += size + 12
    width, height = (int.from_bytes(chunks[b"IHDR"][n : n + 4]) for n in (0, 4))
    assert chunks[b"IHDR"][8:] == bytes([8, 0, 0, 0, 0])
    lines = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, width + 1)
    pixels = np.zeros((height + 1, width + 1), int)  # a line above and a column to the left
    for y, (kind, *line) in enumerate(lines.tolist()):
        for x, value in enumerate(line):
            left, up, corner = pixels[y + 1, x], pixels[y, x + 1], pixels[y, x]
            paeth = min((left, up, corner), key=lambda v: abs(left + up - corner - v))
            guess = (0, left, up, (left + up) // 2, paeth)[kind]
            pixels[y + 1, x + 1] = (value + guess) % 256
    return pixels[1:, 1:].astype(np.float32) / 255


@pytest.mark.parametrize("name", ["trained_lstm", "trained_lstm_int8"])
def test_digits(name):
    read = from_tflite(model(f"tflite_micro/{name}.tflite"))
    digits = np.stack([grey(model(f"tflite_micro/sample{n}.png")) for n in range(10)])
    assert read(digits)[0].argmax(axis=1).tolist() == [*range(10)]
    assert [type(block) for block in read] == [lf.LSTM, nn.Flatten, nn.Linear, nn.Softmax]
    assert inspect(model(f"tflite_micro/{name}.tflite"))[0][:3] == (
        "tfl.unidirectional_sequence_lstm",
        "LSTM",
        "28 -> 20",
    )


def test_rounding_to_8_bits_changes_little():
    read, rounded = (
        from_tflite(model(f"tflite_micro/{name}.tflite"))
        for name in ("trained_lstm", "trained_lstm_int8")
    )
    digits = np.stack([grey(model(f"tflite_micro/sample{n}.png")) for n in range(10)])
    assert np.abs(read(digits)[0] - rounded(digits)[0]).max() < 0.05


def test_digits_against_litert():
    path = model("tflite_micro/trained_lstm.tflite")
    digit = grey(model("tflite_micro/sample3.png"))[None]
    assert_close([from_tflite(path)(digit)[0]], litert(path, digit), 1e-6)


@pytest.mark.parametrize("name", ["model_1", "model_quant_1"])
def test_unrolled_lstms_are_refused(name):
    path = model(f"dtln/{name}.tflite")
    with pytest.raises(ValueError, match=r"unrolled into the FULLY_CONNECTED.*Keras or ONNX"):
        from_tflite(path)
    assert "FULLY_CONNECTED" in {one.kind for one in inspect(path)} | {"FULLY_CONNECTED"}
    assert sum(one.kind == "Linear" for one in inspect(path)) == 5


# ---- what is refused


def test_what_is_refused(tmp_path, rng):
    w = weights(rng)

    def lstm(change):
        """Return a file whose LSTM has other inputs, by their place, or other options."""
        graph = Graph()
        x = graph.tensor((B, T, I))
        y = add_lstm(graph, x, w)
        change(graph, graph.operators[0])
        return write(tmp_path, graph, [x], [y])

    def inputs(**at):
        def change(graph, operator):
            for place, array in at.items():
                n = (
                    -1
                    if array is None
                    else array
                    if isinstance(array, int)
                    else graph.constant(array)
                )
                operator[1][int(place[1:])] = n

        return lambda: lstm(change)

    def option(field, kind, value):
        return lambda: lstm(lambda _, operator: operator[4].update({field: number(kind, value)}))

    def behind(kind, *constants, options=None, shape=(B, T, H)):
        return lambda: after(kind, shape, *constants, options=options)(tmp_path, rng)

    def clipped_projection():
        graph = Graph()
        x = graph.tensor((B, T, I))
        y = add_lstm(graph, x, weights(rng, projected=P))
        graph.operators[0][4][2] = number("f", 1.0)
        return write(tmp_path, graph, [x], [y])

    def no_lstm(kind):
        graph = Graph()
        x, y = graph.tensor((B, T, I)), graph.tensor((B, T, I))
        graph.operator(kind, [x], [y])
        return write(tmp_path, graph, [x], [y])

    def two_outputs():
        graph = Graph()
        x = graph.tensor((B, T, I))
        y = add_lstm(graph, x, w)
        return write(tmp_path, graph, [x], [y, add_lstm(graph, x, w)])

    def residual():
        graph = Graph()
        x, z = graph.tensor((B, T, H)), graph.tensor((B, T, H))
        y = add_lstm(graph, x, weights(np.random.default_rng(0), H))
        graph.operator("ADD", [y, x], [z])
        return write(tmp_path, graph, [x], [z])

    def cast():
        def build(graph, y):
            z = graph.tensor((B, T, H), "int32")
            graph.operator("CAST", [y], [z])
            return z

        return around(build)(tmp_path, rng)

    def reverse_only():
        graph = Graph()
        x = graph.tensor((B, T, I))
        return write(tmp_path, graph, [x], [turned(graph, add_lstm(graph, x, w), (B, T, H))])

    ones = np.ones(H, np.float32)
    cases = [
        (inputs(_21=ones), "gains of layer norm: some are left out"),
        (inputs(_21=ones, _22=ones, _23=ones), "gains of layer norm: some are left out"),
        (
            inputs(_1=None, _5=None, _12=None, _20=ones, _21=ones, _22=ones, _23=ones),
            "gains of layer norm: some are left out",
        ),
        (inputs(_20=ones[1:], _21=ones, _22=ones, _23=ones), "gains of layer norm: has shape"),
        (inputs(_1=None), "some are left out"),
        (inputs(_12=None), "some are left out"),
        (inputs(_9=ones), "peepholes: some are left out"),
        (inputs(_2=drawn(rng, H, I + 1)), "different shapes"),
        (inputs(_6=np.ones((H, H), np.int32)), "without a scale"),
        (inputs(_2=0), "is computed"),
        (inputs(_17=ones), "bias of the projection"),
        (inputs(_18=ones), "does not begin as zeros"),
        (inputs(_18=None), "does not begin as zeros"),
        (lambda: lstm(lambda _, o: o[1].__setitem__(18, o[1][19])), "two states are one tensor"),
        (option(0, "b", 3), "activation function 3"),
        (clipped_projection, "clipped projection"),
        (option(5, "?", True), "diagonal"),
        (behind("HARD_SWISH"), "operator 117"),
        (behind("SOFTMAX", options={0: number("f", 2.0)}), "beta"),
        (behind("TRANSPOSE", ints(1, 0, 2)), "axes"),
        (behind("TRANSPOSE", ints(0, 2, 1)), "axes"),
        (behind("TRANSPOSE", ints(0, 0, 1)), "no permutation"),
        (behind("RESHAPE", ints(T, B, H)), "become"),
        (behind("RESHAPE", ints(B, T, 0)), "become"),
        (behind("RESHAPE", ints(-1, 7)), "become"),
        (behind("MEAN", ints(2), options=MEAN), "over another axis"),
        (behind("GATHER", np.int32(2), options={0: number("i", 1)}), "place 2"),
        (behind("GATHER", np.int32(0), options={0: number("i", 2)}), "place 0"),
        (behind("REVERSE_V2", ints(2)), "another axis"),
        (behind("FULLY_CONNECTED", drawn(rng, 2, 7)), "become"),
        (behind("FULLY_CONNECTED", drawn(rng, 2, H), ones), "a bias of shape"),
        (behind("FULLY_CONNECTED", drawn(rng, 2, H), options={1: number("b", 1)}), "another form"),
        (behind("FULLY_CONNECTED", drawn(rng, 2, H), options={0: number("b", 3)}), "function 3"),
        (behind("ADD", ones), "a linear layer"),
        (behind("MUL", ones[1:]), "by an array of shape"),
        (behind("MUL", drawn(rng, T, H)), "by an array of shape"),
        (behind("MUL", ones, options={0: number("b", 3)}), "function 3"),
        (cast, "rounds to int32"),
        (residual, "is not constant|depend|is computed"),
        (two_outputs, "one of each"),
        (reverse_only, "reverse order"),
        (lambda: no_lstm("WHILE"), "a loop"),
        (lambda: no_lstm("TANH"), "no LSTM among"),
        (lambda: no_lstm("LSTM"), "unrolled into the LSTM of each step"),
    ]
    for make, message in cases:
        path = make()
        with pytest.raises(ValueError, match=message) as caught:
            from_tflite(path)
        assert str(path) in str(caught.value), message
        inspect(path)
    with pytest.raises(FileNotFoundError, match="no file"):
        from_tflite(tmp_path)


def test_the_comparison_catches_mistakes(tmp_path, rng):
    w = weights(rng, H, peephole=True)
    x, h, c = drawn(rng, T, B, H), drawn(rng, B, H), drawn(rng, B, H)
    y = expected(w, x, h, c)[0]

    def compare(w):
        lstm = from_tflite(one_lstm(tmp_path, w))
        assert_close([swapped(lstm(swapped(x), (h[None], c[None]))[0])], [y], 1e-6)

    compare(w)
    wrong = []
    for order in [*itertools.permutations(GATES)][1:]:
        moved = dict(zip(GATES, order, strict=True))
        wrong.append({k: w[k[0] + moved[k[1]]] if k[0] in "xhb" else w[k] for k in w})
    wrong += [w | {name: w[name].T} for name in w if w[name].ndim == 2]
    wrong += [w | {name: factor * w[name]} for name in w if name[0] in "bc" for factor in (0, 2)]
    for mistaken in wrong:
        with pytest.raises(AssertionError):
            compare(mistaken)


def test_hostile_files(tmp_path, rng):
    w, second, kernel, bias = weights(rng), weights(rng, H), drawn(rng, 6, H), drawn(rng, 6)
    graph, x, z = classifier(rng, w, second, kernel, bias)
    data = graph.written([x], [z])
    path = tmp_path / "model.tflite"
    assert read_all(from_tflite, path, [*truncated(data), b"", data[:8] + bytes(99)]) == 0
    copies = changed(data, rng, 500)
    assert read_all(from_tflite, path, copies) > 50  # changed weights and padding
    read_all(inspect, path, copies)
    other = []
    for value in (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF):  # offsets, sizes, shapes, counts
        for at in range(0, len(data), 4 * 61):
            other.append(data[:at] + value.to_bytes(4, "little") + data[at + 4 :])
    read_all(from_tflite, path, other)
    small = one_lstm(tmp_path, weights(rng, 1, 1)).read_bytes()
    read_all(from_tflite, path, changed(small, rng, 1500))


def test_many_uses_of_one_tensor(tmp_path, rng):
    """A small file whose constants are used again and again does not fill the memory."""
    graph = Graph()
    x = graph.tensor((B, T, 256))
    kernel = graph.constant(np.zeros((256, 256), np.float32))
    for _ in range(900):
        y = graph.tensor((B, T, 256))
        graph.operator("FULLY_CONNECTED", [x, kernel, -1], [y], {2: number("?", True)})
        x = y
    path = write(tmp_path, graph, [0], [add_lstm(graph, x, weights(rng, 256))])
    assert read_all(from_tflite, path, [path.read_bytes()]) == 0


def test_neither_litert_nor_tensorflow_is_imported(tmp_path, rng):
    path = one_lstm(tmp_path, weights(rng))
    code = f"""if True:
        import sys
        for name in ("tensorflow", "ai_edge_litert", "tflite", "tflite_runtime", "flatbuffers"):
            sys.modules[name] = None
        from lstm_fast.formats import from_tflite
        print(from_tflite({str(path)!r}).hidden_size)
        try:
            from_tflite({str(path)!r}, verify=True)
        except ImportError as error:
            print(error)
        """
    size, error = run_python(code).splitlines()
    assert size == str(H) and "pip install ai-edge-litert" in error
