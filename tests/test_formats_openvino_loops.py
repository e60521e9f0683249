"""`from_openvino`: loops over time, states as inputs and variables, weights of 8 bits."""

from importlib.util import find_spec

import numpy as np
import pytest
from support.comparing import assert_close
from support.hostile import changed, read_all
from support.openvino_models import PLAIN, Model, converted

import lstm_fast as lf
from lstm_fast.formats import from_openvino
from lstm_fast.formats.openvino import inspect

pytestmark = pytest.mark.no_isa

T, B, I, H = 5, 2, 3, 4
FORWARD = {"start": 0, "end": -1, "stride": 1, "part_size": 1}
REVERSE = {"start": -1, "end": 0, "stride": -1, "part_size": 1}


def drawn(rng, *shape):
    return (rng.standard_normal(shape) / 2).astype(np.float32)


def weights(rng, columns=I):
    """Return w_ih, w_hh and the bias as LSTMCell has them: rows f, i, c, o."""
    return drawn(rng, 4 * H, columns), drawn(rng, 4 * H, H), drawn(rng, 4 * H)


def expected(w, x, h, c, reverse=False):
    """Return y (B, T, H) of x (B, T, I)."""
    rows = np.arange(4 * H).reshape(4, H)[[1, 0, 2, 3]].ravel()
    given = [a[rows] for a in w]
    x = x.swapaxes(0, 1)
    y, *_ = lf.reference.lstm_forward(x, *given, None, h, c, reverse=reverse)
    return y.swapaxes(0, 1)


def verified(path):
    """Compare with OpenVINO, where it is installed."""
    if find_spec("openvino") is not None:
        from_openvino(path, verify=True)


def cell(body, x, h, c, w, **data):
    """Add an LSTMCell to the body of a loop."""
    constants = [body.constant(a) for a in w]
    settings = {"hidden_size": H, **PLAIN} | data
    return body.layer("LSTMCell", [x, h, c, *constants], 2, **settings)


def iterated(
    m,
    x,
    w,
    *,
    kind="TensorIterator",
    axis=1,
    given=FORWARD,
    together=None,
    states=None,
    swap=False,
    extra=None,
    count=T,
    condition=True,
    **data,
):
    """Add a loop over an LSTMCell, and return its outputs: y, the last h, the last c."""
    body = Model(m.constants)
    shape = [B, T, w[0].shape[1]] if axis == 1 else [T, B, w[0].shape[1]]
    shape[axis] = 1
    inner = [body.input(*shape), body.input(B, H), body.input(B, H)]
    place = body.constant(np.array(axis))
    step = body.layer("Squeeze", [inner[0], place])
    number, port = cell(body, step, *inner[1:], w, **data)
    h, c = (number, port), (number, port + 1)
    h = h if extra is None else body.layer(extra, [h])
    results = [body.layer("Unsqueeze", [h, place]), h, c]
    results = [body.layer("Result", [one], 0)[0] for one in results]
    zeros = m.constant(np.zeros((B, H), np.float32))
    inputs = [x, *([zeros, zeros] if states is None else states)]
    first = 0
    ports = [
        *(("input", n, inner[n][0], {"axis": axis, **given} if n == 0 else {}) for n in range(3)),
        ("output", 0, results[0], {"axis": axis, **(given if together is None else together)}),
        *(("output", n, results[n], {}) for n in (1, 2)),
    ]
    if kind == "Loop":
        inputs = [m.constant(np.array(count)), m.constant(np.array(condition)), *inputs]
        first = 2
        always = body.layer("Result", [body.constant(np.array([True]))], 0)[0]
        ports = [(side, n + first * (side == "input"), i, d) for side, n, i, d in ports]
        ports.append(("output", -1, always, {"purpose": "execution_condition"}))
    back = [(results[1], inner[1][0]), (results[2], inner[2][0])]
    if swap:
        back = [(results[2], inner[1][0]), (results[1], inner[2][0])]
    number, port = m.loop(kind, inputs, body, ports, back, 3)
    return (number, port), (number, port + 1), (number, port + 2)


