# The way between padded batches and their valid rows. See packing.pyx.

cimport cython
cimport numpy as cnp

from lstm_fast.engine.batch cimport Ragged


cdef struct Padded:
    # A padded array: strides of time and row, and the size of a row, in bytes.
    char *data
    Py_ssize_t t, b, size


@cython.final
cdef class Packing:
    cdef readonly Ragged ragged
    cdef readonly bint concatenated
    cdef object order, bounds, times
    cdef const Py_ssize_t *row_of   # of the batch, by row of the engine
    cdef const Py_ssize_t *start    # by row of the batch: its first time, or where its times begin in `time`
    cdef const Py_ssize_t *end      # the time after its last
    cdef const Py_ssize_t *time     # NULL, or the times of all steps, sequence by sequence
    cdef Py_ssize_t T
    cdef bint hold

    cpdef tuple arguments(self, tuple arrays)
    cpdef void results(self, tuple found, tuple arrays) except *
    cpdef tuple gradients(self, tuple arrays)
    cpdef cnp.ndarray pack(self, padded)
    cpdef void unpack(self, cnp.ndarray packed, out) except *
    cpdef cnp.ndarray unpack_gradient(self, cnp.ndarray packed)
    cpdef cnp.ndarray pack_gradient(self, dy)
    cpdef sort(self, state)
    cpdef unsort(self, state, out=*)
    cdef cnp.ndarray empty(self, Py_ssize_t columns, int type_number)
    cdef Py_ssize_t time_of(self, Py_ssize_t n, Py_ssize_t step) noexcept nogil
    cdef Py_ssize_t next_time(self, Py_ssize_t n, Py_ssize_t step) noexcept nogil
    cdef Py_ssize_t row_at(self, const Padded *p, Py_ssize_t n, Py_ssize_t t) noexcept nogil
    cdef void spread(self, cnp.ndarray packed, out, bint hold) except *
    cdef void fill(self, const Padded *p, Py_ssize_t n, Py_ssize_t t, Py_ssize_t until,
                   const char *source) noexcept nogil
    cdef void permute(self, Padded out, Padded state, Py_ssize_t jobs, bint sort) noexcept

cdef Packing plain_packing(lengths, Py_ssize_t T, Py_ssize_t B)
