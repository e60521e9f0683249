"""Batches of sequences of different lengths: with padding outside, without it in the engine."""

cimport numpy as cnp
from libc.string cimport memcpy, memset

import numpy as np

from ._dispatch cimport kernels
from ._engine cimport Ragged, rows_at
from ._kernels cimport lf_fpenv, lf_fpenv_enter, lf_fpenv_leave, lf_kernels

cnp.import_array()


cdef struct Padded:
    # A padded array: strides of time and row, and the size of a row, in bytes.
    char *data
    Py_ssize_t t, b, size


cdef class Packing:
    """The way between a padded batch, (T, B, columns), and its valid rows, (N, columns).

    Rows come in order of time and, within a time, longest sequence first: see `_engine.Ragged`. Arrays have
    native byte order and any strides; what is returned is C-contiguous.

    Parameters
    ----------
    lengths : ndarray of intp, shape (B,)
        Steps of each row, from 0 to T; checked by the caller.
    T : int
    hold : bool
        After the end of a row results have its last output, else zeros.

    Attributes
    ----------
    ragged : Ragged
    """
    cdef readonly Ragged ragged
    cdef object order
    cdef const Py_ssize_t *row_of  # of the batch, by row of the engine
    cdef Py_ssize_t T
    cdef bint hold

    def __init__(self, cnp.ndarray lengths not None, Py_ssize_t T, bint hold):
        self.order = np.argsort(-lengths, kind="stable")
        self.row_of = <Py_ssize_t *>cnp.PyArray_DATA(self.order)
        self.ragged = Ragged(lengths[self.order])
        self.T, self.hold = T, hold

    def pack(self, padded):
        """The valid rows of (T, B, columns)."""
        padded = with_whole_rows(padded)  # a copy lives as long as `p` points to it
        cdef Padded p = padded_of(padded)
        cdef cnp.ndarray packed = np.empty((self.ragged.rows.total, padded.shape[2]), padded.dtype)
        cdef char *at = <char *>cnp.PyArray_DATA(packed)
        cdef Py_ssize_t t, n
        with nogil:
            for t in range(self.ragged.rows.T):
                for n in range(rows_at(&self.ragged.rows, t)):
                    memcpy(at, p.data + t * p.t + self.row_of[n] * p.b, p.size)
                    at += p.size
        return packed

    def unpack(self, cnp.ndarray packed not None, out):
        """Write (N, columns) to a padded array, whose last axis is contiguous, and what comes after each row's end."""
        self.spread(packed, out, self.hold)

    def unpack_gradient(self, cnp.ndarray packed not None):
        """The gradient of what `pack` took: zero where it did not look."""
        out = np.empty((self.T, self.ragged.rows.B, cnp.PyArray_DIM(packed, 1)), packed.dtype)
        self.spread(packed, out, False)
        return out

    cdef void spread(self, cnp.ndarray packed, out, bint hold) except *:
        cdef Padded p = padded_of(out)
        cdef const char *data = <const char *>cnp.PyArray_DATA(packed)
        cdef const char *source
        cdef char *target
        cdef Py_ssize_t t, n, length
        with nogil:
            for t in range(self.T):
                for n in range(self.ragged.rows.B):
                    length = self.ragged.rows.lengths[n]
                    target = p.data + t * p.t + self.row_of[n] * p.b
                    if t < length or (hold and length > 0):
                        source = data + (self.ragged.rows.offsets[min(t, length - 1)] + n) * p.size
                        memcpy(target, source, p.size)
                    else:
                        memset(target, 0, p.size)

    def pack_gradient(self, dy):
        """The gradient of what `unpack` took, from that of what it gave."""
        dy = with_whole_rows(dy)
        cdef cnp.ndarray packed = self.pack(dy)
        cdef Padded p = padded_of(dy)
        cdef const lf_kernels *k = kernels(cnp.PyArray_TYPE(packed))
        cdef char *sums
        cdef Py_ssize_t n, length, size = k.itemsize
        cdef lf_fpenv saved
        if not self.hold:
            return packed
        saved = lf_fpenv_enter()
        for n in range(self.ragged.rows.B):  # a row's last output was copied to all later times
            length = self.ragged.rows.lengths[n]
            if length > 0:
                sums = <char *>cnp.PyArray_DATA(packed) + (self.ragged.rows.offsets[length - 1] + n) * p.size
                k.add_rows(sums, p.data + length * p.t + self.row_of[n] * p.b, p.t // size, self.T - length,
                           p.size // size)
        lf_fpenv_leave(saved)
        return packed

    def sort(self, state):
        """A state (L D, B, columns), in C order, with the rows in the order of the engine; None stays None."""
        if state is None:
            return None
        out = np.empty(state.shape, state.dtype)
        self.permute(padded_of(out), padded_of(state), state.shape[0], True)
        return out

    def unsort(self, state, out):
        """Write a state back in the order of the batch, to an array in C order."""
        self.permute(padded_of(out), padded_of(state), state.shape[0], False)
        return out

    cdef void permute(self, Padded out, Padded state, Py_ssize_t jobs, bint sort) noexcept:
        cdef Py_ssize_t j, n, row
        for j in range(jobs):
            for n in range(self.ragged.rows.B):
                row = self.row_of[n]
                memcpy(out.data + j * out.t + (n if sort else row) * out.b,
                       state.data + j * state.t + (row if sort else n) * state.b, out.size)


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
    return np.ascontiguousarray(a)
