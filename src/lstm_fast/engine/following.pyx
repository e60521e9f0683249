"""Units of work beside the steps of a sequence, which nobody can share: whoever is free takes the next one.

One thread of a group computes the steps. The others follow it, backward with what the steps leave to be computed, or go
ahead of it, forward with the input's projection. It helps where it would have to wait for them.
"""

from lstm_fast.engine.runtime.kernels cimport (lf_counter_add, lf_counter_get, lf_counter_raise, lf_counter_set,
                                               lf_counter_wait)


cdef void begin_following(Following *following, lf_counter *waited, lf_counter *stood_by) noexcept:
    lf_counter_set(&following.taken, 0)
    lf_counter_set(&following.finished, 0)
    following.waited, following.stood_by = waited, stood_by


cdef void work_until(Following *following, Py_ssize_t finished, Py_ssize_t end,
                     void (*run)(const void *what, Py_ssize_t unit) noexcept nogil, const void *what) noexcept nogil:
    """Take units before `end` until so many are finished."""
    cdef Py_ssize_t unit
    while lf_counter_get(&following.finished) < finished:
        unit = <Py_ssize_t>lf_counter_get(&following.taken)
        if unit >= end:
            lf_counter_wait(&following.finished, finished, following.waited)
        elif lf_counter_raise(&following.taken, unit):
            run(what, unit)
            lf_counter_add(&following.finished, 1)
