"""Blocks from the layers of Keras and their arrays."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ... import nn
from ...engine import Array
from ...network.block import Block
from .. import cells
from ..reports import refusal
from .cells import (
    LINEAR,
    OF_LAYERS,
    SOFTMAX,
    Direction,
    direction,
    function,
    function_of_layer,
    stacked,
)
from .config import Layer, Settings

__all__ = ["Builder"]

LSTMS = ("LSTM", "CuDNNLSTM", "RNN")
MERGES = ("concat", "sum", "mul", "ave")
# What computes nothing in inference.
NOTHING = (
    *("InputLayer", "ActivityRegularization", "GaussianNoise", "GaussianDropout"),
    *("AlphaDropout", "SpatialDropout1D"),
)
# Layers of a single step, which may stand in a TimeDistributed.
OF_STEPS = (
    *("Dense", "Activation", "Dropout", "LayerNormalization", "BatchNormalization"),
    *OF_LAYERS,
)


class Given(NamedTuple):
    """A layer: its name, class and settings, its arrays in Keras's order, their names or ""."""

    name: str
    kind: str
    settings: Settings
    arrays: list[Array]
    names: list[str]


class Builder:
    """Makes blocks, one layer after the other.

    Parameters
    ----------
    source : path-like
        For errors.
    version : tuple of int, or None
        Of the Keras that wrote the file, where known.
    dtype : dtype
        Of all blocks.
    batch_first : bool

    Attributes
    ----------
    parts : list of (str, Block)
        What was made.
    """

    def __init__(self, source: Any, version: Any, dtype: Any, batch_first: bool) -> None:
        self._source, self._version = source, version
        self._how: dict[str, Any] = {"batch_first": batch_first, "dtype": np.dtype(dtype)}
        self._axes: int | None = None  # of what was computed so far; None: not known
        self._masked = False
        self.parts: list[tuple[str, Block]] = []
        self._makers: dict[str, Callable[[Given], None]] = {
            **dict.fromkeys(LSTMS, self._lstm),
            "Bidirectional": self._bidirectional,
            **dict.fromkeys(("Dense", "TimeDistributedDense"), self._dense),
            "Embedding": self._embedding,
            "LayerNormalization": self._layer_norm,
            "BatchNormalization": self._batch_norm,
            "Activation": self._activation,
            **dict.fromkeys(OF_LAYERS, self._function_alone),
            "Dropout": self._dropout,
            "GlobalAveragePooling1D": self._pool,
            "GlobalMaxPooling1D": self._pool,
            "Masking": self._masking,
            "Flatten": self._flatten,
            **dict.fromkeys(NOTHING, self._nothing),
        }

    def add(self, layer: Layer, arrays: list[Array], names: list[str]) -> None:
        """Add the blocks of a layer.

        Raises
        ------
        ValueError
            If there are no such blocks.
        """
        kind = layer.kind
        settings = Settings(self._source, layer.name, layer.settings)
        if kind == "TimeDistributed":
            kind, inner = settings.layer("layer")
            settings.done()
            if kind not in OF_STEPS:
                raise self._no_block(layer.name, f"TimeDistributed {kind}")
            settings = inner
        if kind not in self._makers:
            raise self._no_block(layer.name, kind)
        dtype = settings.value("dtype")
        if re.search("int8|int4|float8|gptq|awq|quant", str(dtype).lower()):
            raise settings.wrong("dtype", dtype, "save the model before it is quantised")
        for key in ("batch_input_shape", "batch_shape"):
            shape = settings.value(key)
            self._axes = len(shape) if isinstance(shape, list) else self._axes
        arrays = [array.astype(self._how["dtype"], copy=False) for array in arrays]
        self._makers[kind](Given(layer.name, kind, settings, arrays, names))
        settings.done()

    def _no_block(self, name: str, kind: str) -> ValueError:
        return refusal(
            self._source,
            f"layer {name}",
            f"is a {kind}",
            "lstm_fast has no such block; layers=[...] takes some of the layers, in order",
        )

    # ---- LSTM

    def _lstm(self, given: Given) -> None:
        layers = [
            direction(settings, self._version, arrays, names)
            for settings, arrays, names in stacked(given.settings, given.arrays, given.names)
        ]
        last = layers[-1]
        if last.reverse and last.sequences:
            raise given.settings.wrong(
                "go_backwards", True, "its outputs are in reversed order, which no block has"
            )
        biases = {one.cell.bias_ih is None for one in layers}
        if len(biases) == 1 and all(one.options == last.options for one in layers):
            self._made(given.name, [[one] for one in layers], reverse=last.reverse)
            return
        for number, one in enumerate(layers[:-1]):
            own = [[one._replace(sequences=True)]]
            self._made(f"{given.name}_{number}", own, reverse=last.reverse)
        self._made(f"{given.name}_{len(layers) - 1}", [[last]], reverse=last.reverse)

    def _bidirectional(self, given: Given) -> None:
        settings = given.settings
        merge = settings.one_of("merge_mode", MERGES, f"one of {', '.join(MERGES)} is needed")
        kind, forward = settings.layer("layer")
        kinds = [kind]
        backward = forward.with_values(go_backwards=not forward.flag("go_backwards"))
        if settings.value("backward_layer") is not None:
            kind, backward = settings.layer("backward_layer")
            kinds.append(kind)
        if not set(kinds) <= {*LSTMS}:
            raise self._no_block(given.name, f"Bidirectional {kinds}")
        half = len(given.arrays) // 2
        parts = (slice(half), slice(half, None))
        one, two = (
            direction(of, self._version, given.arrays[part], given.names[part])
            for of, part in zip((forward, backward), parts, strict=True)
        )
        if (one.reverse, two.reverse) != (False, True):
            raise settings.wrong("layer", "go_backwards", "the first one has to run forwards")
        if (one.options, one.sequences) != (two.options, two.sequences):
            raise settings.wrong("backward_layer", two.options, "both directions need the same")
        if one.sequences or merge == "concat":
            self._made(given.name, [[one, two]], merge=merge)
            return
        if merge == "mul":
            raise settings.wrong(
                "merge_mode", merge, "without return_sequences no block computes it"
            )
        self._made(given.name, [[one, two]])
        H = one.cell.weight_hh.shape[1]
        both = np.tile(np.eye(H, dtype=self._how["dtype"]), 2) / (2 if merge == "ave" else 1)
        self._linear(f"{given.name}_{merge}", both)

    def _made(self, name: str, layers: list[list[Direction]], **options: Any) -> None:
        if self._axes not in (None, 3):
            raise refusal(
                self._source, f"layer {name}", f"has an input of {self._axes} axes", "3 are needed"
            )
        first = layers[0][0]
        options |= first.options | {"batch_first": self._how["batch_first"]}
        given = [[one.cell for one in directions] for directions in layers]
        self.parts.append((name, cells.lstm(self._source, name, given, **options)))
        self._axes = 3
        if not first.sequences:
            last = nn.Last(len(layers[0]), first.reverse, **self._how)
            self.parts.append((f"{name}_last", last))
            self._axes = 2

    # ---- others with arrays

    def _dense(self, given: Given) -> None:
        settings = given.settings
        bias = settings.flag("use_bias", "bias", default=True)
        kernel = self._arrays(given, [2, 1] if bias else [2])[0]
        units = kernel.shape[1]
        if settings.value("units", "output_dim", default=units) != units:
            raise settings.wrong("units", settings.value("units"), f"the kernel has {units}")
        self._linear(given.name, kernel.T, given.arrays[-1] if bias else None)
        self._apply(f"{given.name}_activation", function(settings, self._version, "activation"))

    def _embedding(self, given: Given) -> None:
        settings = given.settings
        table = self._arrays(given, [2])[0]
        for key, size in zip(("input_dim", "output_dim"), table.shape, strict=True):
            if settings.value(key, default=size) != size:
                raise settings.wrong(key, settings.value(key), f"the table has {table.shape}")
        settings.value("dropout")  # of Keras 1, in training
        self._masked |= settings.flag("mask_zero")
        self.parts.append((given.name, cells.embedding(table, **self._how)))
        self._axes = None if self._axes is None else self._axes + 1

    def _layer_norm(self, given: Given) -> None:
        settings = given.settings
        self._check_axis(settings)
        if settings.flag("rms_scaling"):
            raise settings.wrong("rms_scaling", True, "lstm_fast has no such block")
        scale, center = (settings.flag(key, default=True) for key in ("scale", "center"))
        if not (scale or center):
            raise settings.wrong("scale", False, "without arrays its size is not known")
        arrays = self._arrays(given, [1] * (scale + center))
        columns = arrays[0].size
        eps = settings.number("epsilon", default=1e-3)
        weight = arrays[0] if scale else np.ones(columns, self._how["dtype"])
        values = {"weight": weight} | ({"bias": arrays[-1]} if center else {})
        self._add(
            given.name,
            lambda: cells.loaded(lambda: nn.LayerNorm(columns, eps, center, **self._how), values),
        )

    def _batch_norm(self, given: Given) -> None:
        settings = given.settings
        self._check_axis(settings)
        scale, center = (settings.flag(key, default=True) for key in ("scale", "center"))
        *own, mean, variance = self._arrays(given, [1] * (scale + center + 2))
        eps = settings.number("epsilon", default=1e-3)
        if len({array.shape for array in given.arrays}) > 1 or not (variance + eps > 0).all():
            raise refusal(
                self._source,
                f"layer {given.name}",
                "has a variance below 0, or sizes differ",
                "damaged",
            )
        gain = (own[0] if scale else 1) / np.sqrt(variance + variance.dtype.type(eps))
        self._linear(given.name, np.diag(gain), (own[-1] if center else 0) - mean * gain)

    def _linear(self, name: str, weight: Array, bias: Array | None = None) -> None:
        self._add(name, lambda: cells.linear(weight, bias, **self._how))

    def _arrays(self, given: Given, axes: list[int]) -> list[Array]:
        """Return the arrays, which need so many axes, and no empty ones."""
        shapes = [array.shape for array in given.arrays]
        if [len(shape) for shape in shapes] != axes or any(0 in shape for shape in shapes):
            raise refusal(
                self._source,
                f"layer {given.name}",
                f"has arrays of shapes {shapes}",
                f"arrays of {axes} axes are needed",
            )
        return given.arrays

    def _add(self, name: str, make: Callable[[], Block]) -> None:
        try:
            self.parts.append((name, make()))
        except ValueError as error:
            raise refusal(self._source, f"layer {name}", error, "damaged") from None

    # ---- others without

    def _activation(self, given: Given) -> None:
        self._arrays(given, [])
        self._apply(given.name, function(given.settings, self._version, "activation"))

    def _function_alone(self, given: Given) -> None:
        self._arrays(given, [])
        if given.kind == "Softmax":
            self._check_axis(given.settings)
        self._apply(given.name, function_of_layer(given.kind, given.settings))

    def _apply(self, name: str, function: Any) -> None:
        if function == SOFTMAX:
            self.parts.append((name, nn.Softmax(**self._how)))
        elif function != LINEAR:
            self.parts.append((name, nn.Activation(function, **self._how)))

    def _dropout(self, given: Given) -> None:
        rate = given.settings.number("rate", "p")
        shape = given.settings.value("noise_shape")
        if shape is None or not any(shape):  # else it differs from ours in training
            self.parts.append((given.name, nn.Dropout(rate, **self._how)))

    def _pool(self, given: Given) -> None:
        settings = given.settings
        settings.one_of("data_format", ("channels_last", None), "channels_last is needed")
        settings.one_of("keepdims", (False, None), "False is needed")
        kind = "mean" if given.kind == "GlobalAveragePooling1D" else "max"
        if self._masked and kind == "max":
            raise refusal(
                self._source,
                f"layer {given.name}",
                "takes the largest value of masked steps, too",
                "lstm_fast has no such block",
            )
        self.parts.append((given.name, nn.Pool(kind, **self._how)))
        self._axes = 2

    def _masking(self, given: Given) -> None:
        given.settings.number("mask_value", default=0.0)
        self._masked = True

    def _flatten(self, given: Given) -> None:
        given.settings.one_of("data_format", ("channels_last", None), "channels_last is needed")
        if self._axes == 2:
            return
        if self._axes != 3 or self._masked or not self._how["batch_first"]:
            raise self._no_block(given.name, "Flatten of masked steps, or of unknown axes")
        self.parts.append((given.name, nn.Flatten(**self._how)))
        self._axes = 2

    def _nothing(self, given: Given) -> None:
        given.settings.values = {}

    def _check_axis(self, settings: Settings) -> None:
        """Raise if it is not the last one."""
        axis = settings.value("axis", default=-1)
        if isinstance(axis, list) and len(axis) == 1:
            axis = axis[0]
        if axis != -1 and (self._axes is None or axis != self._axes - 1):
            raise settings.wrong("axis", axis, "the last one is needed")
