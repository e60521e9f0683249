"""The stack on which the main thread handles signals.

On a CPU with AMX, OpenVINO gives the thread another one for as long as one of its cores lives, and
where cores end in another order than they began it leaves one that it has freed. The next signal
then ends the process.
"""

import ctypes
import sys

__all__ = ["Stack", "current", "restore"]

LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class Stack(ctypes.Structure):
    """`stack_t` of Linux."""

    _fields_ = (("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


def current() -> Stack:
    """Return the stack that the thread has for signals."""
    stack = Stack()
    if LIBC is not None:
        LIBC.sigaltstack(None, ctypes.byref(stack))
    return stack


def restore(stack: Stack) -> None:
    """Make it the one that the thread has, unless it is."""
    if LIBC is not None and current().start != stack.start:
        LIBC.sigaltstack(ctypes.byref(stack), None)
