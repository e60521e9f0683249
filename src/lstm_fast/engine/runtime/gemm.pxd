# BLAS's matrix multiply, without importing SciPy. See gemm.pyx.

from lstm_fast.engine.runtime.blas cimport gemm_function

cdef gemm_function load_gemm(size_t itemsize) except NULL
