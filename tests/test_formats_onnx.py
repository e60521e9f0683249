"""Models of ONNX are read as ONNX Runtime runs them, or refused."""

import itertools

import numpy as np
import pytest
from support import comparisons
from support.models import model as model_file
from support.onnx_models import (
    lstm_arrays,
    make_model,
    make_node,
    reordered,
    run,
    save,
    value,
)

from lstm_fast import LSTM
from lstm_fast.formats import from_onnx
from lstm_fast.formats.onnx import inspect
from lstm_fast.nn import Sequential

comparisons.require("ONNX Runtime", "onnx", "onnxruntime")

import onnx  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

pytestmark = pytest.mark.no_isa

TOLERANCE = 1e-6
T, B, I, H = 5, 3, 4, 6


def inputs_of(rng, D=1, I=I, H=H, L=1):
    shapes = {"x": (T, B, I), "h0": (L * D, B, H), "c0": (L * D, B, H)}
    return {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}


STATES = [value(name, ["D", "B", H]) for name in ("h0", "c0")]


def one_lstm(arrays, attributes=None, *, states=True, lengths=False, before=()):
    """Return a model of one node LSTM, with states as inputs."""
    bias = "B" in arrays or any("B" in node.output for node in before)
    names = ["x", "W", "R", "B" if bias else "-", "n" if lengths else "-"]
    names += ["h0", "c0"] if states else ["-", "-"]
    names += ["P"] if "P" in arrays else []
    node = make_node("LSTM", " ".join(names), "y yh yc", **(attributes or {"hidden_size": H}))
    given = [value("x", ["T", "B", "I"])] + STATES * states
    given += [value("n", ["B"], np.int32)] * lengths
    return make_model([*before, node], given, ["y", "yh", "yc"], arrays)


def expected_of(y):
    """Return y (T, B, D H) of Y (T, D, B, H)."""
    return y.swapaxes(1, 2).reshape(y.shape[0], y.shape[2], -1)


def assert_same(block, model, feeds, lengths=None):
    given = feeds | ({} if lengths is None else {"n": lengths})
    y, yh, yc = run(model, given)
    actual, (hn, cn) = block(feeds["x"], (feeds["h0"], feeds["c0"]), lengths=lengths)
    np.testing.assert_allclose(actual, expected_of(y), 0, TOLERANCE)
    np.testing.assert_allclose(hn, yh, 0, TOLERANCE)
    np.testing.assert_allclose(cn, yc, 0, TOLERANCE)


# ---- one node

ACTIVATIONS = {
    "plain": {},
    "names": {"activations": ["hardsigmoid", "SOFTSIGN", "relu"]},
    "numbers": {
        "activations": ["HardSigmoid", "LeakyRelu", "ScaledTanh"],
        "activation_alpha": [0.3, 0.2, 1.2],
        "activation_beta": [0.4, 0.7],
    },
    "cut short": {"activations": ["HardSigmoid", "Elu", "Tanh"], "activation_alpha": [0.3]},
}
VARIANTS = [
    *({"direction": direction} for direction in ("forward", "reverse", "bidirectional")),
    {"clip": 0.4},
    {"input_forget": 1},
    {"peephole": True},
    {"bias": False},
    {"lengths": True, "direction": "bidirectional"},
    *(
        {"functions": name, "direction": d}
        for name in ACTIVATIONS
        for d in ("reverse", "bidirectional")
    ),
]


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_one_node(rng, variant):
    attributes = {"hidden_size": H}
    attributes |= {k: variant[k] for k in ("direction", "clip", "input_forget") if k in variant}
    D = 2 if variant.get("direction") == "bidirectional" else 1
    functions = ACTIVATIONS[variant.get("functions", "plain")]
    attributes |= {name: values * D for name, values in functions.items()}
    arrays = lstm_arrays(rng, I, H, D, peephole=variant.get("peephole", False))
    if not variant.get("bias", True):
        del arrays["B"]
    lengths = np.array([T, 1, 3], np.int32) if variant.get("lengths") else None
    model = one_lstm(arrays, attributes, lengths=lengths is not None)
    if variant.get("functions") == "cut short" and D == 2:
        attributes["activation_alpha"] = [0.3, 1.0, 0.3]
        model = one_lstm(arrays, attributes)
    block = from_onnx(model)
    assert isinstance(block, LSTM) and not block.batch_first
    assert_same(block, model, inputs_of(rng, D), lengths)
    assert_same(from_onnx(model, "y"), model, inputs_of(rng, D), lengths)


