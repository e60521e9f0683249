"""Beside other users of the process: forks, OpenMP's and BLAS's threads, limits of the system."""

import os
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
from support.internals import openmp
from support.processes import run_python

pytestmark = pytest.mark.no_isa

needs_openmp = pytest.mark.skipif(not openmp()["version"], reason="built without OpenMP")
needs_pytorch = pytest.mark.skipif(not find_spec("torch"), reason="PyTorch is not installed")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")

# Of every interpreter here. One that hangs is ended, and so is a child that does.
PREAMBLE = """
import ctypes, multiprocessing, os, resource, signal, sys, threading, time, traceback, warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
import numpy as np

warnings.simplefilter("ignore", DeprecationWarning)  # of forks of processes with several threads
SECONDS = 10
signal.alarm(6 * SECONDS)

def os_threads():
    return len(os.listdir("/proc/self/task"))

def in_child(function):
    "Return whether a forked process gets a true result of the function."
    pid = os.fork()
    if pid == 0:
        good = False
        try:
            signal.alarm(SECONDS)
            good = function()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0 if good else 1)
    return os.waitpid(pid, 0)[1] == 0

def in_thread(function, *args):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *args).result()
"""
# Work for several threads, forward and backward, and what one thread makes of it.
WORK = """
import lstm_fast
from lstm_fast import LSTM, get_num_threads, set_num_threads, show_config

lstm = LSTM(24, 64, seed=0)
x = np.random.default_rng(1).standard_normal((20, 48, 24), np.float32)

def infer():
    y, (hn, cn) = lstm(x)
    return b"".join(a.tobytes() for a in [y, hn, cn])

def train():
    y, _, cache = lstm.forward(x)
    dx, _, grads = lstm.backward(np.ones_like(y), None, cache)
    return b"".join(a.tobytes() for a in [y, dx, *grads.values()])

def right(_=None):
    return (infer(), train()) == expected

set_num_threads(1)
expected = infer(), train()
set_num_threads(2)
show_config()

def works(_=None):
    "Return whether calls are right, with the number of threads that was set before a fork."
    config = show_config()
    return (
        right()
        and config["threads"] == get_num_threads() == 2
        and config["openmp"]["lost_in_fork"] is False
    )

def works_anew():
    "The same with a new thread, as after a fork: those of the parent are none of the child."
    before = os_threads()
    return works() and os_threads() == before + 1
"""
# Users of the OpenMP runtime, of which `use` opens a parallel region of three threads.
OTHERS = {
    "C": "use = ctypes.CDLL(os.environ['LIBRARY']).in_parallel",
    "PyTorch": """
import torch
def use():
    torch.set_num_threads(3)  # it takes the number of cores else
    return float(torch.ones(1 << 20).add(1).sum()) == 2 << 20
""",
    "lstm_fast": """
def use():
    set_num_threads(3)
    good = right()
    set_num_threads(2)
    return good
""",
}
SOURCE = """
int in_parallel(void)
{
    int threads = 0;
#pragma omp parallel num_threads(3) reduction(+ : threads)
    threads += 1;
    return threads == 3;
}
"""


@pytest.fixture(scope="session")
def library(tmp_path_factory) -> str:
    """Path of a library in C that uses OpenMP."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    folder: Path = tmp_path_factory.mktemp("openmp")
    (folder / "in_parallel.c").write_text(SOURCE)
    command = [compiler, "-shared", "-fPIC", "-fopenmp", "in_parallel.c", "-o", "in_parallel.so"]
    if subprocess.run(command, cwd=folder, capture_output=True).returncode:
        pytest.skip("a C compiler without OpenMP")
    return str(folder / "in_parallel.so")


def run(code: str, *parts: str, **environment: str) -> list[str]:
    """Return the words that a new interpreter prints."""
    return run_python(
        "\n".join([PREAMBLE, *parts, code]), "-W", "ignore::DeprecationWarning", **environment
    ).split()


# ---- forks


def check_forks(other: str, library: str, code: str, first: str = "other") -> None:
    """Run code after what uses the runtime, imported before us or after us, and our own work."""
    parts = [OTHERS[other], WORK] if first == "other" else [WORK, OTHERS[other]]
    run(code, *parts, OMP_NUM_THREADS="3", LIBRARY=library)


@needs_openmp
@needs_fork
@pytest.mark.parametrize(
    ("other", "first"),
    [("C", "other"), ("C", "ours"), ("lstm_fast", "ours")],
)
def test_a_child_computes(library, other, first):
    """With the bits and threads of its parent, in any of its Python threads; so do its children."""
    code = """
