"""Results in the caller's arrays: the same bits, whatever the arrays are and overlap with."""

import copy
import re
from itertools import product

import numpy as np
import pytest
from support.comparing import assert_identical
from support.layouts import EMPTY, every_other, read_only
from support.networks import SETTINGS, backward_network, draw_network

from lstm_fast import LSTM

T, B, I, H = 5, 4, 6, 6
LENGTHS = [3, 0, 5, 1]
OPTIONS = [{}, {"lengths": LENGTHS}, {"lengths": LENGTHS, "padding": "hold"}]
TRAINING = {"inference": LSTM.__call__, "training": LSTM.forward}


def flat(results):
    """Return y, hn and cn."""
    y, (hn, cn), *_ = results
    return [y, hn, cn]


@pytest.mark.parametrize("layout", EMPTY)
@pytest.mark.parametrize("call", TRAINING.values(), ids=TRAINING)
@pytest.mark.parametrize("settings", SETTINGS)
def test_results_are_written_and_returned(isa, dtype, rng, settings, call, layout):
    lstm = LSTM(I, H, **settings, dtype=dtype, seed=0)
    x, h0, c0, *_ = draw_network(rng, lstm, T, B)
    for options in OPTIONS:
        expected = flat(call(lstm, x, (h0, c0), **options))
        given = [EMPTY[layout](a.shape, dtype) for a in expected]
        for array in given:
            array.fill(np.nan)
        actual = flat(call(lstm, x, (h0, c0), **options, out=(given[0], (given[1], given[2]))))
        assert all(a is g for a, g in zip(actual, given, strict=True))
        assert_identical([np.asarray(a) for a in actual], expected)


@pytest.mark.parametrize("settings", SETTINGS)
def test_nothing_else_is_written(isa, dtype, rng, settings):
    lstm = LSTM(I, H, **settings, dtype=dtype, seed=0)
    x, h0, c0, *_ = draw_network(rng, lstm, T, B)
    for options in OPTIONS:
        y, hn, cn = (every_other(a.shape, dtype, 7) for a in flat(lstm(x, (h0, c0), **options)))
        lstm(x, (h0, c0), **options, out=(y, (hn, cn)))
        for array in (y, hn, cn):
            array.fill(7)
            assert (array.base == 7).all()


@pytest.mark.parametrize("call", TRAINING.values(), ids=TRAINING)
def test_any_part_may_be_none(dtype, rng, call):
    lstm = LSTM(I, H, 2, dtype=dtype, seed=0)
    x, h0, c0, *_ = draw_network(rng, lstm, T, B)
    expected = flat(call(lstm, x, (h0, c0)))
    for present in product([False, True], repeat=3):
        given = [np.empty_like(a) if p else None for a, p in zip(expected, present, strict=True)]
        state = (given[1], given[2])
        for out in [(given[0], state), [given[0], [*state]]]:
            actual = flat(call(lstm, x, (h0, c0), out=out))
            assert_identical(actual, expected)
            for a, g in zip(actual, given, strict=True):
                assert g is None or a is g
                assert a.base is None or g is not None
    given = np.empty_like(expected[0])
    for out in (None, (None, None), (given, None)):
        assert_identical(flat(call(lstm, x, (h0, c0), out=out)), expected)
    assert_identical([given], expected[:1])


@pytest.mark.parametrize("settings", SETTINGS)
def test_one_sequence_needs_no_batch_axis(isa, dtype, rng, settings):
    lstm = LSTM(I, H, **settings, dtype=dtype, seed=0)
    x, h0, c0, *_ = draw_network(rng, lstm, T, 1)
    x, h0, c0 = x.squeeze(0 if lstm.batch_first else 1), h0[:, 0], c0[:, 0]
    for options in ({}, {"lengths": [3], "padding": "hold"}):
        expected = flat(lstm(x, (h0, c0), **options))
        for layout in EMPTY.values():
            y, hn, cn = (layout(a.shape, dtype) for a in expected)
            actual = flat(lstm(x, (h0, c0), **options, out=(y, (hn, cn))))
            assert actual[0] is y and actual[1] is hn and actual[2] is cn
            assert_identical([np.asarray(a) for a in actual], expected)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize(("steps", "rows"), [(0, 3), (4, 0), (0, 0)])
