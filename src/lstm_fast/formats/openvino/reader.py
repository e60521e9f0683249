"""Models of OpenVINO, without it."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np

from ...network.block import Block
from ..graphs import model
from ..reports import Found, Verify, refusal, verified
from .file import LOOPS, File, Layer, extents
from .graph import Graph
from .operators import RULES

__all__ = ["from_openvino", "inspect"]

FOLDED = ("Convert", "Subtract", "Multiply", "FakeQuantize")


def from_openvino(path: str | os.PathLike[str], *, verify: Verify = None) -> Block:
    """Read a model of OpenVINO: IR version 10 or 11.

    Its LSTMs are LSTMSequence layers in any direction, or LSTMCells in a TensorIterator or Loop
    over time, for whole sequences. Each call begins with zero states: what are inputs of the model,
    or variables that it keeps from call to call (ReadValue, Assign), is the argument `state` here.
    Around them are read: MatMul and Add, Multiply of batch norm, embeddings (Gather), Relu,
    Sigmoid, Tanh, Elu, SoftPlus, SoftSign, PRelu with one slope, SoftMax, the last step, a mean or
    maximum over time, and what moves axes. Constants are f32, f64, f16, bf16, or of 8 bits with a
    scale and a zero point; weights behind FakeQuantize are rounded as it says. Final states that
    the model returns beside its output are those that the block returns.

    Parameters
    ----------
    path : path-like
        Of the .xml file; the constants are in the .bin file beside it.
    verify : (x, y) or True, optional
        Compare with this output, or with OpenVINO's, which is run (`pip install openvino`).

    Returns
    -------
    LSTM or Sequential
        With ``batch_first=True``, unless the model turns its input around.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is broken, has no LSTM, or has a layer that there is no block for.

    Examples
    --------
    >>> model = from_openvino("tagger.xml")  # doctest: +SKIP
    >>> y, state = model(np.zeros((1, 20, 64), np.float32))  # doctest: +SKIP
    """
    file = File(path)
    _check_kind(file)
    made = model(path, "Result", lambda batch_first: Graph(file, batch_first).run(RULES))
    return verified(made, verify, lambda: _run(file, made))


def inspect(path: str | os.PathLike[str]) -> list[Found]:
    """Return the layers of a file but its constants, its LSTMs with their sizes.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, or if it is none of OpenVINO.
    """
    file, found = File(path), []
    for layer in file.layers.values():
        if layer.kind != "Const":
            found.append(_found(file.layers, layer))
        if layer.body is not None:
            inside = layer.body.layers
            cells = [one for one in inside.values() if one.kind == "LSTMCell"]
            found += [_found(inside, one) for one in cells]
    return found


def _found(layers: Mapping[str, Layer], layer: Layer) -> Found:
    constants = [_constant(layers, source) for source, _ in layer.inputs]
    shapes = [() if one is None else _shape(one) for one in constants]
    kind, sizes, options = layer.kind, "", ""
    first = {"LSTMSequence": 4, "LSTMCell": 3}.get(kind, len(shapes))
    if len(shapes) > first + 1:
        constants, shapes = constants[first:], shapes[first:]  # weights and bias
        kind, options = "LSTM", layer.text("direction", "in a loop")
        sizes = " -> ".join(str(shape[-1]) for shape in shapes[:2] if shape)
    types = {one.text("element_type") for one in constants if one is not None}
    count = sum(math.prod(shape) for shape in shapes if shape)
    return Found(layer.name, kind, sizes, options, ", ".join(sorted(types)), count)


def _constant(layers: Mapping[str, Layer], number: str) -> Layer | None:
    """Return a constant, also where something is computed from it."""
    layer = layers[number]
    while layer.kind in FOLDED and layer.inputs:
        layer = layers[layer.inputs[0][0]]
    return layer if layer.kind == "Const" else None


def _shape(layer: Layer) -> tuple[int, ...]:
    try:
        return tuple(max(n, 0) for n in extents(layer.text("shape")))
    except ValueError:
        return ()


def _check_kind(file: File) -> None:
    """Raise where a file has no LSTM, or one in another form."""
    kinds = {layer.kind for layer in file.layers.values()}
    bodies = [layer.body for layer in file.layers.values() if layer.body is not None]
    inside = {layer.kind for body in bodies for layer in body.layers.values()}
    if "LSTMSequence" in kinds or "LSTMCell" in inside:
        return
    for kind in ("LSTMCell", *LOOPS, "If"):
        if kind in kinds:
            raise refusal(
                file.path,
                kind,
                "there is no LSTMSequence, and no loop over time with an LSTMCell in it",
                "convert the model again, so that it has one of them",
            )
    raise refusal(file.path, "layers", f"no LSTM among {sorted(kinds)}", "LSTMSequence is read")


def _run(file: File, made: Block) -> tuple[Any, Any]:
    """Return an input and what OpenVINO gives for it."""
    from ...nn import Sequential

    try:
        openvino = import_module("openvino")
    except ImportError:
        raise ImportError(
            "verify=True runs OpenVINO: pip install 'lstm_fast[openvino]', or give (x, y)"
        ) from None
    graph = Graph(file, made.batch_first)
    first: Any = made[0] if isinstance(made, Sequential) else made
    shape = _filled(graph.input, (2, 7, getattr(first, "input_size", 1)))
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    if len(shape) == 2:
        x = np.zeros(shape, np.int64)  # a number that every table has
    rows = shape[0 if made.batch_first else 1]
    given = []
    for layer in file.parameters:
        if layer is graph.input:
            given.append(x)
        else:
            of_state = extents(layer.text("shape"))
            if of_state.count(-1) > 1:
                raise refusal(
                    file.path, layer.name, "has a shape that the file does not say", "give (x, y)"
                )
            given.append(np.zeros([n if n > 0 else rows for n in of_state], np.float32))
    core = openvino.Core()
    exact = {"INFERENCE_PRECISION_HINT": "f32"}  # some CPUs would round to bfloat16
    rounding = "DYNAMIC_QUANTIZATION_GROUP_SIZE"  # of rows, before weights of 8 bits
    if rounding in core.get_property("CPU", "SUPPORTED_PROPERTIES"):
        exact[rounding] = "0"
    compiled = core.compile_model(core.read_model(os.fspath(file.path)), "CPU", exact)
    outputs = [*compiled(given).values()]
    return x, outputs[file.results.index(graph.output)].reshape(made(x)[0].shape)


def _filled(layer: Layer, usual: tuple[int, ...]) -> list[int]:
    """Return the shape of the input, with the usual extents where the file does not say them."""
    found = extents(layer.text("shape"))
    return [n if n > 0 else m for n, m in zip(found, usual, strict=False)]
