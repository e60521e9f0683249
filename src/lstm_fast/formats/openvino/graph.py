"""The graph of an OpenVINO model: what each layer makes of its inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ...engine import Array
from ..graphs import received
from ..reports import refusal
from ..signals import Misfit, Signal, WrongOrder
from .constants import Stored
from .file import Body, File, Layer, extents

__all__ = ["Begun", "Filled", "Graph", "Loop", "Rule", "Stack", "Value"]

MOVES = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Concat", "Convert")
PARTS = ("Gather", "Slice", "StridedSlice", "Split", "VariadicSplit")  # as of states of layers
MOST_NUMBERS = 64  # of a shape
MOST_RESULTS = 1000


class Filled(NamedTuple):
    """A tensor of one number, as initial states and lengths are; its shape may be of unknowns."""

    number: float
    shape: tuple[int, ...]


class Begun(NamedTuple):
    """States with which LSTMs begin, that a call of the model is given or that it kept."""

    layers: frozenset[str]  # Parameters and ReadValues that they come from


class Stack(NamedTuple):
    """Signals one after the other along an axis, as the final states of layers."""

    signals: tuple[Signal, ...]
    axis: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents of the axes."""
        raise Misfit("needs the shape of several layers' states")


class Loop(NamedTuple):
    """A loop over time, for the layers of its body.

    Attributes
    ----------
    graph : Graph
        That it is in.
    layer : Layer
    body : Body
    steps : int
    reverse : bool
        It begins at the last step.
    """

    graph: Graph
    layer: Layer
    body: Body
    steps: int
    reverse: bool


