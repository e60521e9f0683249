"""Through a graph of ONNX from its inputs: every node LSTM, and the blocks around them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..reports import Found, refusal
from .blocks import OPERATORS
from .folding import Folding
from .graph import Attributes, Tensors
from .layout import MOVES, Operator, last_states
from .lengths import OF_LENGTHS, computed
from .lstm import INPUTS, QUANTISED, Node, copied, is_lstm, read_node
from .scope import Names, Scope
from .shapes import shape_of
from .states import moved, roots_of, rows_of, state_of
from .values import (
    AnyStep,
    Atom,
    Chain,
    Extent,
    Filled,
    LinearStep,
    LSTMStep,
    Other,
    Signal,
    Stack,
    Step,
)

__all__ = ["Entry", "Walk"]

AnyArray = npt.NDArray[Any]

STANDARD = ("", "ai.onnx")
MOST_NODES, LONGEST_NAME, MOST_ROOTS = 2**16, 500, 64
FILLING = ("ConstantFill", "ConstantOfShape", "Expand", "Tile")
INTEGERS = (2, 3, 4, 5, 6, 7, 12, 13)  # TensorProto.DataType
FAILURES = (ValueError, TypeError, IndexError, OverflowError)


class Entry:
    """A node LSTM, or why it cannot be read."""

    def __init__(self, name: str, outputs: Iterable[str], read: Node | ValueError) -> None:
        self.name, self.outputs, self.read = name, [*outputs], read


class Walk:
    """What is in a model.

    Parameters
    ----------
    source : path-like or object
        For errors.
    path : Path or None
    model : ModelProto

    Attributes
    ----------
    lstms : list of Entry
        Of all graphs, those in branches and bodies included.
    rows : list of Found
        Every node LSTM, block, and operator that is no block.
    outputs : dict of str to value
        Of the model.
    """

    def __init__(self, source: Any, path: Path | None, model: Any) -> None:
        self._source = source
        self._tensors = Tensors(source, path)
        self._folding = Folding(model.ByteSize() if path is None else path.stat().st_size)
        versions = [entry.version for entry in model.opset_import if entry.domain in STANDARD]
        self._version = versions[0] if versions else 1
        self._nodes = 0
        self.lstms: list[Entry] = []
        self._names = Names()  # of these
        self.rows: list[Found] = []
        graph = model.graph
        scope = Scope(self._tensors)
        constants = {tensor.name for tensor in graph.initializer}
        self.inputs = [copied(given) for given in graph.input if given.name not in constants]
        try:
            for given in self.inputs:
                scope[given.name] = _signal_of(given)
            self._run(graph, scope, "")
        except ValueError as error:
            raise refusal(source, "graph", error, "the file is damaged") from None
        self.outputs = {
            result.name: self._value(scope, result.name, "output") for result in graph.output
        }

    def _run(self, graph: Any, scope: Scope, path: str) -> None:
        for tensor in graph.initializer:
            scope.store(tensor)
        for tensor in graph.sparse_initializer:
            name = tensor.values.name
            scope[name] = Other(self._refusal(f"tensor {name!r}", "is sparse", "make it dense"))
        for node in graph.node:
            self._nodes += 1
            if self._nodes > MOST_NODES:
                raise ValueError(f"has more than {MOST_NODES} nodes")
            name = path + (node.name or next(filter(None, node.output), ""))
            name = name[-LONGEST_NAME:]
            what = f"{node.op_type} {name!r}"
            inputs = [self._value(scope, given, what) for given in node.input]
            try:
                attributes = Attributes(node)
                if is_lstm(node):
                    results = self._lstm(name, node, attributes, inputs)
                elif any(attribute.type in (5, 10) for attribute in node.attribute):
                    results = self._graphs(name, node, attributes, scope, inputs)
                else:
                    results = self._node(name, node, attributes, inputs)
            except FAILURES as error:
                other = self._failed(what, error, node, inputs)
                states = self._states(name, node, inputs) if other.moved else []
                states += [None] * (len(node.output) - len(states))
                results = [replace(other, state=state) for state in states]
            self._note(name, node, results)
            for output, value in zip(node.output, results, strict=False):
                if output:
                    scope[output] = value

    def _value(self, scope: Scope, name: str, what: str) -> Any:
        """Return a value; None where an optional input is absent."""
        if not name:
            return None
        try:
            return scope[name]
        except KeyError:
            found = f"reads {name!r}, which nothing before it gives"
            return Other(self._refusal(what, found, "the file is damaged"))

    def _refusal(self, what: str, found: object, instead: str) -> ValueError:
        return refusal(self._source, what, found, instead)

    def _failed(self, what: str, error: Exception, node: Any, inputs: Sequence[Any]) -> Other:
        """Return what is known of the results of a node that was not followed."""
        before = [value for value in inputs if isinstance(value, Other)]
        if before:
            error = before[0].error
        else:
            error = self._refusal(what, error, "no block of lstm_fast is like this")
        roots = [roots_of(value) for value in inputs]
        if node.op_type in MOVES and node.domain in STANDARD and None not in roots:
            names = frozenset().union(*filter(None, roots))
            if len(names) <= MOST_ROOTS:
                return Other(error, names, True)
        return Other(error)

    def _states(self, name: str, node: Any, inputs: Sequence[Any]) -> list[Any]:
        """Return the results of a node as initial states; nothing if they are none."""
        op = Operator(name, node.op_type, Attributes(node), self._version, len(node.output))
        given = [x if isinstance(x, np.ndarray) or x is None else state_of(x) for x in inputs]
        try:
            found = moved(op, *given)
        except FAILURES:
            return []
        return found if isinstance(found, list) else [found]

    def _note(self, name: str, node: Any, results: Sequence[Any]) -> None:
        """Add a row for a block, or for an operator that is none."""
        value = results[0] if results else None
        if is_lstm(node):
            return
        if isinstance(value, Other) and not value.moved and node.op_type not in MOVES:
            self.rows.append(Found(name, node.op_type, "", "", "", 0))

    # ---- nodes

    def _node(self, name: str, node: Any, attributes: Attributes, inputs: list[Any]) -> list[Any]:
        operator = node.op_type
        if node.domain not in STANDARD:
            raise ValueError(f"is of the domain {node.domain!r}")
        others = [value for value in inputs if isinstance(value, Other)]
        if others:
            raise others[0].error
        if operator == "Constant":
            results: list[Any] = [self._tensors.constant(attributes)]
        elif operator == "Shape" and isinstance(inputs[0], Signal | Stack | np.ndarray):
            results = [self._shape(attributes, inputs[0])]
        elif operator in ("ConstantFill", "ConstantOfShape", "Expand", "Tile") and not _computed(
            inputs[:1]
        ):
            results = [self._filled(operator, attributes, inputs)]
        elif operator in MOVES and inputs and isinstance(inputs[0], Filled):
            return [inputs[0]] * len(node.output)
        elif operator in self._folding and not _computed(inputs):
            return [self._folding(operator, attributes, inputs)]
        else:
            given = Operator(name, operator, attributes, self._version, len(node.output))
            found = computed(given, inputs)
            if found is None and operator not in OPERATORS:
                raise ValueError("is an operator that is not known")
            found = OPERATORS[operator](given, *inputs) if found is None else found
            results = found if isinstance(found, list) else [found]
            for value in results[:1]:
                self._note_step(value, inputs)
        if unasked := attributes.unasked():
            raise ValueError(f"has attributes {unasked}, whose meaning is not known")
        return results

    def _note_step(self, value: Any, inputs: Sequence[Any]) -> None:
        """Add a row for the block that an operator is, or change that to which it adds a bias."""
        last = _last(value)
        if last is None or any(_last(given) is last for given in inputs):
            return
        if isinstance(last, LinearStep):
            O, I = last.weight.shape
            size = last.weight.size + (0 if last.bias is None else O)
            row = Found(last.name, "Linear", f"{I} -> {O}", "", str(last.weight.dtype), size)
            if self.rows and self.rows[-1].name == last.name:
                self.rows.pop()
            self.rows.append(row)
        elif isinstance(last, Step) and not last.of_states:
            sizes, options = last.sizes, last.options
            self.rows.append(Found(last.name, last.kind, sizes, options, "", last.parameters))

    def _shape(self, attributes: Attributes, x: Any) -> AnyArray:
        shape = np.array(x.shape, np.int64) if isinstance(x, np.ndarray) else shape_of(x)
        return shape[attributes.integer("start", 0) : attributes.integer("end", None)]

    def _filled(self, operator: str, attributes: Attributes, inputs: list[Any]) -> Filled:
        if operator == "ConstantFill":  # of the oldest
            for name in ("dtype", "input_as_shape"):
                attributes.integer(name)
            return Filled(np.float32(attributes.number("value", 0.0)))
        if operator == "ConstantOfShape":
            tensor = attributes.tensor("value")
            values = np.zeros(1) if tensor is None else self._tensors.array(tensor)
        elif isinstance(inputs[0], Filled):
            return inputs[0]
        else:
            values = inputs[0]
        if not isinstance(values, np.ndarray):
            raise ValueError("repeats what is no constant")
        self._folding.allow(values.nbytes)
        if values.size == 0 or (values != values.flat[0]).any():
            raise ValueError("repeats numbers that differ")
        return Filled(values.flat[0])

    def _graphs(
        self, name: str, node: Any, attributes: Attributes, scope: Scope, inputs: list[Any]
    ) -> list[Any]:
        """Look for LSTMs in the branches of If and the bodies of Loop and Scan."""
        operator = node.op_type
        results: dict[str, list[Any]] = {}
        for attribute in node.attribute:
            if attribute.type != 5:
                continue
            inside = Scope(self._tensors, scope)
            path = f"{name}.{attribute.name}."
            for given in attribute.g.input:
                error = self._refusal(
                    f"{operator} {name!r}", f"gives {given.name!r} to its body", "step by step"
                )
                inside[given.name] = Other(error)
            self._run(attribute.g, inside, path)
            results[attribute.name] = [
                self._value(inside, result.name, operator) for result in attribute.g.output
            ]
        condition = inputs[0] if inputs else None
        if operator == "If" and isinstance(condition, np.ndarray) and condition.size == 1:
            return results["then_branch" if condition.item() else "else_branch"]
        raise ValueError("depends on what is computed")

    # ---- LSTM

    def _lstm(self, name: str, node: Any, attributes: Attributes, inputs: list[Any]) -> list[Any]:
        name = self._names.own(name)
        keys = INPUTS + (QUANTISED if node.op_type == "DynamicQuantizeLSTM" else ())
        given = dict(zip(keys, inputs, strict=False))
        try:
            arrays = {}
            for key in ("W", "R", "B", "P", *QUANTISED):
                value = given.get(key)
                if isinstance(value, Other):
                    raise value.error
                if value is None and key not in ("W", "R"):
                    continue
                if not isinstance(value, np.ndarray):
                    raise self._refusal(f"{name} {key}", "is no constant", "weights must be stored")
                arrays[key] = value
            self._folding.allow(sum(array.nbytes for array in arrays.values()))
            read = read_node(self._source, name, node, attributes, arrays)
            self._check_states(name, given)
        except ValueError as error:
            self.lstms.append(Entry(name, node.output, error))
            self.rows.append(Found(name, "LSTM", "", str(error), "", 0))
            return [Other(error)] * 3
        self.lstms.append(Entry(name, node.output, read))
        self.rows.append(read.found())
        try:
            return self._computed(read, given)
        except ValueError as error:
            x = given.get("X")
            refused = self._refusal(f"LSTM {name!r}", error, "no Sequential is like this")
            return [Other(x.error if isinstance(x, Other) else refused)] * 3

    def _check_states(self, name: str, given: dict[str, Any]) -> None:
        """Raise where an initial state is constant, and not zero."""
        for key in ("initial_h", "initial_c"):
            value = given.get(key)
            if (isinstance(value, np.ndarray) and value.astype(np.float64).any()) or (
                isinstance(value, Filled) and value.value != 0
            ):
                found = "is constant and not 0"
                raise self._refusal(f"{name} {key}", found, "make it an input of the model")

    def _computed(self, node: Node, given: dict[str, Any]) -> list[Any]:
        """Return Y, Y_h and Y_c."""
        x = given.get("X")
        if not isinstance(x, Signal) or not x.rows or len(x.axes) != 3:
            raise ValueError("its input is not (time, batch, columns) of what stands before it")
        first, second = x.axes[:2]
        of_time, of_batch = (second, first) if node.batch_first else (first, second)
        if len(of_time) != 1 or len(of_batch) > 1:
            raise ValueError("its input has no time axis of its own")
        order = of_time + of_batch
        if x.over or x.order not in ((), order):
            raise ValueError("runs over another axis than the LSTM before it")
        lengths = self._lengths(x, of_time[0], given.get("sequence_lens"))
        if x.order and x.ragged != lengths:
            raise ValueError("has sequence_lens, and the LSTM before it has none, or the other way")
        D = len(node.directions)
        rows: dict[str, Any] = {}
        for key in ("initial_h", "initial_c"):
            roots = roots_of(given.get(key))
            if roots is None or x.root in roots or roots & self._names:
                raise ValueError(f"its {key} is computed in the graph")
            if roots:
                try:
                    rows[key[-1]] = rows_of(given[key], D, node.batch_first)
                except ValueError as wrong:
                    raise ValueError(f"its {key} {wrong}") from None
        hidden = (Atom("hidden", node.hidden_size),)
        step = LSTMStep(node, **rows)
        x = replace(x, chain=Chain(x.chain, step), order=order, ragged=lengths)
        y_axes = (of_batch, of_time) if node.batch_first else (of_time, of_batch)
        results: list[Any] = []
        for value, axes, axis in (
            (x, (*y_axes, hidden), 2 if node.batch_first else 1),
            (last_states(x, node), (of_batch, hidden), 1 if node.batch_first else 0),
        ):
            if D == 1:
                axes = (*axes[:axis], (), *axes[axis:])
                results.append(replace(value, axes=axes, columns=hidden))
            else:
                one = replace(value, axes=axes, columns=hidden)
                results.append(Stack(tuple(replace(one, direction=d) for d in range(D)), axis))
        error = self._refusal(f"LSTM {node.name!r}", "its state c is used", "read it alone")
        return [*results, Other(error, frozenset({node.name}), True)]

    def _lengths(self, x: Signal, time: Atom, given: Any) -> str:
        """Return which input of the model has the lengths, or ""."""
        if given is None or given == Filled(Extent((time,))):
            return ""
        if isinstance(given, Filled):
            given = np.array([given.value])
        if isinstance(given, np.ndarray) and time.size is not None and (given == time.size).all():
            return ""
        if isinstance(given, Signal) and not given.chain and given.integer and given.root != x.root:
            return given.root
        raise ValueError("its sequence_lens are no input of the model")


def _signal_of(given: Any) -> Signal:
    """Return an input of the model."""
    tensor = given.type.tensor_type
    integer = tensor.elem_type in INTEGERS
    if tensor.HasField("shape"):
        sizes = [dim.dim_value if dim.dim_value > 0 else None for dim in tensor.shape.dim]
    else:
        sizes = [None] * (2 if integer else 3)
    axes = tuple((Atom(f"{given.name}.{n}", size),) for n, size in enumerate(sizes))
    columns = axes[-1] if axes and not integer else ()
    return Signal(given.name, axes, columns, integer=integer)


def _computed(values: Sequence[Any]) -> bool:
    return any(isinstance(value, (Signal, Stack, *OF_LENGTHS)) for value in values)


def _last(value: Any) -> AnyStep | None:
    """Return the block that gives a value."""
    if isinstance(value, Stack):
        return value.parts[0].last
    return value.last if isinstance(value, Signal) else None
