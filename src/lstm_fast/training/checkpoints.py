"""A run in a file: arrays, and the rest as JSON, in one .npz file without pickles."""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..network import checks

__all__ = ["Checkpoint", "as_checkpoint", "pack", "read", "unpack"]

FORMAT, VERSION = "lstm_fast training checkpoint", 1
TREE = "tree.json"


class Checkpoint(NamedTuple):
    """Where a run is kept, and how often.

    Attributes
    ----------
    path : str or path-like
        If there is such a file when the training begins, it goes on from there.
    every : int, optional
        Updates from one time to the next; it is also written after each epoch and after Ctrl-C.
    """

    path: str | os.PathLike[str]
    every: int | None = None


def as_checkpoint(given: Any) -> Checkpoint | None:
    """Return what `given`, which may be a path, says."""
    if given is None:
        return None
    if not isinstance(given, Checkpoint):
        if not isinstance(given, (str, os.PathLike)):
            raise TypeError(
                f"checkpoint: expected a path or a Checkpoint, got {type(given).__name__}"
            )
        given = Checkpoint(given)
    path = Path(given.path)
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"checkpoint: expected a file in an existing folder, got {path}")
    if given.every is not None:
        checks.integer("checkpoint.every", given.every, 1)
    return Checkpoint(path, given.every)


# ---- trees of dicts, lists, tuples, arrays, numbers, strings and None


def pack(tree: Any) -> bytes:
    """Return a tree in the form of a file."""
    arrays: list[npt.NDArray[Any]] = []
    text = json.dumps({"format": FORMAT, "version": VERSION, "tree": _encoded(tree, arrays)})
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(TREE, text)
        for n, array in enumerate(arrays):
            with file.open(f"{n}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    return buffer.getvalue()


def unpack(data: bytes, path: object) -> Any:
    """Return the tree of a file; raise ValueError if it is no whole one, or a newer one."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            found = json.loads(file.read(TREE))
            if found["format"] != FORMAT:
                raise ValueError(f"its format is {found['format']!r}")
            version = int(found["version"])
            if version <= VERSION:
                return _decoded(found["tree"], file)
    except Exception as error:  # whatever the bytes of a file can lead to
        raise ValueError(
            f"checkpoint: {path} is no checkpoint of a training, or not a whole one: {error}"
        ) from error
    raise ValueError(
        f"checkpoint: {path} was written by a newer lstm_fast (version {version} of the format; "
        f"this one reads up to {VERSION})"
    )


def _encoded(tree: Any, arrays: list[npt.NDArray[Any]]) -> Any:
    """Return JSON in which {"array": n} stands for an array."""
    if isinstance(tree, np.generic):
        tree = tree.item()
    if tree is None or isinstance(tree, (bool, int, float, str)):
        return tree
    if isinstance(tree, np.ndarray):
        arrays.append(tree)
        return {"array": len(arrays) - 1}
    if isinstance(tree, dict):
        if not all(isinstance(key, str) for key in tree):
            raise TypeError(f"checkpoint: expected strings as keys, got {[*tree]}")
        return {"dict": {key: _encoded(value, arrays) for key, value in tree.items()}}
    if isinstance(tree, (list, tuple)):
        kind = "list" if isinstance(tree, list) else "tuple"
        return {kind: [_encoded(value, arrays) for value in tree]}
    raise TypeError(f"checkpoint: cannot keep a {type(tree).__name__} in a file")


def _decoded(node: Any, file: zipfile.ZipFile) -> Any:
    if not isinstance(node, dict):
        return node
    [(kind, value)] = node.items()
    if kind == "array":
        with file.open(f"{int(value)}.npy") as member:
            return np.lib.format.read_array(member, allow_pickle=False)
    if kind == "dict":
        return {key: _decoded(item, file) for key, item in value.items()}
    items = [_decoded(item, file) for item in value]
    return tuple(items) if kind == "tuple" else items


# ---- files


def read(path: str | os.PathLike[str]) -> bytes | None:
    """Return what is in a file, or None if there is none."""
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        return None
