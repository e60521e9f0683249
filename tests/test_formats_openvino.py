"""`from_openvino`: models made by hand and by OpenVINO, against the reference and OpenVINO."""

import itertools
from importlib.util import find_spec

import numpy as np
import pytest
from support.comparing import assert_close
from support.hostile import changed, read_all, truncated
from support.openvino_models import Model, converted
from support.processes import run_python

import lstm_fast as lf
from lstm_fast import nn
from lstm_fast.formats import from_openvino
from lstm_fast.formats.openvino import inspect

pytestmark = pytest.mark.no_isa

T, B, I, H = 5, 2, 3, 4


def drawn(rng, *shape, dtype=np.float32):
    return (rng.standard_normal(shape) / 2).astype(dtype)


def weights(rng, columns=I, directions=1, dtype=np.float32):
    """Return w_ih, w_hh and the bias as LSTMSequence has them: rows f, i, c, o."""
    D = directions
    shapes = ((D, 4 * H, columns), (D, 4 * H, H), (D, 4 * H))
    return tuple(drawn(rng, *shape, dtype=dtype) for shape in shapes)


def expected(w, x, h, c, **options):
    """Return y (T, B, H) of each direction side by side; the reference is independent code."""
    order = np.arange(4 * H).reshape(4, H)[[1, 0, 2, 3]].ravel()
    both = []
    for n, (w_ih, w_hh, bias) in enumerate(zip(*w, strict=True)):
        reverse = options.pop("reverse", False) or n == 1
        y, *_ = lf.reference.lstm_forward(
            x, w_ih[order], w_hh[order], bias[order], None, h[n], c[n], reverse=reverse, **options
        )
        both.append(y)
    return np.concatenate(both, axis=2)


def swapped(x):
    return x.swapaxes(0, 1)


def columns_last(m, y, directions):
    """Add what makes (B, D, T, H) an array (B, T, D H)."""
    y = m.layer("Transpose", [y, m.constant(np.array([0, 2, 1, 3]))])
    shape = m.constant(np.array([0, 0, directions * H]))
    return m.layer("Reshape", [y, shape], special_zero="true")


def one_lstm(tmp_path, w, direction="forward", **data):
    m = Model()
    directions, _, columns = w[0].shape
    element_type = {"float32": "f32", "float16": "f16", "float64": "f64"}[w[0].dtype.name]
    y = m.lstm(m.input(B, T, columns, element_type=element_type), w, T, direction=direction, **data)
    return m.write(tmp_path, columns_last(m, y, directions))


def verified(path):
    """Compare with OpenVINO, where it is installed."""
    if find_spec("openvino") is not None:
        from_openvino(path, verify=True)


def compare(path, w, x, h, c, tolerance=1e-6, **options):
    y = expected(w, x, h, c, **options)
    actual = swapped(from_openvino(path)(swapped(x), (h, c))[0])
    assert_close([actual], [y], tolerance)


# ---- the LSTM, by the equations


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_directions(tmp_path, rng, direction):
    D = 2 if direction == "bidirectional" else 1
    w, x = weights(rng, directions=D), drawn(rng, T, B, I)
    h, c = drawn(rng, D, B, H), drawn(rng, D, B, H)
    path = one_lstm(tmp_path, w, direction)
    compare(path, w, x, h, c, reverse=direction == "reverse")
    verified(path)
    lstm = from_openvino(path)
    assert isinstance(lstm, lf.LSTM) and lstm.batch_first
    assert inspect(path)[1][1:4] == ("LSTM", "3 -> 4", direction)


def test_options_and_dtypes(tmp_path, rng):
    x, h, c = drawn(rng, T, B, I), drawn(rng, 1, B, H), drawn(rng, 1, B, H)
    w = weights(rng)
    path = one_lstm(tmp_path, w, activations="sigmoid, relu, tanh", clip="0.5")
    compare(path, w, x, h, c, clip=0.5, activations=("Sigmoid", "Relu", "Tanh"))
    verified(path)
    half = weights(rng, dtype=np.float16)
    path = one_lstm(tmp_path, half)
    compare(path, [a.astype(np.float32) for a in half], x, h, c)
    double = weights(rng, dtype=np.float64)
    args = [a.astype(np.float64) for a in (x, h, c)]
    compare(one_lstm(tmp_path, double), double, *args, tolerance=1e-14)