def several(_=None):
    with ThreadPoolExecutor(3) as pool:
        return all(pool.map(right, range(6)))

assert use()
assert in_child(works_anew)
assert in_child(lambda: in_thread(works) and works())
assert in_child(lambda: several() and works() and several())
assert in_child(lambda: in_child(works_anew) and works() and in_child(works_anew) and works())
assert in_child(lambda: use() and works() and in_child(works_anew) and use())
assert works() and use() and several()
assert in_child(works_anew)
assert works() and use()
"""
    check_forks(other, library, code, first)


@needs_openmp
@needs_fork
@needs_pytorch
def test_a_child_computes_after_pytorch(library):
    """Whose operations over large tensors use the same runtime, and go on doing so."""
    code = """
assert use()
assert in_child(lambda: works_anew() and use() and in_child(works_anew))
assert works() and use()
"""
    check_forks("PyTorch", library, code)


@needs_openmp
@needs_fork
@pytest.mark.parametrize("other", ["C", "lstm_fast"])
def test_a_child_of_a_python_thread_computes(library, other):
    """Whether that thread, the main thread, or both of them have used the runtime."""
    code = """
def fork(used):
    return (not used or use()) and in_child(works_anew) and works() and in_child(works_anew)

assert in_thread(fork, True)
assert in_thread(fork, False)
assert use() and works()
assert in_thread(fork, False)
assert in_thread(fork, True)
with ThreadPoolExecutor(1) as pool:  # a thread of which the pool of OpenMP goes on while main forks
    assert pool.submit(use).result()
    assert in_child(works_anew)
    assert pool.submit(works).result()
    assert pool.submit(fork, True).result()
assert works() and use()
"""
    check_forks(other, library, code)


@needs_openmp
@needs_fork
@pytest.mark.parametrize("other", ["C", "lstm_fast"])
def test_pools_of_children_compute(library, other):
    """Of multiprocessing and of concurrent.futures."""
    code = """
assert use()
fork = multiprocessing.get_context("fork")
with fork.Pool(2, signal.alarm, (SECONDS,)) as pool:
    assert pool.map_async(works, range(4)).get(timeout=SECONDS) == [True] * 4
assert works() and use()
with ProcessPoolExecutor(2, fork, signal.alarm, (SECONDS,)) as pool:
    assert [*pool.map(works, range(4), timeout=SECONDS)] == [True] * 4
assert works() and use()
"""
    check_forks(other, library, code)


@needs_openmp
@needs_fork
def test_a_child_forked_during_calls_of_other_threads(library):
    """Which end with the thread; what they were doing does not matter."""
    code = """
stop = threading.Event()
def repeat():
    while not stop.is_set():
        assert right() and use()
    return works()

with ThreadPoolExecutor(2) as pool:
    others = [pool.submit(repeat) for _ in range(2)]
    try:
        for n in range(10):
            time.sleep(0.002 * (n % 4))
            assert in_child(works_anew)
            assert n % 3 or works()
    finally:
        stop.set()
    assert all(other.result() for other in others)
assert works()
"""
    check_forks("C", library, code)


@needs_fork
@pytest.mark.parametrize("load", ["load_state_dict", "writable"])
def test_a_child_forked_at_any_line_of_a_writer(load):
    """No lock that a thread of the parent held is in the way of calls and writers of the child."""
    code = f"""
from support.pauses import beside

def make():
    lstm = LSTM(3, 4, bias=False, seed=0)
    lstm(x)
    return lstm

def write(lstm):
    if {load == "writable"}:
        with lstm.writable() as p:
            p["weight_hh_l0"] += 1
    else:
        lstm.load_state_dict(values)
    return True

def is_usable(lstm):
    other = LSTM(3, 4, bias=False, seed=2)
    other.load_state_dict(lstm.state_dict())
    for run in (LSTM.__call__, LSTM.forward):
        if not np.array_equal(run(lstm, x)[0], run(other, x)[0]):
            return False
    return True

x, values = np.ones((2, 2, 3), np.float32), LSTM(3, 4, bias=False, seed=1).state_dict()
def fork(lstm):
    return in_child(lambda: is_usable(lstm) and write(lstm) and is_usable(lstm))

for lstm, _, child in beside(make, write, fork, visits=1):
    assert child and is_usable(lstm)
