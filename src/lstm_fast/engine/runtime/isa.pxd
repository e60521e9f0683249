from lstm_fast.engine.runtime.kernels cimport lf_kernels

cdef const lf_kernels *kernels(int type_number) noexcept
