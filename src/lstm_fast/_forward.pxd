cimport numpy as cnp

from ._engine cimport Ragged

cdef list compute(list cells, cnp.ndarray x, cnp.ndarray h0, cnp.ndarray c0, cnp.ndarray y, cnp.ndarray hn,
                  cnp.ndarray cn, int directions, bint reverse, Ragged ragged, bint training, bint blas,
                  list noise=*)
