"""What blocks compute row by row: softmax, cross-entropy, layer norm, activation functions, rows of a table.

All matrices are in C order, of float32 or float64, the results new arrays. The bits of a row depend on nothing else.
Arguments of a wrong type or shape raise ValueError, indices that are not there IndexError.
"""

cimport numpy as cnp
from libc.string cimport memcpy

from lstm_fast.engine.memory cimport (at, check_matrix, check_vector, data_of, data_or_null, new_matrix, new_vector,
                                      real_type, strided)
from lstm_fast.engine.plan cimport Place, plan_shares, share
from lstm_fast.engine.runtime.isa cimport kernels
from lstm_fast.engine.runtime.kernels cimport (LF_AFFINE, LF_ELU, LF_HARD_SIGMOID, LF_LEAKY_RELU, LF_RELU,
                                               LF_SCALED_TANH, LF_SIGMOID, LF_SOFTPLUS, LF_SOFTSIGN, LF_TANH,
                                               LF_THRESHOLDED_RELU, lf_activation, lf_kernels)
from lstm_fast.engine.schedule cimport Schedule, begin, run_all

cnp.import_array()


cdef struct Work:
    # A call: its arrays are matrices, so many elements a row, but where a comment says so
    const lf_kernels *k
    Py_ssize_t rows, columns
    const char *x
    const char *dy
    const char *y
    char *out
    char *of_rows              # (rows,): losses, or scales
    const char *weight         # (columns,)
    const char *bias
    char *dweight
    char *dbias
    const Py_ssize_t *indices  # (rows,): targets, or rows of a table
    double constant            # smoothing, or epsilon
    lf_activation function


# What an element takes, in multiply-adds: an exponential and a few more operations, or to be moved.
cdef double COMPUTED = 8
cdef double MOVED = 2
# Columns that threads do not split: a cache line of float32.
cdef Py_ssize_t LINE = 16


cdef Work work_of(cnp.ndarray x, str name) except *:
    """A call with this matrix, which is checked, as its x."""
    cdef Work work
    cdef int type_number = real_type(x, name)
    if cnp.PyArray_NDIM(x) != 2:
        raise ValueError(f"{name}: expected two axes, got {cnp.PyArray_NDIM(x)}")
    work.k, work.x = kernels(type_number), data_of(x)
    work.rows, work.columns = cnp.PyArray_DIM(x, 0), cnp.PyArray_DIM(x, 1)
    check_matrix(x, name, type_number, work.rows, work.columns)
    return work


cdef cnp.ndarray like(cnp.ndarray x):
    return new_matrix(cnp.PyArray_DIM(x, 0), cnp.PyArray_DIM(x, 1), cnp.PyArray_TYPE(x))


cdef const char *same(Work *work, cnp.ndarray a, str name, cnp.ndarray x) except? NULL:
    """The data of a matrix that is checked to be of x's type and shape."""
    check_matrix(a, name, cnp.PyArray_TYPE(x), work.rows, work.columns)
    return data_of(a)


cdef const Py_ssize_t *checked(cnp.ndarray indices, str name, Py_ssize_t n, Py_ssize_t least,
                               Py_ssize_t end) except? NULL:
    """n indices of least .. end - 1."""
    cdef const Py_ssize_t *found
    cdef Py_ssize_t row
    check_vector(indices, name, cnp.NPY_INTP, n)
    found = <const Py_ssize_t *>data_of(indices)
    for row in range(n):
        if not least <= found[row] < end:
            raise IndexError(f"{name}: expected {least} to {end - 1}, got {found[row]}")
    return found


cdef void run(Work *work, Py_ssize_t shares, double each,
              void (*run_share)(void *, Py_ssize_t, Py_ssize_t, const Place *) noexcept nogil) except *:
    """A call in so many shares at most; an element takes so many multiply-adds."""
    cdef Schedule schedule
    begin(&schedule, plan_shares(shares, each * work.rows * work.columns), 1, 1, 0, work, run_share)
    run_all(&schedule, False)


# ---- softmax