def zeros():
    return np.zeros((B, H), np.float32)


# ---- loops


@pytest.mark.parametrize("kind", ["TensorIterator", "Loop"])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("ports", [FORWARD, REVERSE])
def test_loops(tmp_path, rng, kind, axis, ports):
    w, x, h, c = weights(rng), drawn(rng, B, T, I), drawn(rng, B, H), drawn(rng, B, H)
    m = Model()
    y, *_ = iterated(
        m, m.input(*((B, T) if axis else (T, B)), I), w, kind=kind, axis=axis, given=ports
    )
    path = m.write(tmp_path, y)
    read = from_openvino(path)
    assert isinstance(read, lf.LSTM) and read.batch_first == bool(axis)
    y = read(x if axis else x.swapaxes(0, 1), (h[None], c[None]))[0]
    y = y if axis else y.swapaxes(0, 1)
    assert_close([y], [expected(w, x, h, c, ports is REVERSE)], 1e-6)
    verified(path)
    rows = inspect(path)
    assert rows[1].kind == kind and rows[2][1:3] == ("LSTM", "3 -> 4")


@pytest.mark.parametrize("given", [FORWARD, REVERSE])
def test_the_state_of_the_last_step(tmp_path, rng, given):
    w, x = weights(rng), drawn(rng, B, T, I)
    m = Model()
    _, h, _ = iterated(m, m.input(B, T, I), w, given=given)
    path = m.write(tmp_path, m.layer("Tanh", [h]))
    y = expected(w, x, zeros(), zeros(), given is REVERSE)
    y = np.tanh(y[:, 0 if given is REVERSE else -1])
    assert_close([from_openvino(path)(x)[0]], [y], 1e-6)
    verified(path)


def test_final_states_alone_or_besides(tmp_path, rng):
    w, x = weights(rng), drawn(rng, B, T, I)
    y = expected(w, x, zeros(), zeros())
    for outputs, result in (((1,), y[:, -1]), ((0, 1, 2), y), ((2, 0), y)):
        m = Model()
        found = iterated(m, m.input(B, T, I), w)
        path = m.write(tmp_path, *(found[n] for n in outputs))
        assert_close([from_openvino(path)(x)[0]], [result], 1e-6)
        verified(path)


def test_two_loops_are_one_bidirectional_layer(tmp_path, rng):
    w, v, x = weights(rng), weights(rng), drawn(rng, B, T, I)
    m = Model()
    given = m.input(B, T, I)
    one, *_ = iterated(m, given, w)
    two, *_ = iterated(m, given, v, given=REVERSE)
    path = m.write(tmp_path, m.layer("Concat", [one, two], axis="2"))
    read = from_openvino(path)
    assert isinstance(read, lf.LSTM) and read.bidirectional
    both = [expected(w, x, zeros(), zeros()), expected(v, x, zeros(), zeros(), True)]
    assert_close([read(x)[0]], [np.concatenate(both, axis=2)], 1e-6)
    verified(path)


def test_two_cells_and_layers_in_one_loop(tmp_path, rng):
    """What has no memory stands before, between and behind cells."""
    w, v, x = weights(rng), weights(rng, 6), drawn(rng, B, T, I)
    kernel, bias = drawn(rng, H, 6), drawn(rng, 6)
    m = Model()
    body = Model(m.constants)
    inner = [body.input(B, 1, I), *(body.input(B, H) for _ in range(4))]
    one = body.constant(np.array(1))
    step = body.layer("Squeeze", [inner[0], one])
    number, port = cell(body, body.layer("Tanh", [step]), *inner[1:3], w)
    between = body.layer("MatMul", [(number, port), body.constant(kernel)])
    between = body.layer("Add", [between, body.constant(bias)])
    second, other = cell(body, between, *inner[3:], v)
    y = body.layer("Unsqueeze", [body.layer("Sigmoid", [(second, other)]), one])
    states = [(number, port), (number, port + 1), (second, other), (second, other + 1)]
    results = [body.layer("Result", [one], 0)[0] for one in [y, *states]]
    zero = m.constant(zeros())
    axis = {"axis": 1, **FORWARD}
    ports = [("input", n, inner[n][0], {} if n else axis) for n in range(5)]
    ports.append(("output", 0, results[0], axis))
    back = [(results[n], inner[n][0]) for n in range(1, 5)]
    y = m.loop("TensorIterator", [m.input(B, T, I), *[zero] * 4], body, ports, back, 1)
    path = m.write(tmp_path, y)
    read = from_openvino(path)
    names = [type(block).__name__ for block in read]
    assert names == ["Activation", "LSTM", "Linear", "LSTM", "Activation"]
    y = expected(w, np.tanh(x), zeros(), zeros()) @ kernel + bias
    y = 1 / (1 + np.exp(-expected(v, y, zeros(), zeros())))
    assert_close([read(x)[0]], [y], 1e-6)
    verified(path)