def test_layout_1(rng):
    """ONNX Runtime refuses it: it is layout 0 with other axes."""
    arrays = lstm_arrays(rng, I, H, 2)
    attributes = {"hidden_size": H, "direction": "bidirectional"}
    plain = from_onnx(one_lstm(arrays, attributes, states=False))
    turned = from_onnx(one_lstm(arrays, {**attributes, "layout": 1}, states=False))
    assert turned.batch_first
    x = inputs_of(rng)["x"]
    y = turned(x.swapaxes(0, 1).copy())[0]
    np.testing.assert_array_equal(y.swapaxes(0, 1), plain(x)[0])


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float64"])
def test_other_precisions(rng, kind):
    exact = lstm_arrays(rng, I, H)
    stored, values = {}, {}
    for name, array in exact.items():
        if kind == "bfloat16":
            bits = array.view(np.uint32) >> 16
            values[name] = (bits << 16).view(np.float32)
            stored[name] = helper.make_tensor(
                name, TensorProto.BFLOAT16, array.shape, bits.astype("<u2").tobytes(), raw=True
            )
        else:
            stored[name] = values[name] = array.astype(kind)
    block = from_onnx(one_lstm(stored, states=False))
    assert block.dtype == (np.float64 if kind == "float64" else np.float32)
    x = inputs_of(rng)["x"]
    single = {name: array.astype(np.float32) for name, array in values.items()}
    y = expected_of(run(one_lstm(single, states=False), {"x": x})[0])
    np.testing.assert_allclose(block(x.astype(block.dtype))[0], y, 0, TOLERANCE)


def test_numbers_that_are_not_raw(rng):
    arrays = lstm_arrays(rng, I, H)
    typed = {
        name: helper.make_tensor(name, TensorProto.FLOAT, array.shape, array.ravel().tolist())
        for name, array in arrays.items()
    }
    assert typed["W"].float_data
    assert_same(from_onnx(one_lstm(typed)), one_lstm(arrays), inputs_of(rng))


# ---- mistakes that must be seen


def mistakes(arrays):
    """Yield what a wrong reader would make of a node."""
    for order in itertools.permutations("ifgo"):
        if "".join(order) != "iofg":
            yield f"order {order}", {n: reordered(a, order, H) for n, a in arrays.items()}
    for name in ("W", "R"):
        turned = arrays[name].reshape(2, 4, H, H).swapaxes(2, 3).reshape(2, -1, H)
        yield f"{name} transposed", arrays | {name: turned}
    for kept in (0, 1):
        half = arrays["B"].copy().reshape(2, 2, -1)
        half[:, 1 - kept] = 0
        yield f"bias {kept} alone", arrays | {"B": half.reshape(2, -1)}
    yield "bias twice", arrays | {"B": 2 * arrays["B"]}
    yield "directions exchanged", {name: array[::-1].copy() for name, array in arrays.items()}


def test_the_comparison_sees_every_mistake(rng):
    arrays = lstm_arrays(rng, H, H, 2)
    attributes = {"hidden_size": H, "direction": "bidirectional"}
    x = rng.standard_normal((T, B, H), np.float32)
    recorded = x, expected_of(run(one_lstm(arrays, attributes, states=False), {"x": x})[0])
    from_onnx(one_lstm(arrays, attributes, states=False), verify=recorded)
    seen = 0
    for name, wrong in mistakes(arrays):
        with pytest.raises(ValueError, match="the largest difference"):
            from_onnx(one_lstm(wrong, attributes, states=False), verify=recorded)
            pytest.fail(name)
        seen += 1
    assert seen == 23 + 6


# ---- weights that are computed of constants


