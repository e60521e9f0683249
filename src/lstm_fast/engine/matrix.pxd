# Packed matrices and products with them. See matrix.pyx.

from lstm_fast.engine.memory cimport Buffer
from lstm_fast.engine.runtime.kernels cimport lf_kernels, lf_products


# How a matrix is packed: in gates, in columns, or its transpose in columns.
cdef enum:
    GATES, COLUMNS, TRANSPOSED

cdef Buffer pack_panels(const lf_kernels *k, const lf_products *products, const char *matrix, const char *scale,
                        int how, Py_ssize_t row, Py_ssize_t depth, Py_ssize_t units, Buffer columns=*)
cdef Buffer room_for(const lf_kernels *k, const lf_products *products, int how, Py_ssize_t depth, Py_ssize_t units)
cdef tuple unpacked(Buffer packed, const lf_kernels *k, const lf_products *products, int how, Py_ssize_t depth,
                    Py_ssize_t units)


cdef inline Py_ssize_t operand_row(const lf_products *products, Py_ssize_t depth) noexcept nogil:
    """Operands from one row of `lf_products.round` to the next."""
    cdef Py_ssize_t group = products.group
    return <Py_ssize_t>(products.operand_head // products.operand_size) + (depth + group - 1) // group * group


cdef inline const void *rounded(const lf_products *products, char *operands, const void *rows, Py_ssize_t *row,
                                Py_ssize_t count, Py_ssize_t depth) noexcept nogil:
    """Rows as operands, and in `row` how far apart; the rows themselves where the products take these."""
    if products.round == NULL:
        return rows
    products.round(operands, rows, row[0], count, depth)
    row[0] = operand_row(products, depth)
    return operands


cdef class Packed:
    """A matrix (depth, columns), packed in columns for the kernels that were active then. Immutable."""
    cdef const lf_kernels *k
    cdef Buffer buffer
    cdef int type_number
    cdef readonly Py_ssize_t depth, columns
