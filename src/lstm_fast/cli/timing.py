"""The time of one layer beside that of its specification: the last table of the demonstration.

The specification, `lstm_fast.reference`, is plain NumPy, written to be read and to be compared
with. It shows that the results are right, and what a loop in Python costs; it is no competitor.
"""

import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from timeit import Timer
from typing import Any

import numpy as np
import numpy.typing as npt

import lstm_fast
from lstm_fast import LSTM, reference

__all__ = ["ROWS", "computations", "timing_table"]

Array = npt.NDArray[np.floating[Any]]
Computation = Callable[[], Sequence[Array]]

# What is timed: its name, an action of `computations`, and (T, B, I, H).
ROWS = {
    "streaming step": ("streaming", (1, 1, 64, 64)),
    "one sequence": ("inference", (100, 1, 64, 64)),
    "batch": ("inference", (50, 32, 64, 128)),
    "training step": ("training", (50, 32, 64, 128)),
}
TURNS = 9
# Seconds of a pause, in which threads of the one before stop spinning, and of a burst of calls.
PAUSE, BURST = 0.03, 0.01


def timing_table(threads: int) -> str:
    """Return a table of median times, and of how far apart the results are."""
    lines = []
    with _limit_threads(threads):
        for name, (action, shape) in ROWS.items():
            ours, plain = computations(action, *shape)
            apart = max(
                np.abs(a - b).max() / np.abs(b).max() for a, b in zip(ours(), plain(), strict=True)
            )
            a, b = (1e6 * seconds for seconds in _median_times(ours, plain))
            sizes = "".join(f"{n:5}" for n in shape)
            lines.append(f"{name:<16}{sizes}{a:12,.1f}{b:12,.1f}{b / a:9.1f}x{apart:10.0e}")
    count = "1 thread" if threads == 1 else f"{threads} threads"
    isa = lstm_fast.show_config()["isas"]["active"]
    return "\n".join(
        [
            f"One float32 layer on this machine: {_processor()}; {isa} kernels; {count}.",
            "Median microseconds, beside lstm_fast.reference: the specification, plain NumPy"
            f" {np.__version__}",
            "written to be read, no competitor. Last, how far apart the results are, in parts of",
            "the largest element.",
            "",
            f"{'':16}    T    B    I    H   lstm_fast   reference     ratio     apart",
            *lines,
            "",
            "Competitors (PyTorch, ONNX Runtime, OpenVINO, JAX), in the source tree:",
            "    pip install '.[bench]' && python -m bench",
        ]
    )


def computations(action: str, T: int, B: int, I: int, H: int) -> tuple[Computation, Computation]:
    """Return the same computation by `LSTM` and by `reference`.

    Parameters
    ----------
    action : {"inference", "training", "streaming"}
        The results are y, hn, cn; or the gradients of x, h0, c0 and the parameters; or y of one
        step, always with the input x[0], the state being carried from call to call.
    T, B, I, H : int
        Steps, batch rows, inputs, units.
    """
    rng = np.random.default_rng(0)
    lstm = LSTM(I, H, seed=rng)
    w_ih, w_hh, b_ih, b_hh = lstm.state_dict().values()
    x, h0, c0, dy = (
        rng.standard_normal(shape, np.float32)
        for shape in ((T, B, I), (1, B, H), (1, B, H), (T, B, H))
    )
    stream = lstm.stream(B)
    stream.state = h0, c0
    h, c = h0[0], c0[0]

    def inference() -> Sequence[Array]:
        y, (hn, cn) = lstm(x, (h0, c0))
        return y, hn, cn

    def training() -> Sequence[Array]:
        _, _, cache = lstm.forward(x, (h0, c0))
        dx, (dh0, dc0), grads = lstm.backward(dy, None, cache)
        return dx, dh0, dc0, *grads.values()

    def streaming() -> Sequence[Array]:
        return (stream.step(x[0]),)

    def plain(x: Array, h: Array, c: Array) -> tuple[Array, tuple[Array, Array], reference.Cache]:
        return reference.lstm_forward(x, w_ih, w_hh, b_ih, b_hh, h, c)

    def plain_inference() -> Sequence[Array]:
        y, (hn, cn), _ = plain(x, h0[0], c0[0])
        return y, hn, cn

    def plain_training() -> Sequence[Array]:
        _, _, cache = plain(x, h0[0], c0[0])
        dx, (dh0, dc0), grads = reference.lstm_backward(dy, None, None, cache)
        return dx, dh0, dc0, *grads.values()

    def plain_streaming() -> Sequence[Array]:
        nonlocal h, c
        y, (h, c), _ = plain(x[:1], h, c)
        return (y[0],)

    return {
        "inference": (inference, plain_inference),
        "training": (training, plain_training),
        "streaming": (streaming, plain_streaming),
    }[action]


def _median_times(*calls: Computation) -> list[float]:
    """Return the median time of each in seconds; they take turns, so that all meet slow spells."""
    timers = [Timer(call) for call in calls]
    counts = [max(1, int(BURST / timer.timeit(1))) for timer in timers]
    samples: list[list[float]] = [[] for _ in timers]
    for _ in range(TURNS):
        for timer, count, found in zip(timers, counts, samples, strict=True):
            time.sleep(PAUSE)
            timer.timeit(count)  # the system spreads woken threads over the CPUs
            found.append(timer.timeit(count) / count)
    return [float(np.median(found)) for found in samples]


@contextmanager
def _limit_threads(threads: int) -> Iterator[None]:
    """Hold lstm_fast and NumPy's BLAS to a number of threads."""
    limits = import_module("threadpoolctl").threadpool_limits
    before = lstm_fast.get_num_threads()
    lstm_fast.set_num_threads(threads)
    try:
        with limits(limits=threads, user_api="blas"):
            yield
    finally:
        lstm_fast.set_num_threads(before)


def _processor() -> str:
    """Return the name of the processor and the number of CPUs."""
    try:
        info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        name = next(line for line in info.splitlines() if line.startswith("model name"))
        name = name.partition(":")[2].strip()
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} CPUs"
