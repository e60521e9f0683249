"""What a file of TensorFlow Lite holds: operators, tensors, and numbers of these."""

from __future__ import annotations

import math
import os
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ...engine import Array
from ..raw import file_bytes
from ..reports import refusal
from .flatbuffer import Table, root

__all__ = ["File", "Operator"]

# Numbers of the schema.
OPERATORS = {
    0: "ADD",
    2: "CONCATENATION",
    6: "DEQUANTIZE",
    9: "FULLY_CONNECTED",
    14: "LOGISTIC",
    16: "LSTM",
    18: "MUL",
    19: "RELU",
    22: "RESHAPE",
    25: "SOFTMAX",
    28: "TANH",
    31: "CALL",
    32: "CUSTOM",
    36: "GATHER",
    39: "TRANSPOSE",
    40: "MEAN",
    43: "SQUEEZE",
    44: "UNIDIRECTIONAL_SEQUENCE_LSTM",
    45: "STRIDED_SLICE",
    49: "SPLIT",
    52: "BIDIRECTIONAL_SEQUENCE_LSTM",
    53: "CAST",
    65: "SLICE",
    70: "EXPAND_DIMS",
    77: "SHAPE",
    82: "REDUCE_MAX",
    83: "PACK",
    88: "UNPACK",
    93: "ZEROS_LIKE",
    94: "FILL",
    98: "LEAKY_RELU",
    105: "REVERSE_V2",
    111: "ELU",
    114: "QUANTIZE",
    118: "IF",
    119: "WHILE",
    126: "BATCH_MATMUL",
    129: "CALL_ONCE",
    142: "VAR_HANDLE",
    143: "READ_VARIABLE",
    144: "ASSIGN_VARIABLE",
}
OPTIONS = {  # the tables that operators have theirs in
    "FULLY_CONNECTED": 8,
    "SOFTMAX": 9,
    "CONCATENATION": 10,
    "ADD": 11,
    "RESHAPE": 17,
    "MUL": 21,
    "GATHER": 23,
    "MEAN": 27,
    "REDUCE_MAX": 27,
    "SQUEEZE": 30,
    "STRIDED_SLICE": 32,
    "PACK": 59,
    "BIDIRECTIONAL_SEQUENCE_LSTM": 69,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": 71,
    "LEAKY_RELU": 75,
    "BATCH_MATMUL": 101,
}
TYPES = {
    0: "float32",
    1: "float16",
    2: "int32",
    3: "uint8",
    4: "int64",
    7: "int16",
    9: "int8",
    10: "float64",
}
MOST_ARGUMENTS = 64  # of an operator
MOST_AXES = 8
SPARE = 2**24  # bytes: constants may be used twice, large ones not often


class Operator(NamedTuple):
    """An operator of the graph."""

    kind: str
    inputs: tuple[int, ...]  # numbers of tensors, -1 where one is left out
    outputs: tuple[int, ...]
    options: Table | None

    def input(self, place: int) -> int:
        """Return the number of a tensor, -1 where it is left out."""
        return self.inputs[place] if place < len(self.inputs) else -1

    def option(self, field: int, kind: str = "b", default: Any = 0) -> Any:
        """Return a number of its options."""
        return default if self.options is None else self.options.number(field, kind, default)


