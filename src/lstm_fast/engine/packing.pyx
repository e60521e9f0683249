"""Batches of sequences of different lengths or with masked steps, which the engine has without padding."""

cimport numpy as cnp
from libc.string cimport memcpy, memset

import numpy as np

from lstm_fast.engine.memory import empty
from lstm_fast.engine.batch cimport Ragged, rows_at
from lstm_fast.engine.runtime.isa cimport kernels
from lstm_fast.engine.runtime.kernels cimport lf_fpenv, lf_fpenv_enter, lf_fpenv_leave, lf_kernels

cnp.import_array()


cdef struct Padded:
    # A padded array: strides of time and row, and the size of a row, in bytes.
    char *data
    Py_ssize_t t, b, size


cdef class Packing:
    """The way between a batch as users have it, (T, B, columns), and its valid rows, (N, columns).

    Valid rows come in order of time and, within a time, longest sequence first: see `batch.Ragged`. Steps that
    a mask hides do not exist there. Arrays have native byte order and any strides; what is returned is
    C-contiguous.

    Parameters
    ----------
    lengths : ndarray of intp, shape (B,)
        Steps of each sequence; checked by the caller.
    T : int
    hold : bool
        Where a sequence has no step, results have its last output, else zeros.
    mask : ndarray of bool, shape (B, T), optional
        Which steps there are, as many as `lengths` says; without it the first ones.
    concatenated : bool
        The sequences come one after the other, without padding: arrays of users are (T, 1, columns), T being all
        steps.

    Attributes
    ----------
    ragged : Ragged
    """
    cdef readonly Ragged ragged
    cdef readonly bint concatenated
    cdef object order, bounds, times
    cdef const Py_ssize_t *row_of   # of the batch, by row of the engine
    cdef const Py_ssize_t *start    # by row of the batch: its first time, or where its times begin in `time`
    cdef const Py_ssize_t *end      # the time after its last
    cdef const Py_ssize_t *time     # NULL, or the times of all steps, sequence by sequence
    cdef Py_ssize_t T
    cdef bint hold

    def __init__(self, cnp.ndarray lengths not None, Py_ssize_t T, bint hold, mask=None, bint concatenated=False):
        cdef Py_ssize_t B = cnp.PyArray_DIM(lengths, 0), b, first = 0
        cdef const Py_ssize_t *length = pointer(lengths)
        cdef Py_ssize_t *bounds
        self.order = np.argsort(-lengths, kind="stable")
        self.row_of = pointer(self.order)
        self.ragged = Ragged(lengths[self.order])
        self.T, self.hold, self.concatenated = T, hold, concatenated
        self.bounds = np.empty(2 * B, np.intp)
        bounds = <Py_ssize_t *>pointer(self.bounds)
        self.start, self.end = bounds, bounds + B
        if mask is not None:
            self.times = np.nonzero(mask)[1].astype(np.intp)
            self.time = pointer(self.times)
        for b in range(B):
            bounds[b] = first if concatenated or mask is not None else 0
            first += length[b]
            bounds[B + b] = first if concatenated else T

    cdef inline Py_ssize_t time_of(self, Py_ssize_t n, Py_ssize_t step) noexcept nogil:
        """The user's time of a step of row n of the engine."""
        cdef Py_ssize_t index = self.start[self.row_of[n]] + step
        return index if self.time == NULL else self.time[index]

    cdef inline Py_ssize_t next_time(self, Py_ssize_t n, Py_ssize_t step) noexcept nogil:
        """That of the step after it, or the end."""
        if step + 1 < self.ragged.rows.lengths[n]:
            return self.time_of(n, step + 1)
        return self.end[self.row_of[n]]

    cdef inline Py_ssize_t row_at(self, const Padded *p, Py_ssize_t n, Py_ssize_t t) noexcept nogil:
        """Where row n of the engine has time t in the user's array, in bytes."""
        return t * p.t + (0 if self.concatenated else self.row_of[n] * p.b)

    def pack(self, padded):
        """The valid rows of (T, B, columns)."""
        padded = with_whole_rows(padded)  # a copy lives as long as `p` points to it
        cdef Padded p = padded_of(padded)
        cdef cnp.ndarray packed = empty((self.ragged.rows.total, padded.shape[2]), padded.dtype)
        cdef char *at = <char *>cnp.PyArray_DATA(packed)
        cdef Py_ssize_t step, n
        with nogil:
            for step in range(self.ragged.rows.T):
                for n in range(rows_at(&self.ragged.rows, step)):
                    memcpy(at, p.data + self.row_at(&p, n, self.time_of(n, step)), p.size)
                    at += p.size
        return packed

    def unpack(self, cnp.ndarray packed not None, out):
        """Write (N, columns) to an array of the user's shape, whose last axis is contiguous, and what is between."""
        self.spread(packed, out, self.hold)

    def unpack_gradient(self, cnp.ndarray packed not None):
        """The gradient of what `pack` took: zero where it did not look."""
        rows = 1 if self.concatenated else self.ragged.rows.B
        out = empty((self.T, rows, cnp.PyArray_DIM(packed, 1)), packed.dtype)
        self.spread(packed, out, False)
        return out

    cdef void spread(self, cnp.ndarray packed, out, bint hold) except *:
        cdef Padded p = padded_of(out)
        cdef const char *source = <const char *>cnp.PyArray_DATA(packed)
        cdef Py_ssize_t step, n
        with nogil:
            for step in range(self.ragged.rows.T):
                for n in range(rows_at(&self.ragged.rows, step)):
                    memcpy(p.data + self.row_at(&p, n, self.time_of(n, step)), source, p.size)
                    source += p.size
            for n in range(self.ragged.rows.B):
                if not self.concatenated:
                    self.fill(&p, n, 0, self.next_time(n, -1), NULL)
                for step in range(self.ragged.rows.lengths[n]):
                    self.fill(&p, n, self.time_of(n, step) + 1, self.next_time(n, step),
                              p.data + self.row_at(&p, n, self.time_of(n, step)) if hold else NULL)

    cdef void fill(self, const Padded *p, Py_ssize_t n, Py_ssize_t t, Py_ssize_t until,
                   const char *source) noexcept nogil:
        """Fill times of row n where it has no step, with zeros where there is no source."""
        for t in range(t, until):
            if source == NULL:
                memset(p.data + self.row_at(p, n, t), 0, p.size)
            else:
                memcpy(p.data + self.row_at(p, n, t), source, p.size)

    def pack_gradient(self, dy):
        """The gradient of what `unpack` took, from that of what it gave."""
        dy = with_whole_rows(dy)
        cdef cnp.ndarray packed = self.pack(dy)
        cdef Padded p = padded_of(dy)
        cdef const lf_kernels *k = kernels(cnp.PyArray_TYPE(packed))
        cdef char *sums
        cdef Py_ssize_t n, step, t, size = k.itemsize
        cdef lf_fpenv saved
        if not self.hold:
            return packed
        saved = lf_fpenv_enter()
        for n in range(self.ragged.rows.B):
            for step in range(self.ragged.rows.lengths[n]):  # whose output was copied until the next one
                t = self.time_of(n, step) + 1
                if t < self.next_time(n, step):
                    sums = <char *>cnp.PyArray_DATA(packed) + (self.ragged.rows.offsets[step] + n) * p.size
                    k.add_rows(sums, p.data + self.row_at(&p, n, t), p.t // size, self.next_time(n, step) - t,
                               p.size // size)
        lf_fpenv_leave(saved)
        return packed

    def over_time(self, cnp.ndarray rows not None):
        """Rows (B, columns) in the order of the engine, repeated at each time: (N, columns)."""
        counts, offsets = (a[:len(a) - 1] for a in (self.ragged.counts, self.ragged.offsets))
        return rows[np.arange(self.ragged.rows.total) - np.repeat(offsets, counts)]

    def sort(self, state):
        """A state (L D, B, columns), in C order, with the rows in the order of the engine; None stays None.

        A list has the state of each layer; so has the result.
        """
        if state is None:
            return None
        if isinstance(state, list):
            return list(map(self.sort, state))
        out = np.empty(state.shape, state.dtype)
        self.permute(padded_of(out), padded_of(state), state.shape[0], True)
        return out

    def unsort(self, state, out=None):
        """Write a state back in the order of the batch, to an array in C order, or a new one; or lists of them."""
        if isinstance(state, list):
            return list(map(self.unsort, state, [None] * len(state) if out is None else out))
        if out is None:
            out = np.empty(state.shape, state.dtype)
        self.permute(padded_of(out), padded_of(state), state.shape[0], False)
        return out

    cdef void permute(self, Padded out, Padded state, Py_ssize_t jobs, bint sort) noexcept:
        cdef Py_ssize_t j, n, row
        for j in range(jobs):
            for n in range(self.ragged.rows.B):
                row = self.row_of[n]
                memcpy(out.data + j * out.t + (n if sort else row) * out.b,
                       state.data + j * state.t + (row if sort else n) * state.b, out.size)


def packing_of(lengths, mask, Py_ssize_t T, bint hold):
    """The packing of a padded batch with lengths (B,), a mask (B, T), or both; None where it has neither."""
    if mask is None:
        return None if lengths is None else Packing(lengths, T, hold)
    if lengths is not None:
        mask = mask & (np.arange(T) < lengths[:, None])
    return Packing(mask.sum(axis=1, dtype=np.intp), T, hold, mask)


cdef const Py_ssize_t *pointer(cnp.ndarray a) noexcept:
    return <const Py_ssize_t *>cnp.PyArray_DATA(a)


cdef Padded padded_of(cnp.ndarray a):
    """Where an array is, which the caller keeps."""
    cdef Padded p
    p.data = <char *>cnp.PyArray_DATA(a)
    p.t, p.b = cnp.PyArray_STRIDE(a, 0), cnp.PyArray_STRIDE(a, 1)
    p.size = cnp.PyArray_DIM(a, 2) * cnp.PyArray_ITEMSIZE(a)
    return p


cdef object with_whole_rows(cnp.ndarray a):
    """An array (T, B, columns) whose rows are contiguous and whose strides are whole elements."""
    cdef Py_ssize_t size = cnp.PyArray_ITEMSIZE(a)
    if (cnp.PyArray_STRIDE(a, 2) == size and cnp.PyArray_STRIDE(a, 0) % size == 0 and cnp.PyArray_ISALIGNED(a)):
        return a
    return np.require(a, requirements=["C", "ALIGNED"])
