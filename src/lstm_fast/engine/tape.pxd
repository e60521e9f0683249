# What forward keeps for backward. See tape.pyx.

from lstm_fast.engine.batch cimport Ragged, Rows
from lstm_fast.engine.cell cimport Cell
from lstm_fast.engine.memory cimport Buffer


cdef class Noise:
    cdef readonly object recurrent, zone_h, zone_c
    cdef Py_ssize_t zone_row  # elements from a row of zone_h and zone_c to the next: 0 where there is only one

cdef class Norm:
    """What layer norm keeps for backward: normal values, and the scales that made them.

    With that of each gate `hh` and `scale_hh` are those of the gates, `c` is the cell state itself, and that is all.
    """
    cdef Buffer ih, hh, c                    # (N, 4H), (N, 4H), (N, H)
    cdef Buffer scale_ih, scale_hh, scale_c  # (N,), but of gates (4, N)

cdef Norm new_norm(Cell cell, size_t rows)


cdef class Tape:
    """What `forward` keeps for `backward` of one layer and direction. N: rows of all times together."""
    cdef Cell cell
    cdef Rows rows
    cdef Ragged ragged
    cdef bint reverse
    cdef object x_owner
    cdef const char *x  # (N, I)
    cdef Buffer memory  # of these three:
    cdef char *gates    # (N, 4, padded): i, f, g, o
    cdef char *c        # (B + N, padded): c0, then c of each time
    cdef char *h        # (B + N, P): h0, then h of each time; reverse: (N + B, P), h0 after them
    cdef size_t size    # in bytes, of the numbers in them
    cdef list bounds    # of the bands of the batch in backward: see sums.pyx
    cdef Py_ssize_t border  # rows from this one on are apart: in gates and c those of all times come after the others
    cdef bint h_apart   # in h, too
    cdef bint variant   # then gates are what `lf_variant_forward` keeps, in its layout
    cdef Noise noise
    cdef Norm norm      # with layer norm

cdef Tape new_tape(Cell cell, Ragged ragged, list bounds, const Rows *rows, bint reverse, Py_ssize_t border)


cdef class Stage:
    cdef readonly object cells, kept, x, mask, z


cdef class Cache:
    cdef readonly object _owner, _packing
    cdef readonly list _stages
    cdef readonly Py_ssize_t _T, _B
    cdef readonly bint _blas, _batched

cdef Cache cache_of_one(owner, list tapes, x, Py_ssize_t T, Py_ssize_t B, bint blas, bint batched, packing)
