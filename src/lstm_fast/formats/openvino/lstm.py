"""The LSTMs of an OpenVINO model: whole ones, and loops over time around a cell."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ...engine import Array
from ..cells import Cell, cell
from ..signals import Misfit, Signal, WrongOrder
from .file import Body, Layer, Port
from .graph import Begun, Graph, Loop, Rule, Stack, Value

__all__ = ["loop_with", "lstm_cell", "lstm_sequence", "number", "read_value"]

FUNCTIONS = {"sigmoid": "Sigmoid", "tanh": "Tanh", "relu": "Relu"}
KEPT = ("Reshape", "Squeeze", "Unsqueeze")  # the order of numbers


def lstm_sequence(graph: Graph, layer: Layer) -> Signal:
    if layer.version != "opset5" or len(layer.inputs) != 7:
        raise Misfit(f"is of {layer.version}", "LSTMSequence of opset5 is read")
    w_ih, w_hh, bias = (graph.floats(layer, place) for place in (4, 5, 6))
    direction = layer.text("direction")
    directions = {"forward": 1, "reverse": 1, "bidirectional": 2}.get(direction)
    if directions is None or not len(w_ih) == len(w_hh) == len(bias) == directions:
        raise Misfit(f"direction {direction!r} with weights of {len(w_ih)}", "it is broken")
    cells = [_cell(graph, layer, w_ih[n], w_hh[n], bias[n]) for n in range(directions)]
    y = graph.signal(layer).recurrent(
        cells, reverse=direction == "reverse", apart=True, **_options(layer)
    )
    for place in (1, 2):
        _check_state(graph, layer, place, place)
    lengths, T = graph.filled(graph.value(layer, 3)), y.extents["T"]
    if lengths is None or lengths.number != T:
        raise Misfit("its sequence_lengths are not the length of the input", "give `lengths`")
    graph.values[layer.number, 1] = y.final(direction == "reverse")
    return y


def _check_state(graph: Graph, layer: Layer, place: int, output: int | None) -> None:
    """Raise unless a state begins as zeros, or as that which the call before ended with.

    Parameters
    ----------
    graph, layer, place
        The input that is the state.
    output : int or None
        The output of the layer that is the same state at the end.
    """
    value = graph.value(layer, place)
    if isinstance(value, Signal | Stack):
        raise Misfit("its initial state is computed from the input")
    if not isinstance(value, Begun):
        state = graph.filled(value)
        if state is None or state.number:
            raise Misfit("its initial state is not zero", "make it zero, and give `state`")
        return
    variables = {graph.file.layers[n].text("variable_id") for n in value.layers}
    for writer in graph.file.writers:
        if writer.text("variable_id") in variables:
            ends = graph.before(writer)
            if (layer.number, output) not in ends or {end for _, end in ends} != {output}:
                raise Misfit(f"does not go on from what {writer.name} keeps")


def read_value(graph: Graph, layer: Layer) -> Begun:
    """Return the state that a model keeps from call to call; it has to begin as zeros."""
    if layer.inputs:
        first = graph.filled(graph.value(layer))
        if first is None or first.number:
            raise Misfit("its variable does not begin as zeros", "make it zero, and give `state`")
    return Begun(frozenset({layer.number}))


def _cell(graph: Graph, layer: Layer, w_ih: Array, w_hh: Array, bias: Array | None) -> Cell:
    name = layer.name
    made = cell(graph.path, name, "figo", weight_ih=w_ih, weight_hh=w_hh, bias_ih=bias)
    if str(made.weight_hh.shape[1]) != layer.text("hidden_size").strip():
        raise Misfit(f"hidden_size {layer.text('hidden_size')!r}", "its weights have another")
    return made


def _options(layer: Layer) -> dict[str, Any]:
    names = [s.strip() for s in layer.text("activations", "sigmoid,tanh,tanh").split(",")]
    if len(names) != 3 or not {*names} <= FUNCTIONS.keys():
        raise Misfit(f"activations {names}")
    if layer.text("activations_alpha").strip() or layer.text("activations_beta").strip():
        raise Misfit("activations with constants")
    options: dict[str, Any] = {"activations": tuple(FUNCTIONS[name] for name in names)}
    clip = number(layer, "clip", "0")
    if 0 < clip < math.inf:
        options["clip"] = clip
    return options


def number(layer: Layer, name: str, default: str) -> float:
    """Return an attribute that is a number, at least 0."""
    try:
        found = float(layer.text(name, default))
    except ValueError:
        found = math.nan
    if not found >= 0:
        raise Misfit(f"{name} {layer.text(name)!r}", "a number from 0 is needed")
    return found


# ---- loops


def lstm_cell(graph: Graph, layer: Layer) -> Signal:
    """Return the output of a step: that of an LSTM over all steps of the loop, without T."""
    loop, x = graph.loop, graph.signal(layer)
    if loop is None:
        raise Misfit("is one step without a loop over time", "convert the model with its loop")
    if layer.version not in ("opset1", "opset4") or layer.flag("input_forget"):
        raise Misfit(f"is of {layer.version}", "LSTMCell of opset4 is read")
    if layer.text("weights_format", "fico") != "fico":
        raise Misfit(f"weights_format {layer.text('weights_format')!r}", "fico is read")
    if len(layer.inputs) > 6:
        peepholes = graph.filled(graph.value(layer, 6))
        if peepholes is None or peepholes.number:
            raise Misfit("has peepholes")
    for place in (1, 2):
        _check_carried(graph, loop, layer, place)
    if x.axes != ("B", x.columns):
        raise Misfit(f"axes {x.axes} come in at each step", "a cell takes rows of columns")
    w_ih, w_hh = graph.floats(layer, 3), graph.floats(layer, 4)
    bias = graph.floats(layer, 5) if len(layer.inputs) > 5 else None
    order = ("B", "T") if x.batch_first else ("T", "B")
    y = x._replace(axes=(*order, x.columns), extents=x.extents | {"T": loop.steps}).recurrent(
        [_cell(graph, layer, w_ih, w_hh, bias)],
        time_major=not x.batch_first,
        reverse=loop.reverse,
        **_options(layer),
    )
    return _step(y, order.index("T"))._replace(axes=("B", "C"))


def _check_carried(graph: Graph, loop: Loop, layer: Layer, place: int) -> None:
    """Raise unless a state of a cell is that of the step before, and begins as it may."""
    parameter, _ = _origin(graph, layer.inputs[place])
    given = loop.body.back.get(parameter)
    if given is None or _origin(graph, loop.body.layers[given].inputs[0]) != (
        layer.number,
        place - 1,
    ):
        raise Misfit("its state is not what it gave at the step before")
    first = [port.place for port in loop.body.inputs if port.inner == parameter]
    ports = [port for port in loop.body.outputs if port.inner == given]
    last = [port.place for port in ports if "axis" not in port.data]
    if len(first) != 1:
        raise Misfit("its state begins with nothing", "the file is broken")
    _check_state(loop.graph, loop.layer, first[0], last[0] if last else None)


def _origin(graph: Graph, source: tuple[str, int]) -> tuple[str, int]:
    """Return where numbers come from that are only given other axes."""
    while (layer := graph.layers[source[0]]).kind in KEPT and layer.inputs:
        source = layer.inputs[0]
    return source


def loop_with(rules: Mapping[str, Rule]) -> Rule:
    """Return the rule of TensorIterator and Loop, of which each step is computed by itself."""

    def rule(graph: Graph, layer: Layer) -> Value | None:
        body = layer.body
        if body is None:
            raise Misfit("has no body", "the file is broken")
        values, found = _given(graph, layer, body)
        directions = {reverse for _, reverse in found}
        steps = {signal.extents["T"] for signal, _ in found}
        if len(directions) != 1 or len(steps) != 1:
            raise Misfit("does not go through sequences of one length in one direction")
        loop = Loop(graph, layer, body, steps.pop(), directions.pop())
        inside = graph.inside(loop, values)
        if layer.kind == "Loop":
            _check_count(graph, inside, loop, rules)
        for port in body.outputs:
            source = _origin(inside, body.layers[port.inner].inputs[0])
            state = body.layers[source[0]].kind == "LSTMCell" and source[1] == 1
            if port.place not in graph.used(layer) or state:
                continue
            inside.follow({port.inner}, rules)
            made = inside.values.get((port.inner, 0))
            if not isinstance(made, Signal):
                raise Misfit(f"its output {port.place} does not depend on the input")
            whole = _together(made, port, loop) if "axis" in port.data else _last(made, loop)
            graph.values[layer.number, port.place] = whole
        return graph.values.get((layer.number, 0))

    return rule


def _given(
    graph: Graph, layer: Layer, body: Body
) -> tuple[dict[str, Value], list[tuple[Signal, bool]]]:
    """Return values of the body's Parameters, and which signals it goes through, how.

    What is not to be had at a step has no value.
    """
    values: dict[str, Value] = {}
    found = []
    for port in body.inputs:
        if port.inner in body.back:
            values[port.inner] = Begun(frozenset())
        elif "axis" in port.data:
            x = graph.signal(layer, port.place)
            axis = x.axis(_integer(port, "axis", 0))
            if x.axes[axis] != "T":
                kind = WrongOrder if x.axes[axis] == "B" and "T" in x.axes else Misfit
                raise kind(f"goes through axis {axis} of {x.axes}", "that of time is needed")
            found.append((x, _backwards(port, x.extents["T"])))
            values[port.inner] = _step(x, axis)
        elif 0 <= port.place < len(layer.inputs):
            value = graph.values.get(layer.inputs[port.place])
            if value is not None and not isinstance(value, Signal | Stack | Begun):
                values[port.inner] = value
    return values, found


def _step(x: Signal, axis: int) -> Signal:
    """Return a signal at one step: its axis of time has an extent of 1."""
    axes = (*x.axes[:axis], "", *x.axes[axis + 1 :])
    return x._replace(axes=axes, extents={k: v for k, v in x.extents.items() if k != "T"})


def _integer(port: Port, name: str, default: int) -> int:
    try:
        return port.integer(name, default)
    except ValueError as error:
        raise Misfit(f"{name}: {error}", "the file is broken") from None


def _backwards(port: Port, T: int) -> bool:
    """Return whether a port begins at the last step; raise unless it takes each step once."""
    start, end = _integer(port, "start", 0), _integer(port, "end", -1)
    stride, size = _integer(port, "stride", 1), _integer(port, "part_size", 1)
    # Counted from the end, -1 is behind the last step.
    ends = tuple(T + 1 + n if n < 0 else n for n in (start, end))
    if size != 1 or (stride, ends) not in ((1, (0, T)), (-1, (T, 0))):
        raise Misfit(f"takes parts of {size} from {start} to {end}, every {stride}th of {T} steps")
    return stride == -1


def _check_count(graph: Graph, inside: Graph, loop: Loop, rules: Mapping[str, Rule]) -> None:
    """Raise unless a Loop has as many steps as the sequences that it goes through."""
    count = graph.one(loop.layer, 0)
    conditions = [graph.filled(graph.value(loop.layer, 1))]
    for port in loop.body.outputs:
        if port.data.get("purpose") == "execution_condition":
            inside.follow({port.inner}, rules)
            going = inside.values.get((port.inner, 0))
            conditions.append(None if going is None else inside.filled(going))
    if count != loop.steps or any(one is None or not one.number for one in conditions):
        raise Misfit(f"has {count} steps, or ends on a condition", f"it needs {loop.steps}")


def _together(made: Signal, port: Port, loop: Loop) -> Signal:
    """Return what all steps give, one after another along an axis."""
    axis = made.axis(_integer(port, "axis", 0))
    if made.axes[axis]:
        raise Misfit(f"puts steps together along axis {axis} of {made.axes}")
    if _backwards(port, loop.steps) != loop.reverse:
        # OpenVINO's CPU plugin takes the input in the order of the output, against its standard.
        raise Misfit("takes steps in one order and gives them in the other")
    return _over_time(made, axis, made.axes[:axis] + made.axes[axis + 1 :], loop)


def _last(made: Signal, loop: Loop) -> Signal:
    """Return what the last step gives."""
    return _over_time(made, 0, made.axes, loop).at_step(0, 0 if loop.reverse else -1)


def _over_time(made: Signal, axis: int, others: tuple[str, ...], loop: Loop) -> Signal:
    """Return a signal of all steps, T being this axis among the others."""
    axes = (*others[:axis], "T", *others[axis:])
    return made._replace(axes=axes, extents=made.extents | {"T": loop.steps})
