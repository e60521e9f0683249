cimport numpy as cnp

from ._blas cimport gemm_function
from ._kernels cimport lf_kernels, lf_rows, lf_variant


cdef struct Block:
    char *data
    size_t size

cdef class Buffer:
    """Memory aligned to a cache line."""
    cdef char *data
    cdef size_t size
    cdef Block block  # of which it is a part

cdef Buffer new_buffer(size_t elements, size_t itemsize)
cdef cnp.ndarray new_array(int ndim, const cnp.npy_intp *shape, int type_number)
cdef size_t times(size_t a, size_t b) except? 0

cdef inline size_t rounded(size_t size) noexcept nogil:
    """A size in bytes, rounded up to whole cache lines."""
    return (size + 63) // 64 * 64

cdef inline char *carve(char **free, size_t size) noexcept nogil:
    """`size` bytes, `rounded`, off the front of the free memory."""
    cdef char *piece = free[0]
    free[0] += rounded(size)
    return piece

cdef void copy_rows(char *to, Py_ssize_t to_row, const char *source, Py_ssize_t row, Py_ssize_t rows,
                    Py_ssize_t columns) noexcept nogil
cpdef void add(a, b) except *
cdef gemm_function load_gemm(size_t itemsize) except NULL


cdef class Cell:
    cdef const lf_kernels *k
    cdef int type_number
    cdef readonly Py_ssize_t input_size, hidden_size, proj_size
    cdef Py_ssize_t output_size  # columns of h: proj_size, or hidden_size without projection
    cdef Py_ssize_t panels       # of units
    cdef Py_ssize_t padded       # hidden_size rounded up to whole vectors
    cdef object w_ih, w_hh, w_hr, bias_sum
    cdef object kept_ih          # a copy of w_ih, where backward reads it itself
    cdef bint plain, layer_norm  # whether the cell is not a variant; and one with layer norm
    cdef lf_variant variant
    cdef Buffer peephole         # (3, padded)
    cdef object w_ln_ih, w_ln_hh, w_ln_c, b_ln_c, norm_bias  # (4H,), (4H,), (H,), (H,), (4H,)
    cdef readonly tuple parameters  # names of what it was made from, in order
    cdef Buffer gates_ih, gates_hh, bias, project_hr            # forward
    cdef Buffer columns_ih, columns_hh, columns_hr              # backward
    cdef bint prepared
    cdef Buffer pack_forward(self, w)
    cdef Buffer pack_gates(self, w, Py_ssize_t depth)
    cdef Buffer pack_columns(self, m)
    cpdef void prepare_backward(self, bint blas) except *


cdef inline void layout_of_gates(Cell cell, Py_ssize_t *row, Py_ssize_t *panel, Py_ssize_t *gate) noexcept:
    """Strides of a variant's pre-activations: see `lf_variant_forward.a`."""
    row[0], panel[0], gate[0] = 4 * cell.padded, 4 * cell.k.lanes, cell.k.lanes
    if cell.layer_norm:  # blocks of H, as its product gives them
        panel[0], gate[0] = cell.k.lanes, cell.hidden_size


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

cdef void share_rows(const Rows *rows, int part, int parts, Py_ssize_t *first, Py_ssize_t *last) noexcept nogil


cdef class Ragged:
    cdef Rows rows
    cdef readonly object lengths, counts, offsets

cdef Rows rows_of(cnp.ndarray x, Ragged ragged)


cdef class Noise:
    cdef readonly object recurrent, zone_h, zone_c
    cdef Py_ssize_t zone_row  # elements from a row of zone_h and zone_c to the next: 0 where there is only one

cdef inline char *data_or_null(a) noexcept:
    return NULL if a is None else <char *>cnp.PyArray_DATA(a)


cdef inline lf_rows strided(const char *data, Py_ssize_t row) noexcept nogil:
    """Rows of a matrix, `row` elements apart."""
    cdef lf_rows found
    found.data, found.row = data, row
    return found


cdef class Norm:
    """What layer norm keeps for backward: normal values, and the scales that made them."""
    cdef Buffer ih, hh, c                    # (N, 4H), (N, 4H), (N, H)
    cdef Buffer scale_ih, scale_hh, scale_c  # (N,)

cdef Norm new_norm(Cell cell, size_t rows)


cdef class Tape:
    """What `forward` keeps for `backward` of one layer and direction. N: rows of all times together."""
    cdef Cell cell
    cdef Rows rows
    cdef Ragged ragged
    cdef bint reverse
    cdef object x_owner
    cdef const char *x  # (N, I)
    cdef Buffer gates   # (N, 4, padded): i, f, g, o
    cdef Buffer c       # (B + N, padded): c0, then c of each time
    cdef Buffer h       # (B + N, P): h0, then h of each time; reverse: (N + B, P), h0 after them
    cdef bint variant   # then gates are what `lf_variant_forward` keeps, in its layout
    cdef Noise noise
    cdef Norm norm      # with layer norm
