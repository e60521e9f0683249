# Buffers, arrays, and the pieces of one block of scratch memory. See memory.pyx.

cimport numpy as cnp

from lstm_fast.engine.runtime.kernels cimport lf_kernels, lf_rows


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
cdef cnp.ndarray copied(cnp.ndarray a)
cdef cnp.ndarray new_vector(Py_ssize_t n, int type_number)
cdef cnp.ndarray new_matrix(Py_ssize_t rows, Py_ssize_t columns, int type_number)
cdef int real_type(cnp.ndarray a, str name) except -1
cdef void check_vector(cnp.ndarray a, str name, int type_number, Py_ssize_t n) except *
cdef void check_matrix(cnp.ndarray a, str name, int type_number, Py_ssize_t rows, Py_ssize_t columns) except *
cdef size_t times(size_t a, size_t b) except? 0


cdef struct Arena:
    # A block of memory that is handed out piece by piece. When it is used up it only counts what is asked for.
    char *base
    size_t size, used

cdef inline char *take(Arena *arena, size_t size) noexcept nogil:
    """`size` bytes, rounded up to whole cache lines; NULL when there is no room."""
    cdef char *piece = arena.base + arena.used
    arena.used += (size + 63) // 64 * 64
    return piece if arena.used <= arena.size else NULL


# The scratch of a short call lies on the stack, which saves a tenth of a microsecond: so many bytes, and room to align
# them and to read past their end.
cdef enum:
    SMALL_SCRATCH = 8192
    SMALL_MARGIN = 128

cdef inline Arena arena_of(char *memory, size_t size) noexcept nogil:
    """An arena of `size` bytes, with SMALL_MARGIN more at `memory`."""
    cdef Arena arena
    arena.base, arena.size, arena.used = memory + (64 - <size_t>memory % 64) % 64, size, 0
    return arena


cdef inline char *at(const char *p, Py_ssize_t elements, const lf_kernels *k) noexcept nogil:
    """Where an element of the kernels' dtype is."""
    return <char *>p + elements * <Py_ssize_t>k.itemsize


cdef inline char *data_of(cnp.ndarray a) noexcept:
    return <char *>cnp.PyArray_DATA(a)

cdef inline char *data_or_null(a) noexcept:
    return NULL if a is None else <char *>cnp.PyArray_DATA(a)


cdef inline lf_rows strided(const char *data, Py_ssize_t row) noexcept nogil:
    """Rows of a matrix, `row` elements apart."""
    cdef lf_rows found
    found.data, found.row = data, row
    return found

cdef void copy_rows(char *to, Py_ssize_t to_row, const char *source, Py_ssize_t row, Py_ssize_t rows,
                    Py_ssize_t columns) noexcept nogil