def folded(rng, arrays):
    """Yield a name, nodes that give W, R or B, and the constants that they need."""
    W, R, Bias = arrays["W"], arrays["R"], arrays["B"]
    ints = {name: np.array(n, np.int64) for name, n in (("zero", [0]), ("one", [1]))}
    yield "Unsqueeze", [make_node("Unsqueeze", "w zero", "W")], {"w": W[0], **ints}
    yield "Squeeze", [make_node("Squeeze", "w one", "W")], {"w": W[:, None], **ints}
    shape = np.array([1, -1, I])
    yield "Reshape", [make_node("Reshape", "w shape", "W")], {"w": W.ravel(), "shape": shape}
    turned = np.ascontiguousarray(R.transpose(2, 0, 1))
    yield "Transpose", [make_node("Transpose", "r", "R", perm=[1, 2, 0])], {"r": turned}
    halves = {"b1": Bias[:, : 4 * H].copy(), "b2": Bias[:, 4 * H :].copy()}
    yield "Concat", [make_node("Concat", "b1 b2", "B", axis=1)], halves
    yield "Cast", [make_node("Cast", "w", "W", to=TensorProto.FLOAT)], {"w": W.astype(np.float64)}
    more = {"w": np.concatenate([W, W + 1], 2), "end": np.array([I]), "two": np.array([2]), **ints}
    yield "Slice", [make_node("Slice", "w zero end two", "W")], more
    yield "Identity", [make_node("Identity", "w", "W")], {"w": W}
    constant = make_node("Constant", "", "W", value=numpy_helper.from_array(W))
    yield "Constant", [constant], {}


def test_weights_behind_operators(rng):
    arrays = lstm_arrays(rng, I, H)
    for name, nodes, constants in folded(rng, arrays):
        kept = {k: a for k, a in arrays.items() if k not in {n.output[0] for n in nodes}}
        model = one_lstm(kept | constants, before=nodes)
        assert from_onnx(model).bias, name
        assert_same(from_onnx(model), model, inputs_of(rng))


@pytest.mark.parametrize("per_channel", [False, True])
def test_dequantised_weights(rng, per_channel):
    arrays = lstm_arrays(rng, I, H)
    whole = rng.integers(-127, 127, (1, 4 * H, I)).astype(np.int8)
    scale = rng.uniform(1e-3, 2e-3, 4 * H if per_channel else ()).astype(np.float32)
    zero = rng.integers(-3, 4, scale.shape).astype(np.int8)
    constants = {"q": whole, "s": scale, "z": zero, "R": arrays["R"], "B": arrays["B"]}
    node = make_node("DequantizeLinear", "q s z", "W", axis=1)
    model = one_lstm(constants, before=[node])
    assert_same(from_onnx(model), model, inputs_of(rng))


