# Backward of one call. See backward.pyx.

cimport numpy as cnp


cpdef tuple backward(list tapes, cnp.ndarray dy, cnp.ndarray dhn, cnp.ndarray dcn, list grads=*, bint blas=*,
                     bint of_input=*)
