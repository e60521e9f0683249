"""Results in the caller's arrays."""

import numpy as np
import pytest

import lstm_fast

T, B, I, H = 6, 4, 5, 5  # I = H: y can overlap with x


@pytest.fixture(params=[{}, {"bidirectional": True}, {"num_layers": 2, "bidirectional": True}])
def lstm(request):
    return lstm_fast.LSTM(I, H, **request.param, seed=0)


@pytest.fixture
def arguments(lstm, rng):
    jobs = lstm.num_layers * (1 + lstm.bidirectional)
    x, state = rng.standard_normal((T, B, I)), rng.standard_normal((2, jobs, B, H))
    return x.astype(np.float32), tuple(state.astype(np.float32))


def flat(results):
    y, (hn, cn) = results[:2]
    return [y, hn, cn]


def strided(shape):
    """Return an array of this shape with gaps everywhere."""
    return np.full([2 * n for n in shape], 7, np.float32)[tuple(slice(0, 2 * n, 2) for n in shape)]


@pytest.mark.parametrize("lengths", [None, [3, 0, 6, 1]])
@pytest.mark.parametrize("method", ["__call__", "forward"])
@pytest.mark.parametrize("make", [lambda s: np.full(s, 7, np.float32), strided])
def test_the_arrays_are_written_and_returned(lstm, arguments, make, method, lengths):
    call = getattr(lstm, method)
    expected = flat(call(*arguments, lengths=lengths))
    given = [make(a.shape) for a in expected]
    actual = flat(call(*arguments, lengths=lengths, out=(given[0], (given[1], given[2]))))
    for a, g, e in zip(actual, given, expected, strict=True):
        assert a is g
        np.testing.assert_array_equal(a, e)


def test_any_of_them_may_be_missing(lstm, arguments):
    expected = flat(lstm(*arguments))
    hn, y = np.empty_like(expected[1]), np.empty_like(expected[0])
    for out in (None, (None, None), (y, None), (None, (None, None)), (None, (hn, None))):
        for a, e in zip(flat(lstm(*arguments, out=out)), expected, strict=True):
            np.testing.assert_array_equal(a, e)
    np.testing.assert_array_equal(hn, expected[1])
    np.testing.assert_array_equal(y, expected[0])


def test_other_layouts(rng):
    batch_first = lstm_fast.LSTM(I, H, batch_first=True, seed=0)
    x = rng.standard_normal((B, T, I), np.float32)
    y = np.empty((B, T, H), np.float32)
    assert batch_first(x, out=(y, None))[0] is y
    np.testing.assert_array_equal(y, batch_first(x)[0])
    one = np.empty((T, H), np.float32), (np.empty((1, H), np.float32), None)
    actual = batch_first(x[0], out=one)
    assert actual[0] is one[0] and actual[1][0] is one[1][0]
    np.testing.assert_array_equal(one[0], y[0])


def test_overlaps(lstm, arguments):
    """Whatever shares memory, results are those without `out`."""
    (x, (h0, c0)), expected = arguments, flat(lstm(*arguments))
    new = [np.empty_like(a) for a in expected]

    def check(x, h0, c0, y, hn, cn):
        for a, e in zip(flat(lstm(x, (h0, c0), out=(y, (hn, cn)))), expected, strict=True):
            np.testing.assert_array_equal(a, e)

    h, c = h0.copy(), c0.copy()
    check(x, h, c, new[0], h, c)  # in place
    h, c = h0.copy(), c0.copy()
    check(x, h, c, new[0], c, h)  # crossed
    memory = np.concatenate([np.zeros(B * H, np.float32), h0.ravel()])
    shifted = memory[B * H :].reshape(h0.shape)
    check(x, shifted, c0, new[0], memory[: h0.size].reshape(h0.shape), new[2])
    if expected[0].shape == x.shape:
        same = x.copy()
        check(same, h0, c0, same, new[1], new[2])
    memory = np.concatenate([np.zeros(expected[0].size // 2, np.float32), x.ravel()])
    y = memory[: expected[0].size]
    if y.size == expected[0].size:
        x_in = memory[expected[0].size // 2 :][: x.size].reshape(x.shape)
        check(x_in, h0, c0, y.reshape(expected[0].shape), new[1], new[2])


def read_only(a):
    a.flags.writeable = False
    return a


@pytest.mark.parametrize(
    ("out", "error"),
    [
        (np.empty((T, B, H), np.float32), TypeError),
        ((np.empty((T, B, H), np.float32),), ValueError),
        ((np.empty((T, B, H)), None), TypeError),
        ((np.empty((T, B, H), ">f4"), None), TypeError),
        ((np.empty((T, B, H + 1), np.float32), None), ValueError),
        ((None, (np.empty((B, H), np.float32), None)), ValueError),
        ((None, np.empty((2, 1, B, H), np.float32)), TypeError),
        ((read_only(np.empty((T, B, H), np.float32)), None), ValueError),
        (([[0.0]], None), TypeError),
    ],
)
def test_wrong_out(rng, out, error):
    lstm, x = lstm_fast.LSTM(I, H, seed=0), rng.standard_normal((T, B, I), np.float32)
    with pytest.raises(error, match="out"):
        lstm(x, out=out)
