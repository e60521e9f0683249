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

cdef Py_ssize_t own_before(const Rows *rows, Py_ssize_t t, Py_ssize_t first_row, Py_ssize_t end_row) noexcept nogil

cdef struct Run:
    # Rows of an array of all times, each `step` after the one before; and where they are among those of a thread alone
    Py_ssize_t start, count, step, own_start, own_step

cdef bint next_run(const Rows *rows, Py_ssize_t first_t, Py_ssize_t end_t, Py_ssize_t first_row, Py_ssize_t end_row,
                   Py_ssize_t n, Run *run) noexcept nogil
cdef void set_band(Rows *band, const Rows *rows, Py_ssize_t first_row, Py_ssize_t end_row,
                   Py_ssize_t *times) noexcept
cdef void share_rows(const Rows *rows, Py_ssize_t first_t, Py_ssize_t end_t, int part, int parts, Py_ssize_t *first,
                     Py_ssize_t *end) noexcept nogil


cdef cnp.ndarray new_integers(cnp.npy_intp n)

cdef inline Py_ssize_t *integers(cnp.ndarray a) noexcept:
    return <Py_ssize_t *>cnp.PyArray_DATA(a)


cdef class Ragged:
    cdef Rows rows
    cdef readonly object lengths, counts, offsets

cdef Rows rows_of(cnp.ndarray x, Ragged ragged)
cdef Rows rows_of_batch(Py_ssize_t T, Py_ssize_t B, Ragged ragged)
