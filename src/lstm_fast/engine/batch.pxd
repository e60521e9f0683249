# The rows of a batch over time. See batch.pyx.

cimport numpy as cnp


cdef struct Rows:
    # The rows of a batch, of which those at time t run that have more than t steps; the others come after.
    Py_ssize_t T, B, total
    const Py_ssize_t *counts   # NULL: every row has T steps
    const Py_ssize_t *offsets
    const Py_ssize_t *lengths

cdef inline Py_ssize_t rows_at(const Rows *rows, Py_ssize_t t) noexcept nogil:
    """Rows that run at time t, 0 <= t < T."""
    return rows.B if rows.counts == NULL else rows.counts[t]

cdef inline Py_ssize_t rows_before(const Rows *rows, Py_ssize_t t) noexcept nogil:
    """Rows of all times before t, 0 <= t <= T: where those of time t begin."""
    return t * rows.B if rows.offsets == NULL else rows.offsets[t]

cdef struct Run:
    # Rows of an array of all times, each `step` after the one before
    Py_ssize_t start, count, step

cdef bint next_run(const Rows *rows, Py_ssize_t first_t, Py_ssize_t end_t, Py_ssize_t first_row, Py_ssize_t end_row,
                   Py_ssize_t n, Run *run) noexcept nogil
cdef void share_rows(const Rows *rows, int part, int parts, Py_ssize_t *first, Py_ssize_t *end) noexcept nogil


cdef class Ragged:
    cdef Rows rows
    cdef readonly object lengths, counts, offsets

cdef Rows rows_of(cnp.ndarray x, Ragged ragged)
