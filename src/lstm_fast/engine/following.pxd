# Units of work that threads take beside one that computes the steps. See following.pyx.

from lstm_fast.engine.runtime.kernels cimport lf_counter


cdef struct Following:
    # Units of a group of threads, in their order
    lf_counter taken      # so many of them,
    lf_counter finished   # and so many
    lf_counter *waited    # nanoseconds, of all threads: for one another,
    lf_counter *stood_by  # and for the steps

cdef void begin_following(Following *following, lf_counter *waited, lf_counter *stood_by) noexcept
cdef void work_until(Following *following, Py_ssize_t finished, Py_ssize_t end,
                     void (*run)(const void *what, Py_ssize_t unit) noexcept nogil, const void *what) noexcept nogil
