"""`Stream`: the bits of a whole sequence, its state, `out`, resets, copies, errors."""

import copy
import pickle
import tracemalloc

import numpy as np
import pytest

from lstm_fast import LSTM, Stream

T, B, I, H = 5, 4, 3, 9
SETTINGS = [{}, {"num_layers": 3, "bias": False}, {"num_layers": 2, "proj_size": 5}]


@pytest.fixture(params=SETTINGS, ids=str)
def lstm(request, dtype):
    return LSTM(I, H, **request.param, dtype=dtype, seed=0)


@pytest.fixture
def x(rng, dtype):
    return rng.standard_normal((T, B, I)).astype(dtype)


def draw_state(rng, lstm):
    widths = lstm.proj_size or H, H
    return tuple(rng.standard_normal((lstm.num_layers, B, n)).astype(lstm.dtype) for n in widths)


def assert_state(stream, expected):
    for actual, array in zip(stream.state, expected, strict=True):
        np.testing.assert_array_equal(actual, array, strict=True)


# Steps


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_steps_have_the_bits_of_the_whole_sequence(lstm, x, batch, isa):
    x = x[:, :batch]
    y, state = lstm(x)
    stream = lstm.stream(batch)
    assert isinstance(stream, Stream)
    for x_t, y_t in zip(x, y, strict=True):
        np.testing.assert_array_equal(stream.step(x_t), y_t, strict=True)
    assert_state(stream, state)


def test_steps_and_sequences_continue_each_other(lstm, x, isa, rng):
    state = draw_state(rng, lstm)
    y, (hn, cn) = lstm(x, state)
    stream = lstm.stream(B)
    stream.state = lstm(x[:2], state)[1]
    np.testing.assert_array_equal(stream.step(x[2]), y[2])
    rest, last = lstm(x[3:], stream.state)
    np.testing.assert_array_equal(rest, y[3:])
    assert all(np.array_equal(a, b) for a, b in zip(last, (hn, cn), strict=True))


def test_steps_with_blas_are_close(lstm, x, isa):
    lstm.matmul = "blas"
    y, _ = lstm(x)
    stream = lstm.stream(B)
    for x_t, y_t in zip(x, y, strict=True):
        error = np.abs(stream.step(x_t) - y_t).max()
        assert error <= 10 * np.finfo(lstm.dtype).eps * np.abs(y).max()


def test_results_and_arguments_are_not_kept(lstm, x):
    y, state = lstm(x)
    stream = lstm.stream(B)
    for x_t, y_t in zip(x, y, strict=True):
        x_t = x_t.copy()
        result = stream.step(x_t)
        np.testing.assert_array_equal(result, y_t)
        result.fill(np.nan)
        x_t.fill(np.nan)
    assert_state(stream, state)


# out


def strided(y):
    """Return every other row and every third column of a larger array."""
    return np.full((2 * len(y), 3 * y.shape[1]), np.nan, y.dtype)[::2, 1::3]


MEMORY = {
    "C order": np.empty_like,
    "Fortran order": lambda y: np.empty_like(y, order="F"),
    "rows of a wider array": lambda y: np.empty_like(np.hstack((y, y)))[:, : y.shape[1]],
    "strided": strided,
    "backwards": lambda y: np.empty_like(y)[::-1, ::-1],
    "unaligned": lambda y: np.ndarray(y.shape, y.dtype, bytearray(y.nbytes + 1), offset=1),
}


@pytest.mark.parametrize("memory", MEMORY)
def test_out_receives_the_result(lstm, x, memory, isa):
    y, state = lstm(x)
    stream, out = lstm.stream(B), MEMORY[memory](y[0])
    for x_t, y_t in zip(x, y, strict=True):
        assert stream.step(x_t, out=out) is out
        np.testing.assert_array_equal(out, y_t)
    out.fill(np.nan)
    assert_state(stream, state)


def test_out_writes_nothing_beside_it(lstm, x):
    y, _ = lstm(x)
    out = strided(y[0])
    lstm.stream(B).step(x[0], out=out)
    np.testing.assert_array_equal(out, y[0])
    assert np.isnan(out.base).sum() == out.base.size - out.size


def test_with_out_no_array_is_allocated(dtype):
    lstm = LSTM(64, 128, 2, dtype=dtype, seed=0)
    stream, x_t = lstm.stream(64), np.zeros((64, 64), dtype)
    out = stream.step(x_t)
    tracemalloc.start()
    try:
        stream.step(x_t, out=out)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < out.nbytes / 4


@pytest.mark.parametrize("first", [0, 1, 5])
def test_out_may_overlap_x_t(lstm, x, first, isa):
    y, state = lstm(x)
    stream, columns = lstm.stream(B), y.shape[2]
    for x_t, y_t in zip(x, y, strict=True):
        memory = np.zeros(B * (I + columns) + first, lstm.dtype)
        given = memory[first : first + B * I].reshape(B, I)
        given[...] = x_t
        out = stream.step(given, out=memory[: B * columns].reshape(B, columns))
        np.testing.assert_array_equal(out, y_t)
    assert_state(stream, state)


def test_out_may_be_x_t_itself(x, dtype, isa):
    lstm = LSTM(H, H, 2, dtype=dtype, seed=0)
    x = np.concatenate((x, x, x), axis=2)
    y, state = lstm(x)
    stream = lstm.stream(B)
    for x_t, y_t in zip(x, y, strict=True):
        np.testing.assert_array_equal(stream.step(x_t, out=x_t), y_t)
    assert_state(stream, state)


