"""Threads beside others: fewer of them, or small pieces, and never another bit of a result."""

import itertools
import logging
import os
import subprocess
import sys

import numpy as np
import pytest
from support.comparing import assert_identical
from support.internals import (
    Ragged,
    assume_meeting,
    calls,
    hold,
    openmp,
    planned,
    see,
    time_alone,
    usable_now,
)
from support.processes import run_python
from support.ragged import LENGTHS
from test_schedule import everything

import lstm_fast

MS = 1e-3
LOST = 200 * MS


pytestmark = pytest.mark.usefixtures("adaptive")


# ---- pieces: T, B, I, H, layers, bidirectional; options, of which some leave out what others have

BATCHES = [
    ((60, 40, 20, 128, 1, False), {}),
    ((50, 33, 20, 70, 3, False), {}),
    ((40, 14, 20, 150, 1, True), {}),
    ((30, 37, 20, 90, 2, True), {"dropout": 0.3}),
    ((50, 40, 20, 130, 1, False), {"peephole": True, "zoneout": (0.1, 0.2)}),
    ((50, 40, 20, 130, 1, False), {"recurrent_dropout": 0.2, "coupled": True}),
    ((50, 40, 20, 100, 1, False), {"layer_norm": True}),
    ((50, 40, 20, 100, 1, False), {"layer_norm": "gates", "peephole": True}),
]
# Of few rows: threads share the units of each step
FEW_ROWS = [
    ((50, 1, 20, 250, 1, False), {}),
    ((300, 3, 70, 250, 1, False), {"peephole": True, "zoneout": (0.1, 0.2)}),
    ((70, 5, 33, 180, 1, False), {"recurrent_dropout": 0.2, "reverse": True}),
]


@pytest.mark.parametrize(("stack", "options"), BATCHES + FEW_ROWS, ids=str)
def test_bits_of_pieces_are_those_of_one_thread(isa, stack, options):
    lstm_fast.set_num_threads(1)
    noisy = bool({"dropout", "zoneout", "recurrent_dropout"} & options.keys())
    expected = everything(stack, noisy=noisy, **options)
    for threads in (2, 3, 5):
        lstm_fast.set_num_threads(threads)
        hold(1, threads)
        before = calls()
        actual = everything(stack, noisy=noisy, **options)
        assert_identical(actual, expected)
        in_shares, in_pieces = (now - then for now, then in zip(calls(), before, strict=True))
        assert (in_shares, in_pieces >= 3) == (0, True)


@pytest.mark.parametrize(
    "options", [{"bidirectional": True}, {"proj_size": 37}, {"num_layers": 2}, {"layer_norm": True}]
)
def test_steps_that_are_not_shared(rng, threads, options):
    """Where they are more than their units."""
    lstm, x = lstm_fast.LSTM(20, 250, seed=0, **options), rng.standard_normal((50, 1, 20), "f")
    lstm_fast.set_num_threads(3)
    hold(1, 3)
    y, _, cache = lstm.forward(x)
    before = calls()
    lstm.forward(x)
    lstm.backward(y, None, cache)
    assert calls() == before


def test_projection_in_pieces(rng, threads):
    def train():
        y, _, cache = lstm.forward(x)
        return [y, *lstm.backward(y, None, cache)[2].values()]

    lstm, x = lstm_fast.LSTM(20, 90, proj_size=37, seed=0), rng.standard_normal((50, 50, 20), "f")
    lstm_fast.set_num_threads(1)
    expected = train()
    lstm_fast.set_num_threads(3)
    hold(1, 3)
    before = calls()[1]
    assert_identical(train(), expected)
    assert calls()[1] == before + 2


