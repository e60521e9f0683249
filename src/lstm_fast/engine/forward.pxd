# One call of the engine, forward. See forward.pyx.

from lstm_fast.engine.batch cimport Ragged

cpdef list forward(list cells, tuple arrays, int directions=*, bint reverse=*, Ragged ragged=*, bint training=*,
                   bint blas=*, list noise=*, bint copy=*, list bounds=*)
