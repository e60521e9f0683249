"""RTNeural's JSON: layers with their weights, or a `state_dict` of PyTorch as lists."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from .. import nn
from ..engine import Array
from ..network import storage
from ..network.block import Block
from .cells import cell, chain, linear, lstm
from .reports import Found, Verify, refusal, verified

__all__ = ["from_rtneural", "inspect"]

# What Python makes of a file takes at most this much beside it.
MOST = 64 * 2**20
MOST_LAYERS = 1000
ACTIVATIONS = {"tanh": "Tanh", "relu": "Relu", "sigmoid": "Sigmoid", "elu": "Elu"}
# What some programs do with input and output around the layers.
AROUND = ("skip", "in_skip", "in_gain", "out_gain")
DENSE = ("dense", "time-distributed-dense")
OF_LSTM = re.compile(r"(?:(.*)\.)?((?:weight|bias)_(?:ih|hh))_l(\d{1,4})")
OF_LINEAR = re.compile(r"(?:(.*)\.)?(weight|bias)")


def from_rtneural(
    path: str | os.PathLike[str], *, batch_first: bool = True, verify: Verify = None
) -> Block:
    """Read a model of RTNeural.

    Two kinds of file: the layers that RTNeural's Python module writes of a Keras model ("lstm",
    "dense", "time-distributed-dense", "activation", "prelu" with one slope), and a `state_dict` of
    PyTorch as lists, alone or beside GuitarML's "model_data". A `state_dict` says nothing of
    functions between its layers: it is read as its LSTMs, in the order of the file, and at most one
    linear layer at the end.

    Parameters
    ----------
    path : path-like
        Of the JSON file.
    batch_first : bool
        x is (B, T, I) instead of (T, B, I).
    verify : (x, y), optional
        An input and what the model gives for it, which is compared.

    Returns
    -------
    LSTM or Sequential
        A `Sequential` where there is more than one LSTM.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no such JSON, contradicts itself, or has a layer that there is no block for.

    Examples
    --------
    >>> model = from_rtneural("amplifier.json")  # doctest: +SKIP
    >>> y, state = model(np.zeros((1, 480, 1), np.float32))  # doctest: +SKIP
    """
    data = _read(path)
    _check_around(path, data)
    if "layers" in data:
        parts = _layers(path, data, batch_first)
    else:
        _check_guitar(path, data)
        parts = _of_state_dict(path, _state_dict(path, data), batch_first)
    return verified(chain(path, parts), verify, lambda: _no_runtime(path))


def inspect(path: str | os.PathLike[str]) -> list[Found]:
    """Return what is in a file, layer by layer, also where `from_rtneural` refuses it.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, or if it is no JSON.
    """
    data = _read(path)
    if "layers" in data:
        layers = data["layers"] if isinstance(data["layers"], list) else []
        return [_found(number, layer) for number, layer in enumerate(layers)]
    named = data.get("state_dict", data)
    groups: dict[tuple[str, str], list[Array]] = {}
    for key, value in named.items() if isinstance(named, dict) else ():
        match = OF_LSTM.fullmatch(key)
        group = (match[1] or "lstm", "LSTM") if match else (key.rpartition(".")[0], "Linear")
        groups.setdefault(group, []).extend(_lenient(value))
    return [
        Found(name, kind, _sizes(arrays, 1), "", "float32", sum(a.size for a in arrays))
        for (name, kind), arrays in groups.items()
        if arrays
    ]


# ---- the file


def _read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the object in a JSON file."""
    storage.existing(path)
    if Path(path).stat().st_size > MOST:
        raise refusal(path, "file", "has more than 64 MiB", "models of RTNeural are smaller")
    text = Path(path).read_bytes()
    # Python's objects: 72 bytes a list or dict, 40 a number.
    needed = 72 * (text.count(b"[") + text.count(b"{")) + 40 * text.count(b",")
    if needed > MOST:
        raise refusal(path, "file", "has millions of elements", "models of RTNeural are smaller")
    try:
        data = json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise refusal(path, "JSON", error, "it cannot be read") from None
    if not isinstance(data, dict):
        raise refusal(path, "JSON", f"holds a {type(data).__name__}", "an object is needed")
    return data


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _numbers(source: Any, what: str, value: Any, ndim: int) -> Array:
    """Return the array in nested lists."""
    try:
        with np.errstate(over="ignore"):
            array = np.asarray(value, np.float32 if _only_numbers(value) else object)
    except (ValueError, TypeError, OverflowError, RecursionError):
        array = np.empty(0, object)
    if array.dtype != np.float32 or array.ndim != ndim or not array.size:
        raise refusal(source, what, "is no array", f"lists of numbers, {ndim} deep, are needed")
    if not np.isfinite(array).all():
        raise refusal(source, what, "is too large for float32", "finite numbers are needed")
    return array


