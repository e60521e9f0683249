"""Gradient checkpointing: less memory, the same bits."""

import numpy as np
import pytest

import lstm_fast

CONFIGURATIONS = [
    {},
    {"num_layers": 2},
    {"bidirectional": True, "num_layers": 2},
    {"proj_size": 3},
    {"num_layers": 3, "dropout": 0.4},
    {"batch_first": True},
    {"matmul": "packed", "bias": False},
]


def everything(lstm, x, state, dy, dstate, **options):
    y, states, cache = lstm.forward(x, state, **options)
    dx, dstates, grads = lstm.backward(dy, dstate, cache)
    again = lstm.backward(dy, dstate, cache)[2]
    assert all((again[name] == grad).all() for name, grad in grads.items())
    return [y, *states, dx, *dstates, *grads.values()]


@pytest.mark.parametrize("options", CONFIGURATIONS, ids=str)
@pytest.mark.parametrize("size", [(700, 1, 3, 9), (90, 23, 5, 17), (1, 2, 3, 4), (41, 130, 2, 33)])
def test_the_bits_are_the_same(rng, options, size):
    T, B, I, H = size
    P, jobs = options.get("proj_size", 0) or H, options.get("num_layers", 1)
    directions = 1 + options.get("bidirectional", False)
    x, dy = rng.standard_normal((T, B, I)), rng.standard_normal((T, B, directions * P))
    if "batch_first" in options:
        x, dy = x.swapaxes(0, 1), dy.swapaxes(0, 1)
    state = [rng.standard_normal((jobs * directions, B, n)) for n in (P, H)]
    dstate = [rng.standard_normal(a.shape) for a in state]
    for lengths in (None, rng.integers(0, T + 1, B)):
        expected = None
        for checkpoint in (None, 1, 20, 64, 10**6):
            lstm = lstm_fast.LSTM(I, H, **options, dtype=np.float64, seed=3)
            actual = everything(lstm, x, state, dy, dstate, lengths=lengths, checkpoint=checkpoint)
            for a, e in zip(actual, expected or actual, strict=True):
                np.testing.assert_array_equal(a, e)
            expected = expected or actual


def test_it_keeps_little(rng):
    """No more than the input and the state at every k-th step."""
    T, B, I, H, k = 4000, 2, 1, 32, 256
    lstm, x = lstm_fast.LSTM(I, H, seed=0), rng.standard_normal((T, B, I), np.float32)
    full, little = (lstm.forward(x, checkpoint=c)[2].nbytes for c in (None, k))
    steps = T * B
    assert full == pytest.approx(steps * (24 * H + 4 * I), rel=0.05)
    assert little <= 4 * I * steps + (T // k + 1) * B * 2 * 4 * H


def test_gradients_belong_to_the_weights_of_forward(rng):
    lstm, x = lstm_fast.LSTM(3, 5, seed=0), rng.standard_normal((600, 1, 3), np.float32)
    y, _, cache = lstm.forward(x, checkpoint=100)
    expected = lstm.backward(y, None, cache)
    with lstm.writable() as parameters:
        for value in parameters.values():
            value += 1
    x += 1
    actual = lstm.backward(y, None, cache)
    np.testing.assert_array_equal(actual[0], expected[0])
    for name, grad in expected[2].items():
        np.testing.assert_array_equal(actual[2][name], grad)


@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (-3, ValueError), (1.5, TypeError)])
def test_wrong_values(value, error):
    lstm = lstm_fast.LSTM(3, 5, seed=0)
    with pytest.raises(error, match="checkpoint"):
        lstm.forward(np.zeros((4, 1, 3), np.float32), checkpoint=value)
