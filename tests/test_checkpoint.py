"""`LSTM.forward(..., checkpoint=k)`: the bits of all results and gradients, in less memory."""

import copy
import tracemalloc

import numpy as np
import pytest
from support.comparing import assert_identical
from support.internals import Cell, gradients_but_of_input
from support.internals import segments as engine_segments
from support.networks import (
    SETTINGS,
    assert_network_close,
    backward_network,
    draw_network,
    run_network,
)
from support.processes import run_python

import lstm_fast
from lstm_fast import LSTM

# T, B, I, H: backward cuts these in chunks, of at least 512 rows; the earliest is shorter. Of the
# first it has two bands of rows, if nothing is special.
MANY_ROWS, FEW_ROWS, ONE_ROW = (47, 61, 5, 35), (560, 2, 3, 36), (1000, 1, 2, 34)
# Segments of one chunk, of two, and all of it.
STEPS = [1, 10, 10**9]


def segments(size, steps, dtype, reverse, bands):
    """Return the first time and the one after the last of each segment."""
    T, B, I, H = size
    cell = Cell(np.zeros((4 * H, I), dtype), np.zeros((4 * H, H), dtype))
    return engine_segments(cell, T, B, None, reverse, steps, bands)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("size", [MANY_ROWS, FEW_ROWS, ONE_ROW, (3, 2, 1, 4), (1, 1, 1, 1)])
def test_segments_are_whole_chunks_of_at_least_k_steps(dtype, size, reverse):
    T = size[0]
    bands = 2 if size is MANY_ROWS else 1
    chunks = segments(size, 1, dtype, reverse, bands)
    assert len(chunks) >= 2 or T <= 3
    for steps in (1, 2, 10, 100, T, T + 1, 10**9):
        found = segments(size, steps, dtype, reverse, bands)
        in_time = found[::-1] if reverse else found
        bounds = [first for first, _ in in_time] + [T]
        assert [end for _, end in in_time] == bounds[1:] and bounds[0] == 0
        assert {*bounds} <= {0, T, *(first for first, _ in chunks), *(end for _, end in chunks)}
        # The first segment that runs may be shorter.
        assert all(end - first >= min(steps, T) for first, end in found[1:])


def masked(settings):
    """Return settings with dropout where there are layers for it."""
    return settings | {"dropout": 0.4} if settings.get("num_layers", 1) > 1 else settings


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("settings", SETTINGS)
def test_the_bits_are_the_same(isa, dtype, rng, settings, ragged):
    T, B, I, H = MANY_ROWS
    lstm = LSTM(I, H, **masked(settings), dtype=dtype, seed=0, matmul="packed")
    given = draw_network(rng, lstm, T, B)
    options = {"lengths": rng.integers(0, T, B, endpoint=True), "padding": "hold"} if ragged else {}
    expected = run_network(copy.deepcopy(lstm), *given, **options)  # a copy draws the same masks
    for steps in STEPS:
        actual = run_network(copy.deepcopy(lstm), *given, **options, checkpoint=steps)
        assert_identical(actual, expected)


@pytest.mark.parametrize("checkpoint", [None, 10])
@pytest.mark.parametrize("settings", [{}, {"num_layers": 2, "bidirectional": True}], ids=str)
def test_the_gradient_of_the_input_is_left_out(rng, settings, checkpoint):
    lstm = LSTM(5, 35, **settings, seed=0)
    x = rng.standard_normal((23, 61, 5)).astype(np.float32)
    y, _, cache = lstm.forward(x)
    _, (dh0, dc0), grads = lstm.backward(y, None, cache)
    _, _, cache = lstm.forward(x, checkpoint=checkpoint)
    dx, *found, of_parameters = gradients_but_of_input(lstm, y, cache)
    assert dx is None
    assert_identical(found, [dh0, dc0])
    assert_identical(of_parameters, grads)


