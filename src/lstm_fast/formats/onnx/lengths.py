"""What `to_onnx` computes of lengths: where sequences have steps, and blocks over these alone.

Time is the first axis there, and the batch the second one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .folding import axes_of
from .layout import Operator, integers_of, last_step, pool_step, without, without_time
from .values import Extent, Group, Signal

__all__ = ["OF_LENGTHS", "computed"]


@dataclass(frozen=True)
class Numbers:
    """The number of steps of each sequence, as an input has it: less one, or at least one."""

    root: str
    axes: tuple[Group, ...]
    kind: str = "steps"  # "last", "at least one"


@dataclass(frozen=True)
class Times:
    """The numbers of all steps: 0, 1, ..."""

    axes: tuple[Group, ...]


@dataclass(frozen=True)
class Mask:
    """Where there is a step, or the last one, of each sequence; or whether it has one."""

    root: str
    axes: tuple[Group, ...]  # that of time is the first one
    kind: str  # "within", "end", "some"


@dataclass(frozen=True)
class Masked:
    """Numbers, and others where there is no step, or no last one."""

    of: Signal
    kind: str  # "within": -infinity is there; "end": 0


@dataclass(frozen=True)
class Partial:
    """A pool over time, the mean before it is divided, the largest before zeros are put in."""

    pooled: Signal
    kind: str  # "mean", "max"
    root: str


OF_LENGTHS = (Numbers, Times, Mask, Masked, Partial)


def computed(op: Operator, inputs: Sequence[Any]) -> Any:
    """Return what an operator makes of lengths, or None if it is none of these operators.

    Raises
    ------
    ValueError
        If it makes something else of them.
    """
    first = inputs[0] if inputs else None
    begins = op.kind == "Range" or (op.kind in BEGINS and _numbers(first) is not None)
    masked = op.kind in ("ReduceSum", "Gather") and _zeroed(first)
    if not (begins or masked or any(isinstance(x, OF_LENGTHS) for x in inputs)):
        return None
    if op.kind not in OPERATORS:
        raise ValueError("takes lengths of sequences")
    return OPERATORS[op.kind](op, *inputs)


def _numbers(x: Any) -> Numbers | None:
    if isinstance(x, Numbers):
        return x
    if isinstance(x, Signal) and x.integer and x.chain is None:
        return Numbers(x.root, x.axes)
    return None


def _zeroed(x: Any) -> bool:
    """Return whether a value is 0 where there is no step."""
    return isinstance(x, Signal) and x.zeroed is not None and x.zeroed is x.chain


def _needs(holds: bool) -> None:
    if not holds:
        raise ValueError("makes something else of lengths than to_onnx does")


# ---- numbers and masks


def _range(op: Operator, start: Any, limit: Any, step: Any) -> Times:
    sizes = [x.item() if isinstance(x, np.ndarray) and x.size == 1 else None for x in (start, step)]
    _needs(sizes == [0, 1] and isinstance(limit, np.ndarray) and limit.size == 1)
    extent = limit.item()
    _needs(isinstance(extent, Extent))
    return Times((extent.atoms,))


def _cast(op: Operator, x: Any) -> Any:
    op.attributes.integer("to")
    op.attributes.integer("saturate")
    _needs(isinstance(x, Numbers))
    return x


def _unsqueeze(op: Operator, x: Any, given: Any = None) -> Any:
    _needs(isinstance(x, Numbers | Times))
    axes = integers_of(op, "axes", given) or []
    groups = [*x.axes]
    for axis in sorted(axes_of(axes, len(groups) + len(axes))):
        groups.insert(axis, ())
    return replace(x, axes=tuple(groups))


def _changed(kind: str) -> Callable[..., Any]:
    """Return the function of Sub or Max, whose other input is 1."""

    def change(op: Operator, x: Any, one: Any) -> Numbers:
        numbers = _numbers(x)
        assert numbers is not None
        _needs(numbers.kind == "steps" and isinstance(one, np.ndarray) and (one == 1).all())
        return replace(numbers, kind=kind)

    return change


def _greater(op: Operator, x: Any, zero: Any) -> Mask:
    numbers = _numbers(x)
    _needs(numbers is not None and isinstance(zero, np.ndarray) and not zero.any())
    assert numbers is not None
    return Mask(numbers.root, numbers.axes, "some")


def _compared(wanted: str, kind: str) -> Callable[..., Any]:
    """Return the function of Less or Equal, of times (T, 1, 1) and numbers (B, 1)."""

    def compare(op: Operator, times: Any, x: Any) -> Mask:
        numbers = _numbers(x)
        _needs(isinstance(times, Times) and numbers is not None and numbers.kind == wanted)
        assert numbers is not None
        _needs(times.axes[1:] == ((), ()) and numbers.axes[1:] == ((),))
        return Mask(numbers.root, (times.axes[0], *numbers.axes), kind)

    return compare


# ---- values


def _where(op: Operator, mask: Any, x: Any, other: Any) -> Any:
    _needs(isinstance(mask, Mask) and isinstance(other, np.ndarray) and other.size == 1)
    fill = float(other.item())
    if isinstance(x, Partial):
        _needs(mask.kind == "some" and x.kind == "max" and fill == 0 and mask.root == x.root)
        _needs(mask.axes[1:] == ((),))
        return x.pooled
    _needs(isinstance(x, Signal) and x.direction is None and not x.integer)
    _needs(len(x.axes) == 3 and x.axes[2] == x.columns and len(x.order) == 2)
    time, batch = ((atom,) for atom in x.order)
    _needs(x.axes[:2] == (time, batch) and mask.axes[0] == time and len(mask.axes) == 3)
    _needs(bool(x.ragged) and mask.root == x.ragged)
    if (mask.kind, fill) == ("within", 0):
        return replace(x, zeroed=x.chain)
    _needs((mask.kind, fill) in (("within", -np.inf), ("end", 0)))
    return Masked(x, mask.kind)


def _over_time(op: Operator, x: Signal, given: Any) -> bool:
    """Check that an operator reduces the first axis, and return whether it keeps it."""
    _needs(integers_of(op, "axes", given) == [0])
    op.attributes.integer("noop_with_empty_axes")
    return bool(op.attributes.integer("keepdims", 1))


def _pooled(op: Operator, x: Signal, step: Any, keep: bool) -> Signal:
    made = without_time(op.name, x, step, True)
    made = made if keep else without(made, [0])
    assert isinstance(made, Signal)
    return made


def _sum(op: Operator, x: Any, given: Any = None) -> Any:
    if isinstance(x, Masked):
        _needs(x.kind == "end")
        return _pooled(op, x.of, last_step(op.name, False), _over_time(op, x.of, given))
    _needs(_zeroed(x))
    keep = _over_time(op, x, given)
    return Partial(_pooled(op, x, pool_step(op, "mean"), keep), "mean", x.ragged)


def _largest(op: Operator, x: Any, given: Any = None) -> Partial:
    _needs(isinstance(x, Masked) and x.kind == "within")
    keep = _over_time(op, x.of, given)
    return Partial(_pooled(op, x.of, pool_step(op, "max"), keep), "max", x.of.ragged)


def _divide(op: Operator, x: Any, by: Any) -> Signal:
    _needs(isinstance(x, Partial) and x.kind == "mean")
    _needs(isinstance(by, Numbers) and by.kind == "at least one" and by.root == x.root)
    _needs(by.axes[1:] == ((),))
    found: Signal = x.pooled
    return found


def _gather(op: Operator, x: Any, at: Any) -> Signal:
    """Return the first step, where the reverse direction ends."""
    _needs(_zeroed(x) and isinstance(at, np.ndarray) and at.size == 1 and at.item() == 0)
    _needs(op.attributes.integer("axis", 0) == 0)
    return _pooled(op, x, last_step(op.name, True), at.ndim > 0)


BEGINS = ("Sub", "Max", "Greater")
OPERATORS: dict[str, Callable[..., Any]] = {
    "Cast": _cast,
    "Div": _divide,
    "Equal": _compared("last", "end"),
    "Gather": _gather,
    "Greater": _greater,
    "Less": _compared("steps", "within"),
    "Max": _changed("at least one"),
    "Range": _range,
    "ReduceMax": _largest,
    "ReduceSum": _sum,
    "Sub": _changed("last"),
    "Unsqueeze": _unsqueeze,
    "Where": _where,
}