def test_loops_that_are_refused(tmp_path, rng):
    w = weights(rng)

    def loop(**options):
        m = Model()
        y, *_ = iterated(m, m.input(B, T, I), w, **options)
        return m.write(tmp_path, y)

    def alone():
        m = Model()
        h, c = m.constant(zeros()), m.constant(zeros())
        return m.write(tmp_path, cell(m, m.input(B, I), h, c, w))

    half = {"start": 0, "end": -1, "stride": 2, "part_size": 1}
    cases = [
        (lambda: loop(given=FORWARD | {"end": 3}), "from 0 to 3"),
        (lambda: loop(given=FORWARD | {"start": 1}), "from 1 to -1"),
        (lambda: loop(given=FORWARD | {"part_size": 2}), "parts of 2"),
        (lambda: loop(given=half), "every 2th"),
        (lambda: loop(given=REVERSE | {"end": -1}), "from -1 to -1"),
        (lambda: loop(given=FORWARD | {"axis": 2}), "that of time is needed"),
        (lambda: loop(given=FORWARD | {"start": "x"}), "is no integer"),
        (lambda: loop(together=FORWARD | {"axis": 2}), "along axis 2"),
        (lambda: loop(given=REVERSE, together=FORWARD), "gives them in the other"),
        (lambda: loop(swap=True), "what it gave at the step before"),
        (lambda: loop(extra="Tanh"), "what it gave at the step before"),
        (lambda: loop(kind="Loop", count=T - 1), "it needs 5"),
        (lambda: loop(kind="Loop", count=-1), "it needs 5"),
        (lambda: loop(kind="Loop", condition=False), "ends on a condition"),
        (lambda: loop(hidden_size=5), "hidden_size"),
        (lambda: loop(input_forget="true"), "opset4 is read"),
        (lambda: loop(activations="sigmoid,tanh,gelu"), "gelu"),
        (alone, "no loop over time"),
    ]
    for make, message in cases:
        path = make()
        with pytest.raises(ValueError, match=message) as caught:
            from_openvino(path)
        assert str(path) in str(caught.value), message
        inspect(path)
    m = Model()
    states = [m.constant(np.ones((B, H), np.float32)), m.constant(zeros())]
    y, *_ = iterated(m, m.input(B, T, I), w, states=states)
    with pytest.raises(ValueError, match="initial state is not zero"):
        from_openvino(m.write(tmp_path, y))


