"""The caller's floating-point environment: it has no effect on any result, and stays as it is."""

import copy

import numpy as np
import pytest
from support.comparing import by_name
from support.fenv import (
    DIVIDED_BY_ZERO,
    X86,
    clear_flags,
    control,
    needs_fenv,
    raised_flags,
    unusual_environment,
)
from support.layers import SEVERAL_THREADS, draw_layer, run_layer
from support.networks import by_cell, draw_network, run_network
from support.options import OPTIONS, draw_with_options
from support.processes import run_python

import lstm_fast
from lstm_fast import LSTM

pytestmark = needs_fenv

# Large enough for two threads.
T, B, I, H = 12, 20, 24, 24
LENGTHS = np.random.default_rng(0).integers(0, T, B, endpoint=True)
MASK = np.random.default_rng(1).random((B, T)) < 0.6
RAGGED = {"lengths", "mask"}
# Settings of an LSTM, and options of its calls.
CASES = {
    "plain": ({}, {}),
    "no bias, batch first": ({"bias": False, "batch_first": True}, {}),
    "projection": ({"num_layers": 2, "proj_size": 7}, {}),
    "reverse": ({"reverse": True}, {}),
    "blas": ({"matmul": "blas"}, {}),
    "merge concat": ({"bidirectional": True}, {}),
    "merge sum": ({"bidirectional": True, "merge": "sum"}, {}),
    "merge mul": ({"bidirectional": True, "merge": "mul"}, {}),
    "merge ave": ({"bidirectional": True, "merge": "ave"}, {}),
    "residual": ({"num_layers": 3, "residual": True}, {}),
    "residual, merge mul": (
        {"num_layers": 2, "residual": True, "bidirectional": True, "merge": "mul"},
        {},
    ),
    "sizes": ({"hidden_size": (H, 9)}, {}),
    "dropout": ({"num_layers": 2, "dropout": 0.3}, {}),
    "variational dropout": ({"num_layers": 2, "variational_dropout": 0.3}, {}),
    "both dropouts": ({"num_layers": 2, "dropout": 0.3, "variational_dropout": 0.3}, {}),
    "recurrent dropout": ({"recurrent_dropout": 0.3}, {}),
    "zoneout": ({"zoneout": (0.3, 0.1)}, {}),
    "layer norm": ({"layer_norm": True}, {}),
    "layer norm of gates": ({"layer_norm": "gates", "peephole": True}, {}),
    "peephole": ({"peephole": True}, {}),
    "coupled": ({"coupled": True}, {}),
    "clip": ({"clip": 0.7, "cell_clip": 0.6}, {}),
    "activations": (
        {"activations": ("HardSigmoid", ("ScaledTanh", 0.9, 1.1), "Softsign"), "cell_clip": 2.0},
        {},
    ),
    "lengths": ({"num_layers": 2, "bidirectional": True}, {"lengths": LENGTHS}),
    "lengths, hold": ({"num_layers": 2}, {"lengths": LENGTHS, "padding": "hold"}),
    "mask": ({"merge": "sum", "bidirectional": True}, {"mask": MASK}),
    "mask, dropout": ({"num_layers": 2, "dropout": 0.3}, {"mask": MASK, "padding": "hold"}),
    "checkpoint": ({"num_layers": 2}, {"checkpoint": 1}),
}


def build(settings, dtype, **more):
    return LSTM(**{"input_size": I, "hidden_size": H, "dtype": dtype, "seed": 3} | settings | more)


def with_subnormals(array):
    """Scale some of the numbers so that they, and products with them, are subnormal."""
    array.flat[::7] *= np.finfo(array.dtype).smallest_normal
    return array


def differing(actual, expected):
    """Return the names of results that differ in a bit."""
    actual, expected = by_name(actual), by_name(expected)
    assert actual.keys() == expected.keys()
    return [name for name in expected if actual[name].tobytes() != expected[name].tobytes()]


def compare(compute, *args, cleared=False):
    """Assert that compute(*args) gives the same in an unusual environment, and leaves it as it was.

    `compute` returns arrays by name. Arguments are copied: so an LSTM draws the same noise. The
    flags may be `cleared`: NumPy does so when it compares lengths, or elements of a mask.
    """
    expected = compute(*copy.deepcopy(args))
    args = copy.deepcopy(args)
    with unusual_environment():
        actual = compute(*args)
        flags = raised_flags()
    assert not differing(actual, expected)
    assert flags == DIVIDED_BY_ZERO or (cleared and flags == 0), "exception flags were changed"


def train(lstm, call, given):
    """Return results and gradients."""
    return by_cell(run_network(lstm, *given, **call))


def infer(lstm, call, given):
    """Return results of inference, the second time too, when weights are packed."""
    x, h0, c0, *_ = given
    call = {name: value for name, value in call.items() if name != "checkpoint"}
    found = {}
    for time in ("first", "second"):
        y, (hn, cn) = lstm(x, (h0, c0), **call)
        found |= {f"{name}, {time}": a for name, a in by_cell({"y": y, "hn": hn, "cn": cn}).items()}
    return found


def step(lstm, given):
    """Return what a `Stream` gives step by step, and all at once, and its state."""
    x, h0, c0, *_ = given
    steps = x.swapaxes(0, 1) if lstm.batch_first else x
    stream = lstm.stream(B)
    stream.state = h0, c0
    found = {f"step {t}": stream.step(steps[t]) for t in range(4)}
    found["sequence"] = stream(x)
    return found | by_cell(dict(zip(("h", "c"), stream.state, strict=True)))


