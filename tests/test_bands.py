"""Backward of a batch in two bands of rows: sums of their own, and the same bits on any threads."""

import numpy as np
import pytest
from support.comparing import assert_identical
from support.internals import Cell, Ragged, bands_of, calls, hold
from support.networks import (
    assert_network_close,
    by_cell,
    draw_network,
    reference_network,
    run_network,
)

import lstm_fast
from lstm_fast import LSTM

SETTINGS = [
    {},
    {"num_layers": 3, "batch_first": True},
    {"bidirectional": True, "bias": False},
    {"reverse": True, "proj_size": 9},
    {"num_layers": 2, "bidirectional": True, "proj_size": 12},
]
# T, B, I, H: an odd number of rows; chunks of time, a few in float64
SIZE = 150, 11, 13, 41


def lengths(rng, T, B, ragged):
    """Return nothing, or lengths with one of T, some short ones and one of 0."""
    if not ragged:
        return {}
    found = rng.integers(1, T, B)
    found[[1, 3, 5]] = T, 0, 1
    return {"lengths": found}


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_as_the_reference(isa, dtype, rng, threads, settings, ragged):
    T, B, I, H = SIZE
    lstm_fast.set_num_threads(2)
    lstm = LSTM(I, H, **settings, dtype=dtype, seed=0)
    given = draw_network(rng, lstm, T, B)
    options = lengths(rng, T, B, ragged)
    actual = by_cell(run_network(lstm, *given, **options))
    assert_network_close(actual, reference_network(lstm, *given, **options), dtype)


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_bits_do_not_depend_on_threads(isa, dtype, rng, adaptive, settings, ragged):
    """In teams of several sizes, in pieces, and where a sequence is cut and run again."""
    T, B, I, H = SIZE
    lstm = LSTM(I, H, **settings, dtype=dtype, seed=0)
    given = draw_network(rng, lstm, T, B)
    options = lengths(rng, T, B, ragged)
    lstm_fast.set_num_threads(1)
    expected = run_network(lstm, *given, **options)
    assert_identical(run_network(lstm, *given, **options, checkpoint=1), expected)
    for n in (2, 3, 4, 6, 7):
        lstm_fast.set_num_threads(n)
        hold(n, n)
        assert_identical(run_network(lstm, *given, **options), expected)
    for n in (2, 5):
        lstm_fast.set_num_threads(n)
        hold(1, n)
        _, before = calls()
        assert_identical(run_network(lstm, *given, **options), expected)
        assert calls()[1] > before


def cell_of(I, H, P=0, dtype=np.float32, **options):
    arrays = [np.zeros(shape, dtype) for shape in ((4 * H, I), (4 * H, P or H), (4 * H,), (4 * H,))]
    return Cell(*arrays, np.zeros((P, H), dtype) if P else None, **options)


def test_which_batches_have_bands():
    """It is asked of the batch and of each cell alone, so that it holds for a part of them, too."""
    cell = cell_of(20, 64)
    assert bands_of([cell], 100, 8, None, True) == [0, 4, 8]
    assert bands_of([cell], 100, 9, None, True) == [0, 4, 9]
    assert bands_of([cell, cell], 100, 8, None, True) == [0, 4, 8]
    assert bands_of([cell_of(20, 64, 12)], 200, 8, None, True) == [0, 4, 8]
    assert bands_of([cell], 100, 7, None, True) == [0, 7]  # few rows
    assert bands_of([cell], 10, 8, None, True) == [0, 8]  # little work
    assert bands_of([cell], 0, 8, None, True) == [0, 8]
    assert bands_of([cell], 100, 8, None, False) == [0, 8]
    assert bands_of([cell_of(20, 512)], 100, 8, None, True) == [0, 8]  # large weights
    assert bands_of([cell, cell_of(64, 512)], 100, 8, None, True) == [0, 8]
    assert bands_of([cell_of(20, 64, bfloat16=True)], 100, 8, None, True) == [0, 8]
    ragged = Ragged(np.array([100, 100, 100, 100, 50, 50, 40, 30, 20, 0]))
    assert bands_of([cell], 100, 10, ragged, True) == [0, 3, 10]  # about as many steps in each
    assert bands_of([cell], 100, 10, Ragged(np.zeros(10, np.intp)), True) == [0, 10]
