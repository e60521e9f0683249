"""What is known of the values in a graph of ONNX, while its blocks are gathered.

A value that the blocks compute is a `Signal`: the blocks so far, and which axes it has. Operators
that only move numbers change these axes, so that time, batch and columns are never guessed from
sizes. The two directions of an LSTM, or the final states of several, are a `Stack` of signals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ...engine import Array
from ...network.block import Block
from .lstm import Node

__all__ = [
    "AnyStep",
    "Atom",
    "Chain",
    "Extent",
    "Filled",
    "Group",
    "LSTMStep",
    "LinearStep",
    "Other",
    "Row",
    "Signal",
    "Stack",
    "Step",
    "joined",
    "stacked",
]


class Atom(NamedTuple):
    """A part of an axis that is never split: time, batch, or columns."""

    name: str
    size: int | None  # where the file says it


MOST_AXES, MOST_PARTS = 32, 1024
Group = tuple[Atom, ...]  # an axis: its atoms, the last one fastest; none for size 1


@dataclass(frozen=True)
class Extent:
    """The size of an axis, in a shape that the graph computes."""

    atoms: Group

    def __mul__(self, other: object) -> Extent:
        if isinstance(other, Extent):
            return Extent(self.atoms + other.atoms)
        if other == 1:
            return self
        return NotImplemented

    __rmul__ = __mul__


@dataclass(frozen=True)
class Filled:
    """An array of some shape, everywhere the same number."""

    value: Any  # a number, or an Extent


@dataclass(frozen=True)
class Other:
    """A value that is none of the others.

    Attributes
    ----------
    error : ValueError
        Why it cannot be followed.
    roots : frozenset of str
        Inputs of the graph, and nodes LSTM, of whose numbers it consists, if they were only moved.
    moved : bool
        Whether they were.
    state : Signal or Stack, optional
        Which numbers of inputs it is, if they can be initial states; see `states`.
    """

    error: ValueError
    roots: frozenset[str] = frozenset()
    moved: bool = False
    state: Any = None


# ---- blocks


@dataclass(frozen=True, eq=False)
class Step:
    """A block, made by a function of batch_first and dtype."""

    name: str
    kind: str
    sizes: str
    make: Callable[[bool, Any], Block]
    options: str = ""
    parameters: int = 0
    rows_of_table: int = 0
    of_states: bool = False  # the final states of an LSTM, which Y_h gives


@dataclass(frozen=True, eq=False)
class LinearStep:
    """A product with weights (O, I), to which a bias may come yet."""

    name: str
    weight: Array
    bias: Array | None = None


@dataclass(frozen=True)
class Row:
    """The state of one layer and direction: (B, H) numbers of an input of the graph.

    Attributes
    ----------
    root : str
        The input.
    index : tuple of int or None
        Where in it, for each of its axes; None: all of the axis.
    turned : bool
        Whether the axis of H comes before that of B.
    """

    root: str
    index: tuple[int | None, ...]
    turned: bool

    @property
    def place(self) -> tuple[int, ...]:
        """What the rows of one input are sorted by."""
        return tuple(n or 0 for n in self.index)

    def sizes(self, H: int) -> dict[int, int]:
        """Return how large axes of the input are at least, but that of B."""
        whole = [n for n, at in enumerate(self.index) if at is None]
        found = {n: at + 1 for n, at in enumerate(self.index) if at is not None}
        return found | {whole[0 if self.turned else -1]: H}

    def array(self, feeds: Mapping[str, Array]) -> Array:
        """Return the numbers, of those of the inputs."""
        found = feeds[self.root][tuple(slice(None) if n is None else n for n in self.index)]
        return found.T if self.turned else found


@dataclass(frozen=True, eq=False)
class LSTMStep:
    """A layer: how its directions become one output, and whether its input is added.

    `h` and `c` are the initial states of its directions; none where they are zeros.
    """

    node: Node
    merge: str = "concat"
    residual: bool = False
    h: tuple[Row, ...] = ()
    c: tuple[Row, ...] = ()

    @property
    def name(self) -> str:
        return self.node.name


AnyStep = Step | LinearStep | LSTMStep


@dataclass(frozen=True, eq=False)
class Chain:
    """A block, and those before it, which other chains may have, too."""

    before: Chain | None
    step: AnyStep


# ---- what they compute


@dataclass(frozen=True)
class Signal:
    """A value that blocks compute from an input of the graph.

    Attributes
    ----------
    root : str
        The input.
    axes : tuple of Group
    columns : Group
        The axis of columns has these atoms, where it is whole.
    chain : Chain, optional
        The blocks.
    order : tuple of Atom
        Time, and batch if there is one, known from the first LSTM on.
    over : bool
        Whether one row was made of all time steps.
    ragged : str
        The input that has lengths of the LSTMs before, or "".
    zeroed : Chain, optional
        The blocks after which it is 0 where sequences have no step.
    integer : bool
        Whether it has numbers of rows of a table.
    direction : int, optional
        The output of this direction alone, of the two of the last LSTM.
    half : int, optional
        Of the columns, the first half or the second one alone.
    """

    root: str
    axes: tuple[Group, ...]
    columns: Group
    chain: Chain | None = None
    order: tuple[Atom, ...] = ()
    over: bool = False
    ragged: str = ""
    zeroed: Chain | None = None
    integer: bool = False
    direction: int | None = None
    half: int | None = None

    def moved(self, axes: Sequence[Group]) -> Signal:
        return replace(self, axes=tuple(axes))

    def sized(self, bound: Mapping[Atom, Atom]) -> Signal:
        """Return it with these atoms instead of others, whose sizes were not known."""

        def new(group: Group) -> Group:
            return tuple(bound.get(atom, atom) for atom in group)

        axes, columns = tuple(map(new, self.axes)), new(self.columns)
        return replace(self, axes=axes, columns=columns, order=new(self.order))

    @property
    def time(self) -> Atom | None:
        return None if self.over or not self.order else self.order[0]

    @property
    def last(self) -> AnyStep | None:
        """The last block."""
        return None if self.chain is None else self.chain.step

    @property
    def steps(self) -> list[AnyStep]:
        """The blocks, the first one first."""
        found, chain = [], self.chain
        while chain is not None:
            found.append(chain.step)
            chain = chain.before
        return found[::-1]

    @property
    def of_states(self) -> bool:
        """Whether these are the final states of an LSTM."""
        return isinstance(self.last, Step) and self.last.of_states

    @property
    def rows(self) -> bool:
        """Whether its last axis has the columns, and the others have rows, whole."""
        if self.direction is not None or self.half is not None or self.integer or not self.axes:
            return False
        before = [atom for group in self.axes[:-1] for atom in group]
        return self.axes[-1] == self.columns and not {*before} & {*self.columns}


@dataclass(frozen=True)
class Stack:
    """Two signals or more along an axis of their own, which is number `axis`."""

    parts: tuple[Signal, ...]
    axis: int

    @property
    def atom(self) -> Atom:
        return Atom("direction", len(self.parts))

    @property
    def axes(self) -> tuple[Group, ...]:
        inner = self.parts[0].axes
        return (*inner[: self.axis], (self.atom,), *inner[self.axis :])

    @property
    def columns(self) -> Group:
        return self.parts[0].columns

    def moved(self, axes: Sequence[Group]) -> Stack | Signal:
        """Return it with these axes: a signal where the parts stand side by side.

        Raises
        ------
        ValueError
            If they do in another way.
        """
        n = next(n for n, group in enumerate(axes) if self.atom in group)
        if axes[n] == (self.atom,):
            inner = (*axes[:n], *axes[n + 1 :])
            return Stack(tuple(part.moved(inner) for part in self.parts), n)
        if axes[n] == (self.atom, *self.columns) and n == len(axes) - 1:
            inner = (*axes[:n], self.columns)
            return joined([part.moved(inner) for part in self.parts])
        raise ValueError("mixes the directions of an LSTM with other axes")


def stacked(parts: Sequence[Signal], axis: int) -> Stack | Signal:
    """Return signals along an axis of their own, which is empty if there is one.

    Raises
    ------
    ValueError
        If there is none, or a great many.
    """
    if not 0 < len(parts) <= MOST_PARTS:
        raise ValueError(f"takes {len(parts)} states of LSTMs")
    if len(parts) > 1:
        return Stack(tuple(parts), axis)
    inner = parts[0].axes
    return parts[0].moved((*inner[:axis], (), *inner[axis:]))


def joined(parts: Sequence[Signal], merge: str = "concat") -> Signal:
    """Return the output of an LSTM of its directions, which have columns last.

    Raises
    ------
    ValueError
        If they are not all directions of one LSTM, in order.
    """
    first = parts[0]
    if len(parts) == 1 and first.direction is None:
        return first
    alike = all(part == replace(first, direction=n) for n, part in enumerate(parts))
    if not alike or len(parts) != 2 or first.axes[-1] != first.columns:
        raise ValueError("puts together what are not both directions of an LSTM, forward first")
    columns = first.columns
    chain = first.chain
    if merge == "concat":
        columns = (Atom("direction", 2), *columns)
    else:
        if chain is None or not isinstance(chain.step, LSTMStep):
            raise ValueError("merges final states")
        chain = Chain(chain.before, replace(chain.step, merge=merge))
    axes = (*first.axes[:-1], columns)
    return replace(first, chain=chain, axes=axes, columns=columns, direction=None)
