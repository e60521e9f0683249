"""Steps of optimisers and clipping of gradients, each in one pass over flat arrays."""

cimport numpy as cnp

from lstm_fast.engine.memory cimport Buffer, new_buffer
from lstm_fast.engine.plan cimport Place, plan_packing, share
from lstm_fast.engine.runtime.isa cimport kernels
from lstm_fast.engine.runtime.kernels cimport lf_fpenv, lf_fpenv_enter, lf_fpenv_leave, lf_kernels, lf_update
from lstm_fast.engine.schedule cimport Schedule, begin, run_all

cnp.import_array()

# Elements that one thread has at once: threads write to cache lines of their own, and sums have the same parts,
# however many threads there are.
cdef enum: PIECE = 4096


cdef struct Step:
    # A step of an optimiser on whole arrays
    lf_update whole
    void (*kernel)(const lf_update *) noexcept nogil
    Py_ssize_t itemsize
    const Py_ssize_t *decayed  # start and end of each of so many ranges, in ascending order
    Py_ssize_t ranges


cdef inline void share_elements(Py_ssize_t n, const Place *here, Py_ssize_t *first, Py_ssize_t *end) noexcept nogil:
    """One thread's share of n elements, in whole pieces."""
    share((n + PIECE - 1) // PIECE, here.part, here.parts, first, end)
    first[0], end[0] = min(n, first[0] * PIECE), min(n, end[0] * PIECE)


cdef void run_step(void *what, Py_ssize_t first, Py_ssize_t end, const Place *here) noexcept nogil:
    """One thread's share of a step: from range to range, with weight decay in them and without it between."""
    cdef Step *step = <Step *>what
    cdef lf_update part
    cdef Py_ssize_t to, shift, r = 0
    share_elements(step.whole.n, here, &first, &end)
    while first < end:
        part, to = step.whole, end
        while r < step.ranges and step.decayed[2 * r + 1] <= first:
            r += 1
        if r < step.ranges and step.decayed[2 * r] <= first:
            to = min(to, step.decayed[2 * r + 1])
        else:
            part.decay, part.keep = 0, 1
            if r < step.ranges:
                to = min(to, step.decayed[2 * r])
        shift = first * step.itemsize
        part.n = to - first
        part.p = <char *>part.p + shift
        part.g = <const char *>part.g + shift
        if part.m != NULL:
            part.m = <char *>part.m + shift
        if part.v != NULL:
            part.v = <char *>part.v + shift
        step.kernel(&part)
        first = to


cdef void check(str name, cnp.ndarray a, cnp.ndarray like, bint written) except *:
    if (cnp.PyArray_NDIM(a) != 1 or cnp.PyArray_TYPE(a) not in (cnp.NPY_FLOAT, cnp.NPY_DOUBLE)
            or not (cnp.PyArray_ISCARRAY(a) if written else cnp.PyArray_ISCARRAY_RO(a))):
        raise ValueError(f"{name}: expected a contiguous flat array{' that can be written' * written}")
    if cnp.PyArray_TYPE(a) != cnp.PyArray_TYPE(like) or cnp.PyArray_DIM(a, 0) != cnp.PyArray_DIM(like, 0):
        raise ValueError(f"{name}: expected {like.size} elements of {like.dtype}, got {a.size} of {a.dtype}")


cdef void take_step(Step *step, cnp.ndarray p, cnp.ndarray g, m, v, cnp.ndarray decayed) except *:
    """Check arrays and ranges, then run a step whose scalars and kernel are set."""
    cdef Schedule schedule
    cdef Py_ssize_t n = p.size, least = 0, r
    cdef int arrays = 2 + (m is not None) + (v is not None)
    check("p", p, p, True)
    check("g", g, p, False)
    step.whole.n, step.whole.p, step.whole.g = n, cnp.PyArray_DATA(p), cnp.PyArray_DATA(g)
    step.whole.m = step.whole.v = NULL
    if m is not None:
        check("m", m, p, True)
        step.whole.m = cnp.PyArray_DATA(m)
    if v is not None:
        check("v", v, p, True)
        step.whole.v = cnp.PyArray_DATA(v)
    if (cnp.PyArray_NDIM(decayed) != 2 or cnp.PyArray_DIM(decayed, 1) != 2 or cnp.PyArray_TYPE(decayed) != cnp.NPY_INTP
            or not cnp.PyArray_ISCARRAY_RO(decayed)):
        raise ValueError("decayed: expected an array of intp, shape (ranges, 2)")
    step.itemsize = cnp.PyArray_ITEMSIZE(p)
    step.decayed, step.ranges = <const Py_ssize_t *>cnp.PyArray_DATA(decayed), cnp.PyArray_DIM(decayed, 0)
    for r in range(step.ranges):
        if not least <= step.decayed[2 * r] <= step.decayed[2 * r + 1] <= n:
            raise ValueError(f"decayed: expected ascending ranges in 0 .. {n}")
        least = step.decayed[2 * r + 1]
    begin(&schedule, plan_packing((n + PIECE - 1) // PIECE, arrays * n * step.itemsize), 1, 1, 0, step, run_step)
    run_all(&schedule, False)


def sgd(cnp.ndarray p not None, cnp.ndarray g not None, cnp.ndarray m, *, double rate, double momentum, bint nesterov,
        double decay, cnp.ndarray decayed not None):
    """A step of stochastic gradient descent. See `lf_update` in kernels.h.

    Parameters
    ----------
    p, g, m : ndarray, shape (n,)
        Parameters, gradient, and momentum, which may be None. All of one dtype, float32 or float64; p and m change.
    rate, momentum, nesterov
    decay : float
        Weight decay.
    decayed : ndarray of intp, shape (ranges, 2)
        Start and end of the ranges of elements to which it applies, in ascending order.
    """
    cdef Step step
    step.kernel = kernels(cnp.PyArray_TYPE(p)).sgd
    step.whole.rate, step.whole.momentum, step.whole.nesterov, step.whole.decay = rate, momentum, nesterov, decay
    take_step(&step, p, g, m, None, decayed)


def adam(cnp.ndarray p not None, cnp.ndarray g not None, cnp.ndarray m not None, cnp.ndarray v not None, *, double rate,
         double momentum, double square, double root, double eps, double decay, double keep,
         cnp.ndarray decayed not None):
    """A step of Adam or AdamW. See `lf_update` in kernels.h.

    Parameters
    ----------
    p, g, m, v : ndarray, shape (n,)
        Parameters, gradient, means of gradients and of their squares. As in `sgd`; p, m and v change.
    rate, momentum, square, root, eps : float
        With the corrections of bias in `rate` and `root`.
    decay, keep : float
        Weight decay in the gradient, and factor of the parameters.
    decayed : ndarray of intp, shape (ranges, 2)
        Where these two apply. As in `sgd`.
    """
    cdef Step step
    step.kernel = kernels(cnp.PyArray_TYPE(p)).adam
    step.whole.rate, step.whole.momentum, step.whole.square = rate, momentum, square
    step.whole.root, step.whole.eps, step.whole.decay, step.whole.keep = root, eps, decay, keep
    take_step(&step, p, g, m, v, decayed)


def rmsprop(cnp.ndarray p not None, cnp.ndarray g not None, cnp.ndarray m, cnp.ndarray v not None, *, double rate,
            double momentum, double square, double eps, double decay, cnp.ndarray decayed not None):
    """A step of RMSprop. See `lf_update` in kernels.h.

    Parameters
    ----------
    p, g, m, v : ndarray, shape (n,)
        Parameters, gradient, momentum, which may be None, and mean of squares. As in `sgd`; p, m and v change.
    rate, momentum, square, eps, decay : float
    decayed : ndarray of intp, shape (ranges, 2)
        As in `sgd`.
    """
    cdef Step step
    step.kernel = kernels(cnp.PyArray_TYPE(p)).rmsprop
    step.whole.rate, step.whole.momentum, step.whole.square = rate, momentum, square
    step.whole.eps, step.whole.decay = eps, decay
    take_step(&step, p, g, m, v, decayed)


cdef struct Pass:
    # One array, or with a second one of the same size
    const lf_kernels *k
    char *x
    const char *y
    Py_ssize_t n
    double value   # what is kept, a factor or a limit
    double *sums   # of each piece


cdef void run_norm(void *what, Py_ssize_t first, Py_ssize_t end, const Place *here) noexcept nogil:
    cdef Pass *job = <Pass *>what
    share_elements(job.n, here, &first, &end)
    while first < end:
        job.sums[first // PIECE] = job.k.squared_norm(job.x + first * job.k.itemsize,
                                                      min(<Py_ssize_t>PIECE, end - first))
        first += PIECE


cdef void run_average(void *what, Py_ssize_t first, Py_ssize_t end, const Place *here) noexcept nogil:
    cdef Pass *job = <Pass *>what
    share_elements(job.n, here, &first, &end)
    job.k.average(job.x + first * job.k.itemsize, job.value, job.y + first * job.k.itemsize, end - first)


cdef void run_scale(void *what, Py_ssize_t first, Py_ssize_t end, const Place *here) noexcept nogil:
    cdef Pass *job = <Pass *>what
    share_elements(job.n, here, &first, &end)
    job.k.scale(job.x + first * job.k.itemsize, job.value, end - first)


cdef void run_clip(void *what, Py_ssize_t first, Py_ssize_t end, const Place *here) noexcept nogil:
    cdef Pass *job = <Pass *>what
    share_elements(job.n, here, &first, &end)
    job.k.clip(job.x + first * job.k.itemsize, job.value, end - first)


cdef void run_pass(Pass *job, cnp.ndarray x,
                   void (*run)(void *, Py_ssize_t, Py_ssize_t, const Place *) noexcept nogil) except *:
    cdef Schedule schedule
    job.k, job.x, job.n = kernels(cnp.PyArray_TYPE(x)), <char *>cnp.PyArray_DATA(x), cnp.PyArray_DIM(x, 0)
    begin(&schedule, plan_packing((job.n + PIECE - 1) // PIECE, job.n * job.k.itemsize), 1, 1, 0, job, run)
    run_all(&schedule, False)


def squared_norm(cnp.ndarray x not None):
    """The sum of squares of a flat array, in float64: infinite or NaN where an element is not finite."""
    cdef Pass job
    cdef Py_ssize_t piece
    cdef double total = 0
    cdef lf_fpenv saved
    check("x", x, x, False)
    cdef Py_ssize_t pieces = (x.size + PIECE - 1) // PIECE
    cdef Buffer sums = new_buffer(pieces, sizeof(double))
    job.sums = <double *>sums.data
    run_pass(&job, x, run_norm)
    saved = lf_fpenv_enter()
    for piece in range(pieces):
        total += job.sums[piece]
    lf_fpenv_leave(saved)
    return total


def average(cnp.ndarray m not None, double kept, cnp.ndarray x not None):
    """m = kept m + (1 - kept) x, in place."""
    cdef Pass job
    check("m", m, m, True)
    check("x", x, m, False)
    job.y, job.value = <const char *>cnp.PyArray_DATA(x), kept
    run_pass(&job, m, run_average)


def scale(cnp.ndarray x not None, double factor):
    """x *= factor, in place."""
    cdef Pass job
    check("x", x, x, True)
    job.value = factor
    run_pass(&job, x, run_scale)


def clip(cnp.ndarray x not None, double limit):
    """x = min(max(x, -limit), limit), in place; a NaN stays."""
    cdef Pass job
    check("x", x, x, True)
    job.value = limit
    run_pass(&job, x, run_clip)
