"""NumPy's arithmetic as the kernels do theirs, whatever the caller has set."""

import numpy as np

cdef extern from "<fenv.h>":
    ctypedef struct fenv_t:
        pass
    const fenv_t *FE_DFL_ENV
    int fegetenv(fenv_t *)
    int fesetenv(const fenv_t *)


cdef class DefaultArithmetic:
    """A context for NumPy: it rounds to nearest, keeps subnormals, and warns of nothing.

    Afterwards the floating-point environment of the thread is what it was, exception flags included.
    """

    cdef fenv_t saved
    cdef object errors

    def __enter__(self):
        self.errors = np.errstate(all="ignore")
        self.errors.__enter__()
        fegetenv(&self.saved)
        fesetenv(FE_DFL_ENV)

    def __exit__(self, kind, error, traceback):
        fesetenv(&self.saved)
        self.errors.__exit__(kind, error, traceback)


def add(a, b):
    """a += b, in default arithmetic."""
    with DefaultArithmetic():
        np.add(a, b, out=a)
