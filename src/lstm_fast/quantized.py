"""The `QuantizedLSTM` class: inference with packed weights of lower precision."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any, NoReturn, get_args

import numpy as np

from .engine import Array
from .network import checks, lower, options, unsaid
from .network.block import KINDS
from .network.initial import parameter_shapes
from .network.lower import Inputs, LowerCells, Weights
from .network.network import Network
from .network.noise import NoiseSource, Rates
from .network.options import Activation, LayerNorm
from .network.parameters import Parameters
from .network.settings import Merge, Settings
from .recurrent import Recurrent

__all__ = ["QuantizedLSTM"]


class QuantizedLSTM(Recurrent):
    """An LSTM for inference whose weights are 8-bit integers or bfloat16; made by `LSTM.quantize`.

    Inputs, outputs, states, biases and the arithmetic of the cell are float32. It is called and
    streams as the `LSTM`, with the same options. What is rounded, and when, is in
    ``docs/precision.md``.

    Parameters
    ----------
    input_size, hidden_size, ..., residual
        As of an `LSTM`. All weights are 0 until `load_state_dict`.
    weights : {"int8", "bfloat16"}
    inputs : {"bfloat16", "int8", "float32"}
        What 8-bit weights multiply the input as.

    Attributes
    ----------
    weights, inputs
        As above.
    nbytes : int
        Memory that the parameters take.

    Examples
    --------
    >>> small = LSTM(3, 64, seed=0).quantize("int8")
    >>> y, (hn, cn) = small(np.zeros((7, 2, 3), np.float32))
    >>> y.shape, small.weights
    ((7, 2, 64), 'int8')
    """

    weights: Weights
    inputs: Inputs

    def __init__(
        self,
        input_size: int,
        hidden_size: int | Sequence[int],
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        reverse: bool = False,
        merge: Merge = "concat",
        peephole: bool = False,
        coupled: bool = False,
        clip: float | None = None,
        cell_clip: float | None = None,
        activations: Sequence[Activation] = options.PLAIN,
        layer_norm: LayerNorm = False,
        zoneout: tuple[float, float] | None = None,
        residual: bool = False,
        weights: Weights = "int8",
        inputs: Inputs = "bfloat16",
    ) -> None:
        given = locals()
        self._set(weights, inputs, {name: given[name] for name in OPTIONS})
        shapes = self._cells.shapes
        float32 = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        self._cells.load(lower.quantized(float32, weights))

    def _set(self, weights: Any, inputs: Any, given: dict[str, Any]) -> None:
        checks.one_of("weights", weights, get_args(Weights))
        checks.one_of("inputs", inputs, get_args(Inputs))
        if weights == "bfloat16" and inputs != "bfloat16":
            raise ValueError(f"inputs: with weights='bfloat16' they are bfloat16, got {inputs!r}")
        of_settings = {name: value for name, value in given.items() if name != "zoneout"}
        settings = Settings(**of_settings, init="uniform", forget_bias=None, dtype=np.float32)
        noise = NoiseSource(settings, Rates(zoneout=given["zoneout"]), np.random.default_rng(0))
        self._cells = LowerCells(parameter_shapes(settings), settings.cell, weights, inputs)
        self._network = Network(settings, self._cells, noise, "packed", cells=self._cells)
        self.weights, self.inputs = weights, inputs
        self.dtype, self.batch_first = settings.dtype, settings.batch_first
        self._nothing = Parameters({})

    @classmethod
    def _of(cls, lstm: Any, weights: Weights, inputs: Inputs) -> QuantizedLSTM:
        """Return what `LSTM.quantize` does."""
        if lstm.dtype != np.float32:
            raise TypeError(
                f"dtype: lower precision computes in float32, and this LSTM has {lstm.dtype}: make "
                "one of float32, and load the state_dict of this one"
            )
        self = cls.__new__(cls)
        self._set(weights, inputs, {name: getattr(lstm, name) for name in OPTIONS})
        names = self._cells.shapes
        state = lstm.state_dict()
        self._cells.load(lower.quantized({name: state[name] for name in names}, weights))
        return self

    def dequantize(self) -> Any:
        """Return an `LSTM` of float32 with the numbers that the weights stand for."""
        kind: Any = KINDS["LSTM"]
        lstm = kind(**{name: getattr(self, name) for name in OPTIONS}, seed=0)
        lstm._parameters.load_state_dict(lower.dequantized(self._cells.arrays()))
        return lstm

    @property
    def nbytes(self) -> int:
        """Memory that the parameters take, in bytes."""
        return self._cells.nbytes

    # ---- parameters

    @property
    def _parameters(self) -> Parameters:
        return self._nothing

    def _count(self) -> int:
        return sum(map(math.prod, self._cells.shapes.values()))

    def _said(self) -> dict[str, Array]:
        return unsaid.said(self, **({} if self.inputs == "bfloat16" else {"inputs": self.inputs}))

    def _fixed(self) -> dict[str, Array]:
        return self._cells.arrays()

    def _take_fixed(self, arrays: dict[str, Any], prefix: str = "") -> Callable[[], None]:
        names = {prefix + name for name in lower.lower_shapes(self._cells.shapes, self.weights)}
        mine = {name: arrays.pop(name) for name in names & arrays.keys()}
        found = lower.checked(mine, self._cells.shapes, self.weights, prefix)
        return lambda: self._cells.load(found)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self._options(), self._cells.arrays())

    # ---- what it is

    def _options(self) -> dict[str, Any]:
        given = {name: getattr(self, name) for name in OPTIONS}
        return {**given, "weights": self.weights, "inputs": self.inputs}

    def __getattr__(self, name: str) -> Any:
        network = self.__dict__.get("_network")
        if network is not None and name in OPTIONS:
            of = network.noise.rates if name == "zoneout" else network.settings
            return getattr(of, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __repr__(self) -> str:
        words = [str(self.input_size), str(self.hidden_size)]
        given = self._options()
        words += [f"{name}={given[name]!r}" for name in ("weights", "inputs")]
        words += [
            f"{name}={given[name]!r}"
            for name, default in OPTIONS.items()
            if name not in ("input_size", "hidden_size") and given[name] != default
        ]
        return f"QuantizedLSTM({', '.join(words)})"

    # ---- training

    def forward(self, x: Any, state: Any = None, *, lengths: Any = None) -> NoReturn:
        """Raise RuntimeError: it is for inference."""
        raise RuntimeError(
            "a QuantizedLSTM is for inference: call it, and train the LSTM that it was made from"
        )

    def backward(self, dy: Any, dstate: Any, cache: Any) -> NoReturn:
        """Raise RuntimeError: it is for inference."""
        self.forward(None)


# Arguments of an `LSTM` that inference has, with their defaults.
OPTIONS = {
    name: parameter.default
    for name, parameter in signature(QuantizedLSTM).parameters.items()
    if name not in ("weights", "inputs")
}


def _restored(given: dict[str, Any], arrays: dict[str, Any]) -> QuantizedLSTM:
    """Return a pickled one."""
    self = QuantizedLSTM.__new__(QuantizedLSTM)
    self._set(given["weights"], given["inputs"], {name: given[name] for name in OPTIONS})
    self._cells.load(arrays)
    return self