def test_hostile_loops(tmp_path, rng):
    m = Model()
    y, *_ = iterated(m, m.input(B, T, I), weights(rng), kind="Loop")
    path = m.write(tmp_path, y)
    data = path.read_bytes()
    assert read_all(from_openvino, path, [*changed(data, rng, 1500)]) > 20  # names
    read_all(inspect, path, [*changed(data, rng, 100)])
    body = data[data.index(b"<body>") + 6 : data.index(b"</body>")]
    other = [
        data.replace(b"<body>", b"<nobody>").replace(b"</body>", b"</nobody>"),
        data.replace(b'internal_layer_id="0"', b'internal_layer_id="999"'),
        data.replace(b'internal_layer_id="0"', b'internal_layer_id="5"'),
        data.replace(b'external_port_id="2"', b'external_port_id="77"'),
        data.replace(b'external_port_id="2"', b'external_port_id="-1"'),
        data.replace(b"<back_edges>", b'<back_edges><edge from-layer="0" to-layer="1"/>'),
        data.replace(b"<back_edges>", b'<back_edges><edge from-layer="0" to-layer="99"/>'),
        data.replace(b'to-layer="2"', b'to-layer="1"'),
        data.replace(b'stride="1"', b'stride="0"'),
    ]
    for _ in range(6):  # loops in loops
        loop = b'<layer id="99" type="Loop"><port_map/><body>' + body + b"</body></layer>"
        body = body.replace(b"<layers>", b"<layers>" + loop, 1)
    other.append(data.replace(b"<body>", b"<body>" + body, 1))
    assert data not in other
    assert read_all(from_openvino, path, other, measured=1) == 0


# ---- states as inputs and as variables


def stateful(m, first=None, kept=(1, 2), written=True):
    """Add an LSTMSequence whose states are variables, and what writes them."""
    w = weights(np.random.default_rng(5))
    axes = m.constant(np.array([1, 0, 2]))
    states = []
    for name in "hc":
        given = [] if first is None else [m.constant(np.full((1, B, H), first, np.float32))]
        read = m.layer(
            "ReadValue", given, variable_id=name, variable_type="f32", variable_shape=f"1,{B},{H}"
        )
        states.append(m.layer("Transpose", [read, axes]))
    lengths = m.constant(np.full(B, T))
    constants = [m.constant(a[None]) for a in w]
    inputs = [m.input(B, T, I), *states, lengths, *constants]
    settings = {"direction": "forward", "hidden_size": H, **PLAIN}
    number, port = m.layer("LSTMSequence", inputs, 3, **settings)
    for name, place in zip("hc" if written else "", kept, strict=False):
        last = m.layer("Transpose", [(number, port + place), axes])
        m.layer("Assign", [last], 1, variable_id=name)
    return w, m.layer("Squeeze", [(number, port), m.constant(np.array(1))])


@pytest.mark.parametrize("first", [None, 0.0])
def test_variables_are_states(tmp_path, rng, first):
    m = Model()
    w, y = stateful(m, first)
    path = m.write(tmp_path, y)
    read = from_openvino(path)
    x, h, c = drawn(rng, B, T, I), drawn(rng, 1, B, H), drawn(rng, 1, B, H)
    assert_close([read(x)[0]], [expected(w, x, zeros(), zeros())], 1e-6)
    assert_close([read(x, (h, c))[0]], [expected(w, x, h[0], c[0])], 1e-6)
    verified(path)
    if find_spec("openvino") is None:
        return
    import openvino

    core = openvino.Core()
    exact = {"INFERENCE_PRECISION_HINT": "f32"}  # some CPUs would round to bfloat16
    request = core.compile_model(core.read_model(path), "CPU", exact).create_infer_request()
    state = None
    for part in np.split(drawn(rng, B, 3 * T, I), 3, axis=1):
        y, state = read(part, state)
        assert_close([y], [request.infer([part])[0]], 1e-6)


def test_variables_that_are_refused(tmp_path):
    m = Model()
    path = m.write(tmp_path, stateful(m, 0.5)[1])
    with pytest.raises(ValueError, match="does not begin as zeros"):
        from_openvino(path)
    m = Model()
    path = m.write(tmp_path, stateful(m, kept=(2, 1))[1])
    with pytest.raises(ValueError, match="does not go on from what Assign"):
        from_openvino(path)
    m = Model()  # nobody writes them: they stay zeros
    assert isinstance(from_openvino(m.write(tmp_path, stateful(m, written=False)[1])), lf.LSTM)


