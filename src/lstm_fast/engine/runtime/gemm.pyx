"""The way to `blas`, which imports SciPy: taken when a product first wants it."""

from cpython.pycapsule cimport PyCapsule_GetPointer


cdef gemm_function load_gemm(size_t itemsize) except NULL:
    """BLAS's matrix multiply for numbers of this size."""
    from lstm_fast.engine.runtime import blas

    return <gemm_function>PyCapsule_GetPointer(blas.gemm[itemsize], NULL)


def held_to_one_thread():
    """A context in which BLAS runs on the thread that calls it: see `blas.single_threaded`."""
    from lstm_fast.engine.runtime import blas

    return blas.single_threaded()