@pytest.mark.parametrize("in_pieces", [False, True])
@pytest.mark.parametrize("size", [(60, 40, 20, 128), (50, 1, 20, 250)], ids=str)
@pytest.mark.parametrize(
    "options", [{}, {"reverse": True}, {"num_layers": 2}, {"bidirectional": True}]
)
def test_threads_copy_the_input(rng, size, options, in_pieces):
    """Backward sees that of the call, not of an earlier one whose memory serves again."""
    T, B, I, H = size
    lstm, x = lstm_fast.LSTM(I, H, seed=0, **options), rng.standard_normal((2, T, B, I), "f")
    dy = rng.standard_normal((T, B, H * (1 + ("bidirectional" in options))), "f")
    expected = [lstm.backward(dy, None, lstm.forward(one)[2])[2] for one in x]
    lstm_fast.set_num_threads(3)
    for one, grads in zip(x[::-1], expected[::-1], strict=True):
        hold(1 if in_pieces else 3, 3)
        given = one.copy()
        cache = lstm.forward(given)[2]
        given[:] = np.nan
        assert_identical(lstm.backward(dy, None, cache)[2], grads)


RAGGED = [
    ((60, 40, 20, 128, 1, False), {}),
    ((70, 9, 20, 250, 1, False), {"reverse": True}),
    ((300, 5, 70, 180, 1, False), {"peephole": True, "zoneout": (0.1, 0.2)}),
    ((50, 30, 20, 130, 1, False), {"recurrent_dropout": 0.2, "reverse": True}),
]


@pytest.mark.parametrize(("stack", "options"), RAGGED, ids=str)
def test_bits_of_ragged_batches_in_pieces(isa, rng, stack, options):
    """Forward of rows; backward, where rows that end leave others without bands, of steps."""
    T, B = stack[:2]
    lengths = rng.integers(T // 2, T + 1, B)
    lengths[3] = 0
    lstm_fast.set_num_threads(1)
    noisy = "reverse" not in options or "recurrent_dropout" in options
    expected = everything(stack, lengths, noisy=noisy, **options)
    for threads in (2, 3):
        lstm_fast.set_num_threads(threads)
        hold(1, threads)
        before = calls()
        assert_identical(everything(stack, lengths, noisy=noisy, **options), expected)
        in_shares, in_pieces = (now - then for now, then in zip(calls(), before, strict=True))
        assert (in_shares, in_pieces >= 3) == (0, True)


def test_blas_is_never_in_pieces(rng):
    """Its bits depend on the threads."""
    x = rng.standard_normal((60, 40, 20), np.float32)
    lstm_fast.set_num_threads(2)
    hold(1, 2)
    before = calls()
    blas = lstm_fast.LSTM(20, 128, seed=0, matmul="blas")
    first = blas(x)[0]
    assert calls()[1] == before[1]
    hold(0, 0)
    np.testing.assert_array_equal(blas(x)[0], first)


# ---- helpers, which take pieces

IN_PIECES = """
import os, signal, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy as np, lstm_fast
from support.internals import calls, hold

lstm, x = lstm_fast.LSTM(20, 128, seed=0), np.ones((60, 40, 20), np.float32)
lstm_fast.set_num_threads(1)
expected = lstm(x)[0].copy()
lstm_fast.set_num_threads(3)
hold(1, 3)

def right():
    before = calls()
    return np.array_equal(lstm(x)[0], expected) and calls()[1] > before[1]

def tasks():
    return {path.parent.name: path.read_text() for path in Path("/proc/self/task").glob("*/status")}
"""
needs_linux = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="looks at Linux's /proc"
)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_has_helpers_of_its_own():
    """Forked while other threads use theirs."""
    code = """
def repeat():
    while not stop:
        assert right()

stop = []
with ThreadPoolExecutor(2) as pool:
    others = [pool.submit(repeat) for _ in range(2)]
    try:
        for n in range(20):
            time.sleep(0.001 * (n % 4))
            child = os.fork()
            if child == 0:
                signal.alarm(20)
                os._exit(0 if all(right() for _ in range(10)) else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        stop.append(True)
    assert not any(other.result() for other in others)
"""
    run_python(IN_PIECES + code, "-W", "ignore", LSTM_FAST_ADAPTIVE_THREADS="1")


def test_helpers_serve_several_callers():
    code = """
with ThreadPoolExecutor(5) as pool:
    assert all(pool.map(lambda _: all(right() for _ in range(30)), range(5)))
"""
    run_python(IN_PIECES + code, LSTM_FAST_ADAPTIVE_THREADS="1")