cdef void softmax_share(void *what, Py_ssize_t first, Py_ssize_t end, const Place *here) noexcept nogil:
    cdef const Work *work = <const Work *>what
    share(work.rows, here.part, here.parts, &first, &end)
    cdef Py_ssize_t start = first * work.columns
    work.k.softmax(at(work.out, start, work.k), at(work.x, start, work.k), end - first, work.columns)


def softmax(cnp.ndarray x not None):
    """exp(x) over its sum in each row; NaN where that has an infinite largest element, or NaN: (N, C)."""
    cdef Work work = work_of(x, "x")
    cdef cnp.ndarray y = like(x)
    work.out = data_of(y)
    run(&work, work.rows, COMPUTED, softmax_share)
    return y


cdef void softmax_backward_share(void *what, Py_ssize_t first, Py_ssize_t end, const Place *here) noexcept nogil:
    cdef const Work *work = <const Work *>what
    share(work.rows, here.part, here.parts, &first, &end)
    cdef Py_ssize_t start = first * work.columns
    work.k.softmax_backward(at(work.out, start, work.k), at(work.dy, start, work.k), at(work.y, start, work.k),
                            end - first, work.columns)


def softmax_backward(cnp.ndarray dy not None, cnp.ndarray y not None):
    """dx = y (dy - the sum of dy y in each row) from y = softmax(x): (N, C)."""
    cdef Work work = work_of(y, "y")
    cdef cnp.ndarray dx = like(y)
    work.y, work.dy, work.out = work.x, same(&work, dy, "dy", y), data_of(dx)
    run(&work, work.rows, MOVED, softmax_backward_share)
    return dx


cdef void cross_entropy_share(void *what, Py_ssize_t first, Py_ssize_t end, const Place *here) noexcept nogil:
    cdef const Work *work = <const Work *>what
    share(work.rows, here.part, here.parts, &first, &end)
    cdef Py_ssize_t start = first * work.columns
    work.k.cross_entropy(at(work.of_rows, first, work.k), at(work.out, start, work.k), at(work.x, start, work.k),
                         work.indices + first, work.constant, end - first, work.columns)


def cross_entropy(cnp.ndarray x not None, cnp.ndarray target not None, double smoothing=0):
    """The cross-entropy of each row of logits with a distribution q, and its gradient.

        q = (1 - smoothing) [target] + smoothing / C     loss = -sum of q log(softmax(x))     dx = softmax(x) - q

    Parameters
    ----------
    x : ndarray, shape (N, C)
    target : ndarray of intp, shape (N,)
        -1: the row is not read, and its loss and dx are 0.
    smoothing : float
        From 0 to 1.

    Returns
    -------
    losses : ndarray, shape (N,)
    dx : ndarray, shape (N, C)
    """
    cdef Work work = work_of(x, "x")
    cdef cnp.ndarray dx = like(x), losses = new_vector(work.rows, cnp.PyArray_TYPE(x))
    work.indices = checked(target, "target", work.rows, -1, work.columns)
    work.of_rows, work.out, work.constant = data_of(losses), data_of(dx), smoothing
    run(&work, work.rows, COMPUTED, cross_entropy_share)
    return losses, dx


# ---- layer norm

cdef void normalise_share(void *what, Py_ssize_t first, Py_ssize_t end, const Place *here) noexcept nogil:
    cdef const Work *work = <const Work *>what
    cdef Py_ssize_t row, columns = work.columns
    cdef char *normal
    share(work.rows, here.part, here.parts, &first, &end)
    for row in range(first, end):  # it stays in the cache from one kernel to the next
        normal = at(work.y, row * columns, work.k)
        memcpy(normal, at(work.x, row * columns, work.k), columns * work.k.itemsize)
        work.k.normalise(normal, columns, at(work.of_rows, row, work.k), work.constant, 1, columns)
        work.k.multiply_add(at(work.out, row * columns, work.k), columns, strided(normal, 0), strided(work.weight, 0),
                            strided(work.bias, 0), 1, columns)