def test_variables_that_others_write(tmp_path):
    """Of h alone, another LSTM; of h and c in one, which could stand the other way round."""
    settings = {"direction": "forward", "hidden_size": H, **PLAIN}
    for shared in (False, True):
        m = Model()
        one = m.constant(np.array([1]))
        zeros_of_h = m.constant(np.zeros((B, 1, H), np.float32))
        variable = {"variable_id": "v", "variable_type": "f32"}
        kept = m.layer("ReadValue", **variable, variable_shape=f"{B},{1 + shared},{H}")
        first = [kept, zeros_of_h]
        if shared:
            places = (m.constant(np.array([n])) for n in (0, 1))
            first = [m.layer("Gather", [kept, n, one], batch_dims="0") for n in places]
        y, outputs = m.input(B, T, I), []
        for n, columns in enumerate((I, H)):
            w = [m.constant(a[None]) for a in weights(np.random.default_rng(n), columns)]
            states = [zeros_of_h] * 2 if n else first
            inputs = [y, *states, m.constant(np.full(B, T)), *w]
            number, port = m.layer("LSTMSequence", inputs, 3, **settings)
            y = m.layer("Squeeze", [(number, port), one])
            outputs.append([(number, port + 1), (number, port + 2)])
        last = m.layer("Concat", outputs[0], axis="1") if shared else outputs[1][0]
        m.layer("Assign", [last], 1, variable_id="v")
        with pytest.raises(ValueError, match="does not go on from what Assign"):
            from_openvino(m.write(tmp_path, y))


def test_variables_of_a_loop(tmp_path, rng):
    w, x = weights(rng), drawn(rng, B, T, I)
    for swapped in (False, True):
        m = Model()
        states = [
            m.layer("ReadValue", variable_id=n, variable_type="f32", variable_shape=f"{B},{H}")
            for n in "hc"
        ]
        y, *last = iterated(m, m.input(B, T, I), w, states=states)
        for name, value in zip("hc", last[::-1] if swapped else last, strict=True):
            m.layer("Assign", [value], variable_id=name)
        path = m.write(tmp_path, y)
        if swapped:
            with pytest.raises(ValueError, match="does not go on"):
                from_openvino(path)
            continue
        assert_close([from_openvino(path)(x)[0]], [expected(w, x, zeros(), zeros())], 1e-6)
        verified(path)


def test_inputs_that_are_states(tmp_path, rng):
    """Two layers, whose states are parts of two inputs."""
    w, v, x = weights(rng), weights(rng, H), drawn(rng, B, T, I)
    h, c = drawn(rng, 2, B, H), drawn(rng, 2, B, H)
    m = Model()
    given = [m.input(2, B, H), m.input(B, T, I), m.input(2, B, H)]
    axes, zero, one = (m.constant(np.array(n)) for n in ([1, 0, 2], 0, 1))
    y = given[1]
    for n, (of_layer, place) in enumerate(((w, zero), (v, one))):
        states = [
            m.layer("Unsqueeze", [m.layer("Gather", [s, place, zero], batch_dims="0"), one])
            for s in given[::2]
        ]
        constants = [m.constant(a[None]) for a in of_layer]
        settings = {"direction": "forward", "hidden_size": H, **PLAIN}
        inputs = [y, *states, m.constant(np.full(B, T)), *constants]
        number, port = m.layer("LSTMSequence", inputs, 3, **settings)
        y = m.layer("Squeeze", [(number, port), one])
        m.layer("Result", [m.layer("Transpose", [(number, port + 1 + n), axes])], 0)
    path = m.write(tmp_path, y)
    read = from_openvino(path)
    state = {f"lstm_{n}": (h[n : n + 1], c[n : n + 1]) for n in (0, 1)}
    y = expected(v, expected(w, x, h[0], c[0]), h[1], c[1])
    assert_close([read(x, state)[0]], [y], 1e-6)
    verified(path)


