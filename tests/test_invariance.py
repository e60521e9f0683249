"""With ``matmul="packed"`` the bits of a row depend on its own numbers and the weights alone.

Not on the batch that it is in, its position there, the threads, or how a sequence is cut.
"""

import numpy as np
import pytest
from support.comparing import assert_identical
from support.layers import SEVERAL_THREADS, STATES, draw_layer, lanes, run_layer, select_rows

import lstm_fast
from lstm_fast import LSTM, lstm_forward

BATCHES = range(1, 71)


def select(args, d_results, chosen):
    """Return arguments and gradients of some rows of a batch."""
    dy, dhn, dcn = d_results
    return args | select_rows(args, chosen), [dy[:, chosen], dhn[chosen], dcn[chosen]]


@pytest.fixture(params=[False, True], ids=["plain", "projected"])
def batch(request, isa, dtype, rng):
    """Return arguments for 70 rows, and the results and gradients of the rows."""
    n = lanes(isa, dtype)
    P = n + 2 if request.param else 0
    args, d_results = draw_layer(rng, 3, BATCHES[-1], n + 1, 2 * n + 3, P, dtype=dtype)
    return args, d_results, of_rows(args, d_results)


def of_rows(args, d_results):
    """Return what `run_layer` returns but for the gradients of the weights."""
    return select_rows(
        run_layer(lstm_fast, args, d_results, matmul="packed"), np.arange(args["x"].shape[1])
    )


def test_a_row_alone(batch):
    args, d_results, expected = batch
    for k in range(BATCHES[-1]):
        assert_identical(of_rows(*select(args, d_results, [k])), select_rows(expected, [k]))


def test_batches_of_every_size(batch):
    args, d_results, expected = batch
    for B in BATCHES:
        first = np.arange(B)
        assert_identical(of_rows(*select(args, d_results, first)), select_rows(expected, first))


def test_position_in_the_batch(batch, rng):
    args, d_results, expected = batch
    for order in (rng.permutation(70), rng.permutation(70)[:37], np.roll(np.arange(70), 1)):
        assert_identical(of_rows(*select(args, d_results, order)), select_rows(expected, order))


@pytest.mark.parametrize("I", [1152, 1153])
def test_large_gradients_of_few_rows(isa, dtype, rng, threads, I):
    """One thread writes them past the caches if they have whole vectors, two do not."""
    args, d_results = draw_layer(rng, 3, 2, I, 120, dtype=dtype)
    lstm_fast.set_num_threads(1)
    expected = run_layer(lstm_fast, args, d_results, matmul="packed")
    lstm_fast.set_num_threads(2)
    assert_identical(run_layer(lstm_fast, args, d_results, matmul="packed"), expected)


def test_gates_of_many_rows(isa, dtype, rng, threads):
    """They are written past the caches, here by two threads, and those of half the rows are not."""
    args, d_results = draw_layer(rng, 22, 64, 3, 512, 0, dtype=dtype)
    lstm_fast.set_num_threads(2)
    expected = of_rows(args, d_results)
    half = np.arange(1, 64, 2)
    assert_identical(of_rows(*select(args, d_results, half)), select_rows(expected, half))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("sizes", SEVERAL_THREADS)
def test_threads(isa, dtype, rng, threads, sizes, reverse):
    """Gradients of the weights included."""
    args, d_results = draw_layer(rng, *sizes, dtype=dtype)
    lstm_fast.set_num_threads(1)
    expected = run_layer(lstm_fast, args, d_results, matmul="packed", reverse=reverse)
    for n in (2, 3, 4):
        lstm_fast.set_num_threads(n)
        actual = run_layer(lstm_fast, args, d_results, matmul="packed", reverse=reverse)
        assert_identical(actual, expected)


@pytest.mark.parametrize("matmul", ["auto", "blas"])
@pytest.mark.parametrize("sizes", SEVERAL_THREADS)
def test_the_same_call_again(isa, dtype, rng, threads, sizes, matmul):
    """With BLAS too: nothing depends on which thread is faster."""
    lstm_fast.set_num_threads(3)
    args, d_results = draw_layer(rng, *sizes, dtype=dtype)
    expected = run_layer(lstm_fast, args, d_results, matmul=matmul)
    for _ in range(5):
        assert_identical(run_layer(lstm_fast, args, d_results, matmul=matmul), expected)


@pytest.mark.parametrize("P", [0, 5])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [1, 7])
@pytest.mark.parametrize("B", [1, 16])
def test_a_sequence_in_parts(isa, dtype, rng, B, length, reverse, P):
    """The state passed on. With 16 rows the whole sequence exceeds the engine's own chunks."""
    T = 40
    args, _ = draw_layer(rng, T, B, 9, 150, P, dtype=dtype)
    x, state = args.pop("x"), (args.pop("h0"), args.pop("c0"))
    expected = lstm_forward(x, **args, h0=state[0], c0=state[1], reverse=reverse, matmul="packed")
    y = np.empty_like(expected[0])
    cuts = [slice(t, t + length) for t in range(0, T, length)]
    for cut in reversed(cuts) if reverse else cuts:
        y[cut], state, _ = lstm_forward(
            x[cut], **args, h0=state[0], c0=state[1], reverse=reverse, matmul="packed"
        )
    actual = dict(zip(STATES, (y, *state), strict=True))
    assert_identical(actual, dict(zip(STATES, (expected[0], *expected[1]), strict=True)))


@pytest.mark.parametrize("matmul", ["auto", "packed", "blas"])
def test_training_gives_the_bits_of_inference(isa, dtype, rng, matmul):
    for sizes in (*SEVERAL_THREADS, (3, 7, 2, 11, 0), (3, 7, 2, 11, 4)):
        args, _ = draw_layer(rng, *sizes, dtype=dtype)
        y, state, cache = lstm_forward(**args, matmul=matmul, training=True)
        y_plain, state_plain, nothing = lstm_forward(**args, matmul=matmul, training=False)
        assert cache is not None
        assert nothing is None
        for actual, expected in zip((y, *state), (y_plain, *state_plain), strict=True):
            np.testing.assert_array_equal(actual, expected, strict=True)


@pytest.mark.parametrize("matmul", ["auto", "packed"])
@pytest.mark.parametrize("settings", [{}, {"num_layers": 2, "proj_size": 5}, {"bias": False}])
@pytest.mark.parametrize("B", [1, 5])
def test_stream_steps_have_the_bits_of_the_sequence(isa, dtype, rng, B, settings, matmul):
    lstm = LSTM(9, 2 * lanes(isa, dtype) + 3, **settings, dtype=dtype, matmul=matmul, seed=0)
    x = rng.standard_normal((40, B, 9)).astype(dtype)
    y, (hn, cn) = lstm(x)
    stream = lstm.stream(B)
    for t, x_t in enumerate(x):
        np.testing.assert_array_equal(stream.step(x_t), y[t], strict=True)
    np.testing.assert_array_equal(stream.state[0], hn, strict=True)
    np.testing.assert_array_equal(stream.state[1], cn, strict=True)
