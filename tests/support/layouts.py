"""Arrays as callers may have them: strides, alignment, byte order, kinds. Values stay the same."""

import tempfile

import numpy as np


class Subclass(np.ndarray):
    pass


def every_other(shape, dtype, fill=np.nan):
    """Return every other element, in each axis, of a larger array, which is the base of it."""
    return np.full([2 * n + 1 for n in shape], fill, dtype)[(slice(1, None, 2),) * len(shape)]


def unaligned(shape, dtype):
    size = int(np.prod(shape)) * dtype.itemsize
    return np.ndarray(shape, dtype, bytearray(size + 1), offset=1)


def in_file(shape, dtype):
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, dtype, "w+", shape=shape)


# Writable arrays of a shape and dtype.
EMPTY = {
    "C order": np.empty,
    "Fortran order": lambda s, dtype: np.empty(s, dtype, order="F"),
    "axes exchanged": lambda s, dtype: np.empty(s[::-1], dtype).transpose(),
    "rows apart": lambda s, dtype: np.empty((*s[:-1], s[-1] + 3), dtype)[..., 2:-1],
    "negative strides": lambda s, dtype: np.flip(np.empty(s, dtype)),
    "every other element": every_other,
    "unaligned": unaligned,
    "in a file": in_file,
    "subclass": lambda s, dtype: np.empty(s, dtype).view(Subclass),
}


def filled(layout, array):
    """Return a copy of an array in one of these layouts."""
    result = EMPTY[layout](array.shape, array.dtype)
    result[...] = array
    return result


def byte_swapped(array):
    return array.astype(array.dtype.newbyteorder("S"))


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def with_odd_steps(array):
    """Return an array whose steps are no whole number of elements apart."""
    records = np.zeros(len(array), [("row", array.dtype, array.shape[1:]), ("gap", np.uint8)])
    records["row"] = array
    return records["row"]


# Copies of an array.
COPIES = {
    **{name: lambda a, name=name: filled(name, a) for name in EMPTY},
    "byte-swapped": byte_swapped,
    "byte-swapped and every other element": lambda a: filled(
        "every other element", byte_swapped(a)
    ),
    "read-only": read_only,
    "odd steps": with_odd_steps,
    "matrix": lambda a: a.view(np.matrix) if a.ndim == 2 else a,
}