@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_decompressed_constants(tmp_path, rng, kind):
    """Constants of 16 bits behind Convert."""
    w = weights(rng)
    stored = [a.astype(np.float16) for a in w]
    if kind == "bf16":
        stored = [(a.view(np.uint32) >> 16).astype(np.uint16) for a in w]
        exact = [(a.astype(np.uint32) << 16).view(np.float32) for a in stored]
    else:
        exact = [a.astype(np.float32) for a in stored]
    m = Model()
    x = m.input(B, T, I)
    zeros = m.constant(np.zeros((1, 1, H), np.float32))
    constants = [m.layer("Convert", [m.constant(a, kind)], destination_type="f32") for a in stored]
    inputs = [x, zeros, zeros, m.constant(np.full(1, T)), *constants]
    y = m.layer("LSTMSequence", inputs, 3, "opset5", direction="forward", hidden_size=H)
    path = m.write(tmp_path, columns_last(m, y, 1))
    compare(path, exact, drawn(rng, T, B, I), drawn(rng, 1, B, H), drawn(rng, 1, B, H))


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_the_final_state_as_output(tmp_path, rng, direction):
    D = 2 if direction == "bidirectional" else 1
    w, x = weights(rng, directions=D), drawn(rng, T, B, I)
    zeros = np.zeros((D, B, H), np.float32)
    m = Model()
    number, port = m.lstm(m.input(B, T, I), w, T, direction=direction)
    flat = m.layer(
        "Reshape", [(number, port + 1), m.constant(np.array([0, -1]))], special_zero=True
    )
    path = m.write(tmp_path, m.layer("Tanh", [flat]))
    read = from_openvino(path)
    y = expected(w, x, zeros, zeros, reverse=direction == "reverse")
    last = {"forward": y[-1], "reverse": y[0]}.get(direction)
    last = np.hstack([y[-1, :, :H], y[0, :, H:]]) if last is None else last
    assert_close([read(swapped(x))[0]], [np.tanh(last)], 1e-6)
    verified(path)


def test_states_that_are_outputs_besides(tmp_path, rng):
    m = Model()
    number, port = m.lstm(m.input(B, T, I), weights(rng), T)
    h = m.layer("Transpose", [(number, port + 1), m.constant(np.array([1, 0, 2]))])
    y = m.layer("Squeeze", [(number, port), m.constant(np.array(1))])
    path = m.write(tmp_path, h, y, (number, port + 2))
    assert isinstance(from_openvino(path), lf.LSTM)


# ---- what is around


def test_a_tagger(tmp_path, rng):
    """Embedding, a forward and a bidirectional LSTM, a dense layer, softmax; time first."""
    table, first, second = drawn(rng, 7, I), weights(rng), weights(rng, H, 2)
    kernel, bias = drawn(rng, 2 * H, 6), drawn(rng, 1, 1, 6)
    m = Model()
    x = m.input(T, None, element_type="i64")
    v = m.layer("Gather", [m.constant(table), x, m.constant(np.array(0))], batch_dims="0")
    v = m.layer("Transpose", [v, m.constant(np.array([1, 0, 2]))])
    v = m.layer("Squeeze", [m.lstm(v, first, T), m.constant(np.array([1]))])
    v = columns_last(m, m.lstm(v, second, T, direction="bidirectional"), 2)
    v = m.layer("Transpose", [v, m.constant(np.array([1, 0, 2]))])
    v = m.layer("MatMul", [v, m.constant(kernel)], transpose_a="false", transpose_b="false")
    v = m.layer("Add", [m.constant(bias), v])
    read = from_openvino(m.write(tmp_path, m.layer("SoftMax", [v], axis="2")))
    assert [type(b).__name__ for b in read] == ["Embedding", "LSTM", "LSTM", "Linear", "Softmax"]
    numbers = rng.integers(0, 7, (T, B))
    zeros = np.zeros((2, B, H), np.float32)
    v = expected(second, expected(first, table[numbers], zeros, zeros), zeros, zeros)
    v = np.exp(v @ kernel + bias)
    assert_close([read(numbers)[0]], [v / v.sum(axis=2, keepdims=True)], 1e-6)


def behind(tmp_path, rng, kind, *constants, version=None, w=None, **data):
    m = Model()
    y = m.lstm(m.input(B, T, I), weights(rng) if w is None else w, T)
    y = m.layer("Squeeze", [y, m.constant(np.array([1]))])
    y = m.layer(kind, [y, *map(m.constant, constants)], 1, version, **data)
    return m.write(tmp_path, y)


def i64(*values):
    return np.array(values, np.int64)