class File:
    """The first graph of a file.

    Parameters
    ----------
    path : path-like

    Attributes
    ----------
    operators : list of Operator
    inputs, outputs : tuple of int
        Of the graph: numbers of tensors.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, or if it is no such graph.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path
        self._data = file_bytes(path)
        self.count_anew()
        try:
            self._read()
        except ValueError as error:
            raise refusal(path, "file", error, "it is no file of TensorFlow Lite") from None

    def _read(self) -> None:
        model = root(self._data, b"TFL3")
        if model.number(0, "I") != 3:
            raise ValueError(f"has version {model.number(0, 'I')} of the schema, not 3")
        codes = [_operator_name(code) for code in model.tables(1)]
        graph = next(model.tables(2), None)
        if graph is None:
            raise ValueError("has no graph")
        self._buffers = [*model.tables(4)]
        self._tensors = [*graph.tables(0)]
        self.inputs = self._numbers(graph, 1)
        self.outputs = self._numbers(graph, 2)
        self.operators = [self._operator(table, codes) for table in graph.tables(3)]

    def _numbers(self, table: Table, field: int) -> tuple[int, ...]:
        """Return numbers of tensors."""
        found = table.vector(field, "i", MOST_ARGUMENTS)
        numbers = () if found is None else tuple(found.tolist())
        if any(not -1 <= n < len(self._tensors) for n in numbers):
            raise ValueError("refers to a tensor that is not there")
        return numbers

    def _operator(self, table: Table, codes: list[str]) -> Operator:
        code = table.number(0, "I")
        if code >= len(codes):
            raise ValueError("refers to an operator that is not there")
        kind = codes[code]
        inputs, outputs = self._numbers(table, 1), self._numbers(table, 2)
        options, wanted = None, OPTIONS.get(kind)
        if wanted is not None:
            found = table.number(3, "B")
            options = table.table(4)
            if found not in (0, wanted) or (found == wanted) != (options is not None):
                raise ValueError(f"{kind} has options of another operator")
        return Operator(kind, inputs, outputs, options)

    def count_anew(self) -> None:
        """Forget which constants were read: arrays of an earlier reading are gone."""
        self._used = 0

    # ---- tensors

    def name(self, number: int) -> str:
        """Return the name of a tensor."""
        return self._tensors[number].text(3) or f"tensor {number}"

    def dtype(self, number: int) -> str:
        """Return the name of NumPy's dtype."""
        code = self._tensors[number].number(1, "b")
        return TYPES.get(code, f"type {code}")

    def shape(self, number: int, signature: bool = False) -> tuple[int, ...]:
        """Return a shape; with its signature, -1 where any extent goes."""
        tensor = self._tensors[number]
        found = tensor.vector(7, "i", MOST_AXES) if signature else None
        if found is None or not len(found):
            found = tensor.vector(0, "i", MOST_AXES)
        return () if found is None else tuple(found.tolist())

    def is_constant(self, number: int) -> bool:
        """Whether the file has the numbers of a tensor."""
        return number >= 0 and len(self._bytes(number)) > 0

    def is_zero(self, number: int) -> bool:
        """Whether a tensor begins as zeros: a variable, or numbers that are."""
        if self.is_constant(number):
            return not np.frombuffer(self._bytes(number), np.uint8).any()
        return bool(self._tensors[number].number(5, "?", False))

    def _bytes(self, number: int) -> memoryview:
        buffer = self._tensors[number].number(2, "I")
        if buffer >= len(self._buffers):
            raise refusal(self.path, self.name(number), "its buffer is not there", "it is broken")
        table = self._buffers[buffer]
        offset, size = table.number(1, "Q"), table.number(2, "Q")
        if offset > 1:  # after the tables, in large files
            if offset + size > len(self._data):
                raise refusal(self.path, self.name(number), "is outside of the file", "it is cut")
            return memoryview(self._data)[offset : offset + size]
        found = table.vector(0, "B")
        return memoryview(b"" if found is None else found.data)

    def stored(self, number: int) -> npt.NDArray[Any]:
        """Return the numbers of a constant as they are in the file.

        Raises
        ------
        ValueError
            If there are none, or not as many as its shape says.
        """
        name, data = self.name(number), self._bytes(number)
        if not len(data):
            raise refusal(self.path, name, "is computed", "a constant is needed here")
        dtype, shape = self.dtype(number), self.shape(number)
        if dtype not in TYPES.values():
            raise refusal(self.path, name, f"is of {dtype}", "it cannot be read")
        if self._tensors[number].table(6) is not None:
            raise refusal(self.path, name, "is sparse", "convert the model without pruning")
        if any(n < 1 for n in shape) or math.prod(shape) * np.dtype(dtype).itemsize != len(data):
            raise refusal(
                self.path,
                name,
                f"has {len(data)} bytes for {dtype} of shape {shape}",
                "it is broken",
            )
        self._used += len(data)
        if self._used > len(self._data) + SPARE:
            raise refusal(self.path, name, "is used many times", "it would take much memory")
        return np.frombuffer(data, np.dtype(dtype).newbyteorder("<")).reshape(shape)

    def integers(self, number: int) -> npt.NDArray[np.int64]:
        """Return a few integers, as of a shape."""
        found = self.stored(number)
        if found.dtype.kind != "i" or found.size > MOST_AXES:
            raise refusal(
                self.path,
                self.name(number),
                f"is {found.dtype} of shape {found.shape}",
                "not an axis",
            )
        return found.astype(np.int64)

    def floats(self, number: int, hybrid: bool = False) -> Array:
        """Return the numbers of a constant, those of quantised ones times their scale.

        With `hybrid` the operator works on float32: then uint8 means int8, as old converters wrote.
        """
        found = self.stored(number)
        if found.dtype.kind == "f":
            return found.astype(np.float32 if found.dtype.itemsize < 8 else np.float64)
        name, parameters = self.name(number), self._tensors[number].table(4)
        scale = None if parameters is None else parameters.vector(2, "f")
        if parameters is None or scale is None or not len(scale):
            raise refusal(self.path, name, f"is {found.dtype} without a scale", "it cannot be read")
        if parameters.number(4, "B"):
            raise refusal(self.path, name, "is quantised in blocks", "it cannot be read")
        zero = parameters.vector(3, "q")
        zero = np.zeros(len(scale), np.int64) if zero is None or not len(zero) else zero
        if not np.isfinite(scale).all() or not (scale > 0).all() or len(zero) != len(scale):
            raise refusal(self.path, name, "has scales that are no scales", "it is broken")
        if hybrid and found.dtype == np.uint8 and not zero.any():
            found = found.view(np.int8)
        if len(scale) > 1:
            axis = parameters.number(6, "i")
            if not 0 <= axis < found.ndim or found.shape[axis] != len(scale):
                raise refusal(self.path, name, f"has {len(scale)} scales", "not one for each row")
            shape = [-1 if n == axis else 1 for n in range(found.ndim)]
            scale, zero = scale.reshape(shape), zero.reshape(shape)
        with np.errstate(over="ignore"):
            real: Array = ((found.astype(np.float64) - zero) * scale).astype(np.float32)
        return real


def _operator_name(code: Table) -> str:
    # Both fields have it, the first one up to 127.
    number = max(code.number(0, "b"), code.number(3, "i"))
    if number == 32:
        return f"CUSTOM ({code.text(1, 80)})"
    return OPERATORS.get(number, f"operator {number}")
