"""Memory: pooled buffers, arrays in them, what arrays have to look like, copies of rows."""

cimport numpy as cnp
from libc.stdlib cimport free
from libc.string cimport memcpy, memmove, memset

import numpy as np

cnp.import_array()

cdef extern from *:
    """
    #include <stdlib.h>
    #include <sys/mman.h>
    static inline int lf_overflows(size_t a, size_t b, size_t *c) { return __builtin_mul_overflow(a, b, c); }
    static inline void lf_advise_huge_pages(void *p, size_t size)
    {
    #ifdef MADV_HUGEPAGE
        madvise(p, size, MADV_HUGEPAGE); /* advice: it may fail */
    #else
        (void)p, (void)size;
    #endif
    }
    """
    void lf_advise_huge_pages(void *p, size_t size)
    bint lf_overflows(size_t a, size_t b, size_t *c)
    int posix_memalign(void **p, size_t alignment, size_t size)

cdef size_t times(size_t a, size_t b) except? 0:
    cdef size_t c
    if lf_overflows(a, b, &c):
        raise MemoryError(f"{a} times {b} elements do not fit into memory")
    return c


# Past the end of a buffer a vector may be read, never used: gates of a BLAS product are not padded.
cdef size_t SLACK = 64
cdef size_t HUGE_PAGE = 2 << 20

# Arrays of less than this are NumPy's own, which takes less time.
cdef size_t POOLED_BYTES = 1 << 16

# Memory of buffers that are gone, the newest last: repeated calls reuse pages that are already mapped. A buffer may
# get up to twice the memory that it asked for. The GIL guards the pool.
cdef enum: MOST_IDLE = 32
cdef size_t MOST_IDLE_BYTES = 64 << 20
cdef Block[MOST_IDLE] _idle
cdef int _idle_count = 0
cdef size_t _idle_bytes = 0


cdef Block take_idle(int n) noexcept:
    global _idle_count, _idle_bytes
    cdef Block block = _idle[n]
    _idle_count -= 1
    _idle_bytes -= block.size
    memmove(&_idle[n], &_idle[n + 1], (_idle_count - n) * sizeof(Block))
    return block


cdef Block allocate(size_t size) noexcept:
    """At least `size` bytes: the smallest idle block that is not much too large, or a new one; NULL if none."""
    cdef Block block
    cdef int n, best = -1
    for n in range(_idle_count):
        if size <= _idle[n].size <= 2 * size + 4096 and (best < 0 or _idle[n].size < _idle[best].size):
            best = n
    if best >= 0:
        return take_idle(best)
    block.data, block.size = NULL, size
    if size <= <size_t>-1 // 2 and posix_memalign(<void **>&block.data, HUGE_PAGE if size >= HUGE_PAGE else 64,
                                                  size + SLACK) == 0:
        if size >= HUGE_PAGE:
            lf_advise_huge_pages(block.data, size)
    else:
        block.data = NULL
    return block


cdef void recycle(Block block) noexcept:
    """Keep a block for `allocate`, and free what has been idle longest instead."""
    global _idle_count, _idle_bytes
    if block.size > MOST_IDLE_BYTES:
        free(block.data)
        return
    while _idle_count == MOST_IDLE or _idle_bytes + block.size > MOST_IDLE_BYTES:
        free(take_idle(0).data)
    _idle[_idle_count] = block
    _idle_count += 1
    _idle_bytes += block.size


cdef class Buffer:
    def __dealloc__(self):
        if self.data != NULL:
            recycle(self.block)

    def __reduce__(self):
        raise TypeError("a cache can be neither pickled nor copied")


cdef Buffer new_buffer(size_t elements, size_t itemsize):
    """Uninitialised memory for `elements` elements."""
    cdef Buffer buffer = Buffer.__new__(Buffer)
    cdef size_t size = times(elements, itemsize)
    buffer.block = allocate(size)
    if buffer.block.data == NULL:
        raise MemoryError(f"cannot allocate {size} bytes")
    buffer.data, buffer.size = buffer.block.data, size
    return buffer


cdef cnp.ndarray new_array(int ndim, const cnp.npy_intp *shape, int type_number):
    """An uninitialised array in C order, a large one in memory of a buffer."""
    cdef cnp.ndarray array
    cdef Buffer buffer
    cdef size_t elements = 1, itemsize = 4 if type_number == cnp.NPY_FLOAT else 8
    cdef int n
    for n in range(ndim):
        elements = times(elements, shape[n])
    if elements * itemsize < POOLED_BYTES:
        return cnp.PyArray_EMPTY(ndim, <cnp.npy_intp *>shape, type_number, False)
    buffer = new_buffer(elements, itemsize)
    array = cnp.PyArray_SimpleNewFromData(ndim, <cnp.npy_intp *>shape, type_number, buffer.data)
    cnp.set_array_base(array, buffer)
    return array


