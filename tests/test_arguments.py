"""Bad arguments raise the documented error and change nothing; awkward ones are taken."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
from support.comparing import assert_identical
from support.layouts import COPIES
from support.processes import run_python

from lstm_fast import LSTM, Stream, lstm_backward, lstm_forward, reference

T, B, I, H, P, L = 4, 3, 5, 6, 2, 2


def huge(*shape):
    """Return an array of this shape that takes no memory."""
    return np.broadcast_to(np.float32(0), shape)


class Given:
    """Right arguments of everything; the rows below spoil one of them."""

    def __init__(self):
        rng = np.random.default_rng(0)
        shapes = {"x": (T, B, I), "h": (L, B, P), "c": (L, B, H), "dy": (T, B, P), "x_t": (B, I)}
        shapes |= {"w_ih": (4 * H, I), "w_hh": (4 * H, P), "b_ih": (4 * H,), "b_hh": (4 * H,)}
        shapes |= {"w_hr": (P, H), "out": (B, P)}
        arrays = {name: rng.standard_normal(s).astype(np.float32) for name, s in shapes.items()}
        self.arrays = SimpleNamespace(**arrays)
        self.lstm = LSTM(I, H, L, dropout=0.5, proj_size=P, seed=0)
        self.cache = self.lstm.forward(self.arrays.x)[2]
        self.stream = self.lstm.stream(B)
        self.stream.state = (self.arrays.h, self.arrays.c)
        self.args = {k: arrays[k] for k in ("x", "w_ih", "w_hh", "b_ih", "b_hh", "w_hr")}
        self.args |= {"h0": self.arrays.h[0], "c0": self.arrays.c[0]}
        self.layer_cache = lstm_forward(**self.args)[2]

    def everything(self):
        """Return copies of all arrays, settings and what the generator of dropout gives next."""
        dx, _, grads = self.lstm.backward(self.arrays.dy, None, self.cache)
        layer_dx, _, _ = lstm_backward(self.arrays.dy, None, None, self.layer_cache)
        y, _, _ = copy.deepcopy(self.lstm).forward(self.arrays.x)
        arrays = *vars(self.arrays).values(), *self.lstm.state_dict().values(), *self.stream.state
        results = dx, *grads.values(), layer_dx, y
        return [repr(self.lstm), *(array.tobytes() for array in (*arrays, *results))]


# How one array of a call is replaced. Messages begin with the last word.
PLACES = {
    "call x": lambda g, a: g.lstm(a),
    "call h0": lambda g, a: g.lstm(g.arrays.x, (a, None)),
    "call c0": lambda g, a: g.lstm(g.arrays.x, (None, a)),
    "forward x": lambda g, a: g.lstm.forward(a),
    "forward h0": lambda g, a: g.lstm.forward(g.arrays.x, (a, g.arrays.c)),
    "forward c0": lambda g, a: g.lstm.forward(g.arrays.x, (g.arrays.h, a)),
    "backward dy": lambda g, a: g.lstm.backward(a, None, g.cache),
    "backward dhn": lambda g, a: g.lstm.backward(None, (a, None), g.cache),
    "backward dcn": lambda g, a: g.lstm.backward(None, (None, a), g.cache),
    "step x_t": lambda g, a: g.stream.step(a, out=g.arrays.out),
    "step out": lambda g, a: g.stream.step(g.arrays.x_t, out=a),
    "state h": lambda g, a: setattr(g.stream, "state", (a, g.arrays.c)),
    "state c": lambda g, a: setattr(g.stream, "state", (g.arrays.h, a)),
    "lstm_backward dy": lambda g, a: lstm_backward(a, None, None, g.layer_cache),
    "lstm_backward dhn": lambda g, a: lstm_backward(None, a, None, g.layer_cache),
    "lstm_backward dcn": lambda g, a: lstm_backward(None, None, a, g.layer_cache),
    **{
        f"lstm_forward {name}": lambda g, a, name=name: lstm_forward(**g.args | {name: a})
        for name in ("x", "w_ih", "w_hh", "b_ih", "b_hh", "w_hr", "h0", "c0")
    },
}
SHAPES = {"x": (T, B, I), "dy": (T, B, P), "x_t": (B, I), "out": (B, P), "w_ih": (4 * H, I)}
SHAPES |= {"w_hh": (4 * H, P), "w_hr": (P, H)} | dict.fromkeys(("b_ih", "b_hh"), (4 * H,))
SHAPES |= dict.fromkeys(("h0", "dhn", "h"), (L, B, P))
SHAPES |= dict.fromkeys(("c0", "dcn", "c"), (L, B, H))


def shape_of(place):
    function, name = place.split()
    return SHAPES[name][1:] if function.startswith("lstm_") and name[-1] in "0n" else SHAPES[name]


def assert_refused(given, call, error, message):
    before = given.everything()
    with pytest.raises(error, match=message):
        call(given)
    assert given.everything() == before


# Arrays


KINDS = {
    "integers": lambda a: a.astype(np.int64),
    "unsigned bytes": lambda a: a.astype(np.uint8),
    "bool": lambda a: a > 0,
    "complex": lambda a: a.astype(np.complex64),
    "object": lambda a: a.astype(object),
    "str": lambda a: a.astype(str),
    "float16": lambda a: a.astype(np.float16),
    "long double": lambda a: a.astype(np.longdouble),
    "structured": lambda a: a.view([("value", np.float32)]),
    "datetime": lambda a: a.astype(np.int64).view("M8[s]"),
    "masked": lambda a: np.ma.masked_array(a, a > 0),
    "list": lambda a: a.tolist(),
    "scalar": lambda a: 0.5,
    "NumPy scalar": lambda a: a.flat[0],
    "buffer": lambda a: memoryview(np.ascontiguousarray(a)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", PLACES)
def test_only_real_arrays_are_taken(place, kind):
    array = KINDS[kind](np.ones(shape_of(place), np.float32))
    message = rf"^{place.split()[-1]}: expected .*got "
    assert_refused(Given(), lambda g: PLACES[place](g, array), TypeError, message)


@pytest.mark.parametrize("place", [place for place in PLACES if place != "lstm_forward x"])
def test_the_precision_is_the_lstms(place):
    message = rf"^{place.split()[-1]}: expected .*float32, got float64"
    array = np.ones(shape_of(place))
    assert_refused(Given(), lambda g: PLACES[place](g, array), TypeError, message)


@pytest.mark.parametrize("place", ["call x", "step x_t", "state h", "lstm_forward w_hh"])
def test_none_is_no_array_where_one_is_needed(place):
    message = rf"^{place.split()[-1]}: expected .*got NoneType"
    assert_refused(Given(), lambda g: PLACES[place](g, None), TypeError, message)


def wrong_shapes(shape):
    """Return shapes of which no axis may be broadcast, dropped, added, exchanged or cut."""
    for axis in range(len(shape)):
        yield (*shape[:axis], 1, *shape[axis + 1 :])
        yield (*shape[:axis], shape[axis] + 1, *shape[axis + 1 :])
        yield (*shape[:axis], 0, *shape[axis + 1 :])
    yield from ((), shape[1:], (1, *shape), (*shape, 1), shape[::-1])


@pytest.mark.parametrize("place", PLACES)
def test_every_axis_is_checked(place):
    function, name = place.split()
    shape, given = shape_of(place), Given()
    refused = 0
    for wrong in {*wrong_shapes(shape)} - {shape}:
        if name == "x" and function != "lstm_forward" and len(wrong) in (2, 3) and wrong[-1] == I:
            continue  # another T or B, or a sequence without batch
        if function == "lstm_forward" and name == "x" and len(wrong) == 3 and wrong[1:] == (B, I):
            continue
        # lstm_forward has B from x, H from w_hh, P from w_hr, and names what contradicts them.
        named = r"\w+" if function == "lstm_forward" and name in ("x", "w_hh", "w_hr") else name
        message = rf"^{named}: expected .*, got .*\("
        array = np.ones(wrong, np.float32)
        assert_refused(given, lambda g, a=array: PLACES[place](g, a), ValueError, message)
        refused += 1
    assert refused >= 4


@pytest.mark.parametrize(("wrong", "n"), [("h0", 0), ("c0", 1)])
def test_a_state_fits_its_batch(wrong, n):
    given = Given()
    x, right = given.arrays.x, (given.arrays.h, given.arrays.c)[n]
    for batch, state in [(x, right[:, 0]), (x[:, 0], right), (x[:, 0], right[:, :1])]:
        pair = [None, None]
        pair[n] = state
        with pytest.raises(ValueError, match=rf"^{wrong}: expected shape \(L D, "):
            given.lstm(batch, pair)


# Everything else


def each(error, name, call, *values):
    """Return a row per value: what is called, its exception, how the message begins."""
    return [
        pytest.param(lambda g, v=v: call(g, v), error, name, id=f"{name}={str(v)[:20]!r}")
        for v in values
    ]


NO_INTEGERS = [2.0, True, "2", None, np.float32(2), np.array(2.0), np.array([2, 2])]
NO_BOOLS = [1, 0.0, None, "True", np.array([True])]
NO_FRACTIONS = ["0.5", None, True, 0.5j, [0.5], np.array([0.5, 0.5])]
NO_DTYPES = [int, bool, complex, object, str, "f2", np.longdouble, ">f4", "nope", "f4,,", None, 4]
NO_SEEDS = [1.5, "1", True, [1, 2], np.random.RandomState(0)]
NO_NAMES = [None, 1, b"blas", ["blas"]]
NO_STATES = [np.zeros((2, L, B, P), np.float32), "hc", 5, {"h": None}, iter([None, None])]
NO_PAIRS = [(), (None,), (None, None, None), [None]]
NO_CACHES = [None, (), "cache", Given]
ROWS = [
    *each(ValueError, "input_size", lambda g, v: LSTM(v, 4), 0, -1, 2**62, 10**30),
    *each(ValueError, "hidden_size", lambda g, v: LSTM(3, v), 0, -1, 2**40, 10**30),
    *each(ValueError, r"\w+_size", lambda g, v: LSTM(v, v), 2**40),
    *each(ValueError, "num_layers", lambda g, v: LSTM(3, 4, v), 0, -1),
    *each(ValueError, "proj_size", lambda g, v: LSTM(3, 4, proj_size=v), -1, 4, 5, 10**30),
    *each(TypeError, "input_size", lambda g, v: LSTM(v, 4), *NO_INTEGERS),
    *each(TypeError, "hidden_size", lambda g, v: LSTM(3, v), *NO_INTEGERS),
    *each(TypeError, "num_layers", lambda g, v: LSTM(3, 4, v), *NO_INTEGERS),
    *each(TypeError, "proj_size", lambda g, v: LSTM(3, 4, proj_size=v), *NO_INTEGERS),
    *each(TypeError, "bias", lambda g, v: LSTM(3, 4, bias=v), *NO_BOOLS),
    *each(TypeError, "batch_first", lambda g, v: LSTM(3, 4, batch_first=v), *NO_BOOLS),
    *each(TypeError, "bidirectional", lambda g, v: LSTM(3, 4, bidirectional=v), *NO_BOOLS),
    *each(ValueError, "dropout", lambda g, v: LSTM(3, 4, 2, dropout=v), -0.1, 1.1, np.nan, np.inf),
    *each(TypeError, "dropout", lambda g, v: LSTM(3, 4, 2, dropout=v), *NO_FRACTIONS),
    *each(ValueError, "dropout", lambda g, v: setattr(g.lstm, "dropout", v), -0.1, 2, np.nan),
    *each(TypeError, "dropout", lambda g, v: setattr(g.lstm, "dropout", v), *NO_FRACTIONS),
    *each(TypeError, "dtype", lambda g, v: LSTM(3, 4, dtype=v), *NO_DTYPES),
    *each(ValueError, "seed", lambda g, v: LSTM(3, 4, seed=v), -1),
    *each(TypeError, "seed", lambda g, v: LSTM(3, 4, seed=v), *NO_SEEDS),
    *each(ValueError, "matmul", lambda g, v: LSTM(3, 4, matmul=v), "mkl", "", "BLAS"),
    *each(TypeError, "matmul", lambda g, v: LSTM(3, 4, matmul=v), *NO_NAMES),
    *each(ValueError, "matmul", lambda g, v: setattr(g.lstm, "matmul", v), "mkl", "", "BLAS"),
    *each(TypeError, "matmul", lambda g, v: setattr(g.lstm, "matmul", v), *NO_NAMES),
    *each(ValueError, "matmul", lambda g, v: lstm_forward(**g.args, matmul=v), "mkl", "", "BLAS"),
    *each(TypeError, "matmul", lambda g, v: lstm_forward(**g.args, matmul=v), *NO_NAMES),
    *each(TypeError, "reverse", lambda g, v: lstm_forward(**g.args, reverse=v), *NO_BOOLS),
    *each(TypeError, "training", lambda g, v: lstm_forward(**g.args, training=v), *NO_BOOLS),
    *each(TypeError, "state", lambda g, v: g.lstm(g.arrays.x, v), *NO_STATES),
    *each(ValueError, "state", lambda g, v: g.lstm.forward(g.arrays.x, v), *NO_PAIRS),
    *each(TypeError, "dstate", lambda g, v: g.lstm.backward(None, v, g.cache), *NO_STATES),
    *each(ValueError, "dstate", lambda g, v: g.lstm.backward(None, v, g.cache), *NO_PAIRS),
    *each(TypeError, "state", lambda g, v: setattr(g.stream, "state", v), *NO_STATES),
    *each(ValueError, "state", lambda g, v: setattr(g.stream, "state", v), *NO_PAIRS),
    *each(TypeError, "cache", lambda g, v: g.lstm.backward(None, None, v), *NO_CACHES),
    *each(TypeError, "cache", lambda g, v: g.lstm.backward(None, None, g.layer_cache), "layer's"),
    *each(ValueError, "cache", lambda g, v: copy.copy(g.lstm).backward(None, None, g.cache), "old"),
    *each(TypeError, "cache", lambda g, v: lstm_backward(None, None, None, v), *NO_CACHES),
    *each(TypeError, "cache", lambda g, v: lstm_backward(None, None, None, g.cache), "LSTM's"),
    *each(TypeError, "state_dict", lambda g, v: g.lstm.load_state_dict(v), None, "w", [("w", 1)]),
    *each(TypeError, "batch_size", lambda g, v: g.lstm.stream(v), *NO_INTEGERS),
    *each(ValueError, "batch_size", lambda g, v: g.lstm.stream(v), 0, -1, 2**60, 10**30),
    *each(TypeError, "lstm", lambda g, v: Stream(v), None, "lstm", LSTM),
    *each(ValueError, "x", lambda g, v: g.lstm(huge(*v, I)), (2**30, 2**28), (2**50, 1), (2**50,)),
    *each(ValueError, "x", lambda g, v: g.lstm.forward(huge(*v, I)), (2**30, 2**28), (1, 2**50)),
    *each(ValueError, "x", lambda g, v: lstm_forward(**g.args | {"x": huge(2**50, B, I)}), "huge"),
]


@pytest.mark.parametrize(("call", "error", "name"), ROWS)
def test_a_wrong_value_is_named(call, error, name):
    assert_refused(Given(), call, error, rf"^{name}: ")


FATAL = """
import copy, pickle, resource, numpy as np, lstm_fast as lf
resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32))
resource.setrlimit(resource.RLIMIT_CPU, (10, 10))
x, w = np.ones((2, 2, 3), "f"), np.ones((16, 4), "f")
for _ in range(3):
    try:
        {code}
    except (TypeError, ValueError):
        continue
    raise SystemExit("no error")