@needs_linux
def test_helpers_sleep_between_calls_and_get_no_signals():
    code = """
before = tasks()
assert right()
helpers = [status.split() for task, status in tasks().items() if task not in before]
blocked = [int(words[words.index("SigBlk:") + 1], 16) for words in helpers]
time.sleep(0.05)
start = time.process_time()
time.sleep(0.3)
print(*(signals >> signal.SIGINT - 1 & 1 for signals in blocked))
assert time.process_time() - start < 0.03
"""
    printed = run_python(IN_PIECES + code, LSTM_FAST_ADAPTIVE_THREADS="1")
    assert printed.split() == ["1", "1"]


@needs_linux
def test_helpers_leave_the_only_core_to_the_caller():
    code = """
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # before there is a helper
lstm(x)
begun = time.process_time()
for _ in range(20): assert right()
together, begun = time.process_time() - begun, time.thread_time()
for _ in range(20): assert right()
print(together < 2 * (time.thread_time() - begun), len(tasks()) > 1)
"""
    assert run_python(IN_PIECES + code, LSTM_FAST_ADAPTIVE_THREADS="1") == "True True\n"


@needs_linux
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
def test_helpers_come_to_a_call_that_began_without_them():
    """They are on the caller's core, and get another one a twentieth of a second later."""
    code = """
import threading
cores, before = sorted(os.sched_getaffinity(0)), tasks()
assert right()
helpers = [int(task) for task in tasks().keys() - before.keys()]
for task in [0, *helpers]:
    os.sched_setaffinity(task, cores[:1])

def release():
    time.sleep(0.05)
    for helper in helpers:
        os.sched_setaffinity(helper, cores[1:])

def ran():
    return sum(int(Path(f"/proc/self/task/{n}/schedstat").read_text().split()[0]) for n in helpers)

begun = ran()
releasing = threading.Thread(target=release)
releasing.start()
lstm(np.ones((3500, 40, 20), np.float32))  # of one segment between two looks at signals
releasing.join()
print(ran() - begun > 20e6)
"""
    assert run_python(IN_PIECES + code, LSTM_FAST_ADAPTIVE_THREADS="1") == "True\n"


@needs_linux
def test_a_call_does_with_the_helpers_that_can_start():
    """One at most: the C library may have kept the stack of a thread that ended."""
    code = """
import resource
pages = int(Path("/proc/self/statm").read_text().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (1 << 20),) * 2)
before = tasks()
assert right()
print(len(tasks().keys() - before.keys()) <= 1)
"""
    assert run_python(IN_PIECES + code, LSTM_FAST_ADAPTIVE_THREADS="1") == "True\n"


# ---- what is learnt


@pytest.mark.parametrize(
    ("ends", "late", "waited", "alone"),
    [
        ((100, 100), 0, 0, 200),
        ((140, 100), 0, 0, 200),  # the first lost its core for 40, and the other was done meanwhile
        ((140, 140), 0, 40, 200),  # the same before they last met
        ((120, 120), 20, 20, 200),  # the second began late, and the first waited for it
        ((100, 170), 30, 0, 200),  # it began late, and lost its core for 40
        ((100, 100, 100, 100), 0, 0, 400),
        ((140, 100, 100, 100), 0, 0, 400),
        ((140, 140, 140, 140), 0, 120, 400),
    ],
    ids=str,
)
def test_time_of_one_thread_alone(ends, late, waited, alone):
    assert time_alone(len(ends), max(ends), sum(ends), late, waited) == alone


def test_threads_may_cost_once_what_they_saved():
    assert see(False, 2, 3 * MS, 1 * MS) == 0.0
    for _ in range(100):
        assert see(False, 2, 1 * MS, 1.9 * MS) == 0.0
    assert see(False, 2, 7 * MS, 1 * MS) == 0.0
    assert usable_now(False, 2) == 2