def _only_numbers(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_only_numbers, value))
    return isinstance(value, int | float) and not isinstance(value, bool)


# ---- layers, as Keras has them


def _layers(source: Any, data: dict[str, Any], batch_first: bool) -> list[tuple[str, Block]]:
    columns = _last(source, "in_shape", data.get("in_shape"))
    layers = data["layers"]
    if not isinstance(layers, list) or not 0 < len(layers) <= MOST_LAYERS:
        raise refusal(source, "layers", "is no list of layers", "from 1 to 1000 are needed")
    parts: list[tuple[str, Block]] = []
    for number, layer in enumerate(layers):
        if not isinstance(layer, dict) or not isinstance(layer.get("type"), str):
            raise refusal(source, f"layer {number}", "has no type", "it cannot be read")
        name = f"{layer['type']}_{number}".replace("-", "_")
        size = _last(source, f"{name} shape", layer.get("shape"))
        parts += _layer(source, name, layer, columns, size, batch_first)
        columns = size
    if not parts:
        raise refusal(source, "layers", "do nothing", "there is no model")
    return parts


def _check_around(source: Any, data: dict[str, Any]) -> None:
    """Raise where a program has to add the input to the output, or to scale them."""
    for key in AROUND:
        if data.get(key) not in (None, 0, False):
            found = f"is {data[key]!r:.40}: the output is not that of the layers alone"
            raise refusal(source, key, found, "leave it out of the file, and do it in the program")


def _last(source: Any, what: str, shape: Any) -> int:
    """Return the last size of a shape."""
    last = shape[-1] if isinstance(shape, list) and shape else None
    if not isinstance(last, int) or isinstance(last, bool) or last < 1:
        raise refusal(source, what, "does not end in a size", "as [null, null, 8] does")
    return last


def _layer(
    source: Any, name: str, layer: dict[str, Any], columns: int, size: int, batch_first: bool
) -> list[tuple[str, Block]]:
    kind, function = layer["type"], layer.get("activation", "")
    weights = layer.get("weights", [])
    if not isinstance(weights, list):
        raise refusal(source, f"{name} weights", "is no list", "it cannot be read")
    if not isinstance(function, str | None):
        raise refusal(source, f"{name} activation", "is no name", "it cannot be read")
    if kind == "lstm":
        _check_functions(source, name, layer)
        return [(name, _lstm(source, name, weights, columns, size, batch_first))]
    parts: list[tuple[str, Block]] = []
    if kind in DENSE:
        parts.append((name, _dense(source, name, weights, columns, size, batch_first)))
    elif kind not in ("activation", "prelu"):
        raise refusal(source, name, f"is a layer {kind!r}", "there is no such block")
    elif size != columns:
        raise refusal(source, f"{name} shape", f"has {size} columns", f"{columns} come in")
    elif kind == "prelu":
        slopes = _numbers(source, f"{name} slopes", _flat(weights), 1)
        if len({*slopes.tolist()}) != 1:
            raise refusal(source, name, "has a slope for every column", "there is no such block")
        slope = ("LeakyRelu", float(slopes[0]))
        return [(name, nn.Activation(slope, batch_first=batch_first))]
    if function == "softmax":
        parts.append((f"{name}_softmax", nn.Softmax(batch_first=batch_first)))
    elif function in ACTIVATIONS:
        block = nn.Activation(ACTIVATIONS[function], batch_first=batch_first)
        parts.append((f"{name}_{function}", block))
    elif function not in ("", "linear", None):
        raise refusal(source, f"{name} activation", repr(function), "there is no such block")
    return parts


