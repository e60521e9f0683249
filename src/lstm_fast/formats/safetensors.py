"""safetensors: the parameters of PyTorch's modules in a file of Hugging Face's format."""

from __future__ import annotations

import json
import math
import os
from typing import Any

from ..network.block import Block
from ..network.checks import boolean
from .pytorch import blocks as torch_blocks
from .pytorch import names as torch_names
from .pytorch.reader import run
from .raw import ITEMSIZES, MARGIN, Raw, checked, file_bytes
from .reports import Found, Verify, refusal, verified

__all__ = ["from_safetensors", "inspect"]

JSON = 48  # bytes that a byte of a header may take in memory
DTYPES = {
    **{"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"},
    **{"I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8"},
    **{"U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool"},
    **{"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu"},
    **{"C64": "complex64"},
}
DAMAGED = "it is damaged, or no safetensors file"


def from_safetensors(
    path: str | os.PathLike[str],
    prefix: str | None = None,
    *,
    batch_first: bool = False,
    dropout: float = 0.0,
    verify: Verify = None,
) -> Block:
    """Return the LSTM whose parameters a safetensors file has, or the model around it.

    The names are those of PyTorch's modules, as ``safetensors.torch.save_model`` writes them. What
    is read and what is refused is as of `from_torch`; but such a file has names in no particular
    order, so that sizes alone have to say how modules follow one another.

    Parameters
    ----------
    path : path-like
        A file of `lstm_fast.save` is read by `lstm_fast.load` instead.
    prefix, batch_first, dropout, verify
        As of `from_torch`.

    Returns
    -------
    LSTM or Sequential
        With the names of the file. Half precision (F16, BF16) becomes single.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is another one or damaged, has no LSTM or several, or something around it that
        cannot be read.
    ImportError
        If PyTorch is needed for `verify` and not installed.

    Examples
    --------
    >>> lstm = from_safetensors("speech.safetensors", prefix="encoder.lstm")  # doctest: +SKIP
    """
    batch_first = boolean("batch_first", batch_first)
    tensors, about = _read(path)
    if "lstm_fast" in about:
        raise refusal(path, "file", "was written by lstm_fast.save", "lstm_fast.load reads it")
    names = torch_names.chosen(path, torch_names.leaves(path, tensors), prefix)
    block = torch_blocks.block(path, names, False, batch_first, dropout)
    return verified(block, verify, lambda: _run(block, path, prefix))


def inspect(path: str | os.PathLike[str]) -> list[Found]:
    """Return what is in a file, a row for each module that has parameters.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is another one or damaged.
    """
    return torch_names.found(path, _read(path)[0])


def _run(block: Block, path: Any, prefix: str | None) -> tuple[Any, Any]:
    try:
        from safetensors.torch import load_file
    except ImportError:
        raise ImportError(
            "verify=True needs PyTorch and safetensors: pip install 'lstm_fast[torch,files]'; "
            "verify=(x, y) compares with a recorded output"
        ) from None
    return run(block, torch_names.chosen(path, torch_names.leaves(path, load_file(path)), prefix))


def _read(path: Any) -> tuple[dict[str, Raw], dict[str, Any]]:
    """Return the tensors of a file by name, and its metadata.

    A length of 8 bytes, a header in JSON, and the tensors, which fill the rest without a gap.
    """
    data = memoryview(file_bytes(path))
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or not 2 <= size <= min((len(data) + MARGIN) // JSON, len(data) - 8):
        raise refusal(path, "header", f"of {size} bytes in a file of {len(data)}", DAMAGED)
    try:
        header = json.loads(bytes(data[8 : 8 + size]).decode(), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise refusal(path, "header", error, DAMAGED) from error
    if not isinstance(header, dict):
        raise refusal(path, "header", f"is a {type(header).__name__}", DAMAGED)
    about = header.pop("__metadata__", {})
    if not isinstance(about, dict) or not all(isinstance(text, str) for text in about.values()):
        raise refusal(path, "__metadata__", "is no dict of strings", DAMAGED)
    values = data[8 + size :]
    end = 0
    tensors: dict[str, Raw] = {}
    for name, row in header.items():
        if not _is_row(row):
            raise refusal(path, f"tensor {name!r:.80}", "is not described", DAMAGED)
    for name, row in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, after = row["data_offsets"]
        if begin != end or not begin <= after <= len(values):
            found = f"has the offsets {begin} and {after}, after a tensor that ends at {end}"
            raise refusal(path, f"tensor {name!r:.80}", found, DAMAGED)
        end, shape = after, tuple(row["shape"])
        dtype = DTYPES.get(row["dtype"], row["dtype"])
        if dtype in ITEMSIZES and math.prod(shape) * ITEMSIZES[dtype] != after - begin:
            found = f"has shape {shape} and {row['dtype']} in {after - begin} bytes"
            raise refusal(path, f"tensor {name!r:.80}", found, DAMAGED)
        strides = tuple(math.prod(shape[n + 1 :]) for n in range(len(shape)))
        tensors[name] = checked(Raw(values[begin:after], dtype, shape, strides), path)
    if end != len(values):
        raise refusal(path, "file", f"has {len(values) - end} bytes after all tensors", DAMAGED)
    return {name: tensors[name] for name in header}, about


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def _is_row(row: Any) -> bool:
    if not isinstance(row, dict) or row.keys() != {"dtype", "shape", "data_offsets"}:
        return False
    shape, offsets = row["shape"], row["data_offsets"]
    numbers = [*shape, *offsets] if isinstance(shape, list) and isinstance(offsets, list) else [-1]
    whole = all(type(number) is int and 0 <= number < 2**63 for number in numbers)
    return whole and len(offsets) == 2 and len(shape) <= 64 and isinstance(row["dtype"], str)