@pytest.mark.parametrize("matmul", ["auto", "packed"])
@pytest.mark.parametrize("size", [FEW_ROWS, ONE_ROW, (3, 2, 1, 4), (1, 1, 1, 1)])
def test_the_bits_of_long_and_short_sequences_are_the_same(dtype, rng, threads, size, matmul):
    T, B, I, H = size
    lstm = LSTM(I, H, 2, bidirectional=True, dtype=dtype, seed=0, matmul=matmul)
    given = draw_network(rng, lstm, T, B)
    for lengths in (None, rng.integers(0, T, B, endpoint=True)):
        lstm_fast.set_num_threads(1)
        expected = run_network(lstm, *given, lengths=lengths)
        lstm_fast.set_num_threads(3)
        actual = run_network(lstm, *given, lengths=lengths, checkpoint=1)
        if matmul == "packed":
            assert_identical(actual, expected)
        assert_identical(run_network(lstm, *given, lengths=lengths), actual)


@pytest.mark.parametrize("settings", SETTINGS)
def test_with_blas_the_sums_are_the_same(dtype, rng, settings):
    """Its products depend on where forward is cut."""
    T, B, I, H = MANY_ROWS
    lstm = LSTM(I, H, **settings, dtype=dtype, seed=0, matmul="blas")
    given = draw_network(rng, lstm, T, B)
    assert_network_close(run_network(lstm, *given, checkpoint=1), run_network(lstm, *given), dtype)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize(("T", "B"), [(0, 3), (4, 0), (0, 0), (4, 3)])
def test_without_steps(dtype, rng, settings, T, B):
    lstm = LSTM(3, 5, **settings, dtype=dtype, seed=0, matmul="packed")
    given = draw_network(rng, lstm, T, B)
    assert_identical(run_network(lstm, *given, checkpoint=1), run_network(lstm, *given))
    options = {"lengths": np.zeros(B, int), "padding": "hold"}
    assert_identical(
        run_network(lstm, *given, checkpoint=1, **options), run_network(lstm, *given, **options)
    )


@pytest.mark.parametrize("settings", SETTINGS)
def test_absent_states_and_gradients_are_zero(dtype, rng, settings):
    T, B, I, H = MANY_ROWS
    lstm = LSTM(I, H, **settings, dtype=dtype, seed=0, matmul="packed")
    given = draw_network(rng, lstm, T, B)
    for absent in [(1,), (2,), (1, 2), (3,), (4,), (5,), (3, 4, 5)]:
        none = [None if n in absent else array for n, array in enumerate(given)]
        assert_identical(run_network(lstm, *none, checkpoint=1), run_network(lstm, *none))


def test_one_sequence_needs_no_batch_axis(dtype, rng):
    lstm = LSTM(3, 34, 2, bidirectional=True, dtype=dtype, seed=0, matmul="packed")
    x, h0, c0, dy, dhn, dcn = draw_network(rng, lstm, 1000, 1)
    flat = x[:, 0], h0[:, 0], c0[:, 0], dy[:, 0], dhn[:, 0], dcn[:, 0]
    assert_identical(run_network(lstm, *flat, checkpoint=7), run_network(lstm, *flat))


@pytest.mark.parametrize("settings", SETTINGS)
def test_gradients_belong_to_what_forward_saw(isa, dtype, rng, settings):
    T, B, I, H = MANY_ROWS
    lstm = LSTM(I, H, **masked(settings), dtype=dtype, seed=0, matmul="packed")
    x, h0, c0, *d_results = draw_network(rng, lstm, T, B)
    lengths = rng.integers(0, T, B, endpoint=True)
    y, (hn, cn), cache = lstm.forward(x, (h0, c0), lengths=lengths, checkpoint=1)
    expected = backward_network(lstm, *d_results, cache)
    lengths[:] = 1
    for array in (x, h0, c0, y, hn, cn):
        array.fill(np.nan)
    with lstm.writable() as p:
        for array in p.values():
            array.fill(np.nan)
    lstm.matmul, lstm.dropout = "blas", 0
    for _ in range(2):  # and the cache serves again, whatever becomes of its first results
        actual = backward_network(lstm, *d_results, cache)
        assert_identical(actual, expected)
        for array in actual.values():
            array.fill(np.nan)


