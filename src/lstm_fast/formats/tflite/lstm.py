"""The LSTMs of a TensorFlow Lite model: what the tensors and options of the operators mean."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...engine import Array
from ..cells import Cell, cell
from ..signals import Misfit, Signal
from .file import Operator
from .graph import Graph

__all__ = ["FUSED", "one_direction", "two_directions"]

FUSED = {0: None, 1: "Relu", 4: "Tanh"}  # after an operator; the others are not to be expressed


def _cell(
    graph: Graph, operator: Operator, first: int, peepholes: int, gains: int | None = None
) -> tuple[Cell, bool]:
    """Return a direction whose tensors begin at some inputs, and whether its gates are coupled."""
    hybrid = graph.is_hybrid(operator)

    def four(place: int) -> list[Array | None]:
        return [graph.array(operator, place + n, hybrid) for n in range(4)]

    w_ih, w_hh, bias = four(first), four(first + 4), four(peepholes + 3)
    w_ch = [graph.array(operator, peepholes + n, hybrid) for n in range(3)]
    w_ln: list[Array | None] = [None] * 4 if gains is None else four(gains)
    coupled = w_ih[0] is None
    for what, tensors in (("weights", w_ih), ("recurrent weights", w_hh), ("biases", bias)):
        if [one is None for one in tensors] != [coupled, False, False, False]:
            raise Misfit(f"{what}: some are left out", "the file is broken")
        if len({one.shape for one in tensors if one is not None}) != 1:
            raise Misfit(f"{what}: have different shapes", "the file is broken")
    there = [one is not None for one in w_ch]
    if any(there) and there != [not coupled, True, True]:
        raise Misfit("peepholes: some are left out", "the file is broken")
    normed = [one is not None for one in w_ln]
    if any(normed) and normed != [not coupled, True, True, True]:
        raise Misfit("gains of layer norm: some are left out", "the file is broken")
    if coupled:
        # TFLite has i = 1 - s(a) where a is that of f; and 1 - s(a) = s(-a), so that
        # weights of i with the other sign, and f = 1 - i, are the same. So it is after a norm,
        # whose gains keep their sign.
        for tensors in (w_ih, w_hh, bias):
            tensors[0] = _negative(tensors[1])
        w_ch[0], w_ln[0] = _negative(w_ch[1]), w_ln[1]
    name = f"{operator.kind} {graph.file.name(operator.outputs[0])}"
    made = cell(
        graph.path,
        name,
        "ifgo",
        weight_ih=_stacked(w_ih),
        weight_hh=_stacked(w_hh),
        bias_ih=_stacked(bias),
        weight_hr=_projection(graph, operator, peepholes + 7, hybrid),
        weight_ch=_stacked(w_ch) if any(there) else None,
        weight_ln=_stacked(w_ln) if any(normed) else None,
    )
    return made, coupled


def _projection(graph: Graph, operator: Operator, place: int, hybrid: bool) -> Array | None:
    weight = graph.array(operator, place, hybrid)
    bias = graph.array(operator, place + 1, hybrid)
    if bias is not None and (weight is None or bias.any()):
        raise Misfit("a bias of the projection")
    return weight


def _check_states(graph: Graph, operator: Operator, places: range) -> None:
    numbers = [operator.input(place) for place in places]
    if len({*numbers}) < len(numbers):  # it would write both into one memory
        raise Misfit("two states are one tensor", "the interpreter would mix them up")
    for place, number in zip(places, numbers, strict=True):
        if number in graph.zeros:
            continue
        if number < 0 or number in graph.values or not graph.file.is_zero(number):
            raise Misfit(f"the state in input {place} does not begin as zeros")


def _options(operator: Operator, coupled: bool, projected: bool) -> dict[str, Any]:
    """Return options of an LSTM, from fields that both operators have."""
    function = operator.option(0)
    if function not in FUSED:
        raise Misfit(f"activation function {function}")
    clip, clip_projection = operator.option(1, "f"), operator.option(2, "f")
    if projected and clip_projection > 0:
        raise Misfit(f"a clipped projection ({clip_projection})")
    options: dict[str, Any] = {"coupled": coupled}
    if clip > 0:
        options["cell_clip"] = clip
    if function != 4:
        candidate = FUSED[function] or "Affine"  # which is x by default
        options["activations"] = ("Sigmoid", candidate, candidate)
    return options


def one_direction(graph: Graph, operator: Operator) -> Signal:
    x = graph.signal(operator)
    if operator.option(5, "?", False):
        raise Misfit("diagonal recurrent weights")
    _check_states(graph, operator, range(18, 20))
    made, coupled = _cell(graph, operator, 1, 9, 20)
    return x.recurrent(
        [made],
        time_major=operator.option(3, "?", False),
        **_options(operator, coupled, made.weight_hr is not None),
    )


def two_directions(graph: Graph, operator: Operator) -> Signal:
    x = graph.signal(operator)
    if any(n >= 0 for n in operator.inputs[39:48]):
        raise Misfit("an auxiliary input")
    _check_states(graph, operator, range(35, 39))
    if not operator.option(3, "?", False):
        raise Misfit("has two outputs", "convert the model with merge_outputs")
    both = [_cell(graph, operator, first, first + 8) for first in (1, 18)]
    if both[0][1] != both[1][1]:
        raise Misfit("one direction has coupled gates")
    return x.recurrent(
        [made for made, _ in both],
        time_major=operator.option(4, "?", True),
        **_options(operator, both[0][1], both[0][0].weight_hr is not None),
    )


def _negative(array: Array | None) -> Array | None:
    return None if array is None else -array


def _stacked(arrays: list[Array | None]) -> Array:
    return np.concatenate([one for one in arrays if one is not None])
