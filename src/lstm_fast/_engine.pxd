from ._blas cimport gemm_function
from ._kernels cimport lf_kernels


cdef class Buffer:
    """Memory aligned to a cache line."""
    cdef char *data
    cdef size_t size

cdef Buffer new_buffer(size_t elements, size_t itemsize)
cdef Buffer borrow(size_t elements, size_t itemsize)
cdef void give_back(Buffer buffer)
cdef size_t times(size_t a, size_t b) except? 0
cdef void copy_rows(char *to, Py_ssize_t to_row, const char *source, Py_ssize_t row, Py_ssize_t rows,
                    Py_ssize_t columns) noexcept nogil
cdef void add(a, b) except *
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
    cdef readonly tuple parameters  # names of what it was made from, in order
    cdef Buffer gates_ih, gates_hh, bias, project_hr            # forward
    cdef Buffer columns_ih, columns_hh, columns_hr              # backward
    cdef bint prepared
    cdef Buffer pack_gates(self, w, Py_ssize_t depth)
    cdef Buffer pack_columns(self, m)
    cdef void prepare_backward(self, bint blas) except *


cdef class Tape:
    """What `forward` keeps for `backward` of one layer and direction. Step s is the s-th computed."""
    cdef Cell cell
    cdef readonly Py_ssize_t T, B
    cdef bint reverse
    cdef object x       # (T, B, I), C order
    cdef object h0      # (B, output size)
    cdef Buffer gates   # (T, B, 4, padded): i, f, g, o of step s
    cdef Buffer c       # (T + 1, B, padded): c before step s
    cdef object h       # with projection: (T + 1, B, P), h before (reverse: after) time t
