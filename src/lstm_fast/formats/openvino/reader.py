"""Models of OpenVINO, without it."""

from __future__ import annotations

import math
import os
from importlib import import_module
from typing import Any

import numpy as np

from ...network.block import Block
from ..graphs import model
from ..reports import Found, Verify, refusal, verified
from .file import File, Layer, extents
from .graph import Graph
from .operators import RULES

__all__ = ["from_openvino", "inspect"]


def from_openvino(path: str | os.PathLike[str], *, verify: Verify = None) -> Block:
    """Read a model of OpenVINO: IR version 10 or 11.

    Its LSTMs are LSTMSequence layers in any direction, with zero initial states and whole
    sequences. Around them are read: MatMul and Add, embeddings (Gather), Relu, Sigmoid, Tanh, Elu,
    SoftPlus, SoftSign, PRelu with one slope, SoftMax, the last step, a mean or maximum over time,
    and what moves axes. Constants are f32, f64, f16 or bf16. Final states that the model returns
    beside its output are those that the block returns.

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
        If it is broken, has no LSTMSequence, or has a layer that there is no block for.

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
    file = File(path)
    return [_found(file, layer) for layer in file.layers.values() if layer.kind != "Const"]


def _found(file: File, layer: Layer) -> Found:
    constants = [_constant(file, source) for source, _ in layer.inputs]
    shapes = [() if one is None else _shape(one) for one in constants]
    kind, sizes, options = layer.kind, "", ""
    if kind == "LSTMSequence" and len(shapes) > 5:
        constants, shapes = constants[4:], shapes[4:]  # weights and bias
        kind, options = "LSTM", layer.text("direction")
        sizes = " -> ".join(str(shape[-1]) for shape in shapes[:2] if shape)
    types = {one.text("element_type") for one in constants if one is not None}
    count = sum(math.prod(shape) for shape in shapes if shape)
    return Found(layer.name, kind, sizes, options, ", ".join(sorted(types)), count)


def _constant(file: File, number: str) -> Layer | None:
    """Return a constant, also behind a Convert."""
    layer = file.layers[number]
    if layer.kind == "Convert" and layer.inputs:
        layer = file.layers[layer.inputs[0][0]]
    return layer if layer.kind == "Const" else None


def _shape(layer: Layer) -> tuple[int, ...]:
    try:
        return tuple(max(n, 0) for n in extents(layer.text("shape")))
    except ValueError:
        return ()


def _check_kind(file: File) -> None:
    """Raise where a file has its LSTM in another form, or none."""
    kinds = {layer.kind for layer in file.layers.values()}
    if "LSTMSequence" in kinds:
        return
    loops = kinds & {"TensorIterator", "Loop", "If", "LSTMCell"}
    if loops:
        raise refusal(
            file.path,
            sorted(loops)[0],
            "the LSTM is a loop over its cells",
            "convert the model again, so that it has an LSTMSequence",
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
    (given,) = [layer for layer in file.layers.values() if layer.kind == "Parameter"]
    first: Any = made[0] if isinstance(made, Sequential) else made
    usual = (2, 7, getattr(first, "input_size", 1))  # where the file does not say
    shape = [n if n > 0 else m for n, m in zip(extents(given.text("shape")), usual, strict=False)]
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    if len(shape) == 2:
        x = np.zeros(shape, np.int64)  # a number that every table has
    core = openvino.Core()
    exact = {"INFERENCE_PRECISION_HINT": "f32"}  # some CPUs would round to bfloat16
    compiled = core.compile_model(core.read_model(os.fspath(file.path)), "CPU", exact)
    number = file.results.index(Graph(file, made.batch_first).output)
    outputs = [*compiled([x]).values()]
    return x, outputs[number].reshape(made(x)[0].shape)
