"""Fixtures, markers, and a summary of the comparisons that did not run.

A test that asks for `isa` runs once per instruction set that the machine has, with `extended_isa`
also per extension of one, and is marked `every_isa`. What does not depend on the instruction set is
marked `no_isa`. What is left to repeat with LSTM_FAST_ISA set is
``-m "not every_isa and not no_isa and not exhaustive"``.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

pytest.register_assert_rewrite("support")
# Tests of several threads get them on a busy machine, too.
os.environ.setdefault("LSTM_FAST_ADAPTIVE_THREADS", "0")
# Threads of OpenMP that have nothing to do sleep at once: beside another program on the same cores,
# PyTorch's operators and ours would take several times as long while they spin.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from support import comparisons, signal_stack  # noqa: E402
from support.internals import assume_meeting, hold, isas, new_cell, use_isa  # noqa: E402

import lstm_fast  # noqa: E402
from lstm_fast import reference  # noqa: E402

EXTENDED = isas()["detected"]
ISAS = [isa for isa in EXTENDED if "_" not in isa]  # extensions have the same float kernels
THREADS = lstm_fast.get_num_threads()


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a shell
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "every_isa: runs on every instruction set by itself")
    config.addinivalue_line("markers", "no_isa: does not depend on the instruction set")


def pytest_itemcollected(item: pytest.Item) -> None:
    if {"isa", "extended_isa"} & {*getattr(item, "fixturenames", ())}:
        item.add_marker("every_isa")
    if hasattr(item, "callspec") and item.callspec.params.get("implementation") is reference:
        item.add_marker("no_isa")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = terminalreporter.stats.get("skipped", [])
    reasons = [report.longrepr[2] for report in reports if isinstance(report.longrepr, tuple)]
    lines = comparisons.summary(reasons)
    if lines:
        terminalreporter.section("comparisons that did not run")
        for line in lines:
            terminalreporter.write_line(line)


@contextmanager
def active(isa: str) -> Iterator[str]:
    before = isas()["active"]
    use_isa(isa)
    assert isas()["active"] == isa
    assert new_cell().isa == isa.partition("_")[0]
    yield isa
    after = isas()["active"]
    use_isa(before)
    assert after == isa, "the test changed the ISA"


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Name of an ISA, active during the test."""
    with active(request.param) as isa:
        yield isa


@pytest.fixture(params=EXTENDED)
def extended_isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Name of an ISA or of an extension of one, active during the test."""
    with active(request.param) as isa:
        yield isa


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> np.dtype:
    return np.dtype(request.param)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20240229)


@pytest.fixture
def threads() -> Iterator[None]:
    """Lets a test call `set_num_threads`; afterwards the number is chosen automatically again."""
    yield
    lstm_fast.set_num_threads(None)


@pytest.fixture
def adaptive(threads: None) -> Iterator[None]:
    """Adaptive threads, for which nothing has been seen yet, on cores near one another."""
    hold(0, 0)
    known = assume_meeting(60)
    lstm_fast.set_adaptive_threads(True)
    yield
    assume_meeting(known)
    lstm_fast.set_adaptive_threads(False)
    hold(0, 0)


@pytest.fixture(autouse=True)
def threads_of_pytorch() -> Iterator[None]:
    """Undo `torch.set_num_threads`: PyTorch shares the OpenMP runtime, to which this is a limit."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(THREADS)


@pytest.fixture(autouse=True)
def stack_of_signals() -> Iterator[None]:
    """Undo what OpenVINO does to it."""
    stack = signal_stack.current()
    yield
    signal_stack.restore(stack)


@pytest.fixture
def one_thread_of_pytorch(threads_of_pytorch: None) -> None:
    """One thread of PyTorch and of the engine in it: two pools in turn disturb each other."""
    sys.modules["torch"].set_num_threads(1)
