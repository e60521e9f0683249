"""The choice of the instruction set (ISA), once, at import.

The best one that this build holds and the CPU and its operating system run, or the one that the
environment variable ``LSTM_FAST_ISA`` names.
"""

import os

import numpy as np
cimport numpy as cnp

from lstm_fast.engine.runtime.kernels cimport (lf_fpenv, lf_fpenv_enter, lf_fpenv_leave, lf_isa, lf_isa_count, lf_isas,
                                               lf_kernels, lf_lower, lf_lower_count, lf_lowers, lf_products)

cnp.import_array()

cdef const lf_isa *_active = NULL


cdef const lf_isa *_find(str name) noexcept:
    cdef int n
    for n in range(lf_isa_count):
        if lf_isas[n].name.decode() == name:
            return &lf_isas[n]
    return NULL


def _detected():
    cdef int n
    return [lf_isas[n].name.decode() for n in range(lf_isa_count) if lf_isas[n].supported()]


def use(str isa):
    """Make an ISA the active one for weights packed from now on: for tests; users set LSTM_FAST_ISA."""
    global _active
    if isa not in _detected():
        allowed = ", ".join(_detected())
        raise ValueError(f"isa: this CPU and this build of lstm_fast allow {allowed}; got {isa!r}")
    _active = _find(isa)


cdef const lf_kernels *kernels(int type_number) noexcept:
    """The active kernels for NPY_FLOAT or NPY_DOUBLE."""
    return _active.f32 if type_number == cnp.NPY_FLOAT else _active.f64


cdef const lf_lower *_lower(str precision) noexcept:
    """The row of the active ISA that serves a precision."""
    cdef int n
    for n in range(lf_lower_count):
        if lf_lowers[n].isa == _active.name and lf_lowers[n].products.precision.decode() == precision:
            return &lf_lowers[n]
    return NULL


cdef const lf_products *lower(str precision) except NULL:
    """The products of a lower precision of the active ISA; "widened" ones where it has no "mixed" ones."""
    cdef const lf_lower *found = _lower(precision)
    if found == NULL and precision == "mixed":
        found = _lower("widened")
    if found == NULL:
        raise ValueError(f"there are no products of {precision}")
    return found.products


def isas():
    """What this build holds and what runs here.

    Returns
    -------
    dict
        ``built``: names of the ISAs compiled in, best first; ``detected``: those of them that this CPU
        and operating system run; ``active``: the one in use; ``reason``: why; ``needs``: CPU features
        by name; ``precisions``: by which instructions the active ISA multiplies bfloat16 and 8-bit numbers.
    """
    cdef int n
    built = [lf_isas[n].name.decode() for n in range(lf_isa_count)]
    return {
        "built": built,
        "detected": _detected(),
        "active": _active.name.decode(),
        "reason": f"LSTM_FAST_ISA={_forced}" if _forced else "the best of those detected",
        "needs": {lf_isas[n].name.decode(): lf_isas[n].needs.decode() for n in range(lf_isa_count)},
        "precisions": {precision: _lower(precision).how.decode() for precision in ("bfloat16", "int8")},
    }


def elementwise(str function, x, str isa=None):
    """``exp``, ``sigmoid`` or ``tanh`` of a float32 or float64 array, as the kernels compute them.

    Parameters
    ----------
    function : {"exp", "sigmoid", "tanh"}
    x : ndarray of float32 or float64
    isa : str, optional
        One of ``isas()["detected"]`` instead of the active one.

    Returns
    -------
    ndarray
        Same shape and dtype as `x`.
    """
    cdef const lf_isa *chosen = _active if isa is None else _find(isa)
    if chosen == NULL or not chosen.supported():
        raise ValueError(f"isa: expected one of {', '.join(_detected())}; got {isa!r}")
    if function not in ("exp", "sigmoid", "tanh"):
        raise ValueError(f"function: expected exp, sigmoid or tanh, got {function!r}")
    if x.dtype not in (np.float32, np.float64):
        raise TypeError(f"x: expected float32 or float64, got {x.dtype}")
    cdef cnp.ndarray source = np.ascontiguousarray(x)
    cdef cnp.ndarray out = np.empty_like(source)
    cdef const lf_kernels *k = chosen.f32 if cnp.PyArray_TYPE(source) == cnp.NPY_FLOAT else chosen.f64
    cdef void (*f)(void *, const void *, Py_ssize_t) noexcept nogil
    f = k.exp if function == "exp" else k.sigmoid if function == "sigmoid" else k.tanh
    cdef lf_fpenv saved
    with nogil:
        saved = lf_fpenv_enter()
        f(cnp.PyArray_DATA(out), cnp.PyArray_DATA(source), cnp.PyArray_SIZE(source))
        lf_fpenv_leave(saved)
    return out.reshape(x.shape)


_forced = os.environ.get("LSTM_FAST_ISA")
try:
    use(_forced or _detected()[0])
except ValueError as error:
    raise ImportError(f"LSTM_FAST_ISA: {error}") from None
