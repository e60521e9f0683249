"""Files of TensorFlow Lite made by hand: tensors and operators, written as FlatBuffers."""

import struct
from typing import Any, NamedTuple

import numpy as np

CODES = {
    "ADD": 0,
    "CONCATENATION": 2,
    "DEQUANTIZE": 6,
    "FULLY_CONNECTED": 9,
    "LOGISTIC": 14,
    "LSTM": 16,
    "MUL": 18,
    "RELU": 19,
    "RESHAPE": 22,
    "SOFTMAX": 25,
    "TANH": 28,
    "GATHER": 36,
    "TRANSPOSE": 39,
    "MEAN": 40,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": 44,
    "STRIDED_SLICE": 45,
    "BIDIRECTIONAL_SEQUENCE_LSTM": 52,
    "CAST": 53,
    "SLICE": 65,
    "EXPAND_DIMS": 70,
    "SHAPE": 77,
    "PACK": 83,
    "ZEROS_LIKE": 93,
    "FILL": 94,
    "LEAKY_RELU": 98,
    "REVERSE_V2": 105,
    "ELU": 111,
    "WHILE": 119,
    "BATCH_MATMUL": 126,
    "HARD_SWISH": 117,
}
OPTIONS = {
    "FULLY_CONNECTED": 8,
    "SOFTMAX": 9,
    "CONCATENATION": 10,
    "ADD": 11,
    "MUL": 21,
    "GATHER": 23,
    "MEAN": 27,
    "STRIDED_SLICE": 32,
    "SHAPE": 55,
    "PACK": 59,
    "BIDIRECTIONAL_SEQUENCE_LSTM": 69,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": 71,
    "LEAKY_RELU": 75,
    "BATCH_MATMUL": 101,
}
TYPES = {"float32": 0, "float16": 1, "int32": 2, "uint8": 3, "int64": 4, "int16": 7, "int8": 9}


class Number(NamedTuple):
    """A number in a table; `kind` is a letter of `struct`."""

    kind: str
    value: Any


class Graph:
    """A graph that grows tensor by tensor."""

    def __init__(self):
        self.tensors, self.buffers, self.operators = [], [{}], []
        self.codes = []

    def tensor(
        self,
        shape,
        dtype="float32",
        data=None,
        *,
        variable=False,
        scale=None,
        zero=None,
        axis=0,
        signature=None,
        **fields,
    ):
        """Add a tensor, and return its number."""
        number = len(self.tensors)
        buffer = 0
        if data is not None:
            buffer = len(self.buffers)
            self.buffers.append({0: np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)})
        table = {
            0: np.array(shape, np.int32),
            1: Number("b", TYPES[dtype]),
            2: Number("I", buffer),
            3: f"tensor_{number}".encode(),
            5: Number("?", variable),
        }
        if scale is not None:
            scale = np.atleast_1d(np.float32(scale))
            zero = np.zeros(len(scale), np.int64) if zero is None else np.atleast_1d(np.int64(zero))
            table[4] = {2: scale, 3: zero, 6: Number("i", axis)}
        if signature is not None:
            table[7] = np.array(signature, np.int32)
        self.tensors.append(table | fields)
        return number

    def constant(self, array, **fields):
        """Add numbers, and return the number of their tensor."""
        array = np.asarray(array)
        return self.tensor(array.shape, array.dtype.name, array, **fields)

    def operator(self, kind, inputs, outputs, options=None):
        """Add an operator; options are numbers by their field."""
        if kind not in self.codes:
            self.codes.append(kind)
        table = {
            0: Number("I", self.codes.index(kind)),
            1: np.array(inputs, np.int32),
            2: np.array(outputs, np.int32),
        }
        if kind in OPTIONS:
            table |= {3: Number("B", OPTIONS[kind]), 4: options or {}}
        self.operators.append(table)

    def written(self, inputs, outputs):
        """Return the bytes of the file."""
        graph = {
            0: self.tensors,
            1: np.array(inputs, np.int32),
            2: np.array(outputs, np.int32),
            3: self.operators,
            4: b"main",
        }
        codes = [
            {
                0: Number("b", min(CODES[k], 127)),
                2: Number("i", 4 if k == "FULLY_CONNECTED" else 1),
                3: Number("i", CODES[k]),
            }
            for k in self.codes
        ]
        model = {0: Number("I", 3), 1: codes, 2: [graph], 3: b"test", 4: self.buffers}
        return _packed(model)


def _packed(model):
    out = bytearray(struct.pack("<I", 0) + b"TFL3")
    struct.pack_into("<I", out, 0, _table(out, model))
    return bytes(out)


def _align(out, at=0):
    while (len(out) + at) % 16:
        out.append(0)


def _table(out, fields):
    """Write a table, each field in 8 bytes, then what it refers to; return where it begins."""
    _align(out)
    count = max(fields, default=-1) + 1
    places = {field: 8 + 8 * n for n, field in enumerate(fields)}
    vtable = len(out)
    out += struct.pack("<HH", 4 + 2 * count, 8 + 8 * len(fields))
    out += struct.pack(f"<{count}H", *(places.get(n, 0) for n in range(count)))
    _align(out)
    at = len(out)
    out += struct.pack("<i", at - vtable) + bytes(4 + 8 * len(fields))
    for field, value in fields.items():
        place = at + places[field]
        if isinstance(value, Number):
            struct.pack_into(f"<{value.kind}", out, place, value.value)
        else:
            struct.pack_into("<I", out, place, _object(out, value) - place)
    return at


def _object(out, value):
    if isinstance(value, dict):
        return _table(out, value)
    _align(out, 4)
    at = len(out)
    out += struct.pack("<I", len(value))
    if isinstance(value, list):
        out += bytes(4 * len(value))
        for n, one in enumerate(value):
            place = at + 4 + 4 * n
            struct.pack_into("<I", out, place, _table(out, one) - place)
    else:
        out += value + b"\0" if isinstance(value, bytes) else value.tobytes()
    return at
