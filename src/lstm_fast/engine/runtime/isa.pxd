from lstm_fast.engine.runtime.kernels cimport lf_kernels, lf_products

cdef const lf_kernels *kernels(int type_number) noexcept
cdef const lf_products *lower(str precision) except NULL
