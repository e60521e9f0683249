"""Streams in files: a block, and the state of each of its sequences."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from ..engine import Array
from . import storage
from .block import READERS, Block, built, described
from .parameters import without_values

__all__ = ["save_stream"]


def save_stream(path: str | os.PathLike[str], block: Any, stream: Any) -> None:
    """Write a stream of a block to a file, with its state."""
    arrays = {**block.state_dict(), **_named("state", stream.state)}
    how = {"batch_size": stream.batch_size, "on_nan": stream.on_nan}
    about = {"stream": how, "block": described(block)}
    storage.write(path, arrays, about)


def _named(name: str, state: Any) -> dict[str, Array]:
    """Return the arrays of a state, each by where it stands in it."""
    if isinstance(state, np.ndarray):
        return {name: state}
    parts = state.items() if isinstance(state, dict) else enumerate(state)
    return {k: v for key, part in parts for k, v in _named(f"{name}.{key}", part).items()}


def _like(name: str, state: Any, arrays: dict[str, Array]) -> Any:
    """Return a state such as this one of arrays by name, which it takes away from them."""
    if isinstance(state, np.ndarray):
        if name not in arrays:
            raise ValueError(f"has no {name}")
        return arrays.pop(name)
    if isinstance(state, dict):
        return {key: _like(f"{name}.{key}", part, arrays) for key, part in state.items()}
    return tuple(_like(f"{name}.{n}", part, arrays) for n, part in enumerate(state))


def _read_stream(arrays: dict[str, Array], what: dict[str, Any]) -> Any:
    """Return the stream of a file."""
    with without_values():
        block: Any = built(what.get("block"))
    if not isinstance(block, Block) or not hasattr(block, "stream"):
        raise ValueError(f"a {type(block).__name__} has no stream")
    how = what["stream"] if isinstance(what["stream"], dict) else {}
    try:
        stream = block.stream(how.get("batch_size"), how.get("on_nan", "keep"))
    except TypeError as error:
        raise ValueError(str(error)) from None
    stream.state = _like("state", stream.state, arrays)
    block._load(arrays)
    return stream


READERS["stream"] = _read_stream
