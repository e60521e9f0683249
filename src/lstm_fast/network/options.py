"""Options of an LSTM and its cells: their names, checks, and form for the engine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from . import checks

__all__ = ["Activation", "CellOptions", "LayerNorm", "cell_options"]

LayerNorm = bool | Literal["gates"]
Activation = str | tuple[str] | tuple[str, float] | tuple[str, float, float]

# ONNX's functions, in the order of `lf_function` (kernels.h), with defaults of alpha and beta.
FUNCTIONS: dict[str, tuple[float, ...]] = {
    "Sigmoid": (),
    "Tanh": (),
    "Relu": (),
    "HardSigmoid": (0.2, 0.5),
    "Softsign": (),
    "Softplus": (),
    "Elu": (1.0,),
    "LeakyRelu": (0.01,),
    "ThresholdedRelu": (1.0,),
    "ScaledTanh": (1.0, 1.0),
    "Affine": (1.0, 0.0),
}
ZONEOUT_PROJECTED = (
    "zoneout mixes h(t-1) with o tanh(c(t)), and with a projection the one has P elements, "
    "the other H"
)
PLAIN = ("Sigmoid", "Tanh", "Tanh")
MERGES = ("concat", "sum", "mul", "ave")
INITS = ("uniform", "keras")
MOST_LAYERS = 2**16


class CellOptions(NamedTuple):
    """What `engine.cell.Cell` needs besides weights; activations are (function, alpha, beta)."""

    coupled: bool
    clip: float
    cell_clip: float
    activations: tuple[tuple[int, float, float], ...]

    @property
    def plain(self) -> bool:
        """Whether none of it changes anything."""
        return self == PLAIN_CELL


def cell_options(
    coupled: bool = False,
    clip: float | None = None,
    cell_clip: float | None = None,
    activations: Sequence[Activation] = PLAIN,
) -> CellOptions:
    """Return the options, checked."""
    return CellOptions(
        checks.boolean("coupled", coupled),
        limit("clip", clip),
        limit("cell_clip", cell_clip),
        functions(activations),
    )


def layer_norm(value: Any) -> LayerNorm:
    """Return which layer norm there is, if any."""
    if isinstance(value, str):
        if value != "gates":
            raise ValueError(f"layer_norm: expected a bool or 'gates', got {value!r}")
        return "gates"
    return checks.boolean("layer_norm", value)


def sizes(hidden_size: Any, num_layers: Any) -> tuple[int, ...]:
    """Return the hidden size of each layer."""
    layers = checks.integer("num_layers", num_layers, 1)
    if layers > MOST_LAYERS:
        raise ValueError(f"num_layers: expected at most {MOST_LAYERS}, got {layers}")
    if not isinstance(hidden_size, (tuple, list)):
        size = checks.integer("hidden_size", hidden_size, 1)
        checks.fits("hidden_size", 8 * size**2, np.dtype(np.float64))
        checks.fits("num_layers", 8 * size**2 * layers, np.dtype(np.float64))
        return (size,) * layers
    found = tuple(
        checks.integer(f"hidden_size[{n}]", size, 1) for n, size in enumerate(hidden_size)
    )
    if not found or layers not in (1, len(found)):
        raise ValueError(
            f"hidden_size: expected num_layers={layers} sizes, got {len(found)}"
            if found
            else "hidden_size: expected at least one size"
        )
    return found


def rates(name: str, value: Any) -> tuple[float, float] | None:
    """Return two probabilities, of h and of c; None where both are 0."""
    if value is None:
        return None
    h, c = checks.pair(name, value)
    found = checks.fraction(f"{name}[0]", h), checks.fraction(f"{name}[1]", c)
    return found if any(found) else None


def limit(name: str, value: Any) -> float:
    """Return a positive bound; infinity for None."""
    number = math.inf if value is None else real(name, value)
    if not number > 0:
        raise ValueError(f"{name}: expected a positive number or None, got {value!r}")
    return number


def real(name: str, value: Any) -> float:
    """Return a float that is no NaN."""
    number = checks.number(name, value)
    if math.isnan(number):
        raise ValueError(f"{name}: expected a number, got {value!r}")
    return number


def functions(activations: Any) -> tuple[tuple[int, float, float], ...]:
    """Return f, g, h as the engine takes them."""
    if isinstance(activations, str) or not isinstance(activations, Sequence):
        raise TypeError(f"activations: expected three functions, got {type(activations).__name__}")
    if len(activations) != 3:
        raise ValueError(
            f"activations: expected three, of gates, candidate and output, got {len(activations)}"
        )
    return tuple(function(f"activations[{n}]", given) for n, given in enumerate(activations))


def function(name: str, given: Any) -> tuple[int, float, float]:
    """Return (number, alpha, beta)."""
    given = (given,) if isinstance(given, str) else given
    if not isinstance(given, (tuple, list)) or not given or not isinstance(given[0], str):
        raise TypeError(f"{name}: expected a name or (name, alpha, beta), got {given!r}")
    kind, *values = given
    if kind not in FUNCTIONS:
        raise ValueError(f"{name}: expected one of {', '.join(FUNCTIONS)}, got {kind!r}")
    defaults = FUNCTIONS[kind]
    if len(values) > len(defaults):
        raise ValueError(
            f"{name}: {kind} takes {len(defaults)} of alpha, beta, got {len(values)} values"
        )
    numbers = [real(name, value) for value in values]
    alpha, beta = (*numbers, *defaults[len(numbers) :], 0.0, 0.0)[:2]
    return list(FUNCTIONS).index(kind), alpha, beta


PLAIN_CELL = cell_options()
