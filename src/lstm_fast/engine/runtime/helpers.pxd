# Threads beside OpenMP's. See helpers.h in include/lstm_fast/. To be cimported by one module: another would have a pool
# of its own.

from lstm_fast.engine.runtime.kernels cimport lf_counter

cdef extern from "lstm_fast/helpers.h" nogil:
    ctypedef struct lf_offer:
        lf_counter left
    void lf_offer_open(lf_offer *, void (*run)(void *call, int thread) noexcept nogil, void *call, lf_counter *cpu,
                       int places)
    int lf_offer_close(lf_offer *)
    int lf_pool_init()