def test_threads_that_cost_more_are_left_out_for_a_while():
    hold_of = see(False, 2, 300 * MS, 1 * MS)
    assert hold_of == 1.0  # six times what was lost, but no more than that
    assert usable_now(False, 2) == 1
    assert usable_now(True, 2) == 2, "pieces are watched apart"
    config = lstm_fast.show_config()["adaptive_threads"]
    assert config["enabled"] is True and config["limit"] == 1 and config["times"] > 0
    lstm_fast.set_adaptive_threads(False)
    assert usable_now(False, 2) == 2
    assert lstm_fast.show_config()["adaptive_threads"]["limit"] is None


def test_threads_that_save_little_are_left_out_too():
    """Two threads that take as long as one."""
    calls = next(n for n in itertools.count() if see(False, 2, 1 * MS, 1 * MS))
    assert calls == 40  # a quarter of a millisecond of each is not saved


def test_a_long_call_that_is_late_is_rare():
    assert see(False, 2, 1.0, 0.5) == 16.0


def test_one_more_thread_is_tried_and_comes_back():
    hold(1, 0)
    assert usable_now(False, 4) == 1
    hold(0, 0)
    assert usable_now(False, 4) == 4
    see(False, 4, 100 * MS, 1 * MS)
    assert usable_now(False, 4) == 3
    assert usable_now(False, 2) == 2, "fewer than the limit is allowed"
    see(False, 3, 100 * MS, 1 * MS)
    assert usable_now(False, 4) == 2


def test_a_failed_try_doubles_the_time():
    """Up to a second, but for long calls."""
    code = """
from support.internals import see, usable_now
import time
first = see(False, 2, 10.5e-3, 1e-3)
times = [first]
for _ in range(6):
    time.sleep(times[-1] + 0.01)
    assert usable_now(False, 2) == 2
    times.append(see(False, 2, 0.3e-3, 0.2e-3))
time.sleep(times[-1] + 0.01)
calls = 0
while calls < 1000:
    calls += 1
    assert see(False, 2, 1e-3, 1.9e-3) == 0
    if calls == 5: assert see(False, 2, 2e-3, 1.9e-3) == 0
assert usable_now(False, 2) == 2
print(*(round(1000 * t) for t in times))
"""
    first, *later = map(int, run_python(code, LSTM_FAST_ADAPTIVE_THREADS="1").split())
    assert [first, *later] == [73, 146, 291, 582, 1000, 1000, 1000]  # at first six times 12.125 ms


def test_calls_that_are_a_small_part_of_a_program_try_seldom():
    """After a try that failed: not before they have taken 40 times what was lost, in 5 ms each."""
    code = """
from support.internals import see, usable_now
import time
time.sleep(see(False, 2, 10.5e-3, 1e-3) + 0.01)
assert usable_now(False, 2) == 2
lost = 3e-3 * 1.25 - 1e-3
time.sleep(see(False, 2, 3e-3, 1e-3) + 0.01)
tries = [usable_now(False, 2, work=5e6 * 40) for _ in range(13)]  # each for two calls
assert 22 == -(-40 * lost // 5e-3)
assert tries == [1] * 11 + [2, 2], tries
"""
    run_python(code, LSTM_FAST_ADAPTIVE_THREADS="1")


def test_a_first_try_is_not_charged_for_waking_a_thread():
    """But for no more than that takes, and for nothing else; the next one is."""
    code = """
from support.internals import see, usable_now
import time
hold_of = see(False, 2, 10.5e-3, 1e-3)
for late, charged in ((1e-3, False), (0, True), (5e-3, True)):
    time.sleep(hold_of + 0.01)
    hold_of = see(False, 2, 1e-3 + (late or 1e-3), 1.9e-3, late)
    assert (hold_of > 0) == charged, (late, hold_of)
    if not charged:
        hold_of = see(False, 2, 3e-3, 1.9e-3, 1e-3)
        assert hold_of > 0
"""
    run_python(code, LSTM_FAST_ADAPTIVE_THREADS="1")


def test_it_is_logged(caplog):
    with caplog.at_level(logging.DEBUG, "lstm_fast"):
        see(False, 2, LOST, 1 * MS)
    (record,) = caplog.records
    assert record.getMessage().startswith("threads came late: at most 1 for the next")


