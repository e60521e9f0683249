"""Threads, OpenMP's and Python's; forks, signals, and the caller's floating-point environment."""

import ctypes
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers import assert_identical, draw, run
from threadpoolctl import ThreadpoolController, threadpool_limits

import lstm_fast
from lstm_fast import LSTM, _threads

needs_openmp = pytest.mark.skipif(not _threads.openmp()["version"], reason="built without OpenMP")
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


def run_python(code: str, *options: str, timeout: float = 100, **env: str) -> list[str]:
    """Return the words that a new interpreter prints, with nothing set for OpenMP but `env`."""
    ours = ("LSTM_FAST_", "OMP_", "GOMP_", "KMP_")
    env |= {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    command = [sys.executable, *options, "-c", PREAMBLE + code]
    result = subprocess.run(command, env=env, capture_output=True, text=True, timeout=timeout)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout.split()


def blas_threads(controller: ThreadpoolController | None = None) -> list[int]:
    libraries = (controller or ThreadpoolController()).info()
    return [library["num_threads"] for library in libraries if library["user_api"] == "blas"]


# ---- how many


@pytest.mark.parametrize("n", [True, False, np.True_, 1.5, 2.0, "2", None, [2], np.float32(2)])
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
@pytest.mark.parametrize("n", [1, 3])
def test_omp_num_threads_is_honoured(n):
    code = "print(get_num_threads(), show_config()['threads'], new_threads())"
    assert run_python(code, OMP_NUM_THREADS=str(n)) == [str(n), str(n), str(n - 1)]


@needs_openmp
def test_set_num_threads_goes_beyond_omp_num_threads():
    code = "set_num_threads(3); print(get_num_threads(), new_threads())"
    assert run_python(code, OMP_NUM_THREADS="1") == ["3", "2"]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity masks")
def test_affinity_mask_is_honoured():
    code = """
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
print(get_num_threads(), new_threads())
"""
    assert run_python(code) == ["1", "0"]


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
    words = run_python(code, OMP_NUM_THREADS="4")
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
    lstm = LSTM(1, 1024, seed=0, matmul="blas")
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
    np.testing.assert_array_equal(lstm(x[:3])[0], LSTM(1, 1024, seed=0, matmul="blas")(x[:3])[0])


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
    finally:
        stop.set()
        ticker.join()
    assert during > 10


# ---- forks


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
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
    lost = {used} and config["openmp"]["version"] is not None
    as_documented = config["openmp"]["lost_in_fork"] is lost
    if lost:
        as_documented = as_documented and config["threads"] == get_num_threads() == 1
    os._exit(0 if as_documented and expected in (None, result) else 1)
assert os.waitpid(pid, 0)[1] == 0
assert train() == (expected or train()) and not show_config()["openmp"]["lost_in_fork"]
"""
    run_python(code, "-W", "ignore:.*fork:DeprecationWarning")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_pool_of_forked_processes():
    code = """
set_num_threads(2)
expected = train()
with multiprocessing.get_context("fork").Pool(2, signal.alarm, (60,)) as pool:
    assert pool.map_async(train, range(4)).get(timeout=60) == [expected] * 4
"""
    run_python(code, "-W", "ignore:.*fork:DeprecationWarning")


# ---- the floating-point environment

UPWARD = {"x86_64": 0x800, "aarch64": 0x400000}.get(platform.machine())
NOT_INEXACT = {"x86_64": 0x1F, "aarch64": 0x0F}.get(platform.machine())
FIND_LIBM = "import ctypes, numpy as np; libm = ctypes.CDLL('libm.so.6')\n"
needs_fenv = pytest.mark.skipif(
    sys.platform != "linux" or UPWARD is None, reason="constants of x86-64 and aarch64 Linux"
)


def keeps_subnormals() -> bool:
    tiny = np.float32(1e-40)
    return bool(tiny * np.float32(1) == tiny and np.float32(2e-38) * np.float32(0.25) > 0)


@needs_fenv
def test_import_keeps_the_floating_point_environment():
    code = f"""
libm.feclearexcept({NOT_INEXACT})
import lstm_fast
tiny = np.float32(1e-40)
assert tiny * np.float32(1) == tiny and libm.fegetround() == 0
assert libm.fetestexcept({NOT_INEXACT}) == 0
libm.fesetround({UPWARD})
"""
    command = [sys.executable, "-c", FIND_LIBM + code]
    subprocess.run(command, check=True, timeout=60)


@needs_fenv
@pytest.mark.parametrize("n", [1, 2])
def test_calls_and_errors_keep_the_floating_point_environment(threads, rng, isa, n):
    libm = ctypes.CDLL("libm.so.6")
    lstm_fast.set_num_threads(n)
    lstm = LSTM(64, 128, seed=0, matmul="packed")
    x = rng.standard_normal((20, 64, 64), np.float32)
    x[::2] *= 3e37  # overflows
    x[1::2] *= 1e-38  # underflows
    before = libm.fegetround(), keeps_subnormals()
    libm.feclearexcept(NOT_INEXACT)
    y, state, cache = lstm.forward(x)
    lstm.backward(y, state, cache)
    with pytest.raises(ValueError, match="x: "):
        lstm(x[..., :3])
    assert libm.fetestexcept(NOT_INEXACT) == 0
    assert (libm.fegetround(), keeps_subnormals()) == before == (0, True)


@needs_fenv
@pytest.mark.parametrize("n", [1, 2])
def test_rounding_of_the_caller_has_no_effect(threads, rng, isa, dtype, n):
    libm = ctypes.CDLL("libm.so.6")
    lstm_fast.set_num_threads(n)
    args, d_results = draw(rng, 12, 32, 20, 64, dtype=dtype)
    expected = run(lstm_fast, args, d_results, matmul="packed")
    libm.fesetround(UPWARD)
    try:
        actual = run(lstm_fast, args, d_results, matmul="packed")
        assert libm.fegetround() == UPWARD
    finally:
        libm.fesetround(0)
    assert_identical(actual, expected)