def test_dynamically_quantised(rng, tmp_path):
    """Of ONNX Runtime's own quantiser: weights as it has them, inputs not rounded."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    for kind, per_channel in itertools.product((QuantType.QInt8, QuantType.QUInt8), (False, True)):
        arrays = lstm_arrays(rng, I, H, 2)
        attributes = {"hidden_size": H, "direction": "bidirectional"}
        model = one_lstm(arrays, attributes)
        source = save(model, tmp_path / "float.onnx")
        target = tmp_path / "int8.onnx"
        quantize_dynamic(source, target, weight_type=kind, per_channel=per_channel)
        assert any(n.op_type == "DynamicQuantizeLSTM" for n in onnx.load(target).graph.node)
        feeds = inputs_of(rng, 2)
        y = expected_of(run(target, feeds)[0])
        exact = expected_of(run(model, feeds)[0])
        actual = from_onnx(target)(feeds["x"], (feeds["h0"], feeds["c0"]))[0]
        assert 1e-5 < np.abs(actual - exact).max() < 0.02
        assert np.abs(actual - y).max() < 0.15  # it rounds inputs and states to 8 bits
        assert "DynamicQuantizeLSTM" not in {row.kind for row in inspect(target)}


# ---- models


def two_lstms(rng, *, H2=H, between=(), second="y1", after=(), output="z", opset=17, **constants):
    """Return a model of two nodes, `b` on what `between` makes of `a`; and its input."""
    first, above = lstm_arrays(rng, I, H), lstm_arrays(rng, H, H2)
    arrays = {f"{k}{n}": v for n, one in enumerate((first, above)) for k, v in one.items()}
    nodes = [
        make_node("LSTM", "x W0 R0 B0", "ya", name="a", hidden_size=H),
        *(between or [make_node("Squeeze", "ya one", "y1")]),
        make_node("LSTM", f"{second} W1 R1 B1", "yb hb cb", name="b", hidden_size=H2),
        *(after or [make_node("Squeeze", "yb one", "z")]),
    ]
    constants = {"one": np.array([1]), "zero": np.array([0]), **constants}
    model = make_model(nodes, [value("x", ["T", "B", I])], [output], arrays | constants, opset)
    return model, rng.standard_normal((T, B, I), np.float32)


def assert_model(model, x, kinds, **options):
    block = from_onnx(model, verify=True)
    found = [type(one).__name__ for one in block] if isinstance(block, Sequential) else ["LSTM"]
    assert found == kinds
    (expected,) = run(model, {"x": x}, [model.graph.output[0].name])
    np.testing.assert_allclose(block(x)[0], expected, 0, TOLERANCE)
    return block


def test_nodes_one_above_the_other_are_layers(rng):
    model, x = two_lstms(rng)
    assert assert_model(model, x, ["LSTM"]).num_layers == 2
    model, x = two_lstms(rng, H2=7)
    assert assert_model(model, x, ["LSTM"]).hidden_size == (6, 7)
    between = [
        make_node("Transpose", "ya", "t", perm=[0, 2, 1, 3]),
        make_node("Reshape", "t shape", "y1"),
    ]
    model, x = two_lstms(rng, between=between, shape=np.array([0, 0, -1]))
    assert assert_model(model, x, ["LSTM"]).num_layers == 2


def test_what_is_between_them(rng):
    matrix, bias = np.eye(H, dtype=np.float32) * 2, np.ones(H, np.float32)
    between = [
        make_node("Squeeze", "ya one", "s"),
        make_node("MatMul", "s m", "t"),
        make_node("Add", "v t", "u"),
        make_node("Relu", "u", "w"),
        make_node("Dropout", "w", "y1"),
    ]
    model, x = two_lstms(rng, between=between, m=matrix, v=bias)
    assert_model(model, x, ["LSTM", "Linear", "Activation", "LSTM"])


def after_two():
    """Yield nodes after the second LSTM, and the block that they are."""
    squeezed = make_node("Squeeze", "yb one", "s")
    last = make_node("Gather", "yb last", "g", axis=0)
    yield [last, make_node("Squeeze", "g zero", "z")], "Last"
    part = make_node("Slice", "yb minus end", "g")
    yield [part, make_node("Squeeze", "g both", "z")], "Last"
    yield [make_node("Squeeze", "hb zero", "z")], "Last"
    for kind, axis in (("ReduceMean", 0), ("ReduceMax", -3)):
        yield [squeezed, make_node(kind, "s", "z", axes=[axis], keepdims=0)], "Pool"


def test_one_row_of_all_steps(rng):
    constants = {"minus": np.array([-1]), "last": np.array(-1), "both": np.array([0, 1])}
    for after, kind in after_two():
        model, x = two_lstms(rng, after=after, end=np.array([2**31 - 1]), **constants)
        assert_model(model, x, ["LSTM", kind])


def test_rows_around(rng):
    """Gemm with all its attributes; a reshape to rows and back, as TensorFlow has it."""
    weight = rng.standard_normal((H, 3)).astype(np.float32)
    bias = rng.standard_normal((1, 3)).astype(np.float32)
    after = [
        make_node("Squeeze", "yb one", "s"),
        make_node("Shape", "s", "shape"),
        make_node("Reshape", "s rows", "r"),
        make_node("Gemm", "r w v", "g", alpha=0.5, beta=2.0),
        make_node("Slice", "shape zero two", "tb"),
        make_node("Concat", "tb minus", "back", axis=0),
        make_node("Reshape", "g back", "h"),
        make_node("Softmax", "h", "z"),
    ]
    constants = {"rows": np.array([-1, H]), "two": np.array([2]), "minus": np.array([-1])}
    model, x = two_lstms(rng, after=after, w=weight, v=bias, **constants)
    assert_model(model, x, ["LSTM", "Linear", "Softmax"])
    constants["rows"] = np.array([0, -1])
    model, _ = two_lstms(rng, after=after, w=weight, v=bias, **constants)
    with pytest.raises(ValueError, match="Gemm 'g'"):
        from_onnx(model)


@pytest.mark.parametrize("merge", ["concat", "sum", "mul", "ave", "added"])
def test_both_directions(rng, merge):
    nodes = {
        "concat": [
            make_node("Split", "y", "f r", axis=1),
            make_node("Squeeze", "f one", "fs"),
            make_node("Squeeze", "r one", "rs"),
            make_node("Concat", "fs rs", "z", axis=2),
        ],
        "sum": [make_node("ReduceSum", "y one", "z", keepdims=0)],
        "mul": [make_node("ReduceProd", "y", "z", axes=[1], keepdims=0)],
        "ave": [make_node("ReduceMean", "y", "z", axes=[1], keepdims=0)],
        "added": [
            make_node("Gather", "y i0", "f", axis=1),
            make_node("Gather", "y i1", "r", axis=1),
            make_node("Add", "r f", "z"),
        ],
    }[merge]
    arrays = lstm_arrays(rng, I, H, 2)
    lstm = make_node("LSTM", "x W R B", "y", hidden_size=H, direction="bidirectional")
    constants = {"one": np.array([1]), "i0": np.array(0), "i1": np.array(1), **arrays}
    model = make_model([lstm, *nodes], [value("x", ["T", "B", I])], ["z"], constants)
    block = assert_model(model, inputs_of(rng)["x"], ["LSTM"])
    assert block.merge == ("sum" if merge == "added" else merge)
    if merge == "concat":
        del model.graph.node[-1].input[:]
        model.graph.node[-1].input.extend(["rs", "fs"])
        with pytest.raises(ValueError, match="forward first"):
            from_onnx(model)


def test_a_table_comes_first(rng):
    arrays = lstm_arrays(rng, I, H)
    table = rng.standard_normal((11, I), np.float32)
    nodes = [
        make_node("Cast", "x", "ids", to=TensorProto.INT64),
        make_node("Gather", "table ids", "e"),
        make_node("Transpose", "e", "t", perm=[1, 0, 2]),
        make_node("LSTM", "t W R B", "y", hidden_size=H),
        make_node("Transpose", "y", "u", perm=[2, 0, 1, 3]),
        make_node("Squeeze", "u two", "z"),
    ]
    constants = {"table": table, "two": np.array([2]), **arrays}
    model = make_model(nodes, [value("x", ["B", "T"], np.int32)], ["z"], constants)
    block = assert_model(model, rng.integers(0, 11, (B, T), np.int32), ["Embedding", "LSTM"])
    assert block.batch_first
    del model.graph.node[4:]
    model.graph.node.append(make_node("Squeeze", "y one", "z"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([1]), "one"))
    with pytest.raises(ValueError, match="another order; the input has batch first"):
        from_onnx(model)


def test_pytorch_s_exporter(rng, tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    import warnings

    class Classifier(torch.nn.Module):
        def __init__(self, batch_first, **options):
            super().__init__()
            self.embed = torch.nn.Embedding(11, I)
            self.lstm = torch.nn.LSTM(I, H, 2, batch_first=batch_first, **options)
            self.D = 2 if options else 1
            self.head = torch.nn.Linear(self.D * H, 3)
            self.norm = torch.nn.LayerNorm(3)

        def forward(self, x):
            _, (h, _) = self.lstm(self.embed(x))
            last = torch.cat((h[-2], h[-1]), 1) if self.D == 2 else h[-1]
            return torch.softmax(self.norm(torch.relu(self.head(last))), -1)

    for batch_first, options in itertools.product((False, True), ({}, {"bidirectional": True})):
        torch.manual_seed(0)
        model = Classifier(batch_first, **options).eval()
        x = torch.randint(0, 11, (T, B))
        path = tmp_path / "model.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                model,
                (x,),
                path,
                input_names=["x"],
                dynamic_axes={"x": {0: "a", 1: "b"}},
                opset_version=17,
                dynamo=False,
            )
        block = from_onnx(path, verify=True)
        kinds = [type(one).__name__ for one in block]
        assert kinds == [
            "Embedding",
            "LSTM",
            "Last",
            "Linear",
            "Activation",
            "LayerNorm",
            "Softmax",
        ]
        assert block.batch_first == batch_first
        expected = model(x).detach().numpy()
        np.testing.assert_allclose(block(x.numpy())[0], expected, 0, TOLERANCE)


def test_a_speech_enhancer():
    """Two LSTMs and a mask; states go in and out as one array (1, layer, unit, h or c)."""
    path = model_file("dtln/model_1.onnx")
    block = from_onnx(path, verify=True)
    lstm, dense, sigmoid = block
    assert (lstm.num_layers, lstm.batch_first, dense.output_size) == (2, True, 257)
    assert sigmoid.function == "Sigmoid"
    rng = np.random.default_rng(0)
    name, state = block.blocks.keys() & {"lstm_4"}, np.zeros((1, 2, 128, 2), np.float32)
    after = None
    for _ in range(4):
        x = rng.standard_normal((1, 1, 257), np.float32)
        mask, state = run(path, {"input_2": x, "input_3": state})
        y, after = block(x, after)
        np.testing.assert_allclose(y, mask, 0, 2e-6)
        hn, cn = after[next(iter(name))]
        np.testing.assert_allclose(hn[:, 0], state[0, :, :, 0], 0, 2e-6)
        np.testing.assert_allclose(cn[:, 0], state[0, :, :, 1], 0, 2e-6)
    assert from_onnx(path, "lstm_5", verify=True).input_size == 128
    assert from_onnx(path, ["lstm_4", "lstm_5"], verify=True).num_layers == 2
    assert [row.kind for row in inspect(path)] == ["LSTM", "LSTM", "Linear", "Activation"]


# ---- inside of other graphs


def test_branches_and_bodies(rng):
    arrays = lstm_arrays(rng, I, H)
    constant = make_node("Constant", "", "R", value=numpy_helper.from_array(arrays.pop("R")))
    lstm = make_node("LSTM", "x W R B", "yy", name="inner", hidden_size=H)
    result = [helper.make_tensor_value_info("yy", TensorProto.FLOAT, None)]
    branch = helper.make_graph([constant, lstm], "branch", [], result)
    other = helper.make_graph([make_node("Identity", "x", "yy")], "other", [], result)
    node = make_node("If", "c", "y", name="which", then_branch=branch, else_branch=other)
    given = [value("x", ["T", "B", I]), value("c", [], np.bool_)]
    model = make_model([node], given, ["y"], arrays)
    with pytest.raises(ValueError, match=r"If 'which': depends on what is computed.*inner"):
        from_onnx(model)
    x = inputs_of(rng)["x"]
    expected = expected_of(run(model, {"x": x, "c": np.array(True)})[0])
    for name in ("which.then_branch.inner", "yy"):
        np.testing.assert_allclose(from_onnx(model, name)(x)[0], expected, 0, TOLERANCE)
    kinds = [row.kind for row in inspect(model)]
    assert kinds == ["LSTM", "If"]
    model.graph.input.pop()
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "c"))
    np.testing.assert_allclose(from_onnx(model)(x)[0], expected, 0, TOLERANCE)


def test_a_step_in_the_body_of_scan(rng):
    """The LSTM that such a model runs one step at a time; its weights are of the graph around."""
    arrays = lstm_arrays(rng, I, H) | {"zero": np.array([0])}
    names = ("h", "c", "xt", "hn", "cn", "yt")
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names]
    nodes = [
        make_node("Unsqueeze", "xt zero", "x1"),
        make_node("LSTM", "x1 W R B - h c", "y1 hn cn", name="cell", hidden_size=H),
        make_node("Squeeze", "hn zero", "yt"),
    ]
    body = helper.make_graph(nodes, "body", values[:3], values[3:])
    scan = make_node("Scan", "h0 c0 x", "hT cT z", name="scan", body=body, num_scan_inputs=1)
    given = [value(name, [1, B, H]) for name in ("h0", "c0")]
    model = make_model([scan], [*given, value("x", ["T", B, I])], ["z", "hT", "cT"], arrays)
    feeds = inputs_of(rng)
    y, hn, cn = run(model, feeds)
    actual, state = from_onnx(model, "scan.body.cell")(feeds["x"], (feeds["h0"], feeds["c0"]))
    np.testing.assert_allclose(actual, y, 0, TOLERANCE)
    np.testing.assert_allclose(state, (hn, cn), 0, TOLERANCE)
    with pytest.raises(ValueError, match=r"Scan 'scan'.*'scan.body.cell' \(4 -> 6\)"):
        from_onnx(model)


def test_several_that_have_nothing_to_do_with_each_other(rng):
    arrays = {f"{k}{n}": a for n in (0, 1) for k, a in lstm_arrays(rng, I, H + n).items()}
    nodes = [make_node("LSTM", f"x W{n} R{n} B{n}", f"y{n}", hidden_size=H + n) for n in (0, 1)]
    model = make_model(nodes, [value("x", ["T", "B", I])], ["y0", "y1"], arrays)
    with pytest.raises(ValueError, match=r"'y0' \(4 -> 6\), 'y1' \(4 -> 7\)"):
        from_onnx(model)
    assert from_onnx(model, "y1").hidden_size == H + 1
    with pytest.raises(ValueError, match="node 'y2': is no node LSTM"):
        from_onnx(model, "y2")
    assert [row.sizes for row in inspect(model)] == ["4 -> 6", "4 -> 7"]
