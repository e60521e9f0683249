"""Infinite and huge numbers: calls neither warn of them nor raise, whatever NumPy is told to do."""

import copy
import warnings

import numpy as np
import pytest

from lstm_fast import LSTM, lstm_backward, lstm_forward

T, B, I = 4, 3, 5
# Every output is infinite if the input is: o = 1, and g and tanh(c) are the identity.
UNBOUNDED = ("Sigmoid", "Affine", "Affine")


def positive(lstm: LSTM) -> LSTM:
    """Return it with positive weights, of which none makes infinity minus infinity."""
    lstm.load_state_dict({name: abs(value) for name, value in lstm.state_dict().items()})
    return lstm


def infinite(dtype, kind: str) -> np.ndarray:
    x = np.ones((T, B, I), dtype)
    x[1:] = {"inf": np.inf, "-inf": -np.inf, "nan": np.nan, "huge": np.finfo(dtype).max}[kind]
    x[2, :, ::2] *= -1
    return x


SETTINGS = {
    "dropout": {"num_layers": 3, "dropout": 0.5},
    "variational dropout": {"variational_dropout": 0.5},
    "both": {"num_layers": 2, "dropout": 0.5, "variational_dropout": 0.5},
    "recurrent dropout": {"recurrent_dropout": 0.5},
    "zoneout": {"zoneout": (0.5, 0.5)},
    "residual": {"num_layers": 3, "residual": True, "proj_size": 2},
    "sum": {"bidirectional": True, "merge": "sum"},
    "mul": {"bidirectional": True, "merge": "mul"},
    "ave": {"bidirectional": True, "merge": "ave", "num_layers": 2},
    "everything": {
        "num_layers": 2,
        "bidirectional": True,
        "merge": "mul",
        "dropout": 0.5,
        "variational_dropout": 0.5,
        "recurrent_dropout": 0.2,
        "zoneout": (0.1, 0.2),
    },
}


def run(lstm: LSTM, x: np.ndarray, **options) -> list[np.ndarray]:
    """Return all results and gradients of training and, first, those of inference."""
    y, state = lstm(x, **options)
    found = [y, *state]
    y, state, cache = lstm.forward(x, **options)
    for dy, dstate in ((y, state), (y, None), (None, state)):
        dx, d, grads = lstm.backward(dy, dstate, cache)
        found += [dx, *d, *grads.values()]
    return [*found, y, *state]


@pytest.mark.parametrize("options", [{}, {"lengths": [4, 0, 2]}], ids=["", "lengths"])
@pytest.mark.parametrize("kind", ["inf", "-inf", "nan", "huge"])
@pytest.mark.parametrize("name", SETTINGS)
def test_there_are_no_warnings(name, kind, options):
    """With them as errors, and NumPy's errors raised, results are those without, to the bit.

    The generator goes on as it does after an ordinary call.
    """
    dtype, settings = np.dtype(np.float32), SETTINGS[name] | {"activations": UNBOUNDED}
    lstm = positive(LSTM(I, 6, **settings, dtype=dtype, seed=0))
    silent, ordinary = copy.deepcopy(lstm), copy.deepcopy(lstm)
    x, ones = infinite(dtype, kind), np.ones((T, B, I), dtype)
    with np.errstate(all="ignore"):
        expected = run(silent, x, **options)
    run(ordinary, ones, **options)
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        actual = run(lstm, x, **options)
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(a, e)
    after = [one.forward(ones, **options)[0] for one in (lstm, silent, ordinary)]
    np.testing.assert_array_equal(after[0], after[1])
    np.testing.assert_array_equal(after[0], after[2])


def huge_biases(dtype) -> dict[str, np.ndarray]:
    values = LSTM(I, 6, 2, dtype=dtype, seed=0).state_dict()
    for name, value in values.items():
        if name.startswith("bias"):
            value[...] = 0.9 * np.finfo(dtype).max * np.where(np.arange(value.size) % 2, 1, -1)
    return values


def with_huge_biases(dtype) -> list[np.ndarray]:
    """Load biases whose sum overflows, write them, and compute with them in every way."""
    values, x = huge_biases(dtype), np.ones((T, B, I), dtype)
    found = []
    for matmul in ("packed", "blas"):
        lstm = LSTM(I, 6, 2, dtype=dtype, matmul=matmul, seed=1)
        lstm.load_state_dict(values)
        found += run(lstm, x)
        found.append(lstm.stream(B).step(x[0]))
        with lstm.writable() as p:
            for name in p:
                p[name] = values[name]
        found += run(lstm, x)
        found += run(copy.deepcopy(lstm), x)
    names = {"w_ih": "weight_ih_l0", "w_hh": "weight_hh_l0"}
    names |= {"b_ih": "bias_ih_l0", "b_hh": "bias_hh_l0"}
    layer = {short: values[name] for short, name in names.items()}
    y, (hn, cn), cache = lstm_forward(x, **layer)
    dx, dstate, grads = lstm_backward(y, hn, cn, cache)
    return [*found, y, hn, cn, dx, *dstate, *grads.values()]


def test_biases_whose_sum_overflows(dtype):
    """Whatever the caller wants of NumPy's errors, the bits are the same and nothing is raised."""
    with np.errstate(all="ignore"):
        expected = with_huge_biases(dtype)
    assert all(np.isfinite(array).all() for array in expected[:3])
    for state in ("raise", "warn", "call"):
        with np.errstate(all=state, call=lambda kind, _: pytest.fail(f"NumPy met {kind}")):
            actual = with_huge_biases(dtype)
        for a, e in zip(actual, expected, strict=True):
            np.testing.assert_array_equal(a, e)


def test_gradients_that_overflow(dtype):
    """Of two layers, of which each adds to what comes from above, and of segments."""
    most = np.finfo(dtype).max
    x = np.ones((700, 1, I), dtype)
    lstm = positive(LSTM(I, 6, 2, bidirectional=True, dtype=dtype, seed=0))

    def gradients():
        found = []
        for checkpoint in (None, 1):
            y, _, cache = lstm.forward(x, checkpoint=checkpoint)
            dx, dstate, grads = lstm.backward(np.full_like(y, most), None, cache)
            found += [dx, *dstate, *grads.values()]
        return found

    with np.errstate(all="ignore"):
        expected = gradients()
    assert not all(np.isfinite(array).all() for array in expected)
    with np.errstate(all="raise"):
        actual = gradients()
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(a, e)
