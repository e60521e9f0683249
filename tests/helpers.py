"""What tests share: random layers and how they run, other processes, C's fenv."""

import ctypes
import os
import platform
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np

VECTOR_BYTES = {"avx512": 64, "avx2": 32, "baseline": 16, "neon": 16}
STATES = ["y", "hn", "cn"]
# T, B, I, H and P, each large enough for several threads (test_threads.py makes sure of it). They
# share the units where there is one row, and the rows where there is one vector of units.
MANY_UNITS = [(12, 1, 30, 210, 0), (12, 1, 30, 210, 100)]
MANY_ROWS = [(30, 45, 70, 3, 0), (30, 45, 70, 3, 2)]
SEVERAL_THREADS = [*MANY_UNITS, *MANY_ROWS]


def lanes(isa, dtype):
    """Return how many elements a vector has."""
    return VECTOR_BYTES[isa] // dtype.itemsize


def draw(rng, T, B, I, H, P=0, *, dtype, bias=True):
    """Return random arguments of `lstm_forward` and the gradients dy, dhn, dcn, none of them zero.

    Weights are scaled by 1 / sqrt(columns): with larger ones an LSTM is chaotic, and rounding
    errors grow without bound.
    """
    R = P or H
    shapes = {"x": (T, B, I), "h0": (B, R), "c0": (B, H), "w_ih": (4 * H, I), "w_hh": (4 * H, R)}
    if bias:
        shapes |= {"b_ih": (4 * H,), "b_hh": (4 * H,)}
    if P:
        shapes |= {"w_hr": (P, H)}
    args = {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}
    for name in args.keys() & {"w_ih", "w_hh", "w_hr"}:
        args[name] *= dtype.type(1 / np.sqrt(shapes[name][1]))
    d_shapes = [(T, B, R), (B, R), (B, H)]
    return args, [rng.standard_normal(shape).astype(dtype) for shape in d_shapes]


def run(functions, args, d_results, **options):
    """Return results and gradients by name; `functions` is `lstm_fast` or its `reference`."""
    y, (hn, cn), cache = functions.lstm_forward(**args, **options)
    dx, (dh0, dc0), grads = functions.lstm_backward(*d_results, cache)
    results = {"y": y, "hn": hn, "cn": cn, "dx": dx, "dh0": dh0, "dc0": dc0}
    return results | {f"d{name}": grad for name, grad in grads.items()}


def central_difference(loss, array, step):
    """Return the difference quotient of loss() for each element, which it changes in place.

    It errs by about step**2 times a third derivative (truncation), and 1e-16 / step (rounding).
    """
    difference = np.empty_like(array)
    for index in np.ndindex(array.shape):
        value = array[index]
        array[index] = value + step
        above = loss()
        array[index] = value - step
        difference[index] = (above - loss()) / (2 * step)
        array[index] = value
    return difference


def rows(arrays, chosen):
    """Return what belongs to some batch rows: not the weights, their gradients and the biases."""
    axis = {"y": 1, "dx": 1, "hn": 0, "cn": 0, "dh0": 0, "dc0": 0, "x": 1, "h0": 0, "c0": 0}
    return {name: arrays[name].take(chosen, axis[name]) for name in arrays.keys() & axis.keys()}


def assert_identical(actual, expected):
    """The same arrays, to the bit."""
    assert actual.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(actual[name], array, err_msg=name, strict=True)


# Other processes


PREAMBLE = """
import os, numpy as np, lstm_fast
from lstm_fast import get_num_threads, set_num_threads
from helpers import MANY_UNITS, SEVERAL_THREADS, assert_identical, draw, run
rng, dtype = np.random.default_rng(0), np.dtype("float32")
def tasks(): return len(os.listdir("/proc/self/task"))
"""


def python(code, preamble=PREAMBLE, **environment):
    """Run code in a new interpreter, after the preamble; return what it printed, in words."""
    ours = {"PYTHONPATH": f"{Path(__file__).parent}:{os.environ.get('PYTHONPATH', '')}"}
    names = ("OMP_NUM_THREADS", "OMP_THREAD_LIMIT")
    inherited = {name: value for name, value in os.environ.items() if name not in names}
    result = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", preamble + code],
        env=inherited | ours | environment,
        capture_output=True,
        text=True,
        timeout=120,  # a process that hangs
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout.split()


# The floating-point environment


LIBM = ctypes.CDLL(None)
X86 = platform.machine() == "x86_64"
UPWARD, DIVIDED_BY_ZERO, ALL_FLAGS = (0x800, 0x04, 0x3D) if X86 else (0x400000, 0x02, 0x1F)


@contextmanager
def unusual_environment(flush):
    """Round upwards, with an exception flag set and, on x86, subnormals flushed to zero."""
    before = current()
    LIBM.feclearexcept(ALL_FLAGS)
    LIBM.feraiseexcept(DIVIDED_BY_ZERO)
    LIBM.fesetround(UPWARD)
    changed = current()
    if flush and X86:  # glibc's fenv_t ends with MXCSR: the bits FTZ and DAZ
        mxcsr = int.from_bytes(changed[28:], "little") | 0x8040
        changed = changed[:28] + mxcsr.to_bytes(4, "little")
    LIBM.fesetenv(changed)
    try:
        yield changed
    finally:
        LIBM.fesetenv(before)


def current(flags=True):
    """Return the environment, C's fenv_t, with or without the exception flags."""
    now = ctypes.create_string_buffer(32 if X86 else 8)
    raised = LIBM.fetestexcept(ALL_FLAGS)
    if not flags:
        LIBM.feclearexcept(ALL_FLAGS)
    LIBM.fegetenv(now)
    if not flags:
        LIBM.feraiseexcept(raised)
    return now.raw
