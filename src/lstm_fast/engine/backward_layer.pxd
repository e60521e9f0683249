# One layer and direction, backward through a chunk of time. See backward_layer.pyx.

from lstm_fast.engine.backward_job cimport BackwardJob, Chunk, Scratch

cdef enum:
    PHASES = 7  # of a chunk, of which the last two are of a projection

cdef const char *hidden_before(const BackwardJob *job, const Scratch *scratch, Py_ssize_t first_t, Py_ssize_t end_t,
                               int part, int parts) noexcept nogil
cdef void dx_of_steps(const BackwardJob *job, const Scratch *scratch, const Chunk *chunk, Py_ssize_t low,
                      Py_ssize_t high, int part, int parts) noexcept nogil
cdef void run_steps(BackwardJob *job, const Scratch *scratch, Py_ssize_t n, int part, int parts) noexcept nogil
cdef void keep_first_step(const BackwardJob *job, const Scratch *scratch, const Chunk *chunk) noexcept nogil
cdef void add_vectors(const BackwardJob *job, const Scratch *scratch, const Chunk *chunk, int part,
                      int parts) noexcept nogil
cdef void pack_operand(const BackwardJob *job, const Scratch *scratch, const Chunk *chunk, int operand, char *packed,
                       int part, int parts) noexcept nogil
cdef void add_product(const BackwardJob *job, const Scratch *scratch, const Chunk *chunk, int operand,
                      const char *packed, int part, int parts) noexcept nogil
cdef void run_phase(BackwardJob *job, const Scratch *scratch, Py_ssize_t n, int phase, int part,
                    int parts) noexcept nogil
cdef void run_chunk(BackwardJob *job, const Scratch *scratch, Py_ssize_t n, int part, int parts) noexcept nogil
cdef void run_unit(BackwardJob *job, const Scratch *scratch, Py_ssize_t n, Py_ssize_t u, int part,
                   int parts) noexcept nogil