"""
    run(code, WORK)


# ---- Python threads


@needs_openmp
def test_python_threads_that_come_and_go():
    """What the runtime starts for each of them ends with it; memory does not grow with them."""
    code = """
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

def generation(count):
    threads = [threading.Thread(target=lambda: good.append(right())) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)

good = []
generation(20)
before = os_threads(), resident()
for _ in range(40):
    generation(4)
assert good == [True] * 180
for _ in range(100):  # the last of them may still be on their way out
    if os_threads() <= before[0]:
        break
    time.sleep(0.01)
assert os_threads() <= before[0], (os_threads(), before[0])
assert resident() - before[1] < 20 << 20, (resident(), before[1])
"""
    run(code, WORK)


# ---- BLAS

BLAS = """
from threadpoolctl import threadpool_info, threadpool_limits
from lstm_fast import LSTM

lstm = LSTM(24, 64, seed=0, matmul="blas")
x = np.random.default_rng(1).standard_normal((20, 48, 24), np.float32)

def infer():
    return lstm(x)[0]

def train(_=None):
    y, _, cache = lstm.forward(x)
    dx, _, grads = lstm.backward(y, None, cache)
    return [y, dx, *grads.values()]

def counts():
    return [lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"]

def right():
    return all(np.allclose(a, e, atol=1e-3) for a, e in zip(train(), expected))

def limit(n):
    "Set BLAS's threads for good, in a thread that then ends."
    in_thread(lambda: threadpool_limits(n, user_api="blas"))
    assert counts() and set(counts()) == {n}, counts()

expected = in_thread(train)  # loads SciPy's BLAS
"""


def test_calls_that_overlap_leave_the_threads_of_blas_alone():
    """Threads of which each comes and goes while others are in a call, and that live on."""
    code = """
limit(3)
with ThreadPoolExecutor(4) as pool:
    for _ in range(5):
        assert all(pool.map(lambda _: right(), range(12)))
        assert set(counts()) == {3}, counts()
assert set(counts()) == {3}, counts()
assert right() and set(counts()) == {3}, counts()
"""
    run(code, BLAS)


def test_a_limit_of_blas_around_calls_holds_and_ends():
    """Set by the main thread or another, around calls of the same thread or of others."""
    code = """
def limited(pool):
    with threadpool_limits(2, user_api="blas"):
        assert set(counts()) == {2}, counts()
        assert right() and set(counts()) == {2}, counts()
        assert all(pool.map(lambda _: right(), range(12)))
        assert set(counts()) == {2}, counts()
    assert set(counts()) == {3}, counts()

limit(3)
with ThreadPoolExecutor(3) as pool:
    limited(pool)
    assert right()
    in_thread(limited, pool)
    assert all(pool.map(lambda _: right(), range(12)))
    in_thread(limited, pool)
    limited(pool)
"""
    run(code, BLAS)


def test_blas_of_numpy_beside_calls():
    """`@` in other threads gives what it gives alone, and so do the calls."""
    code = """
a = np.random.default_rng(2).standard_normal((300, 300), np.float32)
product, stop = a @ a, threading.Event()

def multiply():
    while not stop.is_set():
        assert np.allclose(a @ a, product, atol=1e-3)

limit(3)
with ThreadPoolExecutor(3) as pool:
    others = [pool.submit(multiply) for _ in range(2)]
    try:
        for _ in range(10):
            assert right()
    finally:
        stop.set()
    assert [other.result() for other in others] == [None, None]
assert set(counts()) == {3}, counts()
"""
    run(code, BLAS)


@needs_fork
def test_a_child_uses_blas():
    """Forked after calls that overlap and while others are at it, with BLAS's threads as ever."""
    code = """
def is_as_ever():
    return set(counts()) == {3} and right() and in_thread(right) and set(counts()) == {3}

limit(3)
stop = threading.Event()
def repeat():
    while not stop.is_set():
        assert right()
    return True

with ThreadPoolExecutor(3) as pool:
    others = [pool.submit(repeat) for _ in range(2)]
    try:
        for n in range(8):
            time.sleep(0.002 * (n % 4))
            assert in_child(is_as_ever)
    finally:
        stop.set()
    assert all(other.result() for other in others)
    assert in_child(is_as_ever)
    assert pool.submit(in_child, is_as_ever).result()
assert in_child(lambda: is_as_ever() and in_child(is_as_ever))
assert is_as_ever()
"""
    run(code, BLAS)


# ---- how many threads

LIMITS = {
    "runtime": "set_omp = ctypes.CDLL('libgomp.so.1').omp_set_num_threads",
    "threadpoolctl": """
import threadpoolctl
ctypes.CDLL("libgomp.so.1")
def set_omp(n): threadpoolctl.threadpool_limits(n, user_api="openmp")
""",
    "PyTorch": """
import torch
set_omp = torch.set_num_threads
""",
}
IMPORT = """
from lstm_fast import get_num_threads, set_num_threads

def numbers():
    "Of this thread and of a new one."
    return get_num_threads(), in_thread(get_num_threads)
"""


def shares_gnu_openmp() -> bool:
    """Return whether we use the system's GNU OpenMP, as the library and PyTorch do here."""
    found = Path("/proc/self/maps")
    return found.exists() and "/libgomp.so.1" in found.read_text()


@needs_openmp
@pytest.mark.skipif(not shares_gnu_openmp(), reason="another OpenMP runtime than GNU's")
@pytest.mark.parametrize("order", ["limit, import", "import, limit"])
@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=needs_pytorch) if k == "PyTorch" else k for k in LIMITS]
)
def test_a_limit_of_openmp_holds_in_its_thread(kind, order):
    """Whenever it was set: the least of it and of our own number counts, there and nowhere else."""
    first, second = ("set_omp(1)", IMPORT) if order == "limit, import" else (IMPORT, "set_omp(1)")
    code = """
assert numbers() == (1, 4), numbers()
set_num_threads(2)
assert numbers() == (1, 2), numbers()
set_omp(3)
assert numbers() == (2, 2), numbers()
set_num_threads(6)
assert numbers() == (3, 6), numbers()
set_num_threads(None)
assert numbers() == (3, 4), numbers()
set_omp(4)
assert numbers() == (4, 4), numbers()
set_num_threads(6)
assert numbers() == (6, 6), numbers()

def limited():
    set_omp(2)
    return get_num_threads(), in_thread(get_num_threads)

assert in_thread(limited) == (2, 6)
assert numbers() == (6, 6), numbers()
"""
    run(code, LIMITS[kind], first, second, OMP_NUM_THREADS="4")


