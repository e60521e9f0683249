"""Operators of ONNX that move numbers: what they do to the axes of a value of `onnx_values`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ... import nn
from ...network.block import Block
from .folding import axes_of, sliced
from .graph import Attributes
from .lstm import Node
from .shapes import reshaped, size_of
from .values import (
    MOST_AXES,
    MOST_PARTS,
    Atom,
    Chain,
    Extent,
    Group,
    Signal,
    Stack,
    Step,
    joined,
    stacked,
)

__all__ = [
    "LAYOUTS",
    "MOVES",
    "Operator",
    "Value",
    "integers_of",
    "is_time",
    "last_states",
    "last_step",
    "pool_step",
    "value_of",
    "without",
    "without_time",
]

Value = Signal | Stack

# They keep numbers as they are, or leave some out.
MOVES = {
    *("Cast", "Concat", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split"),
    *("Squeeze", "Tile", "Transpose", "Unsqueeze"),
}
FLOATS = (1, 10, 11, 16)  # TensorProto.DataType


@dataclass(frozen=True)
class Operator:
    """A node that is no LSTM."""

    name: str
    kind: str
    attributes: Attributes
    version: int  # of ONNX's operators
    outputs: int


def value_of(x: Any) -> Value:
    if not isinstance(x, Signal | Stack):
        raise ValueError("has a constant where the output of a block is expected")
    return x


# ---- steps of time


def last_states(x: Signal, node: Node) -> Signal:
    """Return the final states of the LSTM that was the last step."""
    D, reverse = len(node.directions), bool(node.options["reverse"])
    step = last_step(f"{node.name}_last", reverse, D, of_states=True)
    return replace(x, chain=Chain(x.chain, step), over=True)


def last_step(name: str, reverse: bool, directions: int = 1, of_states: bool = False) -> Step:
    """Return the block of the last step, or of the first one, where the reverse direction ends."""

    def make(batch_first: bool, dtype: Any) -> Block:
        return nn.Last(directions, reverse, batch_first=batch_first, dtype=dtype)

    return Step(name, "Last", "", make, "reverse" * reverse, of_states=of_states)


def pool_step(op: Operator, kind: str) -> Step:
    """Return the block of the mean or the largest of all steps."""

    def make(batch_first: bool, dtype: Any) -> Block:
        return nn.Pool(kind, batch_first=batch_first, dtype=dtype)

    return Step(op.name, "Pool", "", make, kind)


def without_time(name: str, x: Value, step: Step, of_lengths: bool = False) -> Value:
    """Return a value after a block that makes one row of all time steps, whose axis stays, empty.

    Raises
    ------
    ValueError
        If rows have lengths, and the operator is not one `of_lengths`.
    """
    parts = x.parts if isinstance(x, Stack) else (x,)
    time = parts[0].time
    if parts[0].ragged and not of_lengths:
        raise ValueError("takes all rows for equally long, and the LSTM before it has lengths")
    chains = {part.chain: Chain(part.chain, step) for part in parts}
    found = []
    for part in parts:
        axes = tuple(() if group == (time,) else group for group in part.axes)
        found.append(replace(part, axes=axes, chain=chains[part.chain], over=True))
    return replace(x, parts=tuple(found)) if isinstance(x, Stack) else found[0]


def is_time(x: Value, axis: int) -> bool:
    """Return whether an axis is that of time steps."""
    time = x.parts[0].time if isinstance(x, Stack) else x.time
    return time is not None and x.axes[axis] == (time,)


def _one_step(op: Operator, x: Value, axis: int, at: int) -> Value:
    """Return the last step, or the first."""
    size = x.axes[axis][0].size
    if at not in (-1, 0) and (size is None or at != size - 1):
        raise ValueError(f"takes time step {at}: the first and the last one can be read")
    return without_time(op.name, x, last_step(op.name, at == 0 and size != 1))


# ---- axes


def without(x: Value, axes: Sequence[int]) -> Value:
    """Return a value without axes of size 1."""
    for axis in axes:
        if x.axes[axis]:
            raise ValueError(f"takes axis {axis} away, which is not of size 1")
    return x.moved([group for n, group in enumerate(x.axes) if n not in axes])


def integers_of(op: Operator, name: str, given: Any) -> list[Any] | None:
    """Return integers of an attribute, or of an input that is a constant."""
    if given is None:
        return op.attributes.integers(name)
    if not isinstance(given, np.ndarray):
        raise ValueError(f"computes its {name}")
    return [n if isinstance(n, Extent) else int(n) for n in given.ravel()]


def _squeeze(op: Operator, x: Value, given: Any = None) -> Value:
    axes = integers_of(op, "axes", given)
    if axes is None:
        raise ValueError("does not say which axes")
    places = axes_of(axes, len(x.axes))
    for axis in places:
        if is_time(x, axis) and x.axes[axis][0].size == 1:
            x = without_time(op.name, x, last_step(op.name, False))
    return without(x, places)


def _unsqueeze(op: Operator, x: Value, given: Any = None) -> Value:
    axes = integers_of(op, "axes", given) or []
    groups: list[Group] = [*x.axes]
    if len(groups) + len(axes) > MOST_AXES:
        raise ValueError("makes very many axes")
    for axis in sorted(axes_of(axes, len(groups) + len(axes))):
        groups.insert(axis, ())
    return x.moved(groups)


def _transpose(op: Operator, x: Value) -> Value:
    rank = len(x.axes)
    given = op.attributes.integers("perm") or [*range(rank)][::-1]
    order = axes_of(given, rank)
    if len(order) != rank:
        raise ValueError(f"perm {given} of {rank} axes")
    return x.moved([x.axes[axis] for axis in order])


def _reshape(op: Operator, x: Value, shape: Any = None) -> Value:
    target = integers_of(op, "shape", shape) or []
    if op.attributes.integer("allowzero", 0) and 0 in target:
        raise ValueError("makes an array without elements")
    axes, bound = reshaped(x.axes, target)
    made = x.moved(axes)
    if isinstance(made, Stack):
        return replace(made, parts=tuple(part.sized(bound) for part in made.parts))
    return made.sized(bound)


def _flatten(op: Operator, x: Value) -> Value:
    axis = op.attributes.integer("axis", 1)
    axis = axis + len(x.axes) if axis < 0 else axis
    if not 0 <= axis <= len(x.axes):
        raise ValueError(f"axis {axis}")
    sides = x.axes[:axis], x.axes[axis:]
    return x.moved([tuple(atom for group in side for atom in group) for side in sides])


def _identity(op: Operator, x: Value) -> Value:
    return x


def _cast(op: Operator, x: Value) -> Value:
    kind = op.attributes.integer("to")
    op.attributes.integer("saturate")
    integer = isinstance(x, Signal) and x.integer
    if kind in FLOATS:
        if isinstance(x, Signal) and integer:
            columns = x.axes[-1] if x.axes else ()
            return replace(x, integer=False, columns=columns)
        return x
    if kind in (6, 7) and integer:
        return x
    if kind in (6, 7) and isinstance(x, Signal) and x.chain is None:  # numbers of rows, as floats
        return replace(x, integer=True, columns=())
    raise ValueError(f"casts to data type {kind}")


# ---- parts of axes


def _gather(op: Operator, x: Value, at: Any) -> Any:
    axis = axes_of([op.attributes.integer("axis", 0)], len(x.axes))[0]
    if not isinstance(at, np.ndarray) or at.dtype.kind not in "iu" or at.ndim > 1:
        raise ValueError("computes which elements it takes")
    if isinstance(x, Stack) and axis == x.axis:
        if at.ndim == 0:
            return x.parts[int(at)]
        return stacked([x.parts[int(n)] for n in at], axis)
    if is_time(x, axis) and at.size == 1:
        taken = _one_step(op, x, axis, int(at.item()))
        return taken if at.ndim else without(taken, [axis])
    if x.axes[axis] == () and at.size == 1 and int(at.item()) in (0, -1):
        return x if at.ndim else without(x, [axis])
    raise ValueError(f"takes a part of axis {axis}")


def _slice(op: Operator, x: Value, *given: Any) -> Value:
    names = ("starts", "ends", "axes", "steps")
    if given:
        parts = [None if one is None else integers_of(op, "", one) for one in given]
        starts, ends, axes, steps = (*parts, None, None)[:4]
    else:
        starts, ends, axes = (op.attributes.integers(name) for name in names[:3])
        steps = None
    for axis, part in sliced(starts, ends, axes, steps, len(x.axes)).items():
        if isinstance(x, Stack) and axis == x.axis:
            x = stacked(x.parts[part], axis)
            continue
        size = x.axes[axis][0].size if len(x.axes[axis]) == 1 else None
        to_end = part.stop is not None and (part.stop >= 2**31 - 1 or part.stop == size)
        if part.step == 1 and part.start == 0 and to_end:
            continue
        if x.axes[axis] == () and [0][part] == [0]:
            continue
        if is_time(x, axis) and part.step == 1 and (part.start, to_end) == (-1, True):
            x = _one_step(op, x, axis, -1)
        elif is_time(x, axis) and part.step == 1 and (part.start, part.stop) == (0, 1):
            x = _one_step(op, x, axis, 0)
        else:
            raise ValueError(f"takes a part of axis {axis}")
    return x


def _split(op: Operator, x: Value, given: Any = None) -> list[Value]:
    axis = axes_of([op.attributes.integer("axis", 0)], len(x.axes))[0]
    op.attributes.integer("num_outputs")
    sizes = integers_of(op, "split", given)
    if isinstance(x, Signal) and x.rows and axis == len(x.axes) - 1:
        return _halves(op, x, sizes)
    if not isinstance(x, Stack) or axis != x.axis:
        raise ValueError(f"takes axis {axis} apart")
    count = len(x.parts)
    sizes = [-(-count // op.outputs)] * op.outputs if sizes is None else sizes
    if sum(sizes) != count or min(sizes) < 1:
        raise ValueError(f"makes parts {sizes} of {count}")
    ends = np.cumsum(sizes).tolist()
    return [stacked(x.parts[e - n : e], axis) for n, e in zip(sizes, ends, strict=True)]


def _halves(op: Operator, x: Signal, sizes: list[Any] | None) -> list[Value]:
    """Return the columns of both directions, which `nn.Last` takes at different ends."""
    size = size_of(x.columns)
    if size is None or op.outputs != 2 or sizes not in (None, [size // 2] * 2) or size % 2:
        raise ValueError(f"makes parts {sizes} of {size} columns")
    columns = (Atom(f"{op.name}.columns", size // 2),)
    axes = (*x.axes[:-1], columns)
    return [replace(x, axes=axes, columns=columns, half=n) for n in (0, 1)]


def _both_ends(op: Operator, parts: Sequence[Signal]) -> Signal:
    """Return the last step of one half of the columns beside the first step of the other."""
    chains, first = [part.chain for part in parts], parts[0]
    wanted = [("Last", "", 0), ("Last", "reverse", 1)]
    found = [
        (chain.step.kind, chain.step.options, part.half)
        for chain, part in zip(chains, parts, strict=True)
        if chain is not None and isinstance(chain.step, Step)
    ]
    before = {None if chain is None else chain.before for chain in chains}
    if found != wanted or len(before) > 1 or first.axes[-1] != first.columns:
        raise ValueError("puts together halves of columns in another way")
    chain = Chain(before.pop(), last_step(op.name, False, 2))
    columns = (Atom("direction", 2), *first.columns)
    axes = (*first.axes[:-1], columns)
    return replace(first, chain=chain, axes=axes, columns=columns, half=None)


def _concat(op: Operator, *given: Any) -> Value:
    values = [value_of(x) for x in given]
    if sum(len(x.parts) if isinstance(x, Stack) else 1 for x in values) > MOST_PARTS:
        raise ValueError("puts very much together")
    rank = len(values[0].axes)
    axis = axes_of([op.attributes.integer("axis")], rank)[0]
    if len(values) == 1:
        return values[0]
    if any(len(x.axes) != rank for x in values):
        raise ValueError("puts together values with different axes")
    parts: list[Signal] = []
    for x in values:
        if isinstance(x, Stack) and x.axis == axis:
            parts += x.parts
        elif isinstance(x, Signal) and x.axes[axis] == ():
            parts.append(x.moved([group for n, group in enumerate(x.axes) if n != axis]))
        elif isinstance(x, Signal) and axis == rank - 1:
            parts.append(x)
        else:
            raise ValueError("puts together what are no directions or states of an LSTM")
    first = parts[0]
    if any((part.axes, part.columns) != (first.axes, first.columns) for part in parts):
        raise ValueError("puts together values with different axes")
    if len(first.axes) < rank:
        return stacked(parts, axis)
    return joined(parts) if first.half is None else _both_ends(op, parts)


def _checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that raises where its first input is a constant."""

    def call(op: Operator, x: Any, *given: Any) -> Any:
        return function(op, value_of(x), *given)

    return call


LAYOUTS: dict[str, Callable[..., Any]] = {
    "Cast": _checked(_cast),
    "Concat": _checked(_concat),
    "Flatten": _checked(_flatten),
    "Gather": _checked(_gather),
    "Identity": _checked(_identity),
    "Reshape": _checked(_reshape),
    "Slice": _checked(_slice),
    "Split": _checked(_split),
    "Squeeze": _checked(_squeeze),
    "Transpose": _checked(_transpose),
    "Unsqueeze": _checked(_unsqueeze),
}
