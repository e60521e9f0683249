# Types only: importing them does not import SciPy. See blas.pyx.

# Row-major c (m, n) = op(a) (m, k) op(b) (k, n), added to c with `accumulate`; op is the transpose where asked
# for; strides in elements.
ctypedef void (*gemm_function)(bint a_transposed, bint b_transposed, int m, int n, int k,
                               const void *a, int a_row, const void *b, int b_row,
                               void *c, int c_row, bint accumulate) noexcept nogil