"""


@pytest.mark.parametrize(
    "code",
    [
        "lf.LSTM(3, 4, num_layers=2**40)",
        "copy.deepcopy(lf.LSTM(3, 4).forward(x)[2])",
        "pickle.dumps(lf.LSTM(3, 4).forward(x)[2])",
        "copy.deepcopy(lf.lstm_forward(x, w[:, :3], w)[2])",
    ],
)
def test_what_could_end_the_process_raises(code):
    run_python(FATAL.format(code=code))


# Awkward ones that are taken


def all_results(convert, matmul):
    """Return what everything gives when every array is converted."""
    g = Given()
    a = SimpleNamespace(**{name: convert(array) for name, array in vars(g.arrays).items()})
    g.lstm.matmul = matmul
    g.lstm.load_state_dict({name: convert(v) for name, v in g.lstm.state_dict().items()})
    called, stepped = g.lstm(a.x, (a.h, a.c)), g.lstm.stream(B)
    y, _, cache = g.lstm.forward(a.x, (a.h, a.c))
    dx, dstate, grads = g.lstm.backward(a.dy, (a.h, a.c), cache)
    stepped.state = a.h, a.c
    args = {name: convert(array) for name, array in g.args.items()}
    layer_y, layer_state, cache = lstm_forward(**args, matmul=matmul)
    layer_dx, _, layer_grads = lstm_backward(a.dy, args["h0"], args["c0"], cache)
    arrays = [called[0], *called[1], y, dx, *dstate, *grads.values(), stepped.step(a.x_t)]
    return [*arrays, *stepped.state, layer_y, *layer_state, layer_dx, *layer_grads.values()]


def assert_same_results(convert, same, matmul):
    actual = all_results(convert, matmul)
    assert all(type(array) is np.ndarray for array in actual)
    assert_identical(actual, all_results(same, matmul))


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize("matmul", ["packed", "blas"])
@pytest.mark.parametrize("layout", COPIES)
def test_layouts_are_taken(layout, matmul, isa):
    assert_same_results(COPIES[layout], np.copy, matmul)


@pytest.mark.parametrize("matmul", ["packed", "blas"])
def test_zero_strides_are_taken(matmul):
    def constant(array):
        return np.broadcast_to(array.flat[0], array.shape)

    assert_same_results(constant, lambda array: constant(array).copy(), matmul)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "max", "-max", "smallest_subnormal"])
def test_special_values_do_what_they_do_in_the_reference(value, dtype, isa):
    number = getattr(np.finfo(dtype), value.strip("-"), None) or float(value)
    args = {name: array.astype(dtype) / 4 for name, array in Given().args.items()}
    args["x"][1, 1, 2] = -number if value == "-max" else number
    found = []
    for module in (reference.lstm_forward, reference.lstm_backward), (lstm_forward, lstm_backward):
        with np.errstate(all="ignore"):
            y, state, cache = module[0](**args)
            dx, dstate, grads = module[1](np.ones_like(y), *state, cache)
        found.append([y, *state, dx, *dstate, *grads.values()])
    for expected, actual in zip(*found, strict=True):
        finite = np.isfinite(expected)
        np.testing.assert_array_equal(np.isfinite(actual), finite)
        scale = np.abs(expected[finite]).max(initial=0)
        error = np.abs(actual[finite] - expected[finite]).max(initial=0)
        assert error <= 50 * np.finfo(dtype).eps * scale
