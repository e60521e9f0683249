# Backward of one call. See backward.pyx.

cimport numpy as cnp

from lstm_fast.engine.sums cimport Sums


cpdef tuple backward(list tapes, cnp.ndarray dy, cnp.ndarray dhn, cnp.ndarray dcn, Sums sums=*, bint blas=*,
                     bint of_input=*)
