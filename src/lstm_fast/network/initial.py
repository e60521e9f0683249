"""The parameters of a new LSTM: names, shapes and initial values."""

from __future__ import annotations

import math

import numpy as np

from ..engine import Array
from ..engine.runtime.arithmetic import DefaultArithmetic
from . import checks
from .parameters import Parameters
from .settings import Settings

__all__ = ["initial_values", "new_parameters", "parameter_shapes"]

Shapes = dict[str, tuple[int, ...]]


def parameter_shapes(settings: Settings) -> Shapes:
    """Return the shape of every parameter by its name.

    Names and order are those of ``torch.nn.LSTM`` as far as that has them.
    """
    P, bias = settings.proj_size, settings.bias
    shapes: Shapes = {}
    inputs = settings.input_size
    for layer, H in enumerate(settings.sizes):
        for suffix in [f"l{layer}", f"l{layer}_reverse"][: settings.directions]:
            shapes[f"weight_ih_{suffix}"] = (4 * H, inputs)
            shapes[f"weight_hh_{suffix}"] = (4 * H, P or H)
            if bias:
                shapes[f"bias_ih_{suffix}"] = shapes[f"bias_hh_{suffix}"] = (4 * H,)
            if P:
                shapes[f"weight_hr_{suffix}"] = (P, H)
            if settings.peephole:
                shapes[f"weight_ch_{suffix}"] = (3 * H,)
            if settings.layer_norm == "gates":
                shapes[f"weight_ln_{suffix}"] = (4 * H,)
            elif settings.layer_norm:
                shapes[f"weight_ln_ih_{suffix}"] = shapes[f"weight_ln_hh_{suffix}"] = (4 * H,)
                shapes[f"weight_ln_c_{suffix}"] = (H,)
                if bias:
                    shapes[f"bias_ln_c_{suffix}"] = (H,)
        inputs = settings.layer_columns(layer)
    return shapes


def new_parameters(settings: Settings, rng: np.random.Generator) -> Parameters:
    """Return the parameters of a new LSTM."""
    shapes = _affordable(settings)
    return Parameters.first(shapes, settings.dtype, lambda: initial_values(settings, rng))


def initial_values(settings: Settings, rng: np.random.Generator) -> dict[str, Array]:
    """Return the first parameters of an LSTM, in whatever floating-point environment."""
    shapes = _affordable(settings)
    dtype, forget_bias = settings.dtype, settings.forget_bias
    if forget_bias is None and settings.init == "keras":
        forget_bias = 1.0
    draw = _keras if settings.init == "keras" else _uniform
    values: dict[str, Array] = {}
    H = 0
    with DefaultArithmetic():
        for name, shape in shapes.items():
            if name.startswith("weight_ih"):
                H = shape[0] // 4
            if "_ln_" in name:
                values[name] = np.full(shape, name.startswith("weight"), dtype)
            else:
                values[name] = np.ascontiguousarray(draw(name, shape, H, rng), dtype)
            if forget_bias is not None and name.startswith(("bias_ih", "bias_hh")):
                values[name][H : 2 * H] = forget_bias if name.startswith("bias_ih") else 0
    return values


def _affordable(settings: Settings) -> Shapes:
    """Return the shapes; raise if they are more than the memory of the machine."""
    shapes = parameter_shapes(settings)
    checks.affordable("hidden_size", sum(map(math.prod, shapes.values())), settings.dtype)
    return shapes


def _uniform(name: str, shape: tuple[int, ...], H: int, rng: np.random.Generator) -> Array:
    """PyTorch's: from -1 / sqrt(H) to 1 / sqrt(H)."""
    bound = 1 / math.sqrt(H)
    return rng.uniform(-bound, bound, shape)


def _keras(name: str, shape: tuple[int, ...], H: int, rng: np.random.Generator) -> Array:
    """Keras's: Glorot's uniform, orthogonal recurrent weights, zeros elsewhere."""
    if len(shape) == 1:
        return np.zeros(shape)
    if name.startswith("weight_hh"):
        tall = max(shape), min(shape)
        q, r = np.linalg.qr(rng.standard_normal(tall))
        q *= np.sign(np.diag(r))  # then q is uniformly distributed
        return q if shape[0] >= shape[1] else q.T
    bound = math.sqrt(6 / sum(shape))
    return rng.uniform(-bound, bound, shape)
