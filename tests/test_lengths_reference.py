"""Ragged batches in `lstm_fast.reference`: central differences, and what padding means."""

import numpy as np
import pytest
from support.comparing import assert_close, assert_identical
from support.differences import assert_gradient, weighted_sum
from support.layers import backward_layer, draw_layer, run_layer, select_rows
from support.ragged import LENGTHS, padding_of

from lstm_fast import reference

pytestmark = pytest.mark.no_isa

FLOAT64 = np.dtype(float)


@pytest.mark.parametrize("padding", ["zero", "hold"])
@pytest.mark.parametrize("P", [0, 2])
@pytest.mark.parametrize("reverse", [False, True])
def test_gradients_are_central_differences(rng, reverse, P, padding):
    args, d_results = draw_layer(rng, 4, 5, 2, 3, P, dtype=FLOAT64)
    options = {"reverse": reverse, "lengths": [2, 0, 4, 1, 3], "padding": padding}
    gradients = run_layer(reference, args, d_results, **options)

    def loss():
        y, state, _ = reference.lstm_forward(**args, **options)
        return weighted_sum((y, *state), d_results)

    for name, array in args.items():
        assert_gradient(gradients[f"d{name}"], loss, array, tolerance=2e-9, where=name)


# What lengths and padding mean


@pytest.mark.parametrize("P", [0, 2])
@pytest.mark.parametrize("reverse", [False, True])
def test_a_row_alone(rng, dtype, reverse, P):
    lengths = [3, 0, 5, 1, 3]
    args, (dy, dhn, dcn) = draw_layer(rng, 5, len(lengths), 4, 6, P, dtype=dtype)
    actual = run_layer(reference, args, (dy, dhn, dcn), reverse=reverse, lengths=lengths)
    sums = {name: 0 for name in actual if name.startswith(("dw_", "db_"))}
    for b, length in enumerate(lengths):
        alone = args | select_rows(args, [b])
        alone["x"] = alone["x"][:length]
        d_alone = dy[:length, [b]], dhn[[b]], dcn[[b]]
        expected = run_layer(reference, alone, d_alone, reverse=reverse)
        of_row = select_rows(actual, [b])
        for name in ("y", "dx"):
            assert not of_row[name][length:].any()
            of_row[name] = of_row[name][:length]
        assert_close(of_row, select_rows(expected, [0]), 30 * np.finfo(dtype).eps, where=f"row {b}")
        sums = {name: total + expected[name] for name, total in sums.items()}
    assert_close({name: actual[name] for name in sums}, sums, 30 * np.finfo(dtype).eps)


@pytest.mark.parametrize("reverse", [False, True])
def test_hold_repeats_the_last_output_and_sums_its_gradients(rng, dtype, reverse):
    T, lengths = 5, [3, 0, 5, 1]
    args, (dy, dhn, dcn) = draw_layer(rng, T, len(lengths), 4, 6, dtype=dtype)
    options = {"reverse": reverse, "lengths": lengths}
    zero = run_layer(reference, args, (dy, dhn, dcn), **options)
    held, summed = zero["y"].copy(), dy.copy()
    for b, n in enumerate(lengths):
        if n > 0:
            held[n:, b] = zero["y"][n - 1, b]
            for t in reversed(range(n, T)):
                summed[t - 1, b] += summed[t, b]
    expected = run_layer(reference, args, (summed, dhn, dcn), **options) | {"y": held}
    actual = run_layer(reference, args, (dy, dhn, dcn), **options, padding="hold")
    assert_identical(actual, expected)


@pytest.mark.parametrize("padding", ["zero", "hold"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("reverse", [False, True])
def test_what_is_in_the_padding_is_not_read(rng, dtype, reverse, bad, padding):
    lengths = np.array([3, 0, 5, 1])
    args, d_results = draw_layer(rng, 5, 4, 4, 6, 2, dtype=dtype)
    options = {"reverse": reverse, "lengths": lengths, "padding": padding}
    expected = run_layer(reference, args, d_results, **options)
    after = padding_of(lengths, 5)
    args["x"][after] = bad
    if padding == "zero":
        d_results[0][after] = bad
    with np.errstate(all="raise"):
        actual = run_layer(reference, args, d_results, **options)
    assert_identical(actual, expected)
    assert not actual["dx"][after].any()


@pytest.mark.parametrize("reverse", [False, True])
def test_the_state_of_a_row_without_steps_is_not_read(rng, dtype, reverse):
    args, d_results = draw_layer(rng, 4, 3, 4, 6, 2, dtype=dtype)
    options = {"reverse": reverse, "lengths": [4, 0, 2]}
    expected = run_layer(reference, args, d_results, **options)
    for array in (args["h0"], args["c0"], *d_results[1:]):
        array[1] = np.nan
    actual = run_layer(reference, args, d_results, **options)
    for name in ("hn", "cn", "dh0", "dc0"):
        assert np.isnan(actual[name][1]).all()
        actual[name][1] = expected[name][1]
    assert_identical(actual, expected)


@pytest.mark.parametrize("padding", ["zero", "hold"])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("absent", [True, False])
def test_equal_lengths_are_no_lengths(rng, dtype, absent, reverse, padding):
    args, d_results = draw_layer(rng, 4, 3, 5, 6, 2, dtype=dtype)
    lengths = None if absent else [4, 4, 4]
    actual = run_layer(
        reference, args, d_results, reverse=reverse, lengths=lengths, padding=padding
    )
    assert_identical(actual, run_layer(reference, args, d_results, reverse=reverse))


@pytest.mark.parametrize("kind", LENGTHS)
def test_later_writes_do_not_reach_backward(rng, kind):
    lengths = LENGTHS[kind](rng, 5, 4)
    args, d_results = draw_layer(rng, 5, 4, 3, 6, dtype=FLOAT64)
    expected = run_layer(reference, args, d_results, lengths=lengths, padding="hold")
    y, (hn, cn), cache = reference.lstm_forward(**args, lengths=lengths, padding="hold")
    lengths[:] = 1
    for array in (*args.values(), y, hn, cn):
        array.fill(np.nan)
    for _ in range(2):
        actual = backward_layer(reference, d_results, cache)
        assert_identical(actual, {name: expected[name] for name in actual})
        for array in actual.values():
            array.fill(np.nan)


# Errors


@pytest.mark.parametrize(
    ("lengths", "error"),
    [
        ([1.0, 2.0, 3.0], TypeError),
        (np.ones(3), TypeError),
        (np.ones(3, bool), TypeError),
        (np.ma.masked_array([1, 2, 3], [0, 1, 0]), TypeError),
        (["1", "2", "3"], TypeError),
        ([1, 2], ValueError),
        ([], ValueError),
        ([[1, 2, 3]], ValueError),
        ([-1, 2, 3], ValueError),
        ([1, 5, 3], ValueError),
        (np.array([1, 2**64 - 1, 3], np.uint64), ValueError),
    ],
)
def test_wrong_lengths_are_named(rng, lengths, error):
    args, _ = draw_layer(rng, 4, 3, 5, 6, dtype=FLOAT64)
    with pytest.raises(error, match=r"^lengths must "):
        reference.lstm_forward(**args, lengths=lengths)


@pytest.mark.parametrize("lengths", [None, [4, 0, 2]])
@pytest.mark.parametrize("padding", ["", "Zero", "same", None, 0])
def test_an_unknown_padding_is_named(rng, padding, lengths):
    args, _ = draw_layer(rng, 4, 3, 5, 6, dtype=FLOAT64)
    with pytest.raises(ValueError, match=r"^padding must "):
        reference.lstm_forward(**args, lengths=lengths, padding=padding)
