"""`matmul="blas"` in several Python threads at once: the weights that BLAS reads, and the bits."""

import pytest
from support.processes import run_python

pytestmark = pytest.mark.no_isa

PREAMBLE = """
import copy, signal, threading, time
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from lstm_fast import LSTM

signal.alarm(60)  # ends an interpreter that hangs

def train(lstm, x):
    y, state, cache = lstm.forward(x)
    dx, dstate, grads = lstm.backward(y, state, cache)
    return [y, *state, dx, *dstate, *grads.values()]

def in_threads(count, function):
    with ThreadPoolExecutor(count) as pool:
        return [*pool.map(function, range(count))]
"""


def test_threads_share_the_weights_that_backward_needs():
    """They are copied once, by whichever call is first, and live as long as a call reads them.

    Many threads begin shortly after one another; memory that is freed is written to at once. In an
    interpreter of its own, which may crash.
    """
    code = """
I, H, threads = 3000, 300, 16
lstm, x = LSTM(I, H, seed=0, matmul="blas"), np.ones((1, 1, I), np.float32)
expected = copy.deepcopy(lstm).forward(x)[0]
for n in range(15):
    shared, start = copy.deepcopy(lstm), threading.Barrier(threads)
    shared(x)

    def forward(n):
        start.wait()
        time.sleep(0.001 * n)
        y = shared.forward(x)[0]
        np.full((4 * H, I), np.nan, np.float32)
        return y

    for y in in_threads(threads, forward):
        np.testing.assert_allclose(y, expected, atol=1e-4)
"""
    run_python(PREAMBLE + code, OPENBLAS_NUM_THREADS="1")


@pytest.mark.parametrize("first", ["main", "another"])
def test_bits_do_not_depend_on_the_python_thread(first):
    """Nor on others beside it: BLAS works for each with one thread, that of the call."""
    code = f"""
I, H = 1000, 200
lstm, small = LSTM(I, H, seed=0, matmul="blas"), LSTM(24, 64, seed=0, matmul="blas")
x = np.random.default_rng(0).standard_normal((2, 4, I), np.float32)

def results(_=None):
    return [lstm.forward(x)[0], *train(small, x[..., :24])]

expected = results() if {first == "main"} else in_threads(1, results)[0]
found = [results(), *in_threads(1, results), *in_threads(3, results), results()]
for n, one in enumerate(found):
    for a, e in zip(one, expected):
        assert np.array_equal(a, e), (n, abs(a - e).max())
"""
    run_python(PREAMBLE + code)