def test_states_that_are_computed_are_refused(tmp_path, rng):
    """A decoder that begins with what an encoder ends with."""
    m = Model()
    w, x = [a[None] for a in weights(rng)], m.input(B, T, I)
    number, port = m.lstm(x, w, T)
    inputs = [x, (number, port + 1), (number, port + 2), m.constant(np.full(B, T))]
    constants = [m.constant(a) for a in w]
    settings = {"direction": "forward", "hidden_size": H, **PLAIN}
    y = m.layer("LSTMSequence", [*inputs, *constants], 3, **settings)
    path = m.write(tmp_path, m.layer("Squeeze", [y, m.constant(np.array(1))]))
    with pytest.raises(ValueError, match="is computed from the input"):
        from_openvino(path)


# ---- weights of 8 bits


def compressed(m, a, kind, point=None, half=True):
    """Add weights of 8 bits, as NNCF writes them; return their layer and their numbers."""
    rng, name = np.random.default_rng(1), "f16" if half else "f32"
    low, high = (0, 256) if kind == "uint8" else (-128, 128)
    q = rng.integers(low, high, a.shape).astype(kind)
    scale = np.abs(rng.standard_normal((*a.shape[:-1], 1)) / 100 + 0.01)
    scale = scale.astype(np.float16 if half else np.float32)
    value = m.layer("Convert", [m.constant(q)], destination_type=name)
    real = q.astype(np.float32)
    if point is not None:
        points = np.full(scale.shape, point, kind)
        other = m.layer("Convert", [m.constant(points)], destination_type=name)
        value = m.layer("Subtract", [value, other], auto_broadcast="numpy")
        real = real - points.astype(np.float32)
    value = m.layer("Multiply", [value, m.constant(scale)], auto_broadcast="numpy")
    if half:
        value = m.layer("Convert", [value], destination_type="f32")
    return value, real * scale.astype(np.float32)


def with_weights(m, layers):
    """Add an LSTMSequence with these layers as weights."""
    states = m.constant(np.zeros((B, 1, H), np.float32))
    inputs = [m.input(B, T, I), states, states, m.constant(np.full(B, T)), *layers]
    y = m.layer("LSTMSequence", inputs, 3, direction="forward", hidden_size=H, **PLAIN)
    return m.layer("Squeeze", [y, m.constant(np.array(1))])


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize(("kind", "point"), [("uint8", 128), ("int8", None), ("int8", 3)])
def test_weights_of_8_bits(tmp_path, rng, kind, point, half):
    w, x = weights(rng), drawn(rng, B, T, I)
    kernel = drawn(rng, 2, H)
    m = Model()
    given = [compressed(m, a[None], kind, point, half) for a in w[:2]]
    y = with_weights(m, [*(layer for layer, _ in given), m.constant(w[2][None])])
    layer, kernel = compressed(m, kernel, kind, point, half)
    path = m.write(tmp_path, m.layer("MatMul", [y, layer], transpose_a="false", transpose_b="true"))
    real = [given[0][1][0], given[1][1][0], w[2]]
    y = expected(real, x, zeros(), zeros()) @ kernel.T
    assert_close([from_openvino(path)(x)[0]], [y], 1e-5)
    verified(path)
    row = next(row for row in inspect(path) if row.kind == "LSTM")
    assert {"uint8": "u8", "int8": "i8"}[kind] in row.dtype and row.parameters == 16 * (I + H + 1)


@pytest.mark.parametrize("levels", [2, 255, 256])
def test_rounded_weights(tmp_path, rng, levels):
    w, x = weights(rng), drawn(rng, B, T, I)

    def rounded(a):
        low = np.full((1, len(a), 1), -0.5, np.float32)
        limits = [low, -low, low, low * -1.5]
        q = np.rint(np.clip(a, -0.5, 0.5).astype(np.float64) * (levels - 1) + (levels - 1) / 2)
        return limits, q / (levels - 1) * 1.25 - 0.5

    m = Model()
    layers, real = [], []
    for a in w[:2]:
        limits, numbers = rounded(a)
        inputs = [m.constant(b) for b in (a[None], *limits)]
        layers.append(m.layer("FakeQuantize", inputs, levels=levels, auto_broadcast="numpy"))
        real.append(numbers.astype(np.float32))
    path = m.write(tmp_path, with_weights(m, [*layers, m.constant(w[2][None])]))
    assert_close([from_openvino(path)(x)[0]], [expected([*real, w[2]], x, zeros(), zeros())], 1e-6)
    if levels > 2:  # OpenVINO cannot run an LSTM whose weights have one bit
        verified(path)