@needs_openmp
def test_none_gives_the_number_of_threads_back():
    """To the environment: the affinity mask, the control group, and OMP_NUM_THREADS if set."""
    code = """
first = numbers()
assert first[0] == first[1] >= 1
for n in (first[0] + 1, 1):
    set_num_threads(n)
    assert numbers() == (n, n)
    in_thread(set_num_threads, None)
    assert numbers() == first
set_num_threads(None)
assert numbers() == first
print(*first)
"""
    run(code, IMPORT)
    assert run(code, IMPORT, OMP_NUM_THREADS="5") == ["5", "5"]
    if hasattr(os, "sched_setaffinity"):
        mask = "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})"
        assert run(code, mask, IMPORT) == ["1", "1"]
        assert run(f"{mask}\n{code}", IMPORT) == ["1", "1"]


@needs_openmp
@pytest.mark.parametrize("what", ["memory", "processes"])
def test_threads_that_cannot_start(what):
    """Under a limit of the system, a call makes do with those that do; the bits are the same."""
    code = f"""
import lstm_fast
from lstm_fast import LSTM

lstm = LSTM(16, 32, seed=0)
x = np.random.default_rng(1).standard_normal((4, 640, 16), np.float32)

def train():
    y, _, cache = lstm.forward(x)
    dx, _, grads = lstm.backward(np.ones_like(y), None, cache)
    return b"".join(a.tobytes() for a in [y, dx, *grads.values()])

lstm_fast.set_num_threads(1)
expected = train()
if {what == "memory"}:
    pages = int(open("/proc/self/statm").read().split()[0])
    most, kind = pages * resource.getpagesize() + (300 << 20), resource.RLIMIT_AS
else:
    if os.getuid() == 0:
        os.setuid(65534)  # root may always
    most, kind = 1, resource.RLIMIT_NPROC
resource.setrlimit(kind, (most, most))
lstm_fast.set_num_threads(200)
for _ in range(3):
    assert train() == expected
if {what == "memory"}:  # there is room for other things, too
    pages = int(open("/proc/self/statm").read().split()[0])
    assert most - pages * resource.getpagesize() >= 16 << 20
assert 1 <= lstm_fast.get_num_threads() <= 200
lstm_fast.set_num_threads(1)
assert train() == expected
"""
    run(code)