cdef cnp.ndarray copied(cnp.ndarray a):
    """A copy of an array in C order, of float32 or float64."""
    cdef cnp.ndarray copy = new_array(cnp.PyArray_NDIM(a), cnp.PyArray_DIMS(a), cnp.PyArray_TYPE(a))
    memcpy(cnp.PyArray_DATA(copy), cnp.PyArray_DATA(a), cnp.PyArray_NBYTES(a))
    return copy


cdef cnp.ndarray new_vector(Py_ssize_t n, int type_number):
    cdef cnp.npy_intp shape = n
    return new_array(1, &shape, type_number)


cdef cnp.ndarray new_matrix(Py_ssize_t rows, Py_ssize_t columns, int type_number):
    cdef cnp.npy_intp[2] shape = [rows, columns]
    return new_array(2, shape, type_number)


cdef int real_type(cnp.ndarray a, str name) except -1:
    """NPY_FLOAT or NPY_DOUBLE, which the array has to be of."""
    cdef int type_number = cnp.PyArray_TYPE(a)
    if type_number != cnp.NPY_FLOAT and type_number != cnp.NPY_DOUBLE:
        raise ValueError(f"{name}: expected float32 or float64, got {a.dtype}")
    return type_number


cdef void check_vector(cnp.ndarray a, str name, int type_number, Py_ssize_t n) except *:
    """Raise ValueError unless this is an array of n elements of this type, as the kernels read it."""
    if (cnp.PyArray_NDIM(a) != 1 or cnp.PyArray_DIM(a, 0) != n or cnp.PyArray_TYPE(a) != type_number
            or not cnp.PyArray_ISCARRAY_RO(a)):
        raise unexpected(a, name, f"({n},)", type_number)


cdef void check_matrix(cnp.ndarray a, str name, int type_number, Py_ssize_t rows, Py_ssize_t columns) except *:
    """The same for a matrix, in C order."""
    if (cnp.PyArray_NDIM(a) != 2 or cnp.PyArray_DIM(a, 0) != rows or cnp.PyArray_DIM(a, 1) != columns
            or cnp.PyArray_TYPE(a) != type_number or not cnp.PyArray_ISCARRAY_RO(a)):
        raise unexpected(a, name, f"({rows}, {columns})", type_number)


cdef object unexpected(cnp.ndarray a, str name, str shape, int type_number):
    dtype = cnp.PyArray_DescrFromType(type_number)
    return ValueError(f"{name}: expected {shape} of {dtype}, aligned and in C order, "
                      f"got {(<object>a).shape} of {a.dtype}")


def empty(tuple shape not None, dtype):
    """An uninitialised array of at most three axes, of float32 or float64.

    A large one is in pooled memory: repeated calls reuse pages that are already mapped.
    """
    cdef cnp.npy_intp[3] extents
    cdef int n
    for n in range(len(shape)):
        extents[n] = shape[n]
    return new_array(<int>len(shape), extents, np.dtype(dtype).num)


cdef void copy_rows(char *to, Py_ssize_t to_row, const char *source, Py_ssize_t row, Py_ssize_t rows,
                    Py_ssize_t columns) noexcept nogil:
    """Rows of bytes from one row stride to another; what a wider row of `to` has more becomes 0."""
    cdef Py_ssize_t n
    for n in range(rows):
        memcpy(to + n * to_row, source + n * row, columns)
        if to_row > columns:
            memset(to + n * to_row + columns, 0, to_row - columns)


def copy_arrays(list targets not None, list sources not None):
    """Copy arrays into others of the same shape and dtype, all in C order: all of them or, if one differs, none.

    No signal is handled in between.
    """
    cdef cnp.ndarray target, source
    for target, source in zip(targets, sources, strict=True):
        if not (target.flags.carray and source.flags.c_contiguous and target.dtype == source.dtype
                and (<object>target).shape == (<object>source).shape):
            raise ValueError("targets and sources differ")
    for target, source in zip(targets, sources):
        memmove(cnp.PyArray_DATA(target), cnp.PyArray_DATA(source), cnp.PyArray_NBYTES(source))
