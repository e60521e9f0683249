"""A model of ONNX as its file has it: tensors and attributes."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...network.lower import of_bfloat16
from ..reports import refusal

__all__ = ["BFLOAT16", "TYPES", "Attributes", "Tensors", "model_of"]

AnyArray = npt.NDArray[Any]

# TensorProto.DataType: the dtype of its bytes, and the field that has the numbers otherwise.
BFLOAT16 = 16
TYPES: dict[int, tuple[Any, str]] = {
    1: (np.float32, "float_data"),
    2: (np.uint8, "int32_data"),
    3: (np.int8, "int32_data"),
    4: (np.uint16, "int32_data"),
    5: (np.int16, "int32_data"),
    6: (np.int32, "int32_data"),
    7: (np.int64, "int64_data"),
    9: (np.bool_, "int32_data"),
    10: (np.float16, "int32_data"),  # its bits
    11: (np.float64, "double_data"),
    12: (np.uint32, "uint64_data"),
    13: (np.uint64, "uint64_data"),
    BFLOAT16: (np.uint16, "int32_data"),  # its bits
}
EXTERNAL = 1  # TensorProto.DataLocation
# AttributeProto.AttributeType: the field that has the value.
FIELDS = {1: "f", 2: "i", 3: "s", 4: "t", 5: "g", 6: "floats", 7: "ints", 8: "strings"}


def model_of(source: Any) -> tuple[Path | None, Any]:
    """Return the path of a file and its model, or no path and a model that is given.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no model of ONNX.
    ImportError
        If the package onnx is not installed.
    """
    try:
        import onnx
    except ImportError:
        raise ImportError(
            "models of ONNX need the package onnx: pip install 'lstm_fast[onnx]'"
        ) from None
    if isinstance(source, onnx.ModelProto):
        model, path = source, None
    else:
        if not isinstance(source, str | os.PathLike):
            kind = type(source).__name__
            raise TypeError(f"path_or_model: expected a path or a ModelProto, got {kind}")
        path = Path(source)
        if not path.is_file():
            raise FileNotFoundError(f"path_or_model: there is no file {os.fspath(source)}")
        model = onnx.ModelProto()
        try:
            model.ParseFromString(path.read_bytes())
        except Exception as error:  # protobuf has kinds of its own
            raise refusal(source, "file", f"is no model of ONNX ({error})", "export it") from None
    if not model.HasField("graph") or not model.graph.node:
        raise refusal(source, "file", "has no graph of ONNX", "export the model again")
    if not _readable(model):
        raise refusal(source, "model", "has names that are no text", "the file is damaged")
    if any(function.domain in ("", "ai.onnx", "com.microsoft") for function in model.functions):
        raise refusal(
            source, "functions", "define operators of ONNX anew", "inline them in the model"
        )
    return path, model


def _readable(message: Any) -> bool:
    """Return whether all strings in a message are text: protobuf gives bytes for others."""
    for field, value in message.ListFields():
        if field.name == "raw_data":
            continue
        if field.type == field.TYPE_STRING:
            texts = [value] if isinstance(value, str | bytes) else value
            if any(isinstance(text, bytes) for text in texts):
                return False
        elif field.type == field.TYPE_MESSAGE:
            inner = [value] if hasattr(value, "ListFields") else value
            if not all(map(_readable, inner)):
                return False
    return True


class Tensors:
    """The numbers of tensors, their shapes checked against the bytes that are there.

    Parameters
    ----------
    source : path-like or object
        For errors.
    path : Path or None
        Of the model: data outside of the file must be within its folder.
    """

    def __init__(self, source: Any, path: Path | None) -> None:
        self._source, self._path = source, path
        self._read: dict[Path, int] = {}  # bytes of each other file

    def array(self, tensor: Any) -> AnyArray:
        """Return the array of a TensorProto; bfloat16 becomes float32."""
        name = tensor.name or "tensor"
        if tensor.data_type not in TYPES:
            raise self._refusal(name, f"has data type {tensor.data_type}", "it cannot be read")
        dtype, field = TYPES[tensor.data_type]
        shape = tuple(tensor.dims)
        count = math.prod(shape)
        if len(shape) > 32 or any(size < 0 for size in shape):
            raise self._refusal(name, f"has shape {shape}", "the file is damaged")
        little = np.dtype(dtype).newbyteorder("<")
        needed = count * little.itemsize
        if tensor.data_location == EXTERNAL:
            array = np.frombuffer(self._external(tensor, name, needed), little)
        elif tensor.HasField("raw_data"):
            raw = tensor.raw_data
            if len(raw) != needed:
                raise self._refusal(
                    name, f"has shape {shape} and {len(raw)} bytes", f"{needed} are needed"
                )
            array = np.frombuffer(raw, little)
        else:
            array = self._typed(tensor, name, count, dtype, field)
        if tensor.data_type == BFLOAT16:
            array = of_bfloat16(array)
        return array.astype(array.dtype.newbyteorder("="), copy=False).reshape(shape)

    def constant(self, attributes: Attributes) -> AnyArray:
        """Return the array of a node Constant."""
        tensor = attributes.tensor("value")
        if tensor is not None:
            return self.array(tensor)
        for name, kind, of in (
            ("value_float", np.float32, attributes.number),
            ("value_int", np.int64, attributes.integer),
            ("value_floats", np.float32, attributes.numbers),
            ("value_ints", np.int64, attributes.integers),
        ):
            if name in attributes:
                return np.array(of(name), kind)
        raise ValueError("is no constant of numbers")

    def _typed(self, tensor: Any, name: str, count: int, dtype: Any, field: str) -> AnyArray:
        values = getattr(tensor, field)
        if len(values) != count:
            found = f"has shape {tuple(tensor.dims)} and {len(values)} numbers"
            raise self._refusal(name, found, f"{count} are needed")
        array = np.fromiter(values, np.dtype(TYPES_OF_FIELDS[field]), count)
        if dtype is np.float16:
            return array.astype(np.uint16).view(np.float16)
        if dtype is np.bool_:
            return array.astype(np.bool_)
        if array.dtype.kind in "iu" and array.size:
            limits = np.iinfo(dtype)
            if array.min() < limits.min or array.max() > limits.max:
                raise self._refusal(name, f"holds {array.max()}", f"{limits.dtype} does not")
        return array.astype(dtype)

    def _external(self, tensor: Any, name: str, needed: int) -> bytes:
        """Return the bytes of a tensor that are in another file of the model's folder."""
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        if len(entries) < len(tensor.external_data):
            raise self._refusal(name, "names its external data twice", "the file is damaged")
        if self._path is None:
            found = f"is in another file, {location!r}"
            raise self._refusal(name, found, "pass the path of the model")
        folder = self._path.parent
        where = Path(location)
        outside = not location or where.is_absolute() or ".." in where.parts or "\0" in location
        if outside or not (folder / where).resolve().is_relative_to(folder.resolve()):
            raise self._refusal(
                name,
                f"is in {location!r}, outside of the folder of the model",
                "put the data beside the model, as plain files",
            )
        file = folder / where
        if not file.is_file():
            raise self._refusal(name, f"is in {location!r}, which is missing", "add that file")
        try:
            offset, length = (int(entries.get(key, "-1")) for key in ("offset", "length"))
        except ValueError:
            raise self._refusal(name, f"is at {entries}", "the file is damaged") from None
        offset, size = max(offset, 0), file.stat().st_size
        if length not in (-1, needed) or offset + needed > size:
            raise self._refusal(
                name,
                f"is at {offset} in {location!r} with {length} bytes, of {size}",
                f"{needed} are needed",
            )
        self._read[file] = self._read.get(file, 0) + needed
        if self._read[file] > size:
            raise self._refusal(name, f"overlaps with others in {location!r}", "write it anew")
        with open(file, "rb") as data:
            data.seek(offset)
            return data.read(needed)

    def _refusal(self, name: str, found: str, instead: str) -> ValueError:
        return refusal(self._source, f"tensor {name!r}", found, instead)


