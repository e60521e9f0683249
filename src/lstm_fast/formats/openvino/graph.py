"""The graph of an OpenVINO model: what each layer makes of its inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ...engine import Array
from ..graphs import received
from ..reports import refusal
from ..signals import Misfit, Signal, WrongOrder
from .file import File, Layer, extents

__all__ = ["Filled", "Graph", "Rule", "Stack", "Stored", "Value"]

MOVES = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Concat", "Convert")
MOST_NUMBERS = 64  # of a shape


class Filled(NamedTuple):
    """A tensor of one number, as initial states and lengths are; its shape may be of unknowns."""

    number: float
    shape: tuple[int, ...]


class Stored(NamedTuple):
    """A constant, which is read where it is needed."""

    layer: Layer


class Stack(NamedTuple):
    """Signals one after the other along an axis, as the final states of layers."""

    signals: tuple[Signal, ...]
    axis: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents of the axes."""
        raise Misfit("needs the shape of several layers' states")


Integers = npt.NDArray[np.int64]
Value = Signal | Integers | Filled | Stored | Stack


class Graph:
    """The layers of a file, one after the other.

    Parameters
    ----------
    file : File
    batch_first : bool
        The input is (B, T, columns), not (T, B, columns).

    Attributes
    ----------
    output : Layer
        The Result that is the output, and no final state.
    """

    def __init__(self, file: File, batch_first: bool) -> None:
        self.file, self.path, self._batch_first = file, file.path, batch_first
        file.count_anew()
        self.values: dict[tuple[str, int], Value] = {}
        outputs = [layer for layer in file.results if not self._is_state(layer)]
        inputs = [layer.name for layer in file.layers.values() if layer.kind == "Parameter"]
        if len(outputs) != 1 or len(inputs) != 1:
            names = [*inputs, *(layer.name for layer in outputs)]
            raise refusal(self.path, "graph", f"has inputs and outputs {names}", "one of each")
        self.output = outputs[0]

    def _is_state(self, result: Layer) -> bool:
        """Whether a result has final states of LSTMs and nothing else."""
        open_, seen = [*result.inputs], set()
        while open_:
            number, place = open_.pop()
            layer = self.file.layers[number]
            if number in seen or layer.kind == "Const":
                continue
            seen.add(number)
            if layer.kind in MOVES:
                open_ += layer.inputs
            elif layer.kind != "LSTMSequence" or place == 0:
                return False
        return bool(seen)

    def run(self, rules: Mapping[str, Rule]) -> Signal:
        """Return the output; rules say what layers make of their inputs, by their kind."""
        for layer in self._needed():
            try:
                self.values[layer.number, 0] = self._value(layer, rules.get(layer.kind))
            except WrongOrder as wrong:
                if self._batch_first:
                    raise
                raise self._refusal(layer, wrong) from None
            except Misfit as misfit:
                raise self._refusal(layer, misfit) from None
        output = self.values[self.output.number, 0]
        if not isinstance(output, Signal):
            raise refusal(
                self.path, self.output.name, "does not depend on the input", "there is no model"
            )
        return output

    def _needed(self) -> list[Layer]:
        """Return the layers that the output depends on, in order."""
        needed = {self.output.number}
        layers = [*self.file.layers.values()]
        for layer in reversed(layers):
            if layer.number in needed:
                needed |= {source for source, _ in layer.inputs}
        return [layer for layer in layers if layer.number in needed]

    def _refusal(self, layer: Layer, misfit: Misfit) -> ValueError:
        where = layer.kind if layer.name == layer.kind else f"{layer.kind} {layer.name}"
        return refusal(self.path, where, misfit.found, misfit.instead)

    def _value(self, layer: Layer, rule: Rule | None) -> Value:
        if layer.kind == "Const":
            return Stored(layer)
        if layer.kind == "Parameter":
            return self._input(layer)
        if rule is None:
            raise Misfit("there is no such block", "it cannot be read")
        return rule(self, layer)

    def _input(self, layer: Layer) -> Signal:
        shape = _extents(layer.text("shape"))
        return received(self.path, shape, len(shape) == 2, self._batch_first)

    # ---- arguments of layers

    def value(self, layer: Layer, place: int = 0) -> Value:
        """Return an input."""
        if place >= len(layer.inputs):
            raise Misfit(f"has no input {place}", "the file is broken")
        found = self.values.get(layer.inputs[place])
        if found is None:
            raise Misfit("reads an output that is no output of a block")
        return found

    def signal(self, layer: Layer, place: int = 0) -> Signal:
        """Return an input that depends on that of the graph."""
        found = self.value(layer, place)
        if not isinstance(found, Signal):
            raise Misfit(f"its input {place} is not computed by blocks from the input")
        return found

    def floats(self, layer: Layer, place: int) -> Array:
        """Return an input that is a constant."""
        found = self.value(layer, place)
        if not isinstance(found, Stored):
            raise Misfit(f"its input {place} is computed", "a constant is needed here")
        return self.file.floats(found.layer)

    def integers(self, layer: Layer, place: int) -> Integers:
        """Return an input that is a constant of a few integers, or computed from shapes."""
        found = self.value(layer, place)
        if isinstance(found, Stored):
            found = self.file.stored(found.layer)
        if not isinstance(found, np.ndarray) or found.dtype.kind != "i":
            raise Misfit(f"its input {place} is no constant of integers")
        if found.size > MOST_NUMBERS:
            raise Misfit(f"its input {place} has {found.size} numbers", "a shape has fewer")
        return found.astype(np.int64)

    def one(self, layer: Layer, place: int) -> int:
        """Return an input that is one integer."""
        found = self.integers(layer, place)
        if found.size != 1:
            raise Misfit(f"its input {place} has {found.size} numbers", "one is needed")
        return int(found.item())

    def shape_of(self, value: Value) -> tuple[int, ...]:
        """Return the extents of a value."""
        if isinstance(value, Stored):
            return _extents(value.layer.text("shape"))
        return value.shape

    def filled(self, value: Value) -> Filled | None:
        """Return a value as one number that stands everywhere, or None if there are several."""
        if isinstance(value, Filled):
            return value
        array = self.file.stored(value.layer) if isinstance(value, Stored) else value
        if isinstance(array, Signal | Stack) or not array.size or (array != array.flat[0]).any():
            return None
        return Filled(float(array.flat[0]), array.shape)

    # ---- values without the input

    def attribute(self, layer: Layer, name: str, default: str) -> int:
        """Return an attribute that is an integer."""
        found = _extents(layer.text(name, default))
        if len(found) != 1:
            raise Misfit(f"{name} {layer.text(name)!r}", "an integer is needed")
        return found[0]

    def constant_shape(self, found: Value) -> tuple[int, ...]:
        """Return the extents of what does not depend on the input."""
        if isinstance(found, Signal | Stack):
            raise Misfit("does this to more than a constant")
        return self.shape_of(found)

    def moved(self, found: Value, shape: Sequence[int]) -> Filled:
        """Return a constant of one number with other axes."""
        one = self.filled(found)
        total = math.prod(self.shape_of(found))
        known = math.prod(n for n in shape if n != -1)
        if one is None or not known or total % known or any(n < 1 and n != -1 for n in shape):
            raise Misfit("moves the axes of a constant of several numbers")
        return Filled(one.number, tuple(total // known if n == -1 else n for n in shape))

    def regrouped(self, found: Value, shape: Sequence[int]) -> Value:
        """Return a value in another shape, its numbers in the same order."""
        if isinstance(found, Signal):
            return found.reshaped(shape)
        if isinstance(found, np.ndarray):
            return self.sized(found, shape)
        if isinstance(found, Stored) and found.layer.text("element_type") in ("i32", "i64"):
            return self.sized(self.file.stored(found.layer), shape)
        return self.moved(found, shape)

    def sized(self, found: npt.NDArray[Any], shape: Sequence[int]) -> Integers:
        """Return integers in another shape."""
        try:
            return found.reshape(shape).astype(np.int64)
        except ValueError as error:
            raise Misfit(str(error), "the file is broken") from None


def _extents(text: str) -> tuple[int, ...]:
    try:
        return extents(text)
    except ValueError as error:
        raise Misfit(str(error), "the file is broken") from None


# What a layer makes of its inputs.
Rule = Callable[[Graph, Layer], Value]
