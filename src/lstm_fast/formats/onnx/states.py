"""Initial states of LSTMs that inputs of the graph have: which part of which input each one is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ...engine import Array
from .folding import axes_of, sliced
from .layout import LAYOUTS, Operator, Value, integers_of, value_of
from .values import MOST_PARTS, Atom, Group, LSTMStep, Other, Row, Signal, Stack, stacked

__all__ = [
    "State",
    "arrays_of",
    "check_order",
    "moved",
    "roots_of",
    "rows_of",
    "state_of",
]

HIDDEN, CELL = {"h", "hidden"}, {"c", "cell"}  # words in names of inputs


@dataclass(frozen=True)
class State(Signal):
    """Numbers of an input that is no input of a block. Its axes of size 1 have no atoms.

    Attributes
    ----------
    rank : int
        Axes of the input, which are the numbers at the end of the names of atoms.
    taken : dict of int to int
        Where a part of an axis of the input begins, by the number of the axis.
    """

    rank: int = 0
    taken: Mapping[int, int] = field(default_factory=dict)


def state_of(x: Any) -> Value | None:
    """Return a value as `State`, or several along an axis; None: it is none."""
    if isinstance(x, Other):
        found: Value | None = x.state
        return found
    if isinstance(x, Stack):
        parts = [state_of(part) for part in x.parts]
        return replace(x, parts=tuple(parts)) if all(parts) else None  # type: ignore[arg-type]
    if not isinstance(x, Signal) or x.chain is not None or x.integer:
        return None
    if isinstance(x, State):
        return x
    axes = tuple(tuple(atom for atom in group if atom.size != 1) for group in x.axes)
    return State(x.root, axes, (), rank=sum(map(len, x.axes)))


# ---- through operators


def moved(op: Operator, x: Any, *given: Any) -> Any:
    """Return what an operator makes of states, or a list of that.

    Raises
    ------
    ValueError, TypeError, IndexError
        If it does more than move numbers, or takes others than some that follow one another.
    """
    if op.kind == "Concat":
        return _concat(op, x, *given)
    if isinstance(x, State) and op.kind in TAKING:
        return TAKING[op.kind](op, x, *given)
    if op.kind not in LAYOUTS:
        raise ValueError("repeats numbers")
    return LAYOUTS[op.kind](op, x, *given)


def _number(atom: Atom) -> int:
    """Return which axis of the input an atom is."""
    return int(atom.name.rpartition(".")[2])


def _part(x: State, axis: int, start: int, stop: int) -> State:
    """Return a part of an axis."""
    group = x.axes[axis]
    if group == () and (start, stop) == (0, 1):
        return x
    (atom,) = group
    if atom.size is None or not 0 <= start < stop <= atom.size:
        raise ValueError(f"takes {start} to {stop} of {atom.size}")
    number = _number(atom)
    taken = {**x.taken, number: x.taken.get(number, 0) + start}
    inner = (Atom(atom.name, stop - start),) if stop - start > 1 else ()
    return replace(x, taken=taken, axes=(*x.axes[:axis], inner, *x.axes[axis + 1 :]))


def _without(x: State, axis: int) -> State:
    return replace(x, axes=(*x.axes[:axis], *x.axes[axis + 1 :]))


def _each(x: State, axis: int) -> list[State]:
    """Return the elements of an axis."""
    return [_without(_part(x, axis, n, n + 1), axis) for n in range(_size(x, axis))]


def _size(x: State, axis: int) -> int:
    group = x.axes[axis]
    size = group[0].size if len(group) == 1 else 1 if group == () else None
    if size is None or size > MOST_PARTS:
        raise ValueError(f"takes a part of axis {axis}, whose size is not known, or large")
    return size


def _split(op: Operator, x: State, given: Any = None) -> list[State]:
    axis = axes_of([op.attributes.integer("axis", 0)], len(x.axes))[0]
    op.attributes.integer("num_outputs")
    size, sizes = _size(x, axis), integers_of(op, "split", given)
    sizes = [size // op.outputs] * op.outputs if sizes is None else sizes
    ends = np.cumsum(sizes).tolist()
    if not ends or ends[-1] != size:
        raise ValueError(f"makes parts {sizes} of {size}")
    return [_part(x, axis, end - n, end) for n, end in zip(sizes, ends, strict=True)]


def _slice(op: Operator, x: State, *given: Any) -> State:
    if given:
        parts = [None if one is None else integers_of(op, "", one) for one in given]
    else:
        parts = [op.attributes.integers(name) for name in ("starts", "ends", "axes")]
    starts, ends, axes, steps = (*parts, None, None)[:4]
    for axis, part in sliced(starts, ends, axes, steps, len(x.axes)).items():
        if part.start == 0 and part.step == 1 and (part.stop or 0) >= 2**31 - 1:
            continue
        start, stop, step = part.indices(_size(x, axis))
        if step != 1:
            raise ValueError(f"has step {step}")
        x = _part(x, axis, start, stop)
    return x


def _gather(op: Operator, x: State, at: Any) -> State:
    axis = axes_of([op.attributes.integer("axis", 0)], len(x.axes))[0]
    if not isinstance(at, np.ndarray) or at.dtype.kind not in "iu" or at.ndim > 1 or not at.size:
        raise ValueError("computes which elements it takes")
    size = _size(x, axis)
    places = [int(n) + size if n < 0 else int(n) for n in at.ravel()]
    if places != [*range(places[0], places[0] + len(places))]:
        raise ValueError(f"takes {places}")
    part = _part(x, axis, places[0], places[-1] + 1)
    return part if at.ndim else _without(part, axis)


TAKING: dict[str, Callable[..., Any]] = {"Gather": _gather, "Slice": _slice, "Split": _split}


def _concat(op: Operator, *given: Any) -> Value:
    values = [value_of(x) for x in given]
    axis = axes_of([op.attributes.integer("axis")], len(values[0].axes))[0]
    parts: list[Any] = []
    for x in values:
        if isinstance(x, Stack) and x.axis == axis:
            parts += x.parts
        elif isinstance(x, State):
            parts += _each(x, axis)
        else:
            raise ValueError("puts together other axes")
        if len(parts) > MOST_PARTS:
            raise ValueError("puts very much together")
    first = parts[0]
    if any(_alike(part) != _alike(first) for part in parts):
        raise ValueError("puts together values with different axes")
    return stacked([replace(part, axes=first.axes) for part in parts], axis)


def _alike(x: State) -> list[list[tuple[int, int | None]]]:
    """Return the axes but for the name of the input."""
    return [[(_number(atom), atom.size) for atom in group] for group in x.axes]


# ---- at an LSTM


def rows_of(value: Any, D: int, batch_first: bool) -> tuple[Row, ...]:
    """Return the state of each direction of a node, of the value that it takes.

    Raises
    ------
    ValueError
        If these are no whole states of inputs.
    """
    axis = 1 if batch_first else 0
    value = state_of(value)
    if value is None or len(value.axes) != 3:
        raise ValueError("is no part of an input, or one in another order")
    if isinstance(value, Stack):
        if value.axis != axis or len(value.parts) != D:
            raise ValueError("has its directions on another axis")
        return tuple(map(_row, value.parts))
    group = value.axes[axis]
    if len(group) == 1 and group[0].size is None:  # as large as the node needs it
        sized: Group = (Atom(group[0].name, D),) if D > 1 else ()
        value = replace(value, axes=(*value.axes[:axis], sized, *value.axes[axis + 1 :]))
    assert isinstance(value, State)
    if len(value.axes[axis]) > 1 or _size(value, axis) != D:
        raise ValueError(f"has not the states of {D} directions")
    return tuple(map(_row, _each(value, axis)))


def _row(x: Any) -> Row:
    """Return the state of one direction, whose axes are those of B and H."""
    left = [_number(atom) for group in x.axes for atom in group]
    if any(len(group) > 1 for group in x.axes) or {*left} & {*x.taken}:
        raise ValueError("is a part of the batch, or of the units")
    turned = len(left) > 1 and left[0] > left[1]
    others = [n for n in range(x.rank) if n not in left and n not in x.taken]
    whole = {*left, *others[len(others) - (2 - len(left)) :]}  # B or H may be 1
    index = [None if n in whole else x.taken.get(n, 0) for n in range(x.rank)]
    return Row(x.root, tuple(index), turned)


def roots_of(value: Any) -> frozenset[str] | None:
    """Return the inputs and LSTMs whose numbers, only moved, are in a value; None: others are."""
    if isinstance(value, Stack):
        found = [roots_of(part) for part in value.parts]
        return None if None in found else frozenset().union(*filter(None, found))
    if isinstance(value, Signal):
        if value.chain is None:
            return frozenset({value.root})
        lstm = value.chain.before
        return frozenset({lstm.step.name}) if value.of_states and lstm is not None else None
    if isinstance(value, Other):
        return value.roots if value.moved else None
    return frozenset()


def check_order(steps: Iterable[LSTMStep]) -> None:
    """Raise where the parts of an input do not come in the order in which a call takes states.

    Layers and directions in order, h before c, and neither named as the other.
    """
    last: dict[tuple[str, str], tuple[int, ...]] = {}
    for step in steps:
        for kind, rows in (("h", step.h), ("c", step.c)):
            for row in rows:
                before = last.get((kind, row.root))
                if before is not None and not before < row.place:
                    found = f"its {kind} is at {row.place} of {row.root!r}, that before it"
                    raise ValueError(f"{found} at {before}: layers are in another order")
                last[kind, row.root] = row.place
        for h, c in zip(step.h, step.c, strict=False):
            if h.root == c.root and not h.place < c.place:
                raise ValueError(f"its c comes before its h in {h.root!r}")
            words = [{*re.findall("[a-z]+", name.lower())} for name in (h.root, c.root)]
            roles = [(bool(of & HIDDEN), bool(of & CELL)) for of in words]
            if roles == [(False, True), (True, False)]:
                raise ValueError(f"its h is {h.root!r}, and its c {c.root!r}")


def arrays_of(steps: Sequence[LSTMStep], feeds: Mapping[str, Array]) -> tuple[Any, Any] | None:
    """Return the state with which a call computes what the graph does of its inputs.

    Parameters
    ----------
    steps : sequence of LSTMStep
        The layers of one LSTM.
    feeds : dict of str to ndarray
        Inputs of the graph.
    """
    found: list[Any] = []
    for kind in ("h", "c"):
        rows = [[row.array(feeds) for row in getattr(step, kind)] for step in steps]
        sizes = [step.node.hidden_size for step in steps]
        layers = [[row.reshape(-1, H) for row in of] for of, H in zip(rows, sizes, strict=True)]
        found.append(of_layers([np.stack(one) for one in layers]) if any(layers) else None)
    return (found[0], found[1]) if any(one is not None for one in found) else None


def of_layers(arrays: Sequence[Array]) -> Any:
    """Return the states of layers, (D, B, H) each, as a call takes them."""
    return np.concatenate(arrays) if len({one.shape for one in arrays}) == 1 else tuple(arrays)