TYPES_OF_FIELDS = {
    "float_data": np.float32,
    "double_data": np.float64,
    "int32_data": np.int32,
    "int64_data": np.int64,
    "uint64_data": np.uint64,
}


class Attributes:
    """The attributes of a node, and which of them nobody has asked for.

    Raises
    ------
    ValueError
        If one stands twice, or has another type than is asked for.
    """

    def __init__(self, node: Any) -> None:
        self._values: dict[str, Any] = {}
        for attribute in node.attribute:
            if attribute.name in self._values:
                raise ValueError(f"attribute {attribute.name!r} stands twice")
            self._values[attribute.name] = attribute
        self._asked = {"consumed_inputs"}  # of the oldest files, without a meaning

    def integer(self, name: str, default: int | None = None) -> Any:
        return self._value(name, 2, default)

    def number(self, name: str, default: float | None = None) -> Any:
        return self._value(name, 1, default)

    def integers(self, name: str) -> list[int] | None:
        found = self._value(name, 7, None)
        return None if found is None else list(found)

    def numbers(self, name: str) -> list[float]:
        return list(self._value(name, 6, []))

    def text(self, name: str, default: str) -> str:
        found = self._value(name, 3, default.encode())
        return str(found.decode(errors="replace"))

    def texts(self, name: str) -> list[str] | None:
        found = self._value(name, 8, None)
        return None if found is None else [text.decode(errors="replace") for text in found]

    def tensor(self, name: str) -> Any:
        return self._value(name, 4, None)

    def graph(self, name: str) -> Any:
        return self._value(name, 5, None)

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def unasked(self) -> list[str]:
        """Return the names of the others: they may mean something."""
        return sorted(self._values.keys() - self._asked)

    def _value(self, name: str, kind: int, default: Any) -> Any:
        self._asked.add(name)
        attribute = self._values.get(name)
        if attribute is None:
            return default
        if attribute.type != kind or attribute.ref_attr_name:
            raise ValueError(f"attribute {name!r} is no {FIELDS[kind]!r}")
        return getattr(attribute, FIELDS[kind])
