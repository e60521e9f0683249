"""BLAS from ``scipy.linalg.cython_blas``: the only module that touches it.

Imported by the engine when a product first wants BLAS, so that plain inference never pays for SciPy.
"""

import threading
from contextlib import contextmanager

from cpython.pycapsule cimport PyCapsule_New
from scipy.linalg.cython_blas cimport dgemm, sgemm
from threadpoolctl import ThreadpoolController

from ._blas cimport gemm_function


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

_controller = None
_lock = threading.Lock()
_users = 0
_limit = None


@contextmanager
def single_threaded():
    """Hold every BLAS of the process to one thread: our own threads call it, each on its slice.

    The limit is the process's, so overlapping calls from several Python threads share one: the first to
    enter sets it, the last to leave restores what was there before.
    """
    global _controller, _users, _limit
    with _lock:
        if _controller is None:
            _controller = ThreadpoolController()
        if _users == 0:
            _limit = _controller.limit(limits=1, user_api="blas")
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _limit.restore_original_limits()
                _limit = None


def info():
    """The BLAS libraries of the process, as ``threadpoolctl`` reports them."""
    return [lib for lib in ThreadpoolController().info() if lib["user_api"] == "blas"]
