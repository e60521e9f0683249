# The packed weights of one layer and direction. See cell.pyx.

cimport numpy as cnp

from lstm_fast.engine.memory cimport Buffer
from lstm_fast.engine.runtime.kernels cimport lf_kernels, lf_products, lf_variant


cdef class Cell:
    cdef const lf_kernels *k
    cdef const lf_products *of_x  # products with the input, and with h and what it is projected from
    cdef const lf_products *of_h
    cdef bint rounds_x
    cdef bint full                # whether both are of the dtype
    cdef int type_number
    cdef readonly Py_ssize_t input_size, hidden_size, proj_size
    cdef Py_ssize_t output_size  # columns of h: proj_size, or hidden_size without projection
    cdef Py_ssize_t panels       # of units
    cdef Py_ssize_t padded       # hidden_size rounded up to whole vectors
    cdef object w_ih, w_hh, w_hr, bias_sum
    cdef object kept_ih          # a copy of w_ih, where BLAS reads it
    cdef bint plain, layer_norm  # whether the cell is not a variant; and one with layer norm
    cdef bint norm_of_gates      # whether that is of each gate
    cdef lf_variant variant
    cdef Buffer peephole         # (3, padded)
    cdef object w_ln_ih, w_ln_hh, w_ln_c, b_ln_c, w_ln, norm_bias  # (4H,), (4H,), (H,), (H,), (4H,), (4H,)
    cdef readonly tuple parameters  # names of what it was made from, in order
    cdef tuple shapes               # of these
    cdef int biases                 # of 4H numbers among them, after w_ih and w_hh
    cdef Buffer gates_ih, gates_hh, bias, project_hr            # forward
    cdef Buffer columns_ih, columns_hh, columns_hr              # backward
    cdef bint prepared
    cdef void set_precision(self, cnp.ndarray w_ih, str inputs, bint bfloat16) except *
    cdef void set_variant(self, w_ch, w_ln_ih, w_ln_hh, w_ln_c, b_ln_c, w_ln, options) except *
    cdef object sum_of(self, b_ih, b_hh)
    cdef Buffer pack_forward(self, const lf_products *products, cnp.ndarray w, scale, Buffer columns)
    cdef Buffer pack_gates(self, const lf_products *products, cnp.ndarray w, scale, Py_ssize_t depth, Buffer columns)
    cdef Buffer room_for_columns(self, cnp.ndarray m)
    cdef Buffer pack_columns(self, cnp.ndarray m)
    cdef Buffer pack_transposed(self, const lf_products *products, cnp.ndarray m, scale)
    cpdef void prepare(self, bint training, bint blas, bint of_input=*) except *


cdef inline void layout_of_gates(Cell cell, Py_ssize_t *row, Py_ssize_t *panel, Py_ssize_t *gate) noexcept:
    """Strides of a variant's pre-activations: see `lf_variant_forward.a`."""
    row[0], panel[0], gate[0] = 4 * cell.padded, 4 * cell.k.lanes, cell.k.lanes
    if cell.layer_norm:  # blocks of H, as its product gives them
        panel[0], gate[0] = cell.k.lanes, cell.hidden_size