def layer_norm(cnp.ndarray x not None, cnp.ndarray weight not None, cnp.ndarray bias, double eps):
    """Each row x less its mean, times scale = 1 / sqrt(variance + eps); then times weight, plus bias.

    Parameters
    ----------
    x : ndarray, shape (N, C)
    weight : ndarray, shape (C,)
    bias : ndarray, shape (C,), or None
    eps : float

    Returns
    -------
    y, normal : ndarray, shape (N, C)
        normal: before the weight, which backward needs, as it does scale.
    scale : ndarray, shape (N,)
    """
    cdef Work work = work_of(x, "x")
    cdef int type_number = cnp.PyArray_TYPE(x)
    cdef cnp.ndarray y = like(x), normal = like(x), scale = new_vector(work.rows, type_number)
    check_vector(weight, "weight", type_number, work.columns)
    if bias is not None:
        check_vector(bias, "bias", type_number, work.columns)
    work.weight, work.bias, work.constant = data_of(weight), data_or_null(bias), eps
    work.out, work.y, work.of_rows = data_of(y), data_of(normal), data_of(scale)
    run(&work, work.rows, COMPUTED, normalise_share)
    return y, normal, scale


cdef void normalise_backward_share(void *what, Py_ssize_t first, Py_ssize_t end, const Place *here) noexcept nogil:
    """dx of some rows, then dweight and dbias of some columns."""
    cdef const Work *work = <const Work *>what
    cdef Py_ssize_t row, columns = work.columns
    cdef char *dx
    share(work.rows, here.part, here.parts, &first, &end)
    for row in range(first, end):
        dx = at(work.out, row * columns, work.k)
        work.k.multiply_add(dx, columns, strided(at(work.dy, row * columns, work.k), 0), strided(work.weight, 0),
                            strided(NULL, 0), 1, columns)
        work.k.normalise_backward(dx, columns, strided(at(work.y, row * columns, work.k), 0),
                                  at(work.of_rows, row, work.k), 1, columns)
    share(columns, here.part, here.parts, &first, &end)
    work.k.add_products(at(work.dweight, first, work.k), at(work.dy, first, work.k), at(work.y, first, work.k), columns,
                        work.rows, end - first)
    work.k.add_rows(at(work.dbias, first, work.k), at(work.dy, first, work.k), columns, work.rows, end - first)


def layer_norm_backward(cnp.ndarray dy not None, cnp.ndarray normal not None, cnp.ndarray scale not None,
                        cnp.ndarray weight not None):
    """The gradients dx (N, C), dweight (C,) and dbias (C,) of `layer_norm`."""
    cdef Work work = work_of(normal, "normal")
    cdef int type_number = cnp.PyArray_TYPE(normal)
    cdef cnp.npy_intp columns = work.columns
    cdef cnp.ndarray dx = like(normal), dweight, dbias
    check_vector(scale, "scale", type_number, work.rows)
    check_vector(weight, "weight", type_number, columns)
    dweight = cnp.PyArray_ZEROS(1, &columns, type_number, False)
    dbias = cnp.PyArray_ZEROS(1, &columns, type_number, False)
    work.dy, work.y, work.out = same(&work, dy, "dy", normal), work.x, data_of(dx)
    work.of_rows, work.weight = data_of(scale), data_of(weight)
    work.dweight, work.dbias = data_of(dweight), data_of(dbias)
    run(&work, max(work.rows, columns), COMPUTED, normalise_backward_share)
    return dx, dweight, dbias


# ---- activation functions

cdef dict FUNCTIONS = {  # by ONNX's names
    "Sigmoid": LF_SIGMOID, "Tanh": LF_TANH, "Relu": LF_RELU, "HardSigmoid": LF_HARD_SIGMOID, "Softsign": LF_SOFTSIGN,
    "Softplus": LF_SOFTPLUS, "Elu": LF_ELU, "LeakyRelu": LF_LEAKY_RELU, "ThresholdedRelu": LF_THRESHOLDED_RELU,
    "ScaledTanh": LF_SCALED_TANH, "Affine": LF_AFFINE,
}


cdef lf_activation function_of(str name, double alpha, double beta) except *:
    cdef lf_activation found
    if name not in FUNCTIONS:
        raise ValueError(f"function: expected one of {', '.join(FUNCTIONS)}, got {name!r}")
    found.function, found.alpha, found.beta = FUNCTIONS[name], alpha, beta
    return found