@pytest.mark.parametrize("settings", SETTINGS)
def test_arguments_are_unchanged_and_no_results_share_memory(dtype, rng, settings):
    T, B, I, H = MANY_ROWS
    lstm = LSTM(I, H, **settings, dtype=dtype, seed=0)
    given = draw_network(rng, lstm, T, B)
    before = copy.deepcopy(given)
    arrays = [*given, *run_network(lstm, *given, checkpoint=1).values()]
    assert all(np.array_equal(a, b) for a, b in zip(given, before, strict=True))
    for k, array in enumerate(arrays):
        assert not any(np.shares_memory(array, other) for other in arrays[:k])


# Memory


@pytest.mark.parametrize("ragged", [False, True])
def test_the_cache_keeps_the_input_and_some_states(dtype, rng, ragged):
    """6 H numbers a step and row without it; with it, 2 H for each segment, and nothing hidden.

    And all of the last segment, until backward has used it.
    """
    T, B, I, H, L = 4000, 2, 3, 32, 3
    lstm, x = LSTM(I, H, L, dtype=dtype, seed=0), rng.standard_normal((T, B, I)).astype(dtype)
    lengths = np.array([T, T // 2]) if ragged else None
    rows = int(lengths.sum()) if ragged else T * B
    dy = lstm.forward(x)[0]  # packs the weights
    tracemalloc.start()
    for checkpoint in (None, 1, 1024):
        before = tracemalloc.get_traced_memory()[0]
        cache = lstm.forward(x, lengths=lengths, checkpoint=checkpoint)[2]
        traced = tracemalloc.get_traced_memory()[0] - before  # of NumPy's arrays and Python
        if checkpoint is None:
            numbers = rows * (6 * H * L + I)
            assert cache.nbytes == pytest.approx(numbers * dtype.itemsize, rel=0.01)
        else:
            steps = max(checkpoint, 512 // B)  # a chunk has 512 rows, or of 512 KiB
            states = 2 * H * L * B * (T // steps + 2)
            most = (rows * I + states) * dtype.itemsize
            assert cache.nbytes <= most + 6 * H * L * B * (steps + 512 // B) * dtype.itemsize
            lstm.backward(dy, None, cache)
            assert cache.nbytes <= most
            indices = 2 * 8 * T if ragged else 0
            packed = rows * I * dtype.itemsize if ragged else 0  # in memory of the engine
            assert cache.nbytes <= traced + packed < 1.2 * cache.nbytes + indices + 20_000
        del cache
    tracemalloc.stop()


PEAK = """
import lstm_fast, numpy as np
def peak():  # of resident memory, in bytes
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))

lstm_fast.set_num_threads(1)
lstm = lstm_fast.LSTM(2, 96, 3, seed=0)
x, dy = np.ones((300, 64, 2), "f"), np.ones((300, 64, 96), "f")
lstm.backward(dy[:9], None, lstm.forward(x[:9], checkpoint=1)[2])
before = peak()
_, _, cache = lstm.forward(x, checkpoint={checkpoint})
nbytes = cache.nbytes
lstm.backward(dy, None, cache)
print(peak() - before, nbytes)
"""


def test_the_process_needs_less_memory():
    """Backward included, which holds one segment at a time."""
    (plain, cache), (checkpointed, _) = (
        map(int, run_python(PEAK.replace("{checkpoint}", str(steps))).split())
        for steps in (None, 20)
    )
    assert plain > cache > 3 * 300 * 64 * 96 * 6 * 4
    assert checkpointed < plain / 3


# Arguments


@pytest.mark.parametrize(
    ("checkpoint", "error"),
    [(n, TypeError) for n in (1.0, True, np.True_, "1", [1], np.float32(2), np.array([1, 2]))]
    + [(n, ValueError) for n in (0, -1, np.int64(-3), -(10**30))],
)
def test_wrong_values_are_named(checkpoint, error):
    with pytest.raises(error, match=r"^checkpoint: expected "):
        LSTM(3, 5).forward(np.ones((4, 2, 3), np.float32), checkpoint=checkpoint)


@pytest.mark.parametrize("checkpoint", [np.int8(2), np.uint64(3), 10**30])
def test_integers_of_all_kinds_are_taken(rng, checkpoint):
    lstm = LSTM(3, 5, seed=0)
    given = draw_network(rng, lstm, 4, 2)
    assert_identical(run_network(lstm, *given, checkpoint=checkpoint), run_network(lstm, *given))
