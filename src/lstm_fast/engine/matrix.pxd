# Packed matrices and products with them. See matrix.pyx.

from lstm_fast.engine.memory cimport Buffer
from lstm_fast.engine.runtime.kernels cimport lf_kernels, lf_products


# How a matrix is packed: in gates, in columns, or its transpose in columns.
cdef enum:
    GATES, COLUMNS, TRANSPOSED

cdef Buffer pack_panels(const lf_kernels *k, const lf_products *products, const char *matrix, const char *scale,
                        int how, Py_ssize_t row, Py_ssize_t depth, Py_ssize_t units)
cdef tuple unpacked(Buffer packed, const lf_kernels *k, const lf_products *products, int how, Py_ssize_t depth,
                    Py_ssize_t units)


cdef class Packed:
    """A matrix (depth, columns), packed in columns for the kernels that were active then. Immutable."""
    cdef const lf_kernels *k
    cdef Buffer buffer
    cdef int type_number
    cdef readonly Py_ssize_t depth, columns
