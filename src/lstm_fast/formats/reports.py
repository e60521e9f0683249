"""What readers say: what they refuse and why, what a file holds, how far results differ."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .. import nn
from ..engine import Array
from ..network.block import Block

__all__ = ["Found", "Verify", "compared", "random_input", "refusal", "verified"]

# Recorded inputs and outputs, or True: run the framework, which has to be installed.
Verify = tuple[Any, Any] | bool | None
TOLERANCE = {np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-10}  # of values around 1


class Found(NamedTuple):
    """One part of the model in a file, as a row of a table."""

    name: str  # in the file
    kind: str  # a block of the package; or what the file calls it, where there is no such block
    sizes: str  # as "128 -> 64"
    options: str  # what is not as usual: layers, directions, variants
    dtype: str
    parameters: int


def refusal(source: Any, what: str, found: Any, instead: str) -> ValueError:
    """Return the error of a reader that cannot go on.

    Parameters
    ----------
    source : path-like or object
        The file; of anything else, the type is named.
    what : str
        The tensor, layer or operator.
    found : object
        What is wrong with it.
    instead : str
        What to do.
    """
    path = isinstance(source, str | os.PathLike)
    where = os.fspath(source) if path else type(source).__name__
    return ValueError(f"{where}: {what}: {found}; {instead}")


def verified(block: Block, verify: Verify, run: Callable[[], tuple[Any, ...]]) -> Block:
    """Return the block, after a comparison with what it has to give.

    Parameters
    ----------
    block : Block
        What was read.
    verify : (x, y), True, False or None
        Recorded input and output; or the framework is asked; or nothing is compared. The largest
        difference is printed to standard error.
    run : callable
        Runs the framework, which it imports, and returns an input that it made and its output, and
        the state with which the block has to begin, if that is not zeros.

    Raises
    ------
    ValueError
        If they differ by more than rounding.
    """
    if verify is None or verify is False:
        return block
    x, expected, *state = run() if verify is True else verify[:2]
    x, expected = np.asarray(x), np.asarray(expected)
    if x.dtype.kind == "f":
        x = x.astype(block.dtype)
    y: Array = block(x, *state)[0]
    if y.shape != expected.shape:
        raise ValueError(f"verify: expected an output of shape {expected.shape}, got {y.shape}")
    difference, same = compared(y, expected, TOLERANCE[np.dtype(block.dtype)])
    if not same:
        raise ValueError(f"verify: the largest difference is {difference:.3g}, more than rounding")
    print(f"verified: the largest difference is {difference:.2g}", file=sys.stderr)
    return block


def compared(y: Array, expected: Array, tolerance: float) -> tuple[float, bool]:
    """Return the largest difference, and whether it is within what the largest value allows."""
    difference = float(np.max(np.abs(y - expected), initial=0.0))
    scale = max(1.0, float(np.max(np.abs(expected), initial=0.0)))
    return difference, difference <= tolerance * scale


def random_input(block: Block, steps: int, rows: int) -> Any:
    """Return an input of a model: numbers of an embedding, or features.

    Raises
    ------
    ValueError
        If the model does not say how many columns it takes.
    """
    first = block
    while isinstance(first, nn.Sequential):
        first = first[0]
    rng = np.random.default_rng(0)
    shape = (rows, steps) if block.batch_first else (steps, rows)
    if isinstance(first, nn.Embedding):
        return rng.integers(0, first.vocabulary, shape)
    columns = getattr(first, "input_size", None) or getattr(first, "columns", None)
    if columns is None:
        raise ValueError(f"{type(first).__name__}: any input fits it; record x and y in an .npz")
    return rng.standard_normal((*shape, columns)).astype(block.dtype)
