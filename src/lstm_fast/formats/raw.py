"""Tensors as the bytes that a file holds: checked, and made arrays only where they are needed."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ..engine import Array
from ..network import storage
from ..network.lower import of_bfloat16
from .reports import refusal

__all__ = ["ITEMSIZES", "MARGIN", "Raw", "checked", "file_bytes"]

# What is read, and the NumPy dtype of its bytes: bfloat16 is the upper half of float32.
FLOATS = {"float64": "f8", "float32": "f4", "float16": "f2", "bfloat16": "u2"}
# Bytes of a number, by PyTorch's name of the dtype; no block computes with the others.
ITEMSIZES = {
    **{"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "complex64": 8, "complex128": 16},
    **{"int64": 8, "int32": 4, "int16": 2, "int8": 1, "qint32": 4, "qint8": 1, "quint8": 1},
    **{"uint64": 8, "uint32": 4, "uint16": 2, "uint8": 1, "bool": 1},
    **{"float8_e4m3fn": 1, "float8_e5m2": 1, "float8_e8m0fnu": 1},
    **{"float8_e4m3fnuz": 1, "float8_e5m2fnuz": 1},
}
MARGIN = 2**26  # bytes that arrays may take beyond those of the file


class Raw(NamedTuple):
    """A tensor in the bytes of a file.

    Attributes
    ----------
    data : bytes-like
        Of the storage that the tensor lies in.
    dtype : str
        PyTorch's name of it.
    shape, strides : tuple of int
        Strides are in elements.
    offset : int
        Of the first element in the storage, in elements.
    byteorder : {"<", ">"}
    """

    data: Any
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0
    byteorder: str = "<"

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the array."""
        return math.prod(self.shape) * ITEMSIZES.get(self.dtype, 1)

    def array(self, source: Any, name: str) -> Array:
        """Return the values, a view of the bytes where NumPy has the dtype.

        Raises
        ------
        ValueError
            If they are no floating-point numbers, or do not lie in the storage, each by itself.
        """
        if self.dtype not in FLOATS:
            how = "a quantised model is to be saved before it is quantised"
            raise refusal(source, name, f"holds {self.dtype}, no floating-point numbers", how)
        dtype = np.dtype(self.byteorder + FLOATS[self.dtype])
        values = np.ndarray(
            self.shape,
            dtype,
            self.data,
            self.offset * dtype.itemsize,
            tuple(stride * dtype.itemsize for stride in self.strides),
        )
        return of_bfloat16(values) if self.dtype == "bfloat16" else values


def checked(tensor: Raw, source: Any) -> Raw:
    """Return the tensor if its elements lie in its storage, and are not more than that has.

    Raises
    ------
    ValueError
        If they do not.
    """
    numbers = (*tensor.shape, *tensor.strides, tensor.offset)
    if len(tensor.shape) != len(tensor.strides) or any(number < 0 for number in numbers):
        raise refusal(source, "a tensor", f"has shape {tensor.shape}", "the file is damaged")
    held = len(tensor.data) // ITEMSIZES.get(tensor.dtype, 1)
    count = math.prod(tensor.shape)
    steps = zip(tensor.shape, tensor.strides, strict=True)
    last = tensor.offset + sum((n - 1) * stride for n, stride in steps)
    if tensor.dtype in ITEMSIZES and count and (last >= held or count > held):
        shape = f"has shape {tensor.shape}, more than the {held} numbers that are stored for it"
        raise refusal(source, "a tensor", shape, "the file is damaged, or the tensor is expanded")
    return tensor


def file_bytes(path: Any) -> bytes:
    """Return what is in a file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    """
    return storage.existing(path).read_bytes()
