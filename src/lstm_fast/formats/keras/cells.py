"""One direction of an LSTM of Keras, and Keras's functions, in our terms."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np

from ...engine import Array
from .. import cells
from ..reports import refusal
from .config import Settings

__all__ = [
    "OF_LAYERS",
    "SOFTMAX",
    "Direction",
    "direction",
    "function",
    "function_of_layer",
    "stacked",
]

PLAIN = ("Sigmoid", "Tanh", "Tanh")
LINEAR = ("Affine", 1.0, 0.0)
SOFTMAX = "softmax"
# Keras's names, and the same function here; hard_sigmoid depends on the version.
FUNCTIONS: dict[str | None, Any] = {
    None: LINEAR,
    "linear": LINEAR,
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "relu": "Relu",
    "elu": "Elu",
    "softsign": "Softsign",
    "softplus": "Softplus",
    "leaky_relu": ("LeakyRelu", 0.2),
    SOFTMAX: SOFTMAX,
}
OF_LAYERS = ("ReLU", "LeakyReLU", "ELU", "ThresholdedReLU", "Softmax")


class Direction(NamedTuple):
    """One LSTM of Keras.

    Attributes
    ----------
    cell : Cell
    options : dict
        Arguments of `LSTM`, where they are not as usual.
    sequences : bool
        Whether it returns the outputs of all steps.
    reverse : bool
    """

    cell: cells.Cell
    options: dict[str, Any]
    sequences: bool
    reverse: bool


def stacked(
    settings: Settings, arrays: list[Array], names: list[str]
) -> list[tuple[Settings, list[Array], list[str]]]:
    """Return what `direction` takes, for each cell of an RNN with StackedRNNCells, or once."""
    kind, inner = settings.layer("cell") if "cell" in settings.values else ("", settings)
    if kind != "StackedRNNCells":
        return [(settings, arrays, names)]
    entries = inner.value("cells")
    inner.value("reverse_state_order")  # of Keras's list of states
    inner.done()
    if not isinstance(entries, list) or not entries:
        raise inner.wrong("cells", entries, "a list of cells is needed")
    outer = settings.joined(Settings(settings.source, settings.name, {}))
    found, first = [], 0
    for entry in entries:
        own = outer.with_values(cell=entry)
        bias = own.layer("cell")[1].flag("use_bias", default=True)
        part = slice(first, first + (3 if bias else 2))
        found.append((own, arrays[part], names[part]))
        first = part.stop
    if first != len(arrays):
        raise settings.wrong("cell", f"{len(entries)} cells", f"there are {len(arrays)} arrays")
    return found


def direction(settings: Settings, version: Any, arrays: list[Array], names: list[str]) -> Direction:
    """Return one LSTM.

    Parameters
    ----------
    settings : Settings
        Of an LSTM, a CuDNNLSTM, or an RNN with an LSTMCell.
    version : tuple of int, or None
        Of the Keras that wrote the file, where known.
    arrays, names : list
        Its arrays in Keras's order, and their names, or "".

    Raises
    ------
    ValueError
        If there is no such LSTM here, or the arrays do not fit.
    """
    if "cell" in settings.values:
        kind, inner = settings.layer("cell")
        if kind != "LSTMCell":
            raise settings.wrong("cell", kind, "an LSTMCell is needed")
        settings = settings.joined(inner)
    of_gates = ("recurrent_activation", "inner_activation")
    gate = function(settings, version, *of_gates, default="sigmoid")
    other = function(settings, version, "activation", default="tanh")
    if SOFTMAX in (gate, other):
        raise settings.wrong("activation", SOFTMAX, "it is no function of one number")
    options = {
        "activations": (gate, other, other),
        "variational_dropout": settings.number("dropout", "dropout_W", default=0),
        "recurrent_dropout": settings.number("recurrent_dropout", "dropout_U", default=0),
    }
    bias = settings.flag("use_bias", default=True)
    settings.value("time_major", "return_state")  # heeded for the whole model
    given = _gates(settings, arrays, names)
    if (given["bias_ih"] is not None) != bias:
        raise settings.wrong("use_bias", bias, f"there are {len(arrays)} arrays")
    units = given["weight_hh"].shape[1]
    if settings.value("units", "output_dim", default=units) != units:
        raise settings.wrong("units", settings.value("units"), f"the arrays have {units}")
    found = Direction(
        cells.cell(settings.source, f"layer {settings.name}", "ifgo", **given),
        {key: value for key, value in options.items() if value and value != PLAIN},
        settings.flag("return_sequences"),
        settings.flag("go_backwards"),
    )
    settings.done()
    return found


def _gates(settings: Settings, arrays: list[Array], names: list[str]) -> dict[str, Any]:
    """Return weights and biases, rows in the order i, f, g, o."""
    if len(arrays) == 12:
        arrays = _of_each_gate(settings, arrays, names)
    shapes = [array.shape for array in arrays]
    match shapes:
        case [(int(columns), int(rows)), (int(units), int(again)), *bias] if (
            rows == again == 4 * units > 0 and columns > 0
        ):
            pass
        case _:
            raise refusal(
                settings.source,
                f"layer {settings.name}",
                f"has arrays of shapes {shapes}",
                "an LSTM has (I, 4 H), (H, 4 H) and, with a bias, (4 H,)",
            )
    kernel, recurrent = arrays[:2]
    if bias == [(8 * units,)]:  # cuDNN's rows (H, I) of each gate, written into (I, H)
        in_rows = kernel.reshape(columns, 4, units).swapaxes(0, 1).reshape(4 * units, columns)
        of_h = recurrent.reshape(units, 4, units).swapaxes(0, 1).reshape(4 * units, units)
        halves = {"bias_ih": arrays[2][: 4 * units], "bias_hh": arrays[2][4 * units :]}
        return {"weight_ih": in_rows, "weight_hh": of_h, **halves}
    if bias not in ([], [(4 * units,)]):
        raise refusal(
            settings.source, f"layer {settings.name} bias", f"has the shape {bias}", "(4 H,) is due"
        )
    return {
        "weight_ih": kernel.T,
        "weight_hh": recurrent.T,
        "bias_ih": arrays[2] if bias else None,
    }


def _of_each_gate(settings: Settings, arrays: list[Array], names: list[str]) -> list[Array]:
    """Return kernel, recurrent kernel and bias of the twelve arrays of Keras 1."""
    found: dict[str, Array] = {}
    for array, name in zip(arrays, names, strict=True):
        match = re.search(r"_([WUb]_[ifco])(:0)?$", name)
        found[match[1] if match else name] = array
    wanted = [[f"{kind}_{gate}" for gate in "ifco"] for kind in "WUb"]
    if set(found) != {name for three in wanted for name in three}:
        raise refusal(
            settings.source, f"layer {settings.name}", f"has arrays {names}", "W_i to b_o are due"
        )
    joined = []
    for kind in wanted:
        shapes = {found[name].shape for name in kind}
        if len(shapes) > 1 or found[kind[0]].ndim == 0:
            raise refusal(
                settings.source, f"layer {settings.name}", f"{kind} have {shapes}", "damaged"
            )
        joined.append(np.concatenate([found[name] for name in kind], axis=-1))
    return joined


# ---- functions


def function(settings: Settings, version: Any, *keys: str, default: str | None = None) -> Any:
    """Return a function by ONNX's name as `LSTM` takes it, or `SOFTMAX`.

    Parameters
    ----------
    settings : Settings
        Of the layer.
    version : tuple of int, or None
        Of the Keras that wrote the file, where known.
    *keys : str
        What Keras calls the setting.
    default : str, optional
        Where it is absent.
    """
    value = settings.value(*keys, default=default)
    if isinstance(value, dict) and value.get("class_name") in OF_LAYERS:
        kind, inner = settings.layer(*keys)
        made = function_of_layer(kind, inner)
        inner.done()
        return made
    if value == "hard_sigmoid":
        if version is None:
            raise settings.wrong(
                keys[0], value, "it changed with Keras 3, and the file does not say its version"
            )
        return ("HardSigmoid", 0.2, 0.5) if version < (3, 0) else ("HardSigmoid", 1 / 6, 0.5)
    if not isinstance(value, str | None) or value not in FUNCTIONS:
        raise settings.wrong(keys[0], value, "lstm_fast has no such function")
    return FUNCTIONS[value]


def function_of_layer(kind: str, settings: Settings) -> Any:
    """Return the function of one of the layers `OF_LAYERS`, as `function` does.

    The axis of a Softmax is for the caller to check.
    """
    if kind == "Softmax":
        return SOFTMAX
    if kind == "ELU":
        return "Elu", settings.number("alpha", default=1.0)
    if kind == "ThresholdedReLU":
        return "ThresholdedRelu", settings.number("theta", default=1.0)
    if kind == "LeakyReLU":
        return "LeakyRelu", settings.number("negative_slope", "alpha", default=0.3)
    for key in ("max_value", "threshold"):
        value = settings.value(key)
        if value not in (None, 0) or (key, value) == ("max_value", 0):
            raise settings.wrong(key, value, "lstm_fast has no such function")
    slope = settings.number("negative_slope", default=0.0)
    return ("LeakyRelu", slope) if slope else "Relu"