def test_a_handler_that_fails_is_not_the_callers_trouble(monkeypatch):
    class Broken(logging.Handler):
        def emit(self, record):
            raise OSError

    logger, handler = logging.getLogger("lstm_fast"), Broken()
    logger.addHandler(handler)
    monkeypatch.setattr(logger, "level", logging.DEBUG)
    try:
        assert see(False, 2, LOST, 1 * MS) > 0
    finally:
        logger.removeHandler(handler)


@pytest.mark.parametrize("enabled", [1, None, "yes"])
def test_set_adaptive_threads_wants_a_bool(enabled):
    with pytest.raises(TypeError, match=f"enabled: expected a bool, got {type(enabled).__name__}"):
        lstm_fast.set_adaptive_threads(enabled)


@pytest.mark.parametrize(("value", "enabled"), [("0", False), ("", False), ("1", True)])
def test_the_environment_sets_it(value, enabled):
    code = "import lstm_fast; print(lstm_fast.show_config()['adaptive_threads']['enabled'])"
    assert run_python(code, LSTM_FAST_ADAPTIVE_THREADS=value) == f"{enabled}\n"


# ---- beside others: bits only, and that calls end


@pytest.mark.parametrize("beside", ["process", "NumPy"])
def test_bits_beside_busy_cores(rng, beside):
    lstm, x = lstm_fast.LSTM(20, 128, seed=0), rng.standard_normal((60, 40, 20), np.float32)
    a = np.ones((300, 300), np.float32)
    lstm_fast.set_num_threads(1)
    expected = training(lstm, x)
    lstm_fast.set_num_threads(2)
    program = "while True: pass" if beside == "process" else "pass"
    with subprocess.Popen([sys.executable, "-c", program]) as process:
        try:
            for n in range(40):
                if n % 4 == 0:
                    hold(n // 4 % 2, 2 * (n // 4 % 2))  # equal shares, pieces, and again
                _ = a @ a
                assert_identical(training(lstm, x), expected)
        finally:
            process.kill()


def training(lstm, x):
    y, _, cache = lstm.forward(x)
    dx, _, grads = lstm.backward(y, None, cache)
    return [y, dx, *grads.values()]


@needs_linux
def test_affinity_masks_are_as_before():
    """Threads that were moved to another core may run on all of them after that moment."""
    code = """
import os, time, numpy as np, lstm_fast
from support.internals import hold
lstm, x = lstm_fast.LSTM(20, 128, seed=0), np.ones((60, 40, 20), np.float32)
lstm_fast.set_num_threads(3)
for n in range(60):
    hold(n % 2, 3 * (n % 2))
    lstm(x)
for _ in range(100):
    masks = {frozenset(os.sched_getaffinity(int(t))) for t in os.listdir("/proc/self/task")}
    if len(masks) == 1:
        break
    time.sleep(0.01)
print(masks == {frozenset(os.sched_getaffinity(0))}, len(os.listdir("/proc/self/task")) > 1)
"""
    assert run_python(code, LSTM_FAST_ADAPTIVE_THREADS="1") == "True True\n"


# ---- the plan for more cores than there are here


THREADS = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64]
# T, B, I, H, jobs, chained
CALLS = [
    (100, 1, 64, 64, 1, True),
    (100, 1, 256, 256, 1, True),
    (50, 1, 1024, 1024, 1, True),
    (100, 8, 64, 64, 1, True),
    (100, 8, 128, 256, 1, True),
    (50, 32, 16, 32, 1, True),
    (25, 64, 512, 512, 1, True),
    (25, 128, 256, 512, 1, True),
    (300, 1, 64, 64, 3, True),
    (100, 32, 64, 64, 4, True),
    (100, 1, 256, 256, 2, False),
    (100, 32, 128, 128, 2, False),
    (2000, 1, 500, 16, 1, True),
    (2000, 1, 500, 16, 2, False),
    (2000, 1, 20, 16, 1, True),
    (1, 1, 16, 32, 1, True),
]
LANES = 16
BARRIER = 6e3  # multiply-adds in the time of a barrier, at least


