# How long two threads take to meet. See meeting.pyx.

cdef long long meeting(bint anew) noexcept
