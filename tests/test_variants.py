"""Variants of the cell: the engine against the reference on every ISA; invariance of bits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.comparing import assert_identical, in_dtype
from support.layers import lanes, run_layer, select_rows
from support.options import (
    FUNCTIONS,
    MANY,
    OPTIONS,
    assert_options_close,
    chosen,
    draw_function,
    draw_with_options,
)

import lstm_fast
from lstm_fast import reference


def sizes_around(n):
    """Return T, B, I and H for vectors of n elements."""
    return [(4, 1, 3, n), (3, 5, n + 1, 4 * n + 1), (5, 8, 4 * n, 6), (4, 2, 5, 9 * n + 2)]


def check(args, d_results, on, **options):
    """Compare results and gradients with those of the reference in float64."""
    exact = run_layer(reference, in_dtype(args, float), in_dtype(d_results, float))
    actual = run_layer(lstm_fast, args, d_results, **options)
    assert_options_close(actual, exact, on, args["x"].dtype)


@pytest.mark.parametrize("option", OPTIONS)
def test_each_option(isa, dtype, rng, option):
    for sizes in sizes_around(lanes(isa, dtype)):
        args, d_results = draw_with_options(rng, {option}, *sizes, dtype)
        check(args, d_results, {option})


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("function", FUNCTIONS)
def test_each_function_in_each_place(isa, dtype, rng, function, place):
    for sizes in sizes_around(lanes(isa, dtype)):
        args, d_results = draw_with_options(rng, {"activations"}, *sizes, dtype)
        args["activations"] = ["Sigmoid", "Tanh", "Tanh"]
        args["activations"][place] = draw_function(rng, function)
        check(args, d_results, {"activations"})


@MANY
@given(
    on=chosen,
    T=st.integers(0, 5),
    B=st.integers(0, 9),
    I=st.integers(4, 9),
    H=st.sampled_from([2, 3, 7, 8, 9, 16, 17, 33, 70]),
    seed=st.integers(0, 2**32 - 1),
    blas=st.booleans(),
)
def test_combinations(isa, dtype, on, T, B, I, H, seed, blas):
    args, d_results = draw_with_options(np.random.default_rng(seed), on, T, B, I, H, dtype)
    check(args, d_results, on, matmul="blas" if blas else "packed")


@pytest.mark.parametrize("T, B, I, H", [(12, 1, 30, 210), (30, 45, 70, 3), (10, 12, 40, 66)])
@pytest.mark.parametrize("option", OPTIONS)
def test_bits_do_not_depend_on_threads(isa, dtype, rng, threads, option, T, B, I, H):
    args, d_results = draw_with_options(rng, {option, "peephole"}, T, B, I, H, dtype)
    lstm_fast.set_num_threads(1)
    one = run_layer(lstm_fast, args, d_results)
    for n in (2, 3):
        lstm_fast.set_num_threads(n)
        assert_identical(run_layer(lstm_fast, args, d_results), one)


@pytest.mark.parametrize("option", sorted({*OPTIONS} - {"lengths", "mask", "hold"}))
def test_bits_of_a_row_do_not_depend_on_the_batch(isa, dtype, rng, option):
    args, d_results = draw_with_options(rng, {option, "lengths"}, 6, 9, 4, 19, dtype)
    whole = run_layer(lstm_fast, args, d_results)
    chosen_rows = [7, 2]
    part = args | select_rows(args, chosen_rows) | {"lengths": args["lengths"][chosen_rows]}
    if option == "recurrent_mask":
        part["recurrent_mask"] = args["recurrent_mask"][chosen_rows]
    if option == "zoneout":
        part["zoneout"] = tuple(z[:, chosen_rows] if np.ndim(z) else z for z in args["zoneout"])
    d_part = [d_results[0][:, chosen_rows], *(d[chosen_rows] for d in d_results[1:])]
    actual = run_layer(lstm_fast, part, d_part)
    expected = select_rows(whole, chosen_rows)
    assert_identical({name: actual[name] for name in expected}, expected)


@pytest.mark.parametrize("option", sorted({*OPTIONS} - {"lengths", "mask"}))
@pytest.mark.parametrize("hidden", ["lengths", "mask"])
def test_nan_where_no_row_runs_changes_no_bit(isa, dtype, rng, option, hidden):
    T, B = 6, 5
    args, d_results = draw_with_options(rng, {option, hidden}, T, B, 4, 19, dtype)
    valid = np.arange(T)[:, None] < args["lengths"] if hidden == "lengths" else args["mask"].T
    assert 0 < valid.sum() < T * B
    expected = run_layer(lstm_fast, args, d_results)
    args["x"][~valid] = np.nan
    if option != "hold":
        d_results[0][~valid] = np.nan
    if option == "zoneout":
        for z in args["zoneout"]:
            if np.ndim(z):
                z[~valid] = np.nan
    assert_identical(run_layer(lstm_fast, args, d_results), expected)


@pytest.mark.parametrize("option", sorted({*OPTIONS} - {"lengths", "mask", "hold"}))
def test_a_mask_is_the_sequence_without_the_masked_steps(isa, dtype, rng, option):
    T, H = 7, 19
    args, d_results = draw_with_options(rng, {option}, T, 1, 4, H, dtype)
    mask = np.array([[False, True, True, False, True, False, True]])
    masked = run_layer(lstm_fast, args | {"mask": mask}, d_results)
    short = args | {"x": args["x"][mask[0]]}
    if option == "zoneout":
        short["zoneout"] = tuple(z[mask[0]] if np.ndim(z) else z for z in args["zoneout"])
    expected = run_layer(lstm_fast, short, [d_results[0][mask[0]], *d_results[1:]])
    for name in ("y", "dx"):
        assert not masked[name][~mask[0]].any()
        masked[name] = masked[name][mask[0]]
    assert_identical(masked, expected)


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("function", FUNCTIONS)
def test_nan_comes_through_and_stays_in_its_row(isa, dtype, rng, function, place):
    args, d_results = draw_with_options(rng, {"clip", "cell_clip"}, 3, 4, 5, 19, dtype)
    args["activations"] = ["Sigmoid", "Tanh", "Tanh"]
    args["activations"][place] = function
    expected = run_layer(lstm_fast, args, d_results)
    for nan in (np.nan, -np.nan):
        args["x"][1, 2] = nan
        actual = run_layer(lstm_fast, args, d_results)
        assert np.isnan(actual["y"][1:, 2]).all()
        others = select_rows(actual, [0, 1, 3])
        assert_identical(
            others, {k: v for k, v in select_rows(expected, [0, 1, 3]).items() if k in others}
        )


def test_a_plain_cell_and_a_variant_that_changes_nothing(isa, dtype, rng):
    args, d_results = draw_with_options(rng, set(), 5, 4, 6, 35, dtype)
    plain = run_layer(lstm_fast, args, d_results)
    for option in ({"clip": 1e30}, {"cell_clip": 1e30}, {"zoneout": (0.0, 0.0)}):
        actual = run_layer(lstm_fast, args | option, d_results)
        assert_options_close(actual, plain, option, dtype)


@pytest.mark.parametrize(
    ("option", "error", "words"),
    [
        ({"clip": 0}, ValueError, "clip"),
        ({"clip": -1.0}, ValueError, "clip"),
        ({"clip": float("nan")}, ValueError, "clip"),
        ({"clip": "1"}, TypeError, "clip"),
        ({"cell_clip": True}, TypeError, "cell_clip"),
        ({"coupled": 1}, TypeError, "coupled"),
        ({"activations": "Tanh"}, TypeError, "activations"),
        ({"activations": ("Tanh", "Tanh")}, ValueError, "activations"),
        ({"activations": ("Sigmoid", "tanh", "Tanh")}, ValueError, r"activations\[1\].*Tanh"),
        ({"activations": ("Sigmoid", "Tanh", ("Tanh", 1.0))}, ValueError, r"activations\[2\]"),
        ({"activations": (("Elu", 1.0, 2.0), "Tanh", "Tanh")}, ValueError, "Elu takes 1"),
        ({"activations": (("Elu", "1"), "Tanh", "Tanh")}, TypeError, r"activations\[0\]"),
        ({"zoneout": 0.5}, TypeError, "zoneout"),
        ({"zoneout": (0.5, 1.5)}, ValueError, r"zoneout\[1\]"),
        ({"zoneout": (np.zeros((2, 2, 2), np.float32), 0.0)}, ValueError, r"zoneout\[0\]"),
        ({"recurrent_mask": np.zeros((3, 3), np.float32)}, ValueError, "recurrent_mask"),
        ({"w_ch": np.zeros(4, np.float32)}, ValueError, "w_ch"),
        ({"w_ch": np.zeros(15)}, TypeError, "w_ch"),
        ({"w_ln_c": np.zeros(5, np.float32)}, ValueError, "w_ln_ih"),
        ({"b_ln_c": np.zeros(5, np.float32)}, ValueError, "w_ln_ih"),
        ({"w_ln": np.zeros(5, np.float32)}, ValueError, r"w_ln: expected shape .*4 H"),
        ({"w_ln": np.zeros(20)}, TypeError, "w_ln"),
        ({"mask": np.ones((3, 4))}, TypeError, "mask"),
        ({"mask": [[True] * 4] * 3}, TypeError, "mask"),
        ({"mask": np.ones((4, 3), bool)}, ValueError, r"mask.*\(B, T\)"),
    ],
)
def test_a_wrong_option_is_named(rng, option, error, words):
    args, _ = draw_with_options(rng, set(), 4, 3, 2, 5, np.dtype("float32"))
    with pytest.raises(error, match=words):
        lstm_fast.lstm_forward(**args, **option)


def test_zoneout_and_a_projection_do_not_go_together(rng):
    args, _ = draw_with_options(rng, {"projection"}, 4, 3, 2, 5, np.dtype("float32"))
    with pytest.raises(ValueError, match=r"zoneout and w_hr: .*P elements"):
        lstm_fast.lstm_forward(**args, zoneout=(0.1, 0.1))