# The same, forward and backward, and with the bands that backward has of 8 rows and more
PLANNED = [
    (call, backward, bands)
    for call in CALLS
    for backward, bands in ((False, 1), (True, 1), (True, 2))
    if bands == 1 or call[1] >= 8
]


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize(("call", "backward", "bands"), PLANNED, ids=str)
@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("busy", [False, True])
def test_plan(threads, call, backward, bands, ragged, busy):
    """No thread is without work, none has much more than its share, barriers are paid for."""
    T, B, I, H, jobs, chained = call
    panels, step = -(-H // LANES), 4.0 * H * H * B / bands
    total = jobs * T * B * 4.0 * H * (I + H)
    lstm_fast.set_num_threads(threads)
    if busy and threads > 1:
        hold(threads - 1, threads)
    split, places = planned(
        *(jobs, chained, bands, T, B, ragged, panels, 16 * H * H, step, total),
        *(1, backward),
    )
    assert 1 <= split["threads"] <= threads
    if threads == 1 or total < 3e5:
        assert split["threads"] == 1
    if split["in_pieces"]:
        assert busy
        least = 1 if ragged and not backward else 3
        assert 2 <= split["threads"] <= min(threads, B // least if split["by_rows"] else panels)
        assert split["by_rows"] or (step >= 1e5)
        assert split["threads"] % bands == 0
        return
    assert not (busy and split["threads"] == threads > 1)
    if split["followed"]:  # one thread of a group has all steps: much less than what all share
        assert bands == 1 and not split["by_rows"]
        beside = total / (jobs * T) - (0 if backward else step)  # each step
        if backward:
            assert panels == 1 or total < 4e6 or step < 2 * BARRIER
            assert split["groups"] == (1 if chained or total < 4e6 else min(jobs, threads - busy))
        else:
            assert step < 2 * BARRIER
            assert split["groups"] == jobs  # nothing goes from group to group
        assert 2 * split["groups"] <= split["threads"] <= total / (6e5 if backward else 1e6)
        assert split["threads"] <= split["groups"] * (2 + beside / (step + 2e4))
        return
    assert not (chained and I == 500 and threads - busy > 1)
    work, barriers = [], []
    for place in places:
        of_jobs = place["end_job"] - place["first_job"]
        units = B // bands if split["by_rows"] else panels
        part = (
            units * (place["part"] + 1) // place["parts"] - units * place["part"] // place["parts"]
        )
        work.append(of_jobs * part / units * T * step)
        barriers.append(0 if split["by_rows"] or place["parts"] == 1 else T * of_jobs)
    assert min(work) > 0
    assert sum(work) == pytest.approx(jobs * bands * T * step)
    if not (chained and jobs % split["groups"]):  # else some groups have a layer more
        assert max(work) <= 2 * np.mean(work)
    one = jobs * bands * T * step
    several = max(w + b * BARRIER for w, b in zip(work, barriers, strict=True))
    assert several <= one or split["threads"] == 1


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("kind", [*LENGTHS])
@pytest.mark.parametrize("backward", [False, True])
def test_plan_of_rows_of_different_lengths(rng, threads, kind, backward):
    """Each thread has rows, and no more steps than its share and a row; in a chunk of time, too."""
    T, B, H = 60, 150, 64
    lengths = np.sort(LENGTHS[kind](rng, T, B))[::-1]
    T, total = int(lengths[0]), int(lengths.sum())
    step = 4.0 * H * H * total / max(T, 1)
    lstm_fast.set_num_threads(threads)
    rows = total // max(T, 1)
    sizes = (1, True, 1, T, rows, True, 4, 16 * H * H, step, 9 * T * step)
    split, _ = planned(*sizes, 1, backward)
    if not split["by_rows"]:
        assert threads == 1 or rows < threads
        return
    for first_t, end_t in [(0, T), (T // 3, T // 2), (T - 1, T)]:
        shares = Ragged(lengths).shares(split["threads"], first_t, end_t)
        assert [shares[0][0], *(end for _, end in shares)] == [*(n for n, _ in shares), B]
        steps = np.clip(lengths, first_t, end_t) - first_t
        work = [steps[first:end].sum() for first, end in shares]
        assert max(work) <= steps.sum() / len(work) + end_t - first_t
        assert min(work) > 0 or (first_t, end_t) != (0, T)


@pytest.mark.parametrize("backward", [False, True])
def test_threads_that_take_long_to_meet_share_longer_steps(backward):
    """What they do not share others may follow, unless a step has little work."""
    lstm_fast.set_num_threads(2)
    how = {}
    for nanoseconds, H in itertools.product((0, 60, 150, 300), (32, 64, 128, 256)):
        assume_meeting(nanoseconds)
        step = 4.0 * H * H
        sizes = (1, True, 1, 200, 1, False, -(-H // LANES), 16 * H * H, step, 600 * step)
        split = planned(*sizes, 1, backward)[0]
        how[nanoseconds, H] = "followed" if split["followed"] else split["threads"]
        if nanoseconds == 0:
            lstm_fast.set_adaptive_threads(False)
            assert split == planned(*sizes, 1, backward)[0]
            lstm_fast.set_adaptive_threads(True)
    assert [how[0, H] for H in (32, 64, 128, 256)] == ["followed", 2, 2, 2]
    assert [how[60, H] for H in (32, 64, 128, 256)] == ["followed", 2, 2, 2]
    assert [how[150, H] for H in (32, 64, 128, 256)] == [
        1 if backward else "followed",
        "followed",
        2,
        2,
    ]
    assert [how[300, H] for H in (32, 64, 128, 256)] == [1, 1 if backward else "followed", 2, 2]


def test_threads_that_meet_twice_in_a_step_share_longer_ones():
    """With layer norm, or projection: the shares of a step of 64 units are too short for that."""
    lstm_fast.set_num_threads(2)
    for H, meetings, followed in [(64, 1, False), (64, 2, True), (128, 2, False)]:
        assume_meeting(60)
        step = 4.0 * H * H
        sizes = (1, True, 1, 100, 1, False, -(-H // LANES), 16 * H * H, step, 300 * step)
        split = planned(*sizes, meetings, False)[0]
        assert split["threads"] == 2
        assert split["followed"] == followed


@pytest.mark.skipif(not openmp()["version"], reason="built without OpenMP")
def test_a_meeting_is_measured_when_it_matters():
    code = """
from support.internals import assume_meeting
import numpy as np, lstm_fast
lstm_fast.set_num_threads(2)
lstm_fast.LSTM(16, 32)(np.zeros((100, 1, 16), np.float32))
assert assume_meeting(-1) == -1
lstm_fast.LSTM(16, 128)(np.zeros((20, 1, 16), np.float32))
print(assume_meeting(-1))
"""
    assert 10 <= int(run_python(code, LSTM_FAST_ADAPTIVE_THREADS="1")) <= 300


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="pins threads to a core")
@pytest.mark.skipif(not openmp()["version"], reason="built without OpenMP")
@pytest.mark.parametrize(
    ("size", "call"),
    [
        ((400, 32, 64, 256), "lstm(x)"),
        ((2000, 1, 500, 16), "lstm.backward(y, None, lstm.forward(x)[2])"),
    ],
)
def test_threads_on_one_core_are_seen(size, call):
    """They have rows of their own, and end late together; or one follows, and stands by."""
    code = """
import os
import numpy as np, lstm_fast
from support.internals import assume_meeting, calls, hold
lstm_fast.set_num_threads(2)
assume_meeting(60)
T, B, I, H = SIZE
lstm, x = lstm_fast.LSTM(I, H, seed=0), np.zeros((T, B, I), np.float32)
y = lstm(x)[0]
for task in os.listdir("/proc/self/task") if os.path.exists("/proc/self/task") else [0]:
    os.sched_setaffinity(int(task), {min(os.sched_getaffinity(0))})
hold(0, 0)  # what the machine was busy with before is forgotten
before = calls()[0]
for _ in range(12):
    CALL
print(calls()[0] - before)
"""
    code = code.replace("SIZE", str(size)).replace("CALL", call)
    teams = int(run_python(code, LSTM_FAST_ADAPTIVE_THREADS="1"))
    assert 1 <= teams < 6
