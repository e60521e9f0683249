"""The input of a graph of operators, and the model that its output is: for readers of graphs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..network.block import Block
from .cells import chain
from .reports import refusal
from .signals import UNKNOWN, Misfit, Signal, WrongOrder

__all__ = ["model", "received"]


def received(source: Any, shape: Sequence[int], numbers: bool, batch_first: bool) -> Signal:
    """Return the input of a graph: of (B, T, columns), or numbers (B, T), or with T first.

    Parameters
    ----------
    source : object
        The file, for errors.
    shape : sequence of int
        -1 where any extent goes.
    numbers : bool
        The input has indices of an embedding.
    batch_first : bool
        The order of B and T.
    """
    order = "BT" if batch_first else "TB"
    axes = tuple(order) if numbers else (*order, "C")
    if len(shape) != len(axes):
        raise Misfit(f"has shape {[*shape]}", f"{len(axes)} axes are needed")
    extents = {
        axis: int(n) if n > 0 else UNKNOWN[axis] for axis, n in zip(axes, shape, strict=True)
    }
    return Signal((), axes, extents, batch_first, False, source)


def model(source: Any, output: str, run: Callable[[bool], Signal]) -> Block:
    """Return the model of a graph, batch first unless its LSTMs take T first.

    Parameters
    ----------
    source : object
        The file, for errors.
    output : str
        The name of the graph's output, for errors.
    run : callable
        Follows the graph with B before T, or not, and returns the output.
    """
    try:
        signal = run(True)
    except WrongOrder:
        signal = run(False)
    try:
        return chain(source, signal.finished())
    except Misfit as misfit:
        raise refusal(source, output, misfit.found, misfit.instead) from None