def test_weights_that_are_refused(tmp_path, rng):
    w = [a[None] for a in weights(rng)]
    q = np.ones(w[0].shape, np.int8)

    def with_first(make):
        m = Model()
        return m.write(tmp_path, with_weights(m, [make(m), m.constant(w[1]), m.constant(w[2])]))

    def packed(m, kind):
        data = m.constant(q[..., : I // 2 + 1])
        m.layers[-1] = m.layers[-1].replace('"i8"', f'"{kind}"')
        return m.layer("Convert", [data], destination_type="f32")

    def times(m, other, convert=True):
        value = m.constant(q)
        value = m.layer("Convert", [value], destination_type="f32") if convert else value
        return m.layer("Multiply", [value, m.constant(other)], auto_broadcast="numpy")

    def deep(m):
        value = m.layer("Convert", [m.constant(q)], destination_type="f32")
        for _ in range(9):
            value = m.layer("Multiply", [value, m.constant(np.ones(1, np.float32))])
        return value

    def rounded_input(m):
        one = m.constant(np.ones((1, 1, 1), np.float32))
        x = m.layer("FakeQuantize", [m.input(B, T, I), one, one, one, one], levels=256)
        return m.layer("Squeeze", [m.lstm(x, w, T), m.constant(np.array(1))])

    wide = np.ones((2, 4 * H, 1), np.float32)
    cases = [
        *((lambda m, kind=kind: packed(m, kind), f"type {kind}") for kind in ("u4", "i4", "nf4")),
        (lambda m: times(m, wide), "by "),
        (lambda m: times(m, np.ones(5, np.float32)), "by "),
        (lambda m: times(m, np.ones(1, np.int8), convert=False), "floating-point numbers"),
        (deep, "computes much"),
    ]
    for make, message in cases:
        with pytest.raises(ValueError, match=message):
            from_openvino(with_first(make))
    m = Model()
    with pytest.raises(ValueError, match="only weights may be rounded"):
        from_openvino(m.write(tmp_path, rounded_input(m)))


# ---- against OpenVINO, with models that it writes


@pytest.mark.parametrize("mode", ["states", "stateful", "loop"])
def test_models_of_pytorch(tmp_path, capsys, mode):
    openvino = pytest.importorskip("openvino", reason="no OpenVINO: pip install openvino")
    torch = pytest.importorskip("torch", reason="no PyTorch: pip install torch")
    from openvino import _offline_transformations as transformations

    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.lstm = torch.nn.LSTM(I, H)

        def forward(self, x, h=None, c=None):
            y, (h, c) = self.lstm(x, None if h is None else (h, c))
            return y, h, c

    shapes = [(T, B, I), (1, B, H), (1, B, H)]
    example = tuple(map(torch.zeros, shapes))
    if mode == "loop":
        model = converted(Module().eval(), example_input=example[0])
        transformations.convert_sequence_to_tensor_iterator_transformation(model)
        assert "TensorIterator" in {op.get_type_name() for op in model.get_ops()}
    else:
        partial = [openvino.PartialShape(shape) for shape in shapes]
        model = converted(Module().eval(), input=partial, example_input=example)
    if mode == "stateful":
        for output, name in zip(model.outputs, ("y", "hn", "cn"), strict=True):
            output.get_tensor().set_names({name})
        transformations.apply_make_stateful_transformation(model, {"h": "hn", "c": "cn"})
    openvino.save_model(model, tmp_path / "model.xml", compress_to_fp16=False)
    read = from_openvino(tmp_path / "model.xml", verify=True)
    assert "verified" in capsys.readouterr().err
    assert isinstance(read, lf.LSTM) and not read.batch_first