cdef void activate_share(void *what, Py_ssize_t first, Py_ssize_t end, const Place *here) noexcept nogil:
    cdef const Work *work = <const Work *>what
    share(work.rows * work.columns, here.part, here.parts, &first, &end)
    work.k.activation(&work.function, at(work.out, first, work.k), at(work.x, first, work.k), end - first)


def activate(str function not None, double alpha, double beta, cnp.ndarray x not None):
    """A function of each element: one of ONNX's, by its name, with its parameters."""
    cdef Work work = work_of(x, "x")
    cdef cnp.ndarray y = like(x)
    work.function, work.out = function_of(function, alpha, beta), data_of(y)
    run(&work, work.rows * work.columns, COMPUTED, activate_share)
    return y


cdef void derivative_share(void *what, Py_ssize_t first, Py_ssize_t end, const Place *here) noexcept nogil:
    cdef const Work *work = <const Work *>what
    share(work.rows * work.columns, here.part, here.parts, &first, &end)
    work.k.derivative(&work.function, at(work.out, first, work.k), at(work.x, first, work.k),
                      at(work.dy, first, work.k), end - first)


def activate_backward(str function not None, double alpha, double beta, cnp.ndarray x not None,
                      cnp.ndarray dy not None):
    """dx = dy times the derivative of the function at x."""
    cdef Work work = work_of(x, "x")
    cdef cnp.ndarray dx = like(x)
    work.function, work.dy, work.out = function_of(function, alpha, beta), same(&work, dy, "dy", x), data_of(dx)
    run(&work, work.rows * work.columns, COMPUTED, derivative_share)
    return dx


# ---- rows of a table

cdef void take_share(void *what, Py_ssize_t first, Py_ssize_t end, const Place *here) noexcept nogil:
    cdef const Work *work = <const Work *>what
    cdef Py_ssize_t row, columns = work.columns
    share(work.rows, here.part, here.parts, &first, &end)
    for row in range(first, end):
        memcpy(at(work.out, row * columns, work.k), at(work.x, work.indices[row] * columns, work.k),
               columns * work.k.itemsize)


def take_rows(cnp.ndarray table not None, cnp.ndarray indices not None):
    """The rows of a table (V, E) that indices (N,), of intp, name, from 0 to V - 1: (N, E)."""
    cdef Work work = work_of(table, "table")
    cdef Py_ssize_t rows = cnp.PyArray_SIZE(indices)
    work.indices = checked(indices, "indices", rows, 0, work.rows)
    work.rows = rows
    cdef cnp.ndarray found = new_matrix(rows, work.columns, cnp.PyArray_TYPE(table))
    work.out = data_of(found)
    run(&work, rows, MOVED, take_share)
    return found


cdef void add_share(void *what, Py_ssize_t first, Py_ssize_t end, const Place *here) noexcept nogil:
    """One thread's share of the columns, whose rows come in their order."""
    cdef const Work *work = <const Work *>what
    cdef Py_ssize_t row, columns = work.columns
    cdef char *sums
    share((columns + LINE - 1) // LINE, here.part, here.parts, &first, &end)
    first, end = first * LINE, min(columns, end * LINE)
    for row in range(work.rows):
        sums = at(work.out, work.indices[row] * columns + first, work.k)
        work.k.multiply_add(sums, columns, strided(at(work.dy, row * columns + first, work.k), 0), strided(NULL, 0),
                            strided(sums, 0), 1, end - first)


def add_rows_at(cnp.ndarray grad not None, cnp.ndarray indices not None, cnp.ndarray dy not None):
    """grad[indices[n]] += dy[n] for n = 0, 1, ...: grad (V, E), indices (N,) of intp, dy (N, E)."""
    cdef Work work = work_of(grad, "grad")
    cdef Py_ssize_t rows = cnp.PyArray_SIZE(indices)
    if not cnp.PyArray_ISWRITEABLE(grad):
        raise ValueError("grad: expected a writable array")
    work.indices = checked(indices, "indices", rows, 0, work.rows)
    work.out, work.rows = data_of(grad), rows
    work.dy = same(&work, dy, "dy", grad)
    run(&work, (work.columns + LINE - 1) // LINE, MOVED, add_share)