def test_without_steps(dtype, rng, settings, steps, rows):
    lstm = LSTM(I, H, **settings, dtype=dtype, seed=0)
    x, h0, c0, *_ = draw_network(rng, lstm, steps, rows)
    expected = flat(lstm(x, (h0, c0)))
    given = [np.full_like(a, 7) for a in expected]
    assert flat(lstm(x, (h0, c0), out=(given[0], given[1:])))[0] is given[0]
    assert_identical(given, expected)


# Overlap


@pytest.mark.parametrize("call", TRAINING.values(), ids=TRAINING)
@pytest.mark.parametrize("settings", SETTINGS)
def test_the_state_in_place(isa, dtype, rng, settings, call):
    lstm = LSTM(I, H, **settings, dtype=dtype, seed=0)
    for options in OPTIONS:
        x, h0, c0, *_ = draw_network(rng, lstm, T, B)
        expected = flat(call(lstm, x, (h0, c0), **options))
        y, (hn, cn), *_ = call(lstm, x, (h0, c0), **options, out=(None, (h0, c0)))
        assert hn is h0 and cn is c0
        assert_identical([y, hn, cn], expected)


def overlapping(shapes, dtype, shift):
    """Return two arrays, the second of which begins `shift` elements after the first."""
    sizes = [int(np.prod(shape)) for shape in shapes]
    memory = np.empty(max(sizes) + abs(shift), dtype)
    first = max(0, -shift)
    starts = first, first + shift
    return (
        memory[s : s + n].reshape(shape) for s, n, shape in zip(starts, sizes, shapes, strict=True)
    )


@pytest.mark.parametrize("call", TRAINING.values(), ids=TRAINING)
@pytest.mark.parametrize("settings", SETTINGS)
def test_overlaps(isa, dtype, rng, settings, call):
    """Each result shares memory with each of x, h0 and c0, one or more elements on or back."""
    lstm = LSTM(I, H, **settings, dtype=dtype, seed=0)
    given = draw_network(rng, lstm, T, B)[:3]
    for options in OPTIONS:
        expected = flat(call(lstm, given[0], given[1:], **options))
        for (n, result), (m, array) in product(enumerate(expected), enumerate(given)):
            for shift in (0, 1, -1, I, -I, B * I, -B * I):
                of_result, of_array = overlapping([result.shape, array.shape], dtype, shift)
                now, out = [*given], [None] * 3
                now[m], out[n] = of_array, of_result
                of_array[...] = array
                actual = flat(call(lstm, now[0], now[1:], **options, out=(out[0], out[1:])))
                assert actual[n] is of_result
                assert_identical(actual, expected)


@pytest.mark.parametrize("settings", [{}, {"batch_first": True}, {"num_layers": 3}])
def test_y_in_place_of_a_flipped_x(isa, dtype, rng, settings):
    lstm = LSTM(I, H, **settings, dtype=dtype, seed=0)
    for axis in range(3):
        x, *_ = draw_network(rng, lstm, T, B)
        expected = lstm(x)[0]
        y = np.flip(x, axis)
        assert lstm(x, out=(y, None))[0] is y
        np.testing.assert_array_equal(y, expected, strict=True)


@pytest.mark.parametrize("checkpoint", [None, 1])
@pytest.mark.parametrize("settings", SETTINGS)
def test_backward_does_not_need_the_results(isa, dtype, rng, settings, checkpoint):
    lstm = LSTM(I, H, **settings, dtype=dtype, seed=0)
    x, h0, c0, *d_results = draw_network(rng, lstm, T, B)
    for options in OPTIONS:
        expected = backward_network(lstm, *d_results, lstm.forward(x, (h0, c0), **options)[2])
        now = copy.deepcopy([x, h0, c0])
        y = np.empty_like(d_results[0])
        options = options | {"checkpoint": checkpoint}
        *_, cache = lstm.forward(now[0], now[1:], **options, out=(y, now[1:]))
        for array in (*now, y):
            array.fill(np.nan)
        actual = backward_network(lstm, *d_results, cache)
        assert_identical(actual, expected)


# Arguments