@pytest.fixture
def given(case, dtype, rng):
    """Return arguments of one of the `CASES`, some of which are subnormal, and gradients."""
    lstm = build(CASES[case][0], dtype)
    parts = draw_network(rng, lstm, T, B)
    for part in parts:
        for array in part if isinstance(part, tuple) else [part]:
            with_subnormals(array)
    return parts


@pytest.mark.parametrize("case", CASES)
def test_training(dtype, threads, case, given):
    lstm_fast.set_num_threads(2)
    settings, call = CASES[case]
    compare(train, build(settings, dtype), call, given, cleared=bool(RAGGED & {*call}))


@pytest.mark.parametrize("case", CASES)
def test_inference(dtype, threads, case, given):
    lstm_fast.set_num_threads(2)
    settings, call = CASES[case]
    compare(infer, build(settings, dtype), call, given, cleared=bool(RAGGED & {*call}))


@pytest.mark.parametrize(
    "case",
    [
        name
        for name, (settings, _) in CASES.items()
        if not {"bidirectional", "reverse"} & {*settings}
    ],
)
def test_streams(dtype, case, given):
    compare(step, build(CASES[case][0], dtype), given)


@pytest.mark.parametrize("option", ["plain", *OPTIONS])
def test_functions_of_one_layer(isa, dtype, rng, option):
    args, d_results = draw_with_options(rng, {option}, T, B, I, H, dtype)
    for array in (args["x"], args["h0"], args["c0"], *d_results):
        with_subnormals(array)
    compare(lambda: run_layer(lstm_fast, args, d_results), cleared=option in RAGGED)


@pytest.mark.parametrize("sizes", [*SEVERAL_THREADS, (60, 45, 70, 3, 0)])  # with bands
def test_new_threads(isa, threads, dtype, rng, sizes):
    """Threads that start inside have the environment of the caller at first."""
    args, d_results = draw_layer(rng, *sizes, dtype=dtype)
    lstm_fast.set_num_threads(1)
    expected = run_layer(lstm_fast, args, d_results, matmul="packed")
    with unusual_environment():
        for n in (2, 3, 4):
            lstm_fast.set_num_threads(n)
            assert not differing(run_layer(lstm_fast, args, d_results, matmul="packed"), expected)


@pytest.mark.parametrize("forget_bias", [None, 1.1])
@pytest.mark.parametrize("init", ["uniform", "keras"])
@pytest.mark.parametrize("settings", [{}, {"proj_size": 5, "peephole": True, "layer_norm": True}])
def test_initial_values(dtype, settings, init, forget_bias):
    options = {"num_layers": 2, "init": init, "forget_bias": forget_bias}
    compare(lambda: build(settings, dtype, **options).state_dict())


@pytest.mark.parametrize("source", [np.float16, np.float32, np.float64, np.longdouble])
def test_loading_and_writing_parameters(dtype, rng, source):
    lstm = build({}, dtype)
    values = {k: rng.standard_normal(v.shape) for k, v in lstm.state_dict().items()}
    with np.errstate(all="ignore"):
        values = {k: with_subnormals(v.astype(source)) for k, v in values.items()}

    def load(lstm):
        lstm.load_state_dict(values)
        return lstm.state_dict()

    def write(lstm):
        with lstm.writable() as parameters:
            for name, value in values.items():
                parameters[name] = value
        return lstm.state_dict()

    compare(load, lstm)
    compare(write, lstm)


# Flags, and what the default environment is


def keeps_subnormals() -> bool:
    tiny = np.float32(1e-40)
    return bool(tiny * np.float32(1) == tiny and np.float32(2e-38) * np.float32(0.25) > 0)


def test_import_changes_nothing():
    code = """
import numpy as np
from support.fenv import clear_flags, control, raised_flags
before = control()
clear_flags()
import lstm_fast
assert (control(), raised_flags()) == (before, 0)
tiny = np.float32(1e-40)
assert tiny * np.float32(1) == tiny
"""
    run_python(code)


@pytest.mark.parametrize("n", [1, 2])
def test_calls_and_errors_raise_no_flags(threads, rng, isa, n):
    lstm_fast.set_num_threads(n)
    lstm = LSTM(64, 128, seed=0, matmul="packed")
    x = rng.standard_normal((20, 64, 64), np.float32)
    x[::2] *= 3e37  # overflows
    x[1::2] *= 1e-38  # underflows
    before = control(), keeps_subnormals()
    clear_flags()
    y, state, cache = lstm.forward(x)
    lstm.backward(y, state, cache)
    with pytest.raises(ValueError, match="x: "):
        lstm(x[..., :3])
    assert raised_flags() == 0
    assert (control(), keeps_subnormals()) == before
    assert keeps_subnormals()


def test_an_unusual_environment_is_one():
    """Guards the tests above: without it they could compare twice the same."""
    third, tiny = np.array([1.0, 3.0]), np.array([1e-310, 1.0])
    nearest = third[:1] / third[1:]
    with unusual_environment():
        raised = raised_flags()
        upward, kept = third[:1] / third[1:], tiny[:1] * tiny[1:]
    assert raised == DIVIDED_BY_ZERO
    assert upward > nearest
    assert kept == (0 if X86 else 1e-310)
