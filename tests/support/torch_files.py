"""Files of `torch.save` made without PyTorch, byte by byte; and files with damage."""

import io
import struct
import zipfile

import numpy as np

STORAGES = {
    "f8": "DoubleStorage",
    "f4": "FloatStorage",
    "f2": "HalfStorage",
    "u2": "BFloat16Storage",
}


def text(value):
    """Return the opcode of a string."""
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value):
    """Return the opcode of an integer."""
    size = max(1, (value.bit_length() + 8) // 8)
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)


def numbers(values):
    """Return the opcodes of a tuple of integers."""
    return b"(" + b"".join(map(number, values)) + b"t"


def tensor(key, shape, strides, offset=0, storage="FloatStorage"):
    """Return the opcodes of a tensor."""
    of = text("storage") + f"ctorch\n{storage}\n".encode() + text(key) + text("cpu") + number(1)
    rest = number(offset) + numbers(shape) + numbers(strides) + b"\x89ccollections\nOrderedDict\n)R"
    return b"ctorch._utils\n_rebuild_tensor_v2\n((" + of + b"tQ" + rest + b"tR"


def mapping(items):
    """Return the opcodes of a dict, by the opcodes of its values."""
    return b"}(" + b"".join(text(name) + value for name, value in items.items()) + b"u"


def zipped(opcodes, storages=(), byteorder="little", compression=zipfile.ZIP_STORED, more=()):
    """Return a file of a pickle with these opcodes, and storages by number."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        file.writestr("archive/data.pkl", b"\x80\x02" + opcodes + b".")
        file.writestr("archive/byteorder", byteorder)
        for n, storage in enumerate(storages):
            file.writestr(f"archive/data/{n}", storage)
        for name, data in more:
            file.writestr(name, data)
    return buffer.getvalue()


def saved(arrays, byteorder="little"):
    """Return a file of arrays by name, each of which has a storage to itself."""
    order = "<" if byteorder == "little" else ">"
    items, storages = {}, []
    for n, (name, array) in enumerate(arrays.items()):
        kind = array.dtype.str[1:]
        strides = [int(np.prod(array.shape[k + 1 :])) for k in range(array.ndim)]
        items[name] = tensor(str(n), array.shape, strides, storage=STORAGES[kind])
        storages.append(array.astype(order + kind).tobytes())
    return zipped(mapping(items), storages, byteorder)


def outcome(read, path):
    """Return the parameters that were read, or None if the file was refused."""
    try:
        return read(path).state_dict()
    except ValueError as error:
        assert str(error).startswith(str(path)), error
        return None
