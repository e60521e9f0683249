"""Threads, OpenMP's and Python's; forks and signals."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from support.comparing import assert_identical
from support.internals import openmp
from support.layers import SEVERAL_THREADS
from support.processes import run_python
from threadpoolctl import ThreadpoolController, threadpool_limits

import lstm_fast
from lstm_fast import LSTM

pytestmark = pytest.mark.no_isa

needs_openmp = pytest.mark.skipif(not openmp()["version"], reason="built without OpenMP")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
# For new interpreters: work for two threads, forward and backward, its result, and OS threads.
PREAMBLE = """
import multiprocessing, os, signal, sys
import numpy as np
import lstm_fast
from lstm_fast import LSTM, get_num_threads, set_num_threads, show_config
from threadpoolctl import threadpool_limits

lstm = LSTM(64, 128, seed=0, matmul="packed")
x = np.random.default_rng(1).standard_normal((20, 64, 64), np.float32)

def train(_=None):
    y, _, cache = lstm.forward(x)
    dx, _, grads = lstm.backward(np.ones_like(y), None, cache)
    return b"".join(a.tobytes() for a in [y, dx, *grads.values()])

def os_threads():
    return len(os.listdir("/proc/self/task"))

def new_threads():
    before = os_threads()
    train()
    return os_threads() - before
"""


def words_of(code: str, **environment: str) -> list[str]:
    """Return the words that the code prints after the preamble, in a new interpreter."""
    return run_python(PREAMBLE + code, **environment).split()


def blas_threads(controller: ThreadpoolController | None = None) -> list[int]:
    libraries = (controller or ThreadpoolController()).info()
    return [library["num_threads"] for library in libraries if library["user_api"] == "blas"]


# ---- how many


@pytest.mark.parametrize("n", [True, False, np.True_, 1.5, 2.0, "2", [2], np.float32(2)])
def test_set_num_threads_wants_an_integer(n):
    before = lstm_fast.get_num_threads()
    with pytest.raises(TypeError, match=f"n: expected an integer, got {type(n).__name__}"):
        lstm_fast.set_num_threads(n)
    assert lstm_fast.get_num_threads() == before


@pytest.mark.parametrize("n", [0, -1, 1025, 2**31 + 1, 2**32 + 1, 10**30])
def test_set_num_threads_wants_1_to_1024(n):
    before = lstm_fast.get_num_threads()
    with pytest.raises(ValueError, match=f"n: expected 1 to 1024 threads, got {n}"):
        lstm_fast.set_num_threads(n)
    assert lstm_fast.get_num_threads() == before


@needs_openmp
@pytest.mark.parametrize("n", [1, 3, 1024, np.int64(2)])
def test_set_num_threads(threads, n):
    lstm_fast.set_num_threads(n)
    assert lstm_fast.get_num_threads() == n
    assert type(lstm_fast.get_num_threads()) is int
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lstm_fast.get_num_threads).result() == n


@needs_openmp
@pytest.mark.parametrize("n", [None, "3"])
def test_none_is_the_number_of_the_start_again(n):
    code = """
before = get_num_threads()
for n in (1, before + 1):
    set_num_threads(n)
    assert get_num_threads() == n
    set_num_threads(None)
    assert get_num_threads() == before
print(before)
"""
    (before,) = words_of(code, OMP_NUM_THREADS=n)
    assert n in (None, before)


@needs_openmp
@needs_fork
@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="counts threads in Linux's /proc")
def test_the_sizes_that_tests_take_for_several_threads_use_them():
    """Forward and backward each start all of them, in a child that has none yet."""
    code = """
import time
from itertools import product
from support.layers import SEVERAL_THREADS, draw_layer

for sizes, dtype in product(SEVERAL_THREADS, (np.float32, np.float64)):
    args, d_results = draw_layer(np.random.default_rng(0), *sizes, dtype=np.dtype(dtype))
    for direction, n in product(("forward", "backward"), (2, 3, 4)):
        if os.fork() == 0:
            signal.alarm(60)  # ends a child that hangs
            set_num_threads(n if direction == "forward" else 1)
            cache = lstm_fast.lstm_forward(**args, matmul="packed")[2]
            if direction == "backward":
                assert os_threads() == 1
                set_num_threads(n)
                lstm_fast.lstm_backward(*d_results, cache)
            for _ in range(100):  # threads that have ended may be listed for a moment
                if os_threads() == n:
                    break
                time.sleep(0.01)
            print(n, os_threads(), flush=True)
            os._exit(0)
        assert os.wait()[1] == 0
"""
    words = words_of(code)
    assert words[::2] == words[1::2]
    assert len(words) == 2 * len(SEVERAL_THREADS) * 2 * 2 * 3


@needs_openmp
@pytest.mark.parametrize("n", [1, 3])
def test_omp_num_threads_is_honoured(n):
    code = "print(get_num_threads(), show_config()['threads'], new_threads())"
    assert words_of(code, OMP_NUM_THREADS=str(n)) == [str(n), str(n), str(n - 1)]


@needs_openmp
def test_set_num_threads_goes_beyond_omp_num_threads():
    code = "set_num_threads(3); print(get_num_threads(), new_threads())"
    assert words_of(code, OMP_NUM_THREADS="1") == ["3", "2"]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity masks")
def test_affinity_mask_is_honoured():
    code = """
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
print(get_num_threads(), new_threads())
"""
    assert words_of(code) == ["1", "0"]


@needs_openmp
def test_threadpoolctl_limits_hold_and_end():
    code = """
