# Where the gradients of parameters are summed. See sums.pyx.

from lstm_fast.engine.batch cimport Ragged


cdef struct Sum:
    # Those of the weights and biases of a cell
    char *w_ih   # (4H, I)
    char *w_hh   # (4H, P)
    char *w_hr   # (P, H); NULL without projection
    char *bias   # (4H,), of both biases; NULL without


cdef class Sums:
    cdef int bands
    cdef list cells
    cdef list bounds  # the row with which each band begins, and B
    cdef list arrays  # of the parameters of each cell, in order: sums of the first band, until there is a total
    cdef list others  # Buffers of the other bands
    cdef bint begun   # whether there is something to add to
    cdef Py_ssize_t first(self, Py_ssize_t n) noexcept
    cdef Sum of(self, Py_ssize_t n, int band) except *
    cdef dict by_name(self, Py_ssize_t n)
    cdef void nothing(self) except *
    cpdef list total(self)


cpdef list bands_of(list cells, Py_ssize_t T, Py_ssize_t B, Ragged ragged, bint plain)
