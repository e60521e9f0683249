# One layer and direction, backward through a chunk of time. See backward_layer.pyx.

from lstm_fast.engine.backward_job cimport BackwardJob, Scratch

cdef enum:
    PHASES = 7  # of a chunk, of which the last two are of a projection

cdef void run_phase(BackwardJob *job, const Scratch *scratch, Py_ssize_t n, int phase, int part,
                    int parts) noexcept nogil
cdef void run_chunk(BackwardJob *job, const Scratch *scratch, Py_ssize_t n, int part, int parts) noexcept nogil
cdef void run_unit(BackwardJob *job, const Scratch *scratch, Py_ssize_t n, Py_ssize_t u, int part,
                   int parts) noexcept nogil
