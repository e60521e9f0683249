"""The rows of a batch over time: all of them at every time, or each as long as its sequence."""

cimport numpy as cnp

import numpy as np

from lstm_fast.engine.plan cimport share

cnp.import_array()


cdef class Ragged:
    """The rows of a batch whose sequences have different lengths, longest first.

    Arrays of such a batch have no padding: the rows of time 0 come first, then those of time 1 that still
    run, and so on, (N, columns) in all. Times end with the longest sequence.

    Parameters
    ----------
    lengths : ndarray of intp, shape (B,)
        Not increasing, not negative.

    Attributes
    ----------
    lengths : ndarray of intp, shape (B,)
    counts : ndarray of intp, shape (T + 1,)
        Rows that run at each time; 0 at T.
    offsets : ndarray of intp, shape (T + 1,)
        Rows of all earlier times.
    """

    def __init__(self, lengths):
        self.lengths = np.array(lengths, np.intp)
        cdef const Py_ssize_t *length = integers(self.lengths)
        cdef Py_ssize_t B = cnp.PyArray_DIM(self.lengths, 0), T = length[0] if B else 0, t, running = B
        self.counts, self.offsets = new_integers(T + 1), new_integers(T + 1)
        cdef Py_ssize_t *counts = integers(self.counts)
        cdef Py_ssize_t *offsets = integers(self.offsets)
        offsets[0] = 0
        for t in range(T + 1):
            while running > 0 and length[running - 1] <= t:
                running -= 1
            counts[t] = running
            if t < T:
                offsets[t + 1] = offsets[t] + running
        self.rows.T, self.rows.B, self.rows.total = T, B, offsets[T]
        self.rows.counts, self.rows.offsets, self.rows.lengths = counts, offsets, length

    def shares(self, int parts, Py_ssize_t first_t, Py_ssize_t end_t):
        """The rows (first, end) of each of so many threads at the times first_t .. end_t - 1. For tests."""
        cdef Py_ssize_t first, end
        found = []
        for part in range(parts):
            share_rows(&self.rows, first_t, end_t, part, parts, &first, &end)
            found.append((first, end))
        return found


cdef cnp.ndarray new_integers(cnp.npy_intp n):
    """An uninitialised array (n,) of intp."""
    return cnp.PyArray_EMPTY(1, &n, cnp.NPY_INTP, False)


cdef Rows rows_of(cnp.ndarray x, Ragged ragged):
    """The rows of an input, (T, B, I), (B, I) for one step, or (N, I) of a ragged batch."""
    if cnp.PyArray_NDIM(x) == 3:
        return rows_of_batch(cnp.PyArray_DIM(x, 0), cnp.PyArray_DIM(x, 1), ragged)
    return rows_of_batch(1, cnp.PyArray_DIM(x, 0), ragged)


cdef Rows rows_of_batch(Py_ssize_t T, Py_ssize_t B, Ragged ragged):
    """The rows of a ragged batch, or, where that is None, of one whose rows all have T steps."""
    cdef Rows rows
    if ragged is not None:
        return ragged.rows
    rows.T, rows.B, rows.total = T, B, T * B
    rows.counts = rows.offsets = rows.lengths = NULL
    return rows


cdef Py_ssize_t own_before(const Rows *rows, Py_ssize_t t, Py_ssize_t first_row, Py_ssize_t end_row) noexcept nogil:
    """As `rows_before`, of the rows first_row .. end_row - 1 alone."""
    cdef Py_ssize_t row, total = 0
    if end_row - first_row == rows.B:
        return rows_before(rows, t)
    if rows.lengths == NULL:
        return t * (end_row - first_row)
    for row in range(first_row, end_row):
        total += min(t, rows.lengths[row])
    return total


cdef bint next_run(const Rows *rows, Py_ssize_t first_t, Py_ssize_t end_t, Py_ssize_t first_row, Py_ssize_t end_row,
                   Py_ssize_t n, Run *run) noexcept nogil:
    """Run number n of some rows of the batch at the times first_t .. end_t - 1; False: there are no more.

    All rows are one run. Of others a run has those of a time, or all times of a row, whichever are fewer runs.
    """
    cdef Py_ssize_t own = end_row - first_row, first = rows_before(rows, first_t)
    run.step = run.own_step = 1
    if own == rows.B:
        run.start, run.count, run.own_start = first, rows_before(rows, end_t) - first, 0
        return n == 0
    if rows.counts == NULL and own < end_t - first_t:
        run.start, run.count, run.step = first + first_row + n, end_t - first_t, rows.B
        run.own_start, run.own_step = n, own
        return n < own
    if n >= end_t - first_t:
        return False
    run.start = rows_before(rows, first_t + n) + first_row
    run.own_start = own_before(rows, first_t + n, first_row, end_row) - own_before(rows, first_t, first_row, end_row)
    run.count = min(end_row, rows_at(rows, first_t + n)) - first_row
    return run.count > 0


cdef void share_rows(const Rows *rows, Py_ssize_t first_t, Py_ssize_t end_t, int part, int parts, Py_ssize_t *first,
                     Py_ssize_t *end) noexcept nogil:
    """Part `part` of `parts` of the rows of a batch, about as many steps at the times first_t .. end_t - 1 in each."""
    cdef Py_ssize_t row, steps = 0, total = rows_before(rows, end_t) - rows_before(rows, first_t)
    share(rows.B, part, parts, first, end)
    if rows.lengths == NULL:
        return
    first[0] = end[0] = rows.B
    for row in range(rows.B):
        if first[0] == rows.B and steps >= total * part // parts:
            first[0] = row
        if part < parts - 1 and steps >= total * (part + 1) // parts:
            end[0] = row
            return
        steps += max(0, min(end_t, rows.lengths[row]) - first_t)


cdef void set_band(Rows *band, const Rows *rows, Py_ssize_t first_row, Py_ssize_t end_row,
                   Py_ssize_t *times) noexcept:
    """The rows first_row .. end_row - 1 as a batch of their own; `times`, of 2 (T + 1), if they are ragged."""
    cdef Py_ssize_t t
    cdef Py_ssize_t *offsets
    band[0] = rows[0]
    band.B, band.total = end_row - first_row, (end_row - first_row) * rows.T
    if rows.counts == NULL:
        return
    offsets = times + rows.T + 1
    band.counts, band.offsets, band.lengths = times, offsets, rows.lengths + first_row
    offsets[0] = 0
    for t in range(rows.T + 1):
        times[t] = min(band.B, max(0, rows.counts[t] - first_row))
        if t < rows.T:
            offsets[t + 1] = offsets[t] + times[t]
    band.total = offsets[rows.T]
