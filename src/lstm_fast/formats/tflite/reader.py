"""Models of TensorFlow Lite (LiteRT), without it."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

import numpy as np

from ...network.block import Block
from ..graphs import model
from ..reports import Found, Verify, refusal, verified
from .file import File
from .graph import Graph
from .operators import RULES

__all__ = ["from_tflite", "inspect"]

LSTMS = ("UNIDIRECTIONAL_SEQUENCE_LSTM", "BIDIRECTIONAL_SEQUENCE_LSTM")
CONTROL = ("WHILE", "IF", "CALL", "CALL_ONCE")


def from_tflite(path: str | os.PathLike[str], *, verify: Verify = None) -> Block:
    """Read a model of TensorFlow Lite.

    Its LSTMs are operators UNIDIRECTIONAL_SEQUENCE_LSTM and BIDIRECTIONAL_SEQUENCE_LSTM: float32,
    or with quantised weights (hybrid, or all of it int8), which are multiplied by their scales: the
    network is that of the numbers, without the rounding of integer arithmetic, and takes and gives
    floating-point numbers. Peepholes, projections, clipped cells, coupled gates and layer norm are
    read. Around them are read: FULLY_CONNECTED and what is fused with it, MUL and ADD of batch
    norm, embeddings (GATHER), activation functions, SOFTMAX, the last step, a mean or maximum over
    time, and what moves axes.

    Each call begins with zero states. The interpreter keeps the states from call to call until
    `reset_all_variables`: here `stream` or the argument `state` do that.

    Parameters
    ----------
    path : path-like
        Of the .tflite file.
    verify : (x, y) or True, optional
        Compare with this output, or with LiteRT's, which is run (`pip install ai-edge-litert`;
        float models only).

    Returns
    -------
    LSTM or Sequential
        With ``batch_first=True``, unless the file has time first.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is broken, has no LSTM (as where it was unrolled into FULLY_CONNECTED), or has an
        operator that there is no block for.

    Examples
    --------
    >>> model = from_tflite("digits.tflite")  # doctest: +SKIP
    >>> y, state = model(np.zeros((1, 28, 28), np.float32))  # doctest: +SKIP
    """
    file = File(path)
    _check_kind(file)
    name = file.name(file.outputs[0]) if file.outputs else "graph"
    made = model(path, name, lambda batch_first: Graph(file, batch_first).run(RULES))
    return verified(made, verify, lambda: _run(file, made))


def inspect(path: str | os.PathLike[str]) -> list[Found]:
    """Return the operators of a file, its LSTMs with their sizes.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, or if it is none of TensorFlow Lite.
    """
    file = File(path)
    found = []
    for number, operator in enumerate(file.operators):
        name = file.name(operator.outputs[0]) if operator.outputs else f"operator {number}"
        constants = [n for n in operator.inputs if n >= 0 and _countable(file, n)]
        count = sum(int(np.prod(file.shape(n), dtype=np.int64)) for n in constants)
        kind, sizes, options, dtype = operator.kind, "", "", ""
        if kind in LSTMS and len(operator.inputs) > 8:
            w_ih, w_hh = (file.shape(operator.inputs[n]) for n in (2, 6))
            sizes = f"{w_ih[-1:]} -> {w_hh[-1:]}".replace("(", "").replace(",)", "")
            dtype = file.dtype(operator.inputs[2])
            options = "bidirectional" if kind == LSTMS[1] else ""
            kind = "LSTM"
        elif kind == "FULLY_CONNECTED" and len(operator.inputs) > 1:
            shape, dtype = file.shape(operator.inputs[1]), file.dtype(operator.inputs[1])
            sizes = " -> ".join(map(str, shape[::-1]))
            kind = "Linear"
        found.append(Found(name, kind, sizes, options, dtype, count))
    return found


def _countable(file: File, number: int) -> bool:
    try:
        return file.is_constant(number)
    except ValueError:
        return False


def _check_kind(file: File) -> None:
    """Raise where a file has its LSTM in another form, or none."""
    kinds = {operator.kind for operator in file.operators}
    if control := [kind for kind in CONTROL if kind in kinds]:
        raise refusal(
            file.path,
            control[0],
            "a loop or a call of another graph",
            "convert the model again so that its LSTM is one operator, or read the file that it "
            "was converted from",
        )
    if kinds & {*LSTMS}:
        return
    steps = ["LSTM"] if "LSTM" in kinds else ["FULLY_CONNECTED", "LOGISTIC", "TANH", "MUL"]
    if {*steps} <= kinds:
        raise refusal(
            file.path,
            "operators",
            f"the LSTM was unrolled into the {', '.join(steps)} of each step",
            "read the Keras or ONNX file of this model instead",
        )
    raise refusal(
        file.path, "operators", f"there is no LSTM among {sorted(kinds)}", f"{LSTMS} are read"
    )


def _run(file: File, made: Block) -> tuple[Any, Any]:
    """Return an input and what LiteRT gives for it."""
    weights = {file.dtype(n) for operator in file.operators for n in operator.inputs if n >= 0}
    if weights & {"int8", "uint8", "int16"}:
        raise refusal(
            file.path,
            "verify=True",
            "the file is quantised",
            "its rounding is not ours: give (x, y)",
        )
    try:
        interpreter_of = import_module("ai_edge_litert.interpreter").Interpreter
    except ImportError:
        raise ImportError(
            "verify=True runs LiteRT: pip install ai-edge-litert, or give (x, y)"
        ) from None
    interpreter = interpreter_of(os.fspath(file.path))
    interpreter.allocate_tensors()
    given, returned = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    rng = np.random.default_rng(0)
    x = rng.standard_normal(given["shape"]).astype(np.float32)
    if len(given["shape"]) == 2:
        x = np.zeros(given["shape"], np.int64)  # a number that every table has
    interpreter.set_tensor(given["index"], x.astype(given["dtype"]))
    interpreter.invoke()
    y = interpreter.get_tensor(returned["index"])
    return x, y.reshape(made(x)[0].shape)
