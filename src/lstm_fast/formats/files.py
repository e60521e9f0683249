"""Files by their extension: which reader, which writer; of the command line, and of users."""

from __future__ import annotations

import io
import os
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np

from ..network import storage
from ..network.block import Block, load, save
from .reports import Found

__all__ = ["WRITTEN", "Block", "Found", "described", "inspect", "read", "write"]

# The module and its reader; a safetensors file may be one of our own, too.
READERS = {
    **dict.fromkeys((".pt", ".pth", ".ckpt", ".bin", ".npz"), ("pytorch", "from_torch")),
    ".safetensors": ("safetensors", "from_safetensors"),
    **dict.fromkeys((".keras", ".h5", ".hdf5"), ("keras", "from_keras")),
    ".onnx": ("onnx", "from_onnx"),
    ".tflite": ("tflite", "from_tflite"),
    ".xml": ("openvino", "from_openvino"),
    ".json": ("rtneural", "from_rtneural"),
}
SIZES = ("input_size", "vocabulary", "hidden_size", "output_size", "columns")
WRITTEN = (".safetensors", ".onnx", ".npz", ".pt", ".pth")


def read(path: str | os.PathLike[str], **options: Any) -> Block:
    """Return the model in a file of any format.

    Parameters
    ----------
    path : path-like
        Its extension says what it is.
    options
        Of the reader of this format, as `prefix` of PyTorch's; those that are None are left out.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the extension is of no format, the reader has no such option, or refuses the file.
    """
    module, name = _reader(path)
    given = {key: value for key, value in options.items() if value is not None}
    if name == "from_safetensors" and _is_ours(path):
        if given:
            raise ValueError(f"{next(iter(given))}: {os.fspath(path)} is lstm_fast's own file")
        found = load(path)
        if not isinstance(found, Block):
            raise ValueError(f"{os.fspath(path)}: holds a {type(found).__name__}, not a model")
        return found
    reader = getattr(module, name)
    for key in given:
        if key not in signature(reader).parameters:
            raise ValueError(f"{key}: {name} has no such option")
    block: Block = reader(path, **given)
    return block


def inspect(path: str | os.PathLike[str]) -> list[Found]:
    """Return a row for each part of the model in a file of any format; see `read`."""
    module, name = _reader(path)
    if name == "from_safetensors" and _is_ours(path):
        return described(read(path))
    rows: list[Found] = module.inspect(path)
    return rows


def write(path: str | os.PathLike[str], block: Block) -> None:
    """Write a model to a file, whose extension says what it becomes.

    Raises
    ------
    ValueError
        If the extension is of no format that can be written, or the format has no such model.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".safetensors":
        save(path, block)
    elif suffix == ".onnx":
        import_module(".onnx", __package__).to_onnx(path, block)
    elif suffix in (".npz", ".pt", ".pth"):
        lost = [row for row in described(block) if not row.parameters and row.kind != "Dropout"]
        if lost:
            names = ", ".join(f"{row.name} ({row.kind})" for row in lost)
            raise ValueError(
                f"{os.fspath(path)}: holds arrays only, and {names} would be lost: write "
                ".safetensors or .onnx"
            )
        data = io.BytesIO()
        if suffix == ".npz":
            np.savez(data, **block.state_dict())  # type: ignore[arg-type]
        else:
            states = import_module(".pytorch", __package__).to_torch(block)
            import_module("torch").save(states, data)
        storage.write_whole(path, data.getvalue())
    else:
        raise ValueError(f"{os.fspath(path)}: expected one of {', '.join(WRITTEN)}")


def described(block: Block, name: str = "") -> list[Found]:
    """Return a row for each block of a model."""
    inside = getattr(block, "blocks", None)
    if inside is not None:
        before = f"{name}." if name else ""
        return [row for key, one in inside.items() for row in described(one, f"{before}{key}")]
    options = block._options()
    dtype = str(np.dtype(options.pop("dtype", block.dtype)))
    sizes = [options.pop(key) for key in SIZES if key in options]
    usual = {key: p.default for key, p in signature(type(block)).parameters.items()}
    unusual = {key: value for key, value in options.items() if value != usual.get(key, value)}
    return [
        Found(
            name or "(model)",
            type(block).__name__,
            " -> ".join(map(str, sizes)),
            ", ".join(f"{key}={value}" for key, value in unusual.items()),
            dtype,
            sum(value.size for value in block.state_dict().values()),
        )
    ]


def _reader(path: str | os.PathLike[str]) -> tuple[Any, str]:
    storage.existing(path)
    suffix = Path(path).suffix.lower()
    if suffix not in READERS:
        raise ValueError(f"{os.fspath(path)}: expected one of {', '.join(READERS)}")
    module, name = READERS[suffix]
    return import_module(f".{module}", __package__), name


def _is_ours(path: str | os.PathLike[str]) -> bool:
    try:
        with open(path, "rb") as file:
            size = int.from_bytes(file.read(8), "little")
            return f'"{storage.KEY}"'.encode() in file.read(min(size, 1 << 20))
    except OSError:
        return False