BEHIND = {
    "Sigmoid": ((), {}, lambda y: 1 / (1 + np.exp(-y))),
    "Relu": ((), {}, lambda y: np.maximum(y, 0)),
    "ReLU": ((), {}, lambda y: np.maximum(y, 0)),
    "Elu": ((), {"alpha": 0.5}, lambda y: np.where(y > 0, y, 0.5 * np.expm1(y))),
    "SoftPlus": ((), {}, lambda y: np.log1p(np.exp(y))),
    "SoftSign": ((), {}, lambda y: y / (1 + abs(y))),
    "PReLU": ((np.float32([0.3]),), {}, lambda y: np.where(y > 0, y, 0.3 * y)),
    "Multiply": ((np.float32([[[1, 2, 3, -4]]]),), {}, lambda y: y * np.float32([1, 2, 3, -4])),
    "ReduceMean": ((i64(1),), {"keep_dims": "false"}, lambda y: y.mean(axis=1)),
    "ReduceMax": ((i64(1),), {"keep_dims": "false"}, lambda y: y.max(axis=1)),
    "Gather": ((np.int64(-1), np.int64(1)), {}, lambda y: y[:, -1]),
    "Slice": ((i64(-1), i64(2**31 - 1), i64(1), i64(1)), {}, lambda y: y[:, -1]),
    "StridedSlice": (
        (i64(0, -1, 0), i64(0, 0, 0), i64(1, 1, 1)),
        {"begin_mask": "1,0,1", "end_mask": "1,1,1", "shrink_axis_mask": "0,1,0"},
        lambda y: y[:, -1],
    ),
    "Reshape": ((i64(0, -1),), {"special_zero": "true"}, lambda y: y.reshape(len(y), -1)),
    "Unsqueeze": ((i64(-1),), {}, lambda y: y),
}


@pytest.mark.parametrize("name", BEHIND)
def test_layers_behind(tmp_path, rng, name):
    constants, data, function = BEHIND[name]
    path = behind(tmp_path, rng, name, *constants, **data)
    read = from_openvino(path)
    if name != "ReLU":  # an older name
        verified(path)
    x = drawn(rng, B, T, I)
    first = read if isinstance(read, lf.LSTM) else read[0]
    assert_close([read(x)[0]], [function(first(x)[0])], 1e-6)


# ---- against OpenVINO, with models that it writes


class Torch:
    """A module of PyTorch, which OpenVINO converts."""

    def __new__(cls, **options):
        torch = pytest.importorskip("torch", reason="no PyTorch: pip install torch")
        last = options.pop("last", False)

        class Module(torch.nn.Module):
            def __init__(self):
                super().__init__()
                torch.manual_seed(0)
                self.lstm = torch.nn.LSTM(I, H, **options)
                self.head = torch.nn.Linear(H * (2 if self.lstm.bidirectional else 1), 2)

            def forward(self, x):
                y, _ = self.lstm(x)
                if last:
                    y = y[:, -1] if self.lstm.batch_first else y[-1]
                return torch.tanh(self.head(y))

        return Module().eval()