WRONG_OUT = {
    "list": (lambda y: y.tolist(), TypeError),
    "other precision": (lambda y: np.zeros(y.shape, "f2"), TypeError),
    "integers": (lambda y: np.zeros(y.shape, int), TypeError),
    "byte-swapped": (lambda y: y.astype(y.dtype.newbyteorder("S")), TypeError),
    "too few rows": (lambda y: np.zeros_like(y[1:]), ValueError),
    "one row": (lambda y: np.zeros_like(y[:1]), ValueError),
    "one column": (lambda y: np.zeros_like(y[:, :1]), ValueError),
    "one axis more": (lambda y: np.zeros_like(y[None]), ValueError),
    "read-only": (lambda y: np.broadcast_to(np.zeros_like(y[:1]), y.shape), ValueError),
}


@pytest.mark.parametrize("wrong", WRONG_OUT)
def test_a_wrong_out_is_refused(lstm, x, wrong, rng):
    stream = lstm.stream(B)
    stream.state = before = draw_state(rng, lstm)
    make, error = WRONG_OUT[wrong]
    out = make(lstm(x)[0][0])
    content = copy.deepcopy(out)
    with pytest.raises(error, match=r"^out: "):
        stream.step(x[0], out=out)
    assert_state(stream, before)
    np.testing.assert_array_equal(out, content)


# State


def test_state_is_copied_in_and_out(lstm, x, rng):
    stream, state = lstm.stream(B), draw_state(rng, lstm)
    assert not any(array.any() for array in stream.state)
    stream.state = given = copy.deepcopy(state)
    for array in (*given, *stream.state):
        array.fill(np.nan)
    assert_state(stream, state)
    np.testing.assert_array_equal(stream.step(x[0]), lstm(x[:1], state)[0][0])


def test_state_may_have_any_layout(lstm, rng):
    stream, state = lstm.stream(B), draw_state(rng, lstm)
    swapped = state[0].astype(lstm.dtype.newbyteorder("S")), np.asfortranarray(state[1])
    stream.state = list(swapped)
    assert_state(stream, state)


ROWS = [None, 0, -1, np.int64(2), [1, 3], [], slice(1, 3), slice(None, None, 2)]
ROWS += [np.array([0, 2]), np.array([True, False, True, False]), [True, False, False, True]]
ROWS += [(1, 3), ()]  # a tuple is a list of rows, not one index per axis


@pytest.mark.parametrize("rows", ROWS, ids=str)
def test_reset_zeroes_some_rows(lstm, x, rows, rng):
    stream, state = lstm.stream(B), draw_state(rng, lstm)
    stream.state = state
    stream.reset() if rows is None else stream.reset(rows)
    if rows is None:
        rows = slice(None)
    for array in state:
        array[:, list(rows) if isinstance(rows, tuple) else rows] = 0
    assert_state(stream, state)
    np.testing.assert_array_equal(stream.step(x[0]), lstm(x[:1], state)[0][0])


WRONG_ROWS = [B, -B - 1, [0, B], [True, False], np.ones((B, H), bool), 1.0, "0", [0.5], True, ...]


@pytest.mark.parametrize("rows", WRONG_ROWS, ids=str)
def test_reset_refuses_other_rows(lstm, rows, rng):
    stream, state = lstm.stream(B), draw_state(rng, lstm)
    stream.state = state
    with pytest.raises((IndexError, TypeError)):
        stream.reset(rows)
    assert_state(stream, state)


@pytest.mark.parametrize(
    "duplicate", [Stream.copy, copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))]
)
def test_copies_are_independent(lstm, x, duplicate):
    y, last = lstm(x)
    stream = lstm.stream(B)
    stream.step(x[0])
    other = duplicate(stream)
    for n in range(1, T):  # the one that steps first must not write to the other's state
        first, second = (stream, other) if n % 2 else (other, stream)
        np.testing.assert_array_equal(first.step(x[n]), y[n])
        np.testing.assert_array_equal(second.step(x[n]), y[n])
    other.reset(0)
    other.step(x[0])
    other.step(x[0])
    assert_state(stream, last)


def test_streams_of_one_lstm_are_independent(lstm, x):
    y, _ = lstm(x)
    one, other = lstm.stream(B), lstm.stream(B)
    for n in range(T):
        np.testing.assert_array_equal(one.step(x[n]), y[n])
        other.step(x[-1])


# Parameters and errors


def test_steps_use_the_parameters_as_they_are_then(lstm, x, isa):
    stream = lstm.stream(B)
    first = stream.step(x[0])
    state = stream.state
    with lstm.writable() as p:
        p["weight_hh_l0"] *= 2
    y, after = lstm(x[1:2], state)
    np.testing.assert_array_equal(stream.step(x[1]), y[0])
    assert_state(stream, after)
    lstm.load_state_dict(LSTM(I, H, **settings_of(lstm), seed=1).state_dict())
    np.testing.assert_array_equal(stream.step(x[2]), lstm(x[2:3], after)[0][0])
    stream.reset()
    assert not np.array_equal(stream.step(x[0]), first)


def settings_of(lstm):
    names = ("num_layers", "bias", "proj_size", "dtype")
    return {name: getattr(lstm, name) for name in names}


def test_lstm_and_batch_size_are_fixed(lstm, x):
    stream = lstm.stream(B)
    for name, value in {"lstm": LSTM(I, H + 1, dtype=lstm.dtype), "batch_size": B + 1}.items():
        with pytest.raises(AttributeError):
            setattr(stream, name, value)
    np.testing.assert_array_equal(stream.step(x[0]), lstm(x)[0][0])


def test_a_bidirectional_lstm_does_not_stream():
    with pytest.raises(ValueError, match="bidirectional"):
        LSTM(I, H, bidirectional=True).stream()


def test_repr_states_lstm_and_batch(lstm):
    assert repr(lstm.stream(B)) == f"<Stream of {lstm!r}, batch_size={B}>"