print(get_num_threads())
with threadpool_limits(1, user_api="openmp"):
    print(get_num_threads(), new_threads())
    set_num_threads(3)
    print(get_num_threads(), new_threads())
with threadpool_limits(2, user_api="openmp"):
    print(get_num_threads(), new_threads())
print(get_num_threads(), new_threads())
"""
    words = words_of(code, OMP_NUM_THREADS="4")
    assert words == ["4", "1", "0", "1", "0", "2", "1", "3", "1"]


# ---- BLAS


def train_with_blas(lstm: LSTM, x: np.ndarray) -> None:
    y, _, cache = lstm.forward(x)
    lstm.backward(y, None, cache)


def test_blas_limits_are_restored(rng):
    lstm, x = LSTM(16, 32, seed=0, matmul="blas"), rng.standard_normal((40, 16, 16), np.float32)
    train_with_blas(lstm, x)  # loads SciPy's BLAS
    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        assert 2 in before
        train_with_blas(lstm, x)
        assert blas_threads() == before
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: train_with_blas(lstm, x), range(40)))
        assert blas_threads() == before


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timers")
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_signals_are_handled_during_a_call(threads, direction):
    """Unless a call looks at signals itself, Python handles one before it and one after it."""
    lstm = LSTM(1, 512, seed=0, matmul="blas")
    x = np.zeros((200, 64, 1), np.float32)
    lstm_fast.set_num_threads(1)
    lstm(x[:1])  # loads SciPy's BLAS
    controller, during = ThreadpoolController(), []

    def on_alarm(*_):
        during.append(set(blas_threads(controller)))
        if len(during) == 3:
            signal.raise_signal(signal.SIGINT)

    handlers = {
        signal.SIGALRM: signal.signal(signal.SIGALRM, on_alarm),
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
    }
    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        try:
            if direction == "backward":
                y, _, cache = lstm.forward(x)
            with pytest.raises(KeyboardInterrupt):
                signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
                if direction == "forward":
                    lstm(np.concatenate([x] * 4))
                else:
                    lstm.backward(y, None, cache)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in handlers.items():
                signal.signal(number, handler)
        assert {1} in during
        assert blas_threads() == before
    np.testing.assert_array_equal(lstm(x[:3])[0], LSTM(1, 512, seed=0, matmul="blas")(x[:3])[0])


# ---- Python threads


def test_one_lstm_in_many_python_threads(threads, rng):
    def train(lstm, x):
        y, (hn, cn), cache = lstm.forward(x)
        dx, (dh0, dc0), grads = lstm.backward(y, (hn, cn), cache)
        return {"y": y, "hn": hn, "cn": cn, "dx": dx, "dh0": dh0, "dc0": dc0} | grads

    inputs = [rng.standard_normal((T, B, 24), np.float32) for T, B in [(1, 1), (9, 40), (30, 7)]]
    lstm_fast.set_num_threads(1)
    options = {"num_layers": 2, "bidirectional": True, "seed": 0, "matmul": "packed"}
    expected = [train(LSTM(24, 48, **options), x) for x in inputs]
    lstm_fast.set_num_threads(2)
    shared = LSTM(24, 48, **options)  # its first calls, which pack the weights, overlap too
    start = threading.Barrier(8)

    def repeat(n):
        start.wait(timeout=60)
        return [(m % 3, train(shared, inputs[m % 3])) for m in range(n, n + 6)]

    with ThreadPoolExecutor(8) as pool:
        for results in pool.map(repeat, range(8)):
            for m, result in results:
                assert_identical(result, expected[m])


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_other_python_threads_run_during_a_call(threads, direction):
    lstm, x = LSTM(1, 512, seed=0, matmul="packed"), np.zeros((100, 16, 1), np.float32)
    lstm_fast.set_num_threads(1)
    y, _, cache = lstm.forward(x)
    stop, ticks = threading.Event(), []

    def tick():
        while not stop.wait(0.001):
            ticks.append(time.perf_counter())

    ticker = threading.Thread(target=tick)
    ticker.start()
    try:
        during = 0
        for _ in range(20):
            start = time.perf_counter()
            lstm(x) if direction == "forward" else lstm.backward(y, None, cache)
            end = time.perf_counter()
            # The margins are for what holds the GIL: a tick may wait for Python before or after.
            margin = (end - start) / 4
            during += sum(start + margin < tick < end - margin for tick in list(ticks))
            if during > 10:
                break
    finally:
        stop.set()
        ticker.join()
    assert during > 10


# ---- forks


@needs_fork
@pytest.mark.parametrize("used", [True, False], ids=["after threads", "before threads"])
def test_fork(used):
    code = f"""
set_num_threads(2)
expected = train() if {used} else None
pid = os.fork()
if pid == 0:
    signal.alarm(60)  # ends a child that hangs
    result = train()
    config = show_config()
    usable = 1 if config["openmp"]["lost_in_fork"] or not config["openmp"]["version"] else 2
    as_documented = config["threads"] == get_num_threads() == usable
    os._exit(0 if as_documented and expected in (None, result) else 1)
assert os.waitpid(pid, 0)[1] == 0
assert train() == (expected or train()) and not show_config()["openmp"]["lost_in_fork"]
"""
    words_of(code)


@needs_fork
def test_pool_of_forked_processes():
    code = """
set_num_threads(2)
expected = train()
with multiprocessing.get_context("fork").Pool(2, signal.alarm, (60,)) as pool:
    assert pool.map_async(train, range(4)).get(timeout=60) == [expected] * 4
"""
    words_of(code)
