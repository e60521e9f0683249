"""The parameters of a new LSTM: names, shapes and initial values."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ._checks import Array

__all__ = ["initial_values", "parameter_shapes"]

Shapes = dict[str, tuple[int, ...]]


def parameter_shapes(
    input_size: int,
    hidden_sizes: tuple[int, ...],
    proj_size: int,
    directions: int,
    merges: bool,
    bias: bool,
    peephole: bool,
    layer_norm: bool,
) -> Shapes:
    """Return the shape of every parameter by its name.

    Names and order are those of ``torch.nn.LSTM`` as far as that has them. `merges`: the outputs of
    two directions become one of the same size.
    """
    P = proj_size
    shapes: Shapes = {}
    inputs = input_size
    for layer, H in enumerate(hidden_sizes):
        for suffix in [f"l{layer}", f"l{layer}_reverse"][:directions]:
            shapes[f"weight_ih_{suffix}"] = (4 * H, inputs)
            shapes[f"weight_hh_{suffix}"] = (4 * H, P or H)
            if bias:
                shapes[f"bias_ih_{suffix}"] = shapes[f"bias_hh_{suffix}"] = (4 * H,)
            if P:
                shapes[f"weight_hr_{suffix}"] = (P, H)
            if peephole:
                shapes[f"weight_ch_{suffix}"] = (3 * H,)
            if layer_norm:
                shapes[f"weight_ln_ih_{suffix}"] = shapes[f"weight_ln_hh_{suffix}"] = (4 * H,)
                shapes[f"weight_ln_c_{suffix}"] = (H,)
                if bias:
                    shapes[f"bias_ln_c_{suffix}"] = (H,)
        inputs = (P or H) * (1 if merges else directions)
    return shapes


def initial_values(
    shapes: Shapes,
    init: str,
    forget_bias: float | None,
    dtype: np.dtype[Any],
    rng: np.random.Generator,
) -> dict[str, Array]:
    """Return arrays of these shapes.

    Parameters
    ----------
    shapes : dict
        From `parameter_shapes`.
    init : {"uniform", "keras"}
        See `LSTM`.
    forget_bias : float, optional
        Sum of both biases of the forget gate.
    dtype : dtype
        Of the arrays.
    rng : Generator
        Source of random numbers.
    """
    draw = _keras if init == "keras" else _uniform
    values: dict[str, Array] = {}
    H = 0
    for name, shape in shapes.items():
        if name.startswith("weight_ih"):
            H = shape[0] // 4
        if "_ln_" in name:
            values[name] = np.full(shape, name.startswith("weight"), dtype)
        else:
            values[name] = draw(name, shape, H, rng).astype(dtype)
        if forget_bias is not None and name.startswith(("bias_ih", "bias_hh")):
            values[name][H : 2 * H] = forget_bias if name.startswith("bias_ih") else 0
    return values


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
