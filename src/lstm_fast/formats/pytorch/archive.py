"""The files of ``torch.save`` and ``torch.jit.save``, without PyTorch: a tree of dicts and tensors.

Two containers have the same pickle inside: a zip with a record for each storage, and, of
PyTorch before 1.6, pickles one after the other and then the storages.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from typing import Any, NamedTuple

from ..raw import ITEMSIZES, MARGIN, Raw, checked
from ..reports import refusal
from .pickled import STEP, Made, Named, unpickled

__all__ = ["tree"]

# Calls whose first argument is what they return.
AROUND = (
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
    "torch.jit._pickle.restore_type_tag",
)
MAGIC = 0x1950A86A20F9469CFC6C
DTYPES = {
    **{"Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16"},
    **{"Long": "int64", "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8"},
    **{"Bool": "bool", "ComplexFloat": "complex64", "ComplexDouble": "complex128"},
    **{"QInt8": "qint8", "QUInt8": "quint8", "QInt32": "qint32"},
}
DAMAGED = "it is damaged, or no file of torch.save"


class Storage(NamedTuple):
    """Memory that tensors lie in."""

    key: str
    dtype: str | None  # None: bytes, whose meaning a tensor says
    start: int  # of a view, in elements


def tree(path: Any, data: bytes) -> Any:
    """Return what a file holds: dicts, lists, numbers, strings, `Raw` tensors, and `Made`.

    Parameters
    ----------
    path : path-like
        For errors.
    data : bytes
        Of the file.

    Raises
    ------
    ValueError
        If it is no such file, or a damaged one.
    """
    reader = _Zip if data[:4] == b"PK\x03\x04" else _Legacy
    return reader(path, data).tree()


class _File:
    """What both containers have in common: storages by key, and how tensors lie in them."""

    def __init__(self, path: Any, data: bytes) -> None:
        self.path, self.bytes, self.data = path, data, memoryview(data)
        self.byteorder = "<"

    def storage(self, key: str) -> memoryview:
        raise NotImplementedError

    def tree(self) -> Any:
        raise NotImplementedError

    def unpickled(self, start: int, end: int) -> tuple[Any, int]:
        try:
            steps = (len(self.bytes) + MARGIN) // STEP
            return unpickled(self.bytes, start, end, steps, self.persistent, self.call)
        except ValueError as error:
            if str(error).startswith(str(self.path)):
                raise
            raise refusal(self.path, "pickle", error, DAMAGED) from error

    def persistent(self, identifier: Any) -> Any:
        """Return what a persistent identifier of PyTorch stands for."""
        if isinstance(identifier, tuple) and identifier[:1] == ("module",):
            return identifier[1]  # of a whole model: its class, before its source
        _, kind, key, _, _, *view = identifier
        if not isinstance(kind, Named):
            raise TypeError("a storage of no class")
        start = _integer(view[0][1]) if view and view[0] else 0
        return Storage(_text(key), _dtype(kind.name), start)

    def call(self, name: str, arguments: tuple[Any, ...]) -> Any:
        """Return what stands for a call that the pickle asks for."""
        if name == "collections.OrderedDict":
            return {_text(key): value for key, value in (arguments[0] if arguments else ())}
        if name in ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor"):
            return self.tensor(*arguments[:4])
        if name == "torch._utils._rebuild_tensor_v3":  # of dtypes that have no class of storages
            storage, offset, shape, strides, _, _, dtype, *_ = arguments
            return self.tensor(storage, offset, shape, strides, dtype)
        if name in AROUND:
            return arguments[0]
        return Made(name, arguments)

    def tensor(self, storage: Any, offset: Any, shape: Any, strides: Any, dtype: Any = None) -> Any:
        if not isinstance(storage, Storage):
            raise TypeError("a tensor without a storage")
        named = dtype.name.removeprefix("torch.") if isinstance(dtype, Named) else None
        of = storage.dtype or named or "bytes"
        data = self.storage(storage.key)
        raw = Raw(
            data,
            of,
            tuple(map(_integer, shape)),
            tuple(map(_integer, strides)),
            _integer(offset) + storage.start,
            self.byteorder,
        )
        return checked(raw, self.path)


class _Zip(_File):
    """A zip whose records are not compressed."""

    def __init__(self, path: Any, data: bytes) -> None:
        super().__init__(path, data)
        self.records: dict[str, zipfile.ZipInfo] = {}
        for info in self.directory():
            name = info.filename
            if name in self.records or name.startswith("/") or ".." in name.split("/"):
                raise refusal(path, f"record {name!r:.80}", "stands twice or leads out", DAMAGED)
            self.records[name] = info
        if sum(info.compress_size for info in self.records.values()) > len(data):
            raise refusal(path, "records", "overlap", DAMAGED)
        self.read: dict[str, memoryview] = {}
        pickles = [name for name in self.records if name.count("/") == 1]
        folders = [name.split("/")[0] for name in pickles if name.endswith("/data.pkl")]
        if len(folders) != 1:
            how = "a file of torch.save or torch.jit.save has one"
            raise refusal(path, "file", f"a zip with {len(folders)} records data.pkl", how)
        self.folder = folders[0]

    def directory(self) -> list[zipfile.ZipInfo]:
        """Return what the zip says that it has."""
        count = self.bytes.count(b"PK\x01\x02")  # of records, each of which becomes an object
        if count * 1024 > len(self.bytes) + MARGIN:
            raise refusal(self.path, "file", f"has {count} records", DAMAGED)
        try:
            with zipfile.ZipFile(io.BytesIO(self.bytes)) as file:
                return file.infolist()
        except (zipfile.BadZipFile, struct.error, ValueError, OSError, OverflowError) as error:
            raise refusal(self.path, "file", error, DAMAGED) from error
        except (NotImplementedError, EOFError) as error:  # of another version of the format
            raise refusal(self.path, "file", error, DAMAGED) from error

    def tree(self) -> Any:
        """Return what the pickle says."""
        if f"{self.folder}/byteorder" in self.records:
            start, end = self.record("byteorder")
            order = self.bytes[start : min(end, start + 10)]
            if order not in (b"little", b"big"):
                raise refusal(self.path, "byteorder", order, "little or big is expected")
            self.byteorder = "<" if order == b"little" else ">"
        return self.unpickled(*self.record("data.pkl"))[0]

    def storage(self, key: str) -> memoryview:
        """Return the bytes of a storage."""
        if key not in self.read:
            start, end = self.record(f"data/{key}")
            self.read[key] = self.data[start:end]
        return self.read[key]

    def record(self, name: str) -> tuple[int, int]:
        """Return where the bytes of a record begin and end."""
        info = self.records.get(f"{self.folder}/{name}")
        if info is None:
            raise refusal(self.path, f"record {name!r:.80}", "is missing", DAMAGED)
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            how = "zip it without compression, as torch.save does"
            raise refusal(self.path, f"record {name}", "is compressed or encrypted", how)
        header = self.data[info.header_offset : info.header_offset + 30]
        if len(header) < 30 or bytes(header[:4]) != b"PK\x03\x04":
            raise refusal(self.path, f"record {name}", "is not where the zip says", DAMAGED)
        start = info.header_offset + 30 + sum(struct.unpack("<HH", header[26:]))
        found = self.data[start : start + info.file_size]
        # torch.serialization.set_crc32_options(False) writes 0 for the checksum.
        if len(found) < info.file_size or (info.CRC and zlib.crc32(found) != info.CRC):
            raise refusal(self.path, f"record {name}", "has other bytes than were written", DAMAGED)
        return start, start + info.file_size


class _Legacy(_File):
    """Pickles, then storages: of PyTorch before 1.6, or as it is asked to write still."""

    def __init__(self, path: Any, data: bytes) -> None:
        super().__init__(path, data)
        self.found: dict[str, memoryview] | None = None
        self.kinds: dict[str, str] = {}

    def tree(self) -> Any:
        """Return what the fourth pickle says; the sizes of storages follow it."""
        end = len(self.bytes)
        magic, position = self.unpickled(0, end)
        if magic != MAGIC:
            raise refusal(self.path, "file", "does not begin as those of torch.save", DAMAGED)
        _, position = self.unpickled(position, end)
        about, position = self.unpickled(position, end)
        if not isinstance(about, dict) or about.get("little_endian") is not True:
            raise refusal(self.path, "byte order", "is not little", "save it with torch >= 1.6")
        # Storages come after the tree: where they are is found first, with none of them.
        _, after = self.unpickled(position, end)
        keys, after = self.unpickled(after, end)
        self.found = self.storages(keys, after)
        return self.unpickled(position, end)[0]

    def storages(self, keys: Any, position: int) -> dict[str, memoryview]:
        found: dict[str, memoryview] = {}
        for key in keys if isinstance(keys, list) else ():
            size = self.kinds.get(key) if isinstance(key, str) else None
            if size is None or key in found:
                raise refusal(self.path, f"storage {key!r:.80}", "is not known", DAMAGED)
            count = int.from_bytes(self.data[position : position + 8], "little")
            position += 8
            end = position + count * ITEMSIZES[size]
            if end > len(self.data):
                raise refusal(self.path, f"storage {key}", "is cut short", DAMAGED)
            found[key] = self.data[position:end]
            position = end
        return found

    def storage(self, key: str) -> memoryview:
        """Return the bytes of a storage."""
        if self.found is None or key not in self.found:
            raise refusal(self.path, f"storage {key!r:.80}", "is missing", DAMAGED)
        return self.found[key]

    def persistent(self, identifier: Any) -> Any:
        """Return a storage, and note what its numbers are."""
        found = super().persistent(identifier)
        if isinstance(found, Storage) and found.dtype is not None:
            self.kinds[found.key] = found.dtype
        return found

    def tensor(self, storage: Any, offset: Any, shape: Any, strides: Any, dtype: Any = None) -> Any:
        """Return a tensor, or nothing while storages are not found yet."""
        if self.found is None:
            return None
        return super().tensor(storage, offset, shape, strides, dtype)


def _dtype(name: str) -> str | None:
    """Return the dtype of a class of storages."""
    module, _, kind = name.rpartition(".")
    kind = kind.removesuffix("Storage")
    if module not in ("torch", "torch.cuda", "torch.storage") or kind == "Untyped":
        return None
    return DTYPES.get(kind)


def _integer(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise TypeError("a size that is no positive integer")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("a key that is no string")
    return value
