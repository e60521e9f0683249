# Which cores threads run on. See cores.h in include/lstm_fast/.

cdef extern from "lstm_fast/cores.h" nogil:
    int lf_cpu()
    int lf_thread_name()
    long long lf_time_of(int thread)
    long long lf_own_time()
    bint lf_is_on(int cpu)
    void lf_keep_off(int cpu)
    void lf_bring(int thread)
