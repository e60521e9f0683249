"""BLAS from ``scipy.linalg.cython_blas``: the only module that touches it.

Imported when a product first wants BLAS, so that plain inference never pays for SciPy.
"""

import ctypes
import os
import threading
from contextlib import contextmanager
from itertools import product

from cpython.pycapsule cimport PyCapsule_New
from scipy.linalg.cython_blas cimport dgemm, sgemm
from threadpoolctl import ThreadpoolController

from lstm_fast.engine.runtime.blas cimport gemm_function


# BLAS is column-major: it sees the transposes of our matrices, and c' = op(b)' op(a)'.
cdef void _gemm_f32(bint a_transposed, bint b_transposed, int m, int n, int k, const void *a, int a_row,
                    const void *b, int b_row, void *c, int c_row, bint accumulate) noexcept nogil:
    cdef float one = 1.0, beta = accumulate
    sgemm(b"T" if b_transposed else b"N", b"T" if a_transposed else b"N", &n, &m, &k, &one,
          <float *>b, &b_row, <float *>a, &a_row, &beta, <float *>c, &c_row)


cdef void _gemm_f64(bint a_transposed, bint b_transposed, int m, int n, int k, const void *a, int a_row,
                    const void *b, int b_row, void *c, int c_row, bint accumulate) noexcept nogil:
    cdef double one = 1.0, beta = accumulate
    dgemm(b"T" if b_transposed else b"N", b"T" if a_transposed else b"N", &n, &m, &k, &one,
          <double *>b, &b_row, <double *>a, &a_row, &beta, <double *>c, &c_row)


# By itemsize: capsules that hold a gemm_function.
gemm = {
    4: PyCapsule_New(<void *><gemm_function>_gemm_f32, NULL, NULL),
    8: PyCapsule_New(<void *><gemm_function>_gemm_f64, NULL, NULL),
}


class _Limit:
    """How many threads each BLAS of the process has: brought to one, and back.

    OpenBLAS's number is the process's, and threadpoolctl (3.8) lets only one Python thread change it, so that a
    restoring thread could be refused: it is set in the library itself.
    """

    def __init__(self):
        self.libraries = []
        for library in ThreadpoolController().select(user_api="blas").lib_controllers:
            set_ = _openblas_setter(library.filepath) or library.set_num_threads
            self.libraries.append((library.get_num_threads, set_))
        self.users, self.before = 0, []

    def enter(self):
        if self.users == 0:
            self.before = [get() for get, _ in self.libraries]
            for _, set_ in self.libraries:
                set_(1)
        self.users += 1

    def leave(self):
        self.users -= 1
        if self.users == 0:
            self.restore()

    def restore(self):
        for (_, set_), number in zip(self.libraries, self.before):
            if number is not None:
                set_(number)
        self.users, self.before = 0, []


def _openblas_setter(path):
    """OpenBLAS's own function that sets its number of threads, in any of its builds; None in another library."""
    library = ctypes.CDLL(path)
    for prefix, suffix in product(("", "scipy_"), ("", "64_", "_64")):
        name = f"{prefix}openblas_set_num_threads{suffix}"
        parallel = getattr(library, f"{prefix}openblas_get_parallel{suffix}", None)
        if hasattr(library, name) and parallel is not None and parallel() == 1:  # with threads of its own
            return getattr(library, name)
    return None


_lock = threading.RLock()
_limit = None


# No thread is within OpenBLAS's functions for the number of threads while another one forks: the child would wait for
# ever for what that thread had locked.
def _before_fork():
    _lock.acquire()


def _after_fork_in_parent():
    _lock.release()


def _after_fork_in_child():
    # The threads that held the limit are not there; one may have been about to set or to lift it.
    global _lock
    _lock = threading.RLock()
    if _limit is not None and _limit.before:
        _limit.restore()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent,
                        after_in_child=_after_fork_in_child)


@contextmanager
def single_threaded():
    """Hold every BLAS of the process to one thread: our own threads call it, each on its slice.

    The limit is the process's, so overlapping calls from several Python threads share one: the first to
    enter sets it, the last to leave restores what was there before.
    """
    global _limit
    with _lock:
        if _limit is None:
            _limit = _Limit()
        _limit.enter()
    try:
        yield
    finally:
        with _lock:
            _limit.leave()


def info():
    """The BLAS libraries of the process, as ``threadpoolctl`` reports them."""
    return ThreadpoolController().select(user_api="blas").info()
