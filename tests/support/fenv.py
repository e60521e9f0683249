"""The floating-point environment of C: an unusual one for a caller, and what is left of it."""

import ctypes
import platform
import sys
from contextlib import contextmanager

import pytest

LIBM = ctypes.CDLL(None)
X86 = platform.machine() == "x86_64"
UPWARD, DIVIDED_BY_ZERO, ALL_FLAGS = (0x800, 0x04, 0x3D) if X86 else (0x400000, 0x02, 0x1F)
INEXACT = 0x20 if X86 else 0x10
needs_fenv = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"),
    reason="knows the constants of x86-64 and aarch64 Linux only",
)


@contextmanager
def unusual_environment():
    """Round upwards, with an exception flag set and, on x86, subnormals flushed to zero.

    Afterwards everything is as it was before; that the block itself changes nothing is checked.
    """
    before = ctypes.create_string_buffer(32)
    LIBM.fegetenv(before)
    LIBM.feclearexcept(ALL_FLAGS)
    LIBM.feraiseexcept(DIVIDED_BY_ZERO)
    LIBM.fesetround(UPWARD)
    changed = ctypes.create_string_buffer(32)
    LIBM.fegetenv(changed)
    if X86:  # glibc's fenv_t ends with MXCSR: the bits FTZ and DAZ
        mxcsr = int.from_bytes(changed.raw[28:], "little") | 0x8040
        changed.raw = changed.raw[:28] + mxcsr.to_bytes(4, "little")
    LIBM.fesetenv(changed)
    unusual = control()
    try:
        yield
        assert control() == unusual, "the block changed the floating-point environment"
    finally:
        LIBM.fesetenv(before)


def control():
    """Return what the environment says of rounding, subnormals and traps, without the flags."""
    now = ctypes.create_string_buffer(32)
    LIBM.fegetenv(now)
    if X86:
        mxcsr = int.from_bytes(now.raw[28:], "little")
        return LIBM.fegetround(), now.raw[:2], mxcsr & ~0x3F
    return LIBM.fegetround(), now.raw[:4]


def raised_flags():
    """Return the exceptions raised so far, but for inexact, which every sum raises."""
    return LIBM.fetestexcept(ALL_FLAGS & ~INEXACT)


def clear_flags():
    LIBM.feclearexcept(ALL_FLAGS)
