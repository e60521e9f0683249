"""What a graph of operators makes of its input, as blocks and axes: for readers of graphs.

A `Signal` is a tensor that depends on the input. Operators that move axes around change only its
axes; the others add blocks. Extents that a file does not fix are large primes: then products tell
which axes are in them, and arithmetic with shapes is that of integers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import nn
from ..engine import Array
from ..lstm import LSTM
from ..network.block import Block
from .cells import Cell, embedding, linear, lstm

__all__ = ["UNKNOWN", "Misfit", "Part", "Signal", "WrongOrder"]

# Of axes where the file does not say them; that of columns follows from the first weights.
UNKNOWN = {"B": 1_000_003, "T": 1_000_033, "C": 1_000_037}
MOST_PARTS = 1000
MOST_COLUMNS = 4096  # where a product with a vector becomes one with a matrix


class Misfit(Exception):
    """What an operator does that no block does."""

    def __init__(self, found: str, instead: str = "no block of lstm_fast does this") -> None:
        super().__init__(found, instead)
        self.found, self.instead = found, instead


class WrongOrder(Misfit):
    """T and B stand the other way round than an LSTM takes them."""


class Part(NamedTuple):
    """A block of the model, and the weights of it that a later operator may add to."""

    kind: str
    block: Block
    cells: tuple[Cell, ...] = ()
    options: tuple[tuple[str, Any], ...] = ()  # of an LSTM, besides its directions
    weight: Array | None = None  # of a linear layer that has no bias yet


class Signal(NamedTuple):
    """A tensor that depends on the input.

    Attributes
    ----------
    parts : tuple of Part
        What computes it. Its rows are (B, T, columns), or (T, B, columns), or (B, columns) where
        there is no T any more.
    axes : tuple of str
        What each axis of the tensor is: B, T, C (columns of a direction), D (directions), several
        of them in one as "BT" or "DC", or "" where the extent is 1.
    extents : dict
        Of these letters.
    batch_first : bool
        Of the blocks.
    flipped : bool
        The tensor has its steps in the other order than the rows of the blocks.
    source : object
        The file, for errors.
    """

    parts: tuple[Part, ...]
    axes: tuple[str, ...]
    extents: dict[str, int]
    batch_first: bool
    flipped: bool
    source: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents of the axes."""
        return tuple(math.prod(self.extents[a] for a in axis) for axis in self.axes)

    @property
    def letters(self) -> str:
        """Of all axes, in order."""
        return "".join(self.axes)

    @property
    def columns(self) -> str:
        """What an axis is that has all columns."""
        return "DC" if "D" in self.letters else "C"

    @property
    def width(self) -> int:
        """The number of columns of a row."""
        return math.prod(self.extents[a] for a in self.columns)

    def _check_width(self, taken: int) -> None:
        """Raise if weights take another number of columns."""
        if self.width not in (taken, UNKNOWN["C"]):
            raise Misfit(
                f"{self.width} columns come in, the weights take {taken}",
                "the file contradicts itself",
            )

    @property
    def settings(self) -> dict[str, Any]:
        """Arguments of every block: the order of B and T, and the dtype of the one before."""
        dtype = self.parts[-1].block.dtype if self.parts else np.dtype(np.float32)
        return {"batch_first": self.batch_first, "dtype": dtype}

    # ---- axes

    def axis(self, number: int) -> int:
        """Return the number of an axis, counted from the start."""
        if not -len(self.axes) <= number < len(self.axes):
            raise Misfit(f"axis {number} of {len(self.axes)}", "the file contradicts itself")
        return number % len(self.axes)

    def transposed(self, order: Sequence[int]) -> Signal:
        """Return it with its axes in another order."""
        if sorted(order) != [*range(len(self.axes))]:
            raise Misfit(f"order {[*order]} of {len(self.axes)} axes", "it is no permutation")
        return self._replace(axes=tuple(self.axes[n] for n in order))

    def reshaped(self, shape: Sequence[int]) -> Signal:
        """Return it with the same letters, grouped to axes of this shape; one extent may be -1."""
        shape = [int(n) for n in shape]
        known = math.prod(n for n in shape if n != -1)
        total = math.prod(self.shape)
        if shape.count(-1) == 1 and known > 0 and total % known == 0:
            shape[shape.index(-1)] = total // known
        if any(n < 1 for n in shape) or math.prod(shape) != total:
            raise Misfit(f"axes {self.axes} of shape {self.shape} become {shape}")
        letters = [*self.letters]
        axes = []
        for extent in shape:
            axis = ""
            while letters and math.prod(self.extents[a] for a in axis) < extent:
                axis += letters.pop(0)
            if extent == 1 and letters and self.extents[letters[0]] == 1:
                axis = letters.pop(0)
            if math.prod(self.extents[a] for a in axis) != extent:
                raise Misfit(f"axes {self.axes} of shape {self.shape} become {shape}")
            axes.append(axis)
        rest = "".join(letters)  # of extent 1 all of them
        if rest and not axes:
            raise Misfit("all axes are taken away")
        axes[-1:] = [axes[-1] + rest]
        return self._replace(axes=tuple(axes))

    def reversed(self, axis: int) -> Signal:
        """Return it with its steps in the other order."""
        if self.axes[self.axis(axis)] != "T":
            raise Misfit("reverses another axis than that of time")
        return self._replace(flipped=not self.flipped)

    # ---- blocks

    def added(self, part: Part) -> Signal:
        """Return what the part makes of it."""
        if len(self.parts) == MOST_PARTS:
            raise Misfit(f"more than {MOST_PARTS} blocks")
        return self._replace(parts=(*self.parts, part))

    def recurrent(
        self,
        cells: Sequence[Cell],
        *,
        time_major: bool = False,
        reverse: bool = False,
        apart: bool = False,
        **options: Any,
    ) -> Signal:
        """Return the output of an LSTM with these cells, of one direction or two.

        With `apart` the directions have an axis before that of time, as (B, D, T, C).
        """
        order = ("T", "B") if time_major else ("B", "T")
        if self.axes != (*order, self.columns):
            kind = WrongOrder if self.axes == (*order[::-1], self.columns) else Misfit
            raise kind(f"axes {self.axes} come in", f"an LSTM takes {(*order, self.columns)}")
        self._check_width(cells[0].weight_ih.shape[1])
        if self.flipped and len(cells) == 2:
            raise Misfit("both directions of a reversed input", "reverse its output instead")
        backwards = reverse != self.flipped
        block = _lstm(self, [*cells], {**options, "reverse": backwards})
        part = Part("lstm", block, tuple(cells), tuple(sorted(options.items())))
        P = cells[0].weight_hh.shape[1]
        extents = {k: v for k, v in self.extents.items() if k != "D"}
        if not apart:
            return self.added(part)._replace(
                axes=(*order, "C"), extents=extents | {"C": len(cells) * P}
            )
        directions = {"D": 2} if len(cells) == 2 else {}
        axes = ("B", "D" if directions else "", "T", "C")
        return self.added(part)._replace(axes=axes, extents=extents | directions | {"C": P})

    def embedded(self, table: Array) -> Signal:
        """Return rows of a table, of which it has the numbers."""
        if self.parts or sorted(self.letters) != ["B", "T"] or "BT" in self.axes:
            raise Misfit("takes rows of a table by other numbers than the input")
        block = embedding(table, batch_first=self.batch_first, dtype=table.dtype)
        made = self.added(Part("embedding", block))
        return made._replace(axes=(*self.axes, "C"), extents=self.extents | {"C": table.shape[1]})

    def linear(self, weight: Array, bias: Array | None) -> Signal:
        """Return W x + b of each row: the last axis has its columns, or those of all steps."""
        made = self.rows()
        made._check_width(weight.shape[1])
        extents = {k: v for k, v in made.extents.items() if k != "D"} | {"C": len(weight)}
        made = made._replace(axes=(*made.axes[:-1], "C"), extents=extents)
        part = Part("linear", _linear(self, weight, bias), weight=weight if bias is None else None)
        return made.added(part)

    def biased(self, bias: Array) -> Signal:
        """Return it with a bias, which belongs to the linear layer before."""
        weight = self.parts[-1].weight if self.parts else None
        if weight is None or bias.size != len(weight) or bias.shape[-1:] != (bias.size,):
            raise Misfit("adds numbers to something else than a linear layer")
        bias = bias.reshape(-1)
        return self._replace(parts=(*self.parts[:-1], Part("linear", _linear(self, weight, bias))))

    def scaled(self, gain: Array) -> Signal:
        """Return each column times a number, as batch norm becomes, which adds one behind."""
        if gain.shape[-1:] != (gain.size,) or not self.width == gain.size <= MOST_COLUMNS:
            raise Misfit(f"multiplies {self.width} columns by an array of shape {gain.shape}")
        return self.linear(np.diag(gain.reshape(-1)), None)

    def activated(self, function: str | tuple[str, float] | None) -> Signal:
        """Return an activation function of it, or itself if there is none."""
        if function is None:
            return self
        try:
            block = nn.Activation(function, **self.settings)
        except ValueError as error:  # of its constants
            raise Misfit(str(error)) from None
        return self.added(Part(function if isinstance(function, str) else function[0], block))

    def softmax(self, axis: int = -1) -> Signal:
        """Return exp(x) over its sum, of the columns of each row."""
        if self.axis(axis) != len(self.axes) - 1:
            raise Misfit(f"softmax over axis {axis}, which has no columns")
        made = self.rows()
        return made.added(Part("softmax", nn.Softmax(**made.settings)))

    def rows(self) -> Signal:
        """Return it with its columns in the last axis, or those of all steps one after another."""
        if self.axes and self.axes[-1] == self.columns:
            return self
        flat = self.axes[-1:] == (f"T{self.columns}",)
        if not flat or "".join(self.axes[:-1]) != "B" or self.flipped:
            raise Misfit(f"axes {self.axes}: the last one has not the columns of a row")
        part = Part("flatten", nn.Flatten(**self.settings))
        extents = {"B": self.extents["B"], "C": self.width * self.extents["T"]}
        return self.added(part)._replace(axes=(*self.axes[:-1], "C"), extents=extents)

    def at_step(self, axis: int, index: int, keep: bool = False) -> Signal:
        """Return the first or the last step, without its axis unless it is to be kept."""
        axis = self.axis(axis)
        if self.axes[axis] == "" and index in (0, -1):
            return self._without(axis, keep)
        if self.axes[axis] == "D" and index in (0, 1, -1, -2):
            return self._of_direction(axis, index % 2, keep)
        T = self.extents.get("T", 0)
        if self.axes[axis] != "T" or index not in (0, -1, T - 1):
            raise Misfit(f"takes place {index} of axis {self.axes[axis] or axis}")
        at_start = (index == 0 and T != 1) != self.flipped
        return self._over_time(axis, keep, "last", at_start)

    def _of_direction(self, axis: int, direction: int, keep: bool) -> Signal:
        """Return the last output of one direction of an LSTM that has two."""
        kinds = [part.kind for part in self.parts[-2:]]
        if kinds != ["lstm", "last"] or self.parts[-1].block.directions != 2:  # type: ignore[attr-defined]
            raise Misfit("takes one direction of more than the final state")
        before, both = self._replace(parts=self.parts[:-2]), self.parts[-2]
        reverse, cells = direction == 1, both.cells[direction : direction + 1]
        block = _lstm(self, [*cells], {**dict(both.options), "reverse": reverse})
        last = nn.Last(1, reverse, **self.settings)
        one = before.added(Part("lstm", block, cells, both.options)).added(Part("last", last))
        return one._without(axis, keep)

    def pooled(self, axis: int, kind: str, keep: bool = False) -> Signal:
        """Return the mean or the largest of all steps."""
        if self.axes[self.axis(axis)] != "T":
            raise Misfit(f"{kind} over another axis than that of time")
        return self._over_time(self.axis(axis), keep, kind, False)

    def final(self, reverse: bool) -> Signal:
        """Return the last output of each direction of an LSTM, of axes (B, D, T, C)."""
        directions = self.extents.get("D", 1)
        block = nn.Last(
            directions,
            directions == 1 and reverse != self.flipped,
            **self.settings,
        )
        made = self.added(Part("last", block))
        return made._without(2, False)._replace(flipped=False)

    def _over_time(self, axis: int, keep: bool, kind: str, at_start: bool) -> Signal:
        block: Block = (
            nn.Last(1, at_start, **self.settings)
            if kind == "last"
            else nn.Pool(kind, **self.settings)
        )
        return self.added(Part(kind, block))._without(axis, keep)._replace(flipped=False)

    def _without(self, axis: int, keep: bool) -> Signal:
        axes = (*self.axes[:axis], *([""] if keep else []), *self.axes[axis + 1 :])
        extents = {k: v for k, v in self.extents.items() if k in "".join(axes)}
        return self._replace(axes=axes, extents=extents)

    # ---- two signals

    def beside(self, other: Signal, axis: int) -> Signal:
        """Return the outputs of the two directions of an LSTM side by side."""
        axis = self.axis(axis)
        same = self.axes == other.axes and self.flipped == other.flipped
        if not same or axis != len(self.axes) - 1 or self.axes[axis] != "C":
            raise Misfit("puts other things than two directions of an LSTM side by side")
        ours, theirs = [*self.parts], [*other.parts]
        lasts = [parts.pop() for parts in (ours, theirs) if parts and parts[-1].kind == "last"]
        if len(lasts) == 1 or not ours or len(ours) != len(theirs):
            raise Misfit("puts other things than two directions of an LSTM side by side")
        forward, backward = ours.pop(), theirs.pop()
        alike = all(one.block is two.block for one, two in zip(ours, theirs, strict=True))
        if (
            not alike
            or {forward.kind, backward.kind} != {"lstm"}
            or forward.options != backward.options
            or len(forward.cells) + len(backward.cells) != 2
            or forward.block.reverse  # type: ignore[attr-defined]
            or not backward.block.reverse  # type: ignore[attr-defined]
        ):
            raise Misfit("puts other things than two directions of an LSTM side by side")
        cells = [*forward.cells, *backward.cells]
        both = _lstm(self, cells, dict(forward.options) | {"reverse": False})
        parts = (*ours, Part("lstm", both, tuple(cells), forward.options))
        if lasts:
            one, two = (last.block.reverse for last in lasts)  # type: ignore[attr-defined]
            if one and not two:
                raise Misfit("takes the first step forward and the last one backward")
            block = nn.Last(1, one, **self.settings)
            if one != two:
                block = nn.Last(2, **self.settings)
            parts = (*parts, Part("last", block))
        columns = self.extents["C"] + other.extents["C"]
        return self._replace(parts=parts, extents=self.extents | {"C": columns})

    # ---- the end

    def finished(self) -> list[tuple[str, Block]]:
        """Return the blocks by name, if their output is that of the graph, axes of 1 apart."""
        made = self
        if self.axes and self.axes[-1] == f"T{self.columns}" and self.width > 1:
            made = self.rows()
        order = "BT" if made.batch_first else "TB"
        order = order if "T" in made.letters else "B"
        if made.letters != order + made.columns or made.flipped:
            steps = ", its steps in reverse order" if made.flipped else ""
            raise Misfit(f"the output has axes {made.axes}{steps}")
        return [(f"{part.kind.lower()}_{n}", part.block) for n, part in enumerate(made.parts)]


def _lstm(signal: Signal, cells: list[Cell], options: dict[str, Any]) -> LSTM:
    name = f"lstm_{len(signal.parts)}"
    return lstm(signal.source, name, [cells], batch_first=signal.batch_first, **options)


def _linear(signal: Signal, weight: Array, bias: Array | None) -> Block:
    return linear(weight, bias, batch_first=signal.batch_first, dtype=weight.dtype)
