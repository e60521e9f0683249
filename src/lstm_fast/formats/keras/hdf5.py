"""HDF5 files that may lie: their groups, attributes and arrays, checked before they are read."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from mmap import mmap
from typing import Any, NamedTuple

import numpy as np

from ...engine import Array
from ...network.lower import of_bfloat16
from ..reports import refusal

__all__ = ["Stored", "Tree"]

DEPTH = 64  # of groups in groups
SPARE = 2**24  # bytes by which what is read may exceed the file, as it may be compressed
DEFLATE, SHUFFLE = 1, 2  # filters, by HDF5's numbers
DAMAGED = (
    *(OSError, RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError),
    *(OverflowError, MemoryError, SystemError, EOFError, zlib.error),
)


class Stored(NamedTuple):
    """One array in a file, not yet read."""

    shape: tuple[int, ...]
    dtype: str
    dataset: Any


class Tree:
    """The groups and arrays of an HDF5 file by their paths, without a slash at the beginning.

    A file is refused that has links to elsewhere, or an object at two places.

    Parameters
    ----------
    source : path-like
        For errors.
    data : bytes or mmap
        The file.

    Attributes
    ----------
    groups : dict of str to list of str
        Names of what is in each group; "" is the file itself.
    arrays : dict of str to Stored

    Raises
    ------
    ValueError
        If it is no whole HDF5 file, or one that is refused.
    ImportError
        If the package h5py is not installed.
    """

    def __init__(self, source: Any, data: bytes | mmap) -> None:
        try:
            import h5py
        except ImportError:
            raise ImportError(
                "files of Keras need the package h5py: pip install 'lstm_fast[keras]'"
            ) from None
        self._h5py, self._source, self._size = h5py, source, len(data)
        self._left = self._size + SPARE
        self.groups: dict[str, list[str]] = {}
        self.arrays: dict[str, Stored] = {}
        self._objects: dict[str, Any] = {}
        _check_heaps(source, data)
        with self._reading():
            self._file = h5py.File(source if isinstance(data, mmap) else BytesIO(data), "r")
        try:
            with self._reading():
                self._walk()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        with self._reading():
            self._file.close()

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def text(self, path: str, name: str) -> str | None:
        """Return an attribute of a group or array as text; None where there is none."""
        value = self._attribute(path, name)
        if isinstance(value, np.ndarray) and value.size == 1:
            value = value.reshape(-1)[0]
        return None if value is None else self._decoded(path, name, value)

    def texts(self, path: str, name: str) -> list[str] | None:
        """Return an attribute that is a list of texts; Keras splits long ones: name0, name1, ..."""
        value = self._attribute(path, name)
        if value is not None:
            return [self._decoded(path, name, one) for one in np.asarray(value).reshape(-1)]
        found: list[str] = []
        for n in range(self._size):
            value = self._attribute(path, f"{name}{n}")
            if value is None:
                return found if n else None
            found += [self._decoded(path, name, one) for one in np.asarray(value).reshape(-1)]
        return found

    def array(self, path: str) -> Array:
        """Return an array: float16, float32 or float64; bfloat16 as float32."""
        shape, _, dataset = self.arrays[path]
        with self._reading():
            dtype = dataset.dtype
        half = dtype == np.dtype("V2")  # how h5py stores bfloat16
        if not half and dtype.kind != "f":
            raise refusal(self._source, path, f"holds {dtype}", "floating-point numbers are needed")
        size = math.prod(shape) * dtype.itemsize
        if size > self._left:
            raise refusal(
                self._source,
                path,
                f"has shape {shape}, which is more than the file can hold",
                "the file is damaged, or made to exhaust the memory",
            )
        self._left -= size
        with self._reading():
            value = self._read(path, dataset, shape, dtype, size)
        if half:
            return of_bfloat16(value.view("<u2"))
        return value.astype(dtype.newbyteorder("="), copy=False)

    # ---- walking

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Turn what h5py raises for a damaged file into an error that names the file."""
        try:
            yield
        except FileNotFoundError:
            raise
        except Refused as error:
            raise refusal(self._source, error.what, error.found, error.instead) from None
        except DAMAGED as error:
            words = str(error).partition("\n")[0][:200]
            raise refusal(
                self._source, "HDF5", f"cannot be read ({words})", "the file is damaged"
            ) from None

    def _walk(self) -> None:
        h5py = self._h5py
        seen: set[Any] = set()
        waiting: list[tuple[str, Any]] = [("", self._file["/"])]
        while waiting:
            path, this = waiting.pop()
            address = h5py.h5o.get_info(this.id).addr
            if address in seen:
                raise Refused(path, "is an object that stands at two places", "copy it, with h5py")
            if path.count("/") > DEPTH:
                raise Refused(path, f"lies in more than {DEPTH} groups", "the file is damaged")
            seen.add(address)
            self._objects[path] = this
            if isinstance(this, h5py.Dataset):
                self.arrays[path] = self._described(path, this)
            elif isinstance(this, h5py.Group):
                names = list(this)
                self.groups[path] = names
                for name in names:
                    inner = f"{path}/{name}" if path else name
                    link = this.get(name, getlink=True)
                    if not isinstance(link, h5py.HardLink):
                        raise Refused(
                            inner,
                            f"is a link to elsewhere ({type(link).__name__})",
                            "only what lies in the file is read: copy it there, with h5py",
                        )
                    waiting.append((inner, this[name]))

    def _described(self, path: str, dataset: Any) -> Stored:
        plist = dataset.id.get_create_plist()
        if plist.get_layout() == self._h5py.h5d.VIRTUAL or plist.get_external_count():
            raise Refused(
                path,
                "has its numbers in another file",
                "only what lies in the file is read: copy it there, with h5py",
            )
        return Stored(tuple(dataset.shape or ()), str(dataset.dtype), dataset)

    # ---- attributes

    def _attribute(self, path: str, name: str) -> Any:
        if path not in self._objects:
            return None
        with self._reading():
            attributes = self._objects[path].attrs
            if name not in attributes:
                return None
            header = attributes.get_id(name)
            if math.prod(header.shape or ()) * header.dtype.itemsize > self._size:
                raise Refused(f"{path} {name}", "is longer than the file", "the file is damaged")
            return attributes[name]

    def _decoded(self, path: str, name: str, value: Any) -> str:
        if isinstance(value, bytes):
            try:
                return value.decode()
            except UnicodeDecodeError:
                pass
        if not isinstance(value, str):
            raise refusal(
                self._source, f"{path} {name}".strip(), "is no text", "the file is damaged"
            )
        return value

    # ---- arrays

    def _read(
        self, path: str, dataset: Any, shape: tuple[int, ...], dtype: Any, size: int
    ) -> Array:
        plist = dataset.id.get_create_plist()
        filters = [plist.get_filter(n)[0] for n in range(plist.get_nfilters())]
        chunk = dataset.chunks
        if chunk is not None and math.prod(chunk) * dtype.itemsize > self._size + SPARE:
            raise Refused(path, f"has chunks of shape {chunk}", "the file is damaged")
        if filters:
            return self._unpacked(path, dataset, filters, shape, dtype)
        if dataset.id.get_storage_size() < size:
            raise Refused(path, "is not all there", "the file is damaged")
        return np.asarray(dataset[()])

    def _unpacked(
        self, path: str, dataset: Any, filters: list[int], shape: tuple[int, ...], dtype: Any
    ) -> Array:
        """Return a compressed array; HDF5 itself would not limit what a chunk becomes."""
        if not set(filters) <= {DEFLATE, SHUFFLE}:
            raise Refused(path, f"is stored with the filters {filters}", "save it with gzip")
        chunk = dataset.chunks
        pieces = math.prod(-(-n // c) for n, c in zip(shape, chunk, strict=True))
        if dataset.id.get_num_chunks() != pieces:
            raise Refused(path, "is not all there", "the file is damaged")
        size = math.prod(chunk) * dtype.itemsize
        value = np.empty(shape, dtype)
        for n in range(pieces):
            info = dataset.id.get_chunk_info(n)
            if info.size > self._size or info.filter_mask:
                raise Refused(path, "has an odd chunk", "the file is damaged")
            _, data = dataset.id.read_direct_chunk(info.chunk_offset)
            for one in reversed(filters):
                if one == DEFLATE:
                    data = zlib.decompressobj().decompress(data, size + 1)
                if len(data) != size:
                    raise Refused(path, "has a chunk of another size", "the file is damaged")
                if one == SHUFFLE:
                    data = np.frombuffer(data, np.uint8).reshape(dtype.itemsize, -1).T.tobytes()
            at = tuple(
                slice(start, min(start + c, n))
                for start, c, n in zip(info.chunk_offset, chunk, shape, strict=True)
            )
            block = np.frombuffer(data, dtype).reshape(chunk)
            value[at] = block[tuple(slice(0, s.stop - s.start) for s in at)]
        return value


def _check_heaps(source: Any, data: bytes | mmap) -> None:
    """Raise for a heap of texts in which HDF5 would go round in circles: an object of no size."""
    at = data.find(b"GCOL\1")
    while at >= 0:
        end = at + int.from_bytes(data[at + 8 : at + 16], "little")
        place = at + 16
        while place + 16 <= min(end, len(data)):
            index = int.from_bytes(data[place : place + 2], "little")
            size = int.from_bytes(data[place + 8 : place + 16], "little")
            step = 16 + (size + 7) // 8 * 8 if index else size
            if not 16 <= step <= end - place:
                raise refusal(source, "HDF5", f"has a broken heap at {at}", "the file is damaged")
            place += step
        at = data.find(b"GCOL\1", at + 5)


class Refused(Exception):
    """What `refusal` is told, raised where h5py's own errors are caught."""

    def __init__(self, what: str, found: str, instead: str) -> None:
        self.what, self.found, self.instead = what, found, instead