def _flat(value: Any) -> list[Any]:
    """Return the numbers of lists in lists: slopes have axes of length 1 around them."""
    while isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        value = value[0]
    return value if isinstance(value, list) else []


def _check_functions(source: Any, name: str, layer: dict[str, Any]) -> None:
    """Raise where a Keras layer had other functions than RTNeural computes."""
    if layer.get("go_backwards"):
        raise refusal(source, f"{name} go_backwards", "is true", "RTNeural has no such layer")
    for key, known in (("activation", "tanh"), ("recurrent_activation", "sigmoid")):
        if layer.get(key) not in (None, "", known):
            raise refusal(source, f"{name} {key}", repr(layer[key]), f"RTNeural has {known}")


def _lstm(
    source: Any, name: str, weights: list[Any], columns: int, size: int, batch_first: bool
) -> Block:
    if len(weights) not in (2, 3):
        raise refusal(
            source, f"{name} weights", f"{len(weights)} arrays", "kernel, recurrent kernel, bias"
        )
    kernel = _shaped(source, f"{name} kernel", weights[0], (columns, 4 * size))
    recurrent = _shaped(source, f"{name} recurrent kernel", weights[1], (size, 4 * size))
    bias = _shaped(source, f"{name} bias", weights[2], (4 * size,)) if len(weights) == 3 else None
    one = cell(source, name, "ifgo", weight_ih=kernel.T, weight_hh=recurrent.T, bias_ih=bias)
    return lstm(source, name, [[one]], batch_first=batch_first)


def _dense(
    source: Any, name: str, weights: list[Any], columns: int, size: int, batch_first: bool
) -> Block:
    if len(weights) not in (1, 2):
        raise refusal(source, f"{name} weights", f"{len(weights)} arrays", "kernel and bias")
    kernel = _shaped(source, f"{name} kernel", weights[0], (columns, size))
    bias = _shaped(source, f"{name} bias", weights[1], (size,)) if len(weights) == 2 else None
    return linear(kernel.T, bias, batch_first=batch_first)


def _shaped(source: Any, what: str, value: Any, shape: tuple[int, ...]) -> Array:
    array = _numbers(source, what, value, len(shape))
    if array.shape != shape:
        raise refusal(
            source, what, f"has shape {array.shape}", f"the shapes of the layers say {shape}"
        )
    return array


# ---- a state_dict


def _check_guitar(source: Any, data: dict[str, Any]) -> None:
    """Raise for what GuitarML's "model_data" says and the weights do not show."""
    about = data.get("model_data")
    if about is None:
        return
    if not isinstance(about, dict):
        raise refusal(source, "model_data", "is no object", "it cannot be read")
    skip = about.get("skip", 1)  # as the program that trains such models takes it to be
    if skip:
        raise refusal(
            source,
            "model_data skip",
            skip if "skip" in about else f"is not there, which means {skip}",
            f"the model adds x[..., :{skip}] to its output, which no block does: set it to 0, "
            "and add that to y yourself",
        )
    if about.get("unit_type", "LSTM") != "LSTM":
        raise refusal(source, "model_data unit_type", about["unit_type"], "only LSTMs are read")
    if about.get("model", "SimpleRNN") != "SimpleRNN":
        raise refusal(source, "model_data model", about["model"], "only SimpleRNN is read")


def _state_dict(source: Any, data: dict[str, Any]) -> dict[str, Any]:
    named = data.get("state_dict", data)
    if not isinstance(named, dict) or not any(map(OF_LSTM.fullmatch, named)):
        raise refusal(
            source,
            "JSON",
            "has neither layers nor an LSTM's weight_ih_l0",
            "it is no model of RTNeural",
        )
    return named