@pytest.mark.parametrize(
    ("options", "half"),
    [
        ({"batch_first": True, "last": True}, True),
        ({"bidirectional": True, "num_layers": 2}, False),
        ({"batch_first": True, "bidirectional": True, "bias": False, "last": True}, False),
    ],
)
def test_models_of_pytorch(tmp_path, rng, capsys, options, half):
    openvino = pytest.importorskip("openvino", reason="no OpenVINO: pip install openvino")
    torch = pytest.importorskip("torch", reason="no PyTorch: pip install torch")
    module = Torch(**options)
    shape = (B, T, I) if options.get("batch_first") else (T, B, I)
    x = drawn(rng, *shape)
    path = tmp_path / "model.xml"
    model = converted(module, example_input=torch.zeros(shape))
    openvino.save_model(model, path, compress_to_fp16=half)
    read = from_openvino(path, verify=True)
    assert "verified" in capsys.readouterr().err
    with torch.no_grad():
        y = module(torch.from_numpy(x)).numpy()
    assert_close([read(x)[0]], [y], 1e-3 if half else 1e-6)


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("layers", [1, 2])
def test_final_states_of_pytorch(tmp_path, capsys, layers, directions):
    """A classifier of h[-1], or of both directions of the last layer."""
    openvino = pytest.importorskip("openvino", reason="no OpenVINO: pip install openvino")
    torch = pytest.importorskip("torch", reason="no PyTorch: pip install torch")

    class Classifier(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.lstm = torch.nn.LSTM(I, H, layers, bidirectional=directions == 2)
            self.head = torch.nn.Linear(H * directions, 2)

        def forward(self, x):
            _, (h, _) = self.lstm(x)
            last = h[-1] if directions == 1 else torch.cat([h[-2], h[-1]], dim=1)
            return torch.softmax(self.head(last), dim=1)

    path = tmp_path / "model.xml"
    model = converted(Classifier().eval(), example_input=torch.zeros(T, B, I))
    openvino.save_model(model, path)
    read = from_openvino(path, verify=True)
    assert "verified" in capsys.readouterr().err
    assert read[-3].directions == directions


def test_verify(tmp_path, rng):
    path = one_lstm(tmp_path, weights(rng))
    x = drawn(rng, B, T, I)
    y = from_openvino(path)(x)[0]
    from_openvino(path, verify=(x, y))
    with pytest.raises(ValueError, match="more than rounding"):
        from_openvino(path, verify=(x, y + 0.01))


# ---- what is refused


def test_what_is_refused(tmp_path, rng):
    w, both = weights(rng), weights(rng, directions=2)

    def lstm(w=w, **data):
        return lambda: one_lstm(tmp_path, w, **data)

    def after(kind, *constants, **data):
        return lambda: behind(tmp_path, rng, kind, *constants, **data)

    def loop():
        m = Model()
        return m.write(tmp_path, m.layer("If", [m.input(1, T, I)]))

    def none():
        m = Model()
        return m.write(tmp_path, m.layer("Tanh", [m.input(1, T, I)]))

    def two():
        m = Model()
        x = m.input(1, T, I)
        return m.write(tmp_path, m.lstm(x, w, T), m.lstm(x, w, T))

    def cell_state():
        m = Model()
        number, port = m.lstm(m.input(1, T, I), w, T)
        return m.write(tmp_path, m.layer("Tanh", [(number, port + 2)]))

    def apart():
        m = Model()
        return m.write(tmp_path, m.lstm(m.input(1, T, I), both, T, direction="bidirectional"))

    ones = np.ones(H, np.float32)
    cases = [
        (lstm(direction="sideways"), "sideways"),
        (lstm(both), "with weights of 2"),
        (lstm(hidden_size=5), "hidden_size"),
        (lstm(activations="sigmoid,tanh"), "activations"),
        (lstm(activations="sigmoid,tanh,gelu"), "gelu"),
        (lstm(activations_alpha="1,2,3"), "with constants"),
        (lstm(clip="nan"), "clip"),
        (lstm(version="opset1"), "opset5 is read"),
        (lstm(state=0.5), "initial state"),
        (lstm((w[0], w[1][:, :-4], w[2])), "recurrent weights|contradict|hidden_size|needed"),
        (lstm((w[0], w[1], w[2][:, :-1])), "bias"),
        (after("Gelu"), "no such block"),
        (after("SoftMax", axis="1"), "softmax over axis 1"),
        (after("Add", ones), "linear layer"),
        (after("MatMul", drawn(rng, H, 2), transpose_a="true"), "multiplies otherwise"),
        (after("MatMul", drawn(rng, H + 1, 2)), "columns come in"),
        (after("PReLU", np.float32([0.1, 0.2, 0.3, 0.4])), "every column"),
        (after("Transpose", i64(1, 0, 2)), "the output has axes"),
        (after("Transpose", i64(0, 0, 2)), "no permutation"),
        (after("Reshape", i64(-1, 7)), "become"),
        (after("Gather", i64(0, 1), np.int64(1)), "several places"),
        (after("Gather", np.int64(1), np.int64(1)), "place 1"),
        (after("Elu", alpha="x"), "alpha"),
        (after("Multiply", ones[1:]), "by an array of shape"),
        (after("Multiply", ones[:, None]), "by an array of shape"),
        (after("Convert", destination_type="i32"), "rounds"),
        (after("Add", ones, auto_broadcast="pdpd"), "pdpd"),
        (after("Squeeze", i64(1)), "away"),
        (loop, "convert the model again"),
        (none, "no LSTM among"),
        (two, "one of each"),
        (cell_state, "no output of a block"),
        (apart, "the output has axes"),
    ]
    for make, message in cases:
        path = make()
        with pytest.raises(ValueError, match=message) as caught:
            from_openvino(path)
        assert str(path) in str(caught.value), message
        inspect(path)
    with pytest.raises(FileNotFoundError, match="no file"):
        from_openvino(tmp_path)
    path = one_lstm(tmp_path, w)
    path.with_suffix(".bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.bin"):
        from_openvino(path)


def test_lengths_other_than_that_of_the_input(tmp_path, rng):
    m = Model()
    y = m.lstm(m.input(1, T, I), weights(rng), T - 1)
    with pytest.raises(ValueError, match="sequence_lengths"):
        from_openvino(m.write(tmp_path, columns_last(m, y, 1)))


def test_the_comparison_catches_mistakes(tmp_path, rng):
    w = weights(rng, H)
    x, h, c = drawn(rng, T, B, H), drawn(rng, 1, B, H), drawn(rng, 1, B, H)

    def check(mistaken):
        compare(one_lstm(tmp_path, mistaken), w, x, h, c)

    check(w)
    wrong = [(w[0], w[1], factor * w[2]) for factor in (0, 2)]
    for order in [*itertools.permutations(range(4))][1:]:
        rows = np.arange(4 * H).reshape(4, H)[[*order]].ravel()
        wrong.append(tuple(a[:, rows] for a in w))
    turned = [np.concatenate([a.T for a in np.split(one[0], 4)], axis=0)[None] for one in w[:2]]
    wrong += [(turned[0], w[1], w[2]), (w[0], turned[1], w[2]), (w[1], w[0], w[2])]
    for mistaken in wrong:
        with pytest.raises(AssertionError):
            check(mistaken)
    both = weights(rng, directions=2)
    x, h, c = drawn(rng, T, B, I), drawn(rng, 2, B, H), drawn(rng, 2, B, H)
    with pytest.raises(AssertionError):
        exchanged = tuple(a[::-1].copy() for a in both)
        compare(one_lstm(tmp_path, exchanged, "bidirectional"), both, x, h, c)


def test_hostile_files(tmp_path, rng):
    path = behind(tmp_path, rng, "MatMul", drawn(rng, H, 2))
    data, constants = path.read_bytes(), path.with_suffix(".bin")
    copies = [*truncated(data), *changed(data, rng, 2000)]
    assert read_all(from_openvino, path, copies) > 20  # names
    read_all(inspect, path, copies[::8])
    good = constants.read_bytes()
    path.write_bytes(data)
    assert read_all(lambda _: from_openvino(path), constants, truncated(good)) == 0
    constants.write_bytes(good)
    head = b'<?xml version="1.0"?>'
    entity = b'<!DOCTYPE net [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>'
    outside = b'<!DOCTYPE net SYSTEM "file:///etc/passwd">'
    other = [
        data.replace(head, head + entity),
        data.replace(head, head + outside),
        data.decode().encode("utf-16"),
        data.decode().encode("utf-16-le"),
        data.replace(head, b'<?xml version="1.0" encoding="utf-7"?>'),
        data.replace(head, b'<?xml version="1.0" encoding="latin-1"?>'),
        data.replace(b'version="11"', b'version="7"'),
        data.replace(b'id="1"', b'id="2"', 1),
        data.replace(b'offset="0"', b'offset="-4"', 1),
        data.replace(b'offset="0"', b'offset="99999999"', 1),
        data.replace(b'offset="0"', b'offset="' + b"9" * 5000 + b'"', 1),
        data.replace(b'size="', b'size="9', 1),
        data.replace(b'shape="2,1,4"', b'shape="100000,100000,4"', 1),
        data.replace(b'from-layer="0"', b'from-layer="6"', 1),
        b"<net>" * 10**5,
        b"<a/>" * 2 * 10**5,
        b"",
    ]
    assert data not in other
    assert read_all(from_openvino, path, other, measured=1) == 0


def test_a_circle_is_refused(tmp_path, rng):
    path = behind(tmp_path, rng, "Tanh")
    text = path.read_text()
    first = text.index('<edge from-layer="')
    edge = text[first : text.index("/>", first) + 2]
    last = text.rindex('to-layer="')
    number = text[last + 10 : text.index('"', last + 10)]
    circle = edge.replace('from-layer="0"', f'from-layer="{int(number) - 1}"')
    path.write_text(text.replace(edge, circle.replace('from-port="0"', 'from-port="1"')))
    with pytest.raises(ValueError, match=r"circle|nowhere"):
        from_openvino(path)


def test_openvino_is_not_imported(tmp_path, rng):
    path = one_lstm(tmp_path, weights(rng))
    code = f"""if True:
        import sys
        sys.modules["openvino"] = None
        from lstm_fast.formats import from_openvino
        print(from_openvino({str(path)!r}).hidden_size)
        try:
            from_openvino({str(path)!r}, verify=True)
        except ImportError as error:
            print(error)
        """
    size, error = run_python(code).splitlines()
    assert size == str(H) and "lstm_fast[openvino]" in error


def test_blocks_are_those_of_the_package(tmp_path, rng):
    read = from_openvino(behind(tmp_path, rng, "MatMul", drawn(rng, H, 2)))
    assert isinstance(read, nn.Sequential) and isinstance(read[1], nn.Linear)