Integers = npt.NDArray[np.int64]
Value = Signal | Integers | Filled | Stored | Stack | Begun


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
        The Result that is the output; others have final states.
    input : Layer
        The Parameter that is the input; others have initial states.
    loop : Loop or None
        Of whose body these layers are.
    """

    def __init__(self, file: File, batch_first: bool) -> None:
        file.count_anew()
        self.file, self.path, self._batch_first = file, file.path, batch_first
        self.layers = file.layers
        self.loop: Loop | None = None
        self._used: dict[str, set[int]] | None = None
        self.values: dict[tuple[str, int], Value] = {}
        if len(file.results) > MOST_RESULTS:
            raise refusal(self.path, "graph", f"has {len(file.results)} outputs", "one is needed")
        outputs = [layer for layer in file.results if not self._is_state(layer)] or file.results
        needed = self._needed({layer.number for layer in outputs}, past_states=False)
        numbers = {layer.number for layer in needed}
        inputs = [layer for layer in file.parameters if layer.number in numbers]
        if len(outputs) != 1 or len(inputs) != 1:
            names = [layer.name for layer in (*(inputs or file.parameters), *outputs)]
            raise refusal(self.path, "graph", f"has inputs and outputs {names}", "one of each")
        self.output, self.input = outputs[0], inputs[0]
        for layer in file.parameters:
            if layer.number != self.input.number:
                self.values[layer.number, 0] = Begun(frozenset({layer.number}))

    def _is_state(self, result: Layer) -> bool:
        """Whether a result has final states of LSTMs and nothing else."""
        found = self.before(result)
        return bool(found) and all(
            place in _final_states(self.layers[number]) for number, place in found
        )

    def before(self, layer: Layer) -> set[tuple[str, int]]:
        """Return what comes into a layer, before it is moved or converted; no constants."""
        open_, seen, found = [*layer.inputs], set(), set()
        while open_:
            number, place = open_.pop()
            source = self.layers[number]
            if number in seen and source.kind in MOVES:
                continue
            seen.add(number)
            if source.kind in MOVES:
                open_ += source.inputs if source.kind == "Concat" else source.inputs[:1]
            elif source.kind != "Const":
                found.add((number, place))
        return found

    def run(self, rules: Mapping[str, Rule]) -> Signal:
        """Return the output; rules say what layers make of their inputs, by their kind."""
        self.follow({self.output.number}, rules)
        output = self.values[self.output.number, 0]
        if not isinstance(output, Signal):
            raise refusal(
                self.path, self.output.name, "does not depend on the input", "there is no model"
            )
        return output

    def inside(self, loop: Loop, values: Mapping[str, Value]) -> Graph:
        """Return the body of a loop, of whose Parameters these are the values."""
        body = copy(self)
        body._used = None
        body.layers, body.loop = loop.body.layers, loop
        body.values = {(number, 0): value for number, value in values.items()}
        return body

    def used(self, layer: Layer) -> set[int]:
        """Return which outputs of a layer are inputs of others."""
        if self._used is None:
            self._used = {}
            for reader in self.layers.values():
                for number, place in reader.inputs:
                    self._used.setdefault(number, set()).add(place)
        return self._used.get(layer.number, set())

    def follow(self, numbers: set[str], rules: Mapping[str, Rule]) -> None:
        """Find the values of layers, and of those that they depend on."""
        for layer in self._needed(numbers):
            if (layer.number, 0) in self.values:
                continue
            try:
                value = self._value(layer, rules.get(layer.kind))
                if value is not None:
                    self.values[layer.number, 0] = value
            except WrongOrder as wrong:
                if self._batch_first:
                    raise
                raise self._refusal(layer, wrong) from None
            except Misfit as misfit:
                raise self._refusal(layer, misfit) from None

    def _needed(self, numbers: set[str], past_states: bool = True) -> list[Layer]:
        """Return the layers that these depend on, in order; or without their initial states."""
        needed, layers = {*numbers}, [*self.layers.values()]
        for layer in reversed(layers):
            if layer.number in needed:
                left_out = () if past_states else _initial_states(layer)
                sources = [source for n, source in enumerate(layer.inputs) if n not in left_out]
                needed |= {number for number, _ in sources}
        return [layer for layer in layers if layer.number in needed]

    def _refusal(self, layer: Layer, misfit: Misfit) -> ValueError:
        where = layer.kind if layer.name == layer.kind else f"{layer.kind} {layer.name}"
        return refusal(self.path, where, misfit.found, misfit.instead)

    def _value(self, layer: Layer, rule: Rule | None) -> Value | None:
        if layer.kind == "Const":
            return Stored(layer)
        if layer is self.input:
            return self._input(layer)
        if layer.kind in (*MOVES, *PARTS):
            sources = layer.inputs if layer.kind == "Concat" else layer.inputs[:1]
            states = [value for value in map(self.values.get, sources) if isinstance(value, Begun)]
            if states and len(states) == len(sources):
                begun = Begun(frozenset().union(*(state.layers for state in states)))
                for place in range(1, layer.outputs):
                    self.values[layer.number, place] = begun
                return begun
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
        return found.floats(self.file)

    def integers(self, layer: Layer, place: int) -> Integers:
        """Return an input that is a constant of a few integers, or computed from shapes."""
        found = self.value(layer, place)
        if isinstance(found, Stored) and not found.steps:
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
        if isinstance(value, Begun):
            raise Misfit("needs the shape of a state")
        return value.shape

    def filled(self, value: Value) -> Filled | None:
        """Return a value as one number that stands everywhere, or None if there are several."""
        if isinstance(value, Filled):
            return value
        array: Any = value
        if isinstance(value, Stored):
            array = value.floats(self.file) if value.steps else self.file.stored(value.layer)
        if isinstance(array, Signal | Stack | Begun) or not array.size:
            return None
        if (array != array.flat[0]).any():
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
        if isinstance(found, Signal | Stack | Begun):
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
        whole = isinstance(found, Stored) and found.layer.text("element_type") in ("i32", "i64")
        if isinstance(found, Stored) and whole and not found.steps:
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


def _initial_states(layer: Layer) -> tuple[int, ...]:
    """Return which inputs are states that an LSTM, or a loop, begins with."""
    if layer.body is not None:
        return tuple(port.place for port in layer.body.inputs if port.inner in layer.body.back)
    return (1, 2) if layer.kind == "LSTMSequence" else ()


def _final_states(layer: Layer) -> tuple[int, ...]:
    """Return which outputs are states that an LSTM, or a loop, ends with."""
    if layer.body is not None:
        given = layer.body.back.values()
        ports = [port for port in layer.body.outputs if port.inner in given]
        return tuple(port.place for port in ports if "axis" not in port.data)
    return (1, 2) if layer.kind == "LSTMSequence" else ()


# What a layer makes of its inputs; None where its first output is not needed.
Rule = Callable[[Graph, Layer], Value | None]
