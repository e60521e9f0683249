"""Where in a model a number first was not finite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..nn import Model
from .sources import Batch

__all__ = ["where_backward", "where_forward"]


def _finite(value: Any) -> bool:
    """Whether all numbers of arrays, tuples and dicts of such are finite."""
    if isinstance(value, np.ndarray):
        return value.dtype.kind != "f" or bool(np.isfinite(value).all())
    if isinstance(value, Mapping):
        value = [*value.values()]
    return not isinstance(value, (tuple, list)) or all(map(_finite, value))


def _valid(x: Any, lengths: npt.NDArray[np.intp] | None, batch_first: bool) -> Any:
    """Return the steps of all sequences of a batch, without what is after their ends."""
    if lengths is None or not isinstance(x, np.ndarray):
        return x
    by_row = x if batch_first else x.swapaxes(0, 1)
    return [row[:n] for row, n in zip(by_row, lengths, strict=True)]


def _blocks(model: Any) -> Mapping[str, Any]:
    """Return the blocks of a model by name, in order; a single one has the name of its class."""
    one = {type(model).__name__: model}
    blocks: Mapping[str, Any] = one if isinstance(model, Model) else getattr(model, "blocks", one)
    return blocks


def where_forward(model: Any, batch: Batch, state: Any) -> str:
    """Say in which block a value that is not finite appears first, from the input to the loss."""
    x = batch.x
    for name, block in _blocks(model).items():
        lengths = batch.lengths if x is batch.x or x.ndim > 2 else None  # after a last or a mean
        if not _finite(_valid(x, lengths, getattr(block, "batch_first", False))):
            return f"the input of block {name}"
        for key, value in block.state_dict().items():
            if not _finite(value):
                return f"the parameter {key} of block {name}"
        part = state.get(name) if isinstance(state, Mapping) else state
        if not _finite(part):
            return f"the state in which block {name} began"
        if isinstance(model, Model):  # whose `forward` alone puts blocks together
            return f"what {name} computes, or the loss"
        x, _ = block(x, part, lengths=lengths)
        if not _finite(x):
            return f"the output of block {name}"
    return "the loss, after the last block"


def where_backward(model: Any, grads: Mapping[str, npt.NDArray[Any]]) -> str:
    """Say in which block a gradient that is not finite appears first, from the loss backwards."""
    wrong = [key for key, value in grads.items() if not _finite(value)]
    several = hasattr(model, "blocks")
    for name in reversed([*(model.blocks if several else _blocks(model))]):
        if any(key.startswith(f"{name}.") or not several for key in wrong):
            return f"the gradients of block {name}"
    return "another process"