SHAPES = [(T, B, H), (2, B, H), (2, B, H)]
# What may be wrong with one of the arrays.
BAD_ARRAYS = {
    "another precision": (lambda s: np.empty(s, np.float64), TypeError),
    "byte-swapped": (lambda s: np.empty(s, np.dtype(np.float32).newbyteorder()), TypeError),
    "integers": (lambda s: np.empty(s, np.int32), TypeError),
    "masked": (lambda s: np.ma.masked_array(np.ones(s, np.float32)), TypeError),
    "list": (lambda s: np.ones(s, np.float32).tolist(), TypeError),
    "number": (lambda s: 0.5, TypeError),
    "read-only": (lambda s: read_only(np.empty(s, np.float32)), ValueError),
    "zero strides": (lambda s: np.broadcast_to(np.float32(0), s), ValueError),
    "more rows": (lambda s: np.empty((s[0], s[1] + 1, s[2]), np.float32), ValueError),
    "one row": (lambda s: np.empty((s[0], 1, s[2]), np.float32), ValueError),
    "axes exchanged": (lambda s: np.empty(s[::-1], np.float32), ValueError),
    "no batch axis": (lambda s: np.empty((s[0], s[2]), np.float32), ValueError),
    "another axis": (lambda s: np.empty((1, *s), np.float32), ValueError),
    "flat": (lambda s: np.empty(int(np.prod(s)), np.float32), ValueError),
}
BAD_STRUCTURES = {
    "an array": (lambda y, hn, cn: y, TypeError),
    "a number": (lambda y, hn, cn: 1, TypeError),
    "an iterator": (lambda y, hn, cn: iter([y, (hn, cn)]), TypeError),
    "a flat tuple": (lambda y, hn, cn: (y, hn, cn), ValueError),
    "no state": (lambda y, hn, cn: (y,), ValueError),
    "nothing": (lambda y, hn, cn: (), ValueError),
    "half a state": (lambda y, hn, cn: (y, (hn,)), ValueError),
    "a stacked state": (lambda y, hn, cn: (y, np.stack([hn, cn])), TypeError),
}


def refused(call, error, name, options):
    """What is refused leaves the arrays of `out`, and the next masks of dropout, as they were."""
    lstm, x = LSTM(I, H, 2, dropout=0.5, seed=0), np.ones((T, B, I), np.float32)
    given = [np.full(shape, 7, np.float32) for shape in SHAPES]
    expected = copy.deepcopy(lstm).forward(x)[0]
    with pytest.raises(error, match=rf"^{name}\b"):
        call(lstm, **{"x": x, "out": (given[0], given[1:])} | options(*given))
    assert all((array == 7).all() for array in given)
    np.testing.assert_array_equal(lstm.forward(x)[0], expected)


@pytest.mark.parametrize("call", TRAINING.values(), ids=TRAINING)
@pytest.mark.parametrize("n", range(3), ids=["y", "hn", "cn"])
@pytest.mark.parametrize("kind", BAD_ARRAYS)
def test_a_wrong_array_is_refused(call, n, kind):
    make, error = BAD_ARRAYS[kind]

    def options(*given):
        y, hn, cn = (make(SHAPES[n]) if n == m else array for m, array in enumerate(given))
        return {"out": (y, (hn, cn))}

    refused(call, error, "out", options)
    refused(call, error, "out", lambda *given: options(*given) | {"lengths": LENGTHS})


@pytest.mark.parametrize("call", TRAINING.values(), ids=TRAINING)
@pytest.mark.parametrize("kind", BAD_STRUCTURES)
def test_a_wrong_structure_is_refused(call, kind):
    make, error = BAD_STRUCTURES[kind]
    refused(call, error, "out", lambda *given: {"out": make(*given)})


@pytest.mark.parametrize(
    ("call", "error", "name", "wrong"),
    [
        (LSTM.__call__, TypeError, "x", {"x": np.ones((T, B, I))}),
        (LSTM.__call__, ValueError, "x", {"x": np.ones((T, B, I + 1), np.float32)}),
        (LSTM.__call__, ValueError, "out", {"x": np.ones((T, B - 1, I), np.float32)}),
        (LSTM.__call__, ValueError, "h0", {"state": (np.ones((1, B, H), np.float32), None)}),
        (LSTM.forward, TypeError, "c0", {"state": (None, np.ones((2, B, H)))}),
        (LSTM.__call__, ValueError, "lengths", {"lengths": [1, 2]}),
        (LSTM.__call__, TypeError, "lengths", {"lengths": [1.0] * B}),
        (LSTM.forward, ValueError, "padding", {"padding": "same"}),
        (LSTM.forward, ValueError, "checkpoint", {"checkpoint": 0}),
    ],
    ids=lambda value: getattr(value, "__name__", re.sub(r"\s+", " ", str(value))[:30]),
)
def test_nothing_is_written_when_another_argument_is_wrong(call, error, name, wrong):
    refused(call, error, name, lambda *given: wrong)