def _of_state_dict(
    source: Any, named: dict[str, Any], batch_first: bool
) -> list[tuple[str, Block]]:
    lstms: dict[str, dict[int, dict[str, Array]]] = {}
    heads: dict[str, dict[str, Array]] = {}
    for key, value in named.items():
        if match := OF_LSTM.fullmatch(key):
            of_layer = lstms.setdefault(match[1] or "lstm", {}).setdefault(int(match[3]), {})
            of_layer[match[2]] = _numbers(source, key, value, 2 if "weight" in key else 1)
        elif match := OF_LINEAR.fullmatch(key):
            ndim = 2 if match[2] == "weight" else 1
            heads.setdefault(match[1] or "linear", {})[match[2]] = _numbers(
                source, key, value, ndim
            )
        else:
            raise refusal(source, key, "is of no LSTM and no linear layer", "it cannot be read")
        if heads and match.re is OF_LSTM:
            raise refusal(
                source, key, "comes after a linear layer", "what is between them is not in the file"
            )
    if len(heads) > 1:
        raise refusal(
            source, str([*heads]), "linear layers", "what is between them is not in the file"
        )
    parts: list[tuple[str, Block]] = []
    for name, layers in lstms.items():
        if [*layers] != [*range(len(layers))]:
            raise refusal(source, name, f"has layers {[*layers]}", "they count from 0")
        rows = []
        for number, of_layer in layers.items():
            if "weight_ih" not in of_layer or "weight_hh" not in of_layer or len(of_layer) % 2:
                raise refusal(
                    source, f"{name} layer {number}", f"has {[*of_layer]}", "it is not complete"
                )
            rows.append([cell(source, name, "ifgo", **of_layer)])
        parts.append((name, lstm(source, name, rows, batch_first=batch_first)))
    for name, values in heads.items():
        weight, bias = values.get("weight"), values.get("bias")
        if weight is None or (bias is not None and bias.shape != weight.shape[:1]):
            raise refusal(source, name, "has weight and bias of two sizes", "it cannot be read")
        parts.append((name, linear(weight, bias, batch_first=batch_first)))
    _check_sizes(source, parts)
    return parts


def _check_sizes(source: Any, parts: list[tuple[str, Block]]) -> None:
    """Raise where a block does not take the columns that come before it."""
    columns = None
    for name, block in parts:
        takes: int = block.input_size  # type: ignore[attr-defined]
        if columns not in (None, takes):
            raise refusal(source, name, f"takes {takes} columns", f"{columns} come in")
        columns = block._shape_after(("B", "T", takes))[-1]


# ---- the rest


def _lenient(value: Any) -> list[Array]:
    """Return the array in nested lists, or nothing where there is none."""
    try:
        with np.errstate(over="ignore"):
            return [np.asarray(value, np.float32)] if _only_numbers(value) else []
    except (ValueError, TypeError, OverflowError, RecursionError):
        return []


def _sizes(arrays: list[Array], of_input: int) -> str:
    matrices = [a.shape for a in arrays if a.ndim == 2]
    if not matrices:
        return ""
    outputs = matrices[-1][1] if len(matrices) > 1 else matrices[0][1 - of_input]
    return f"{matrices[0][of_input]} -> {outputs}"


def _found(number: int, layer: Any) -> Found:
    if not isinstance(layer, dict):
        return Found(str(number), "unknown", "", "", "", 0)
    kind = str(layer.get("type"))
    weights = layer.get("weights")
    arrays = [a for w in (weights if isinstance(weights, list) else []) for a in _lenient(w)]
    block = "LSTM" if kind == "lstm" else "Linear" if kind in DENSE else kind
    sizes = _sizes(arrays[:1] if block == "Linear" else arrays, 0)
    if block == "LSTM" and len(arrays) > 1 and arrays[1].ndim == 2:
        sizes = f"{arrays[0].shape[0]} -> {arrays[1].shape[0]}"
    function = layer.get("activation")
    options = f"activation {function}" if function else ""
    return Found(f"{kind}_{number}", block, sizes, options, "float32", sum(a.size for a in arrays))


def _no_runtime(source: Any) -> tuple[Any, Any]:
    raise refusal(source, "verify=True", "RTNeural is a C++ library", "give (x, y) instead")
