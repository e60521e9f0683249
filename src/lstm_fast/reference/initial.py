"""The initial values of an LSTM's parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from .functions import Array

__all__ = ["initial_parameters"]


def initial_parameters(
    rng: np.random.Generator,
    input_size: int,
    hidden_sizes: Sequence[int],
    *,
    bias: bool = True,
    bidirectional: bool = False,
    merge: Literal["concat", "sum", "mul", "ave"] = "concat",
    proj_size: int = 0,
    peephole: bool = False,
    layer_norm: bool | Literal["gates"] = False,
    init: Literal["uniform", "keras"] = "uniform",
    forget_bias: float | None = None,
    dtype: npt.DTypeLike = np.float32,
) -> dict[str, Array]:
    """Return the parameters that a new ``LSTM`` has, with the same generator to the bit.

    With "uniform" weights and biases are drawn between -1 / sqrt(H) and 1 / sqrt(H), as PyTorch
    does. With "keras", ``w_ih`` and ``w_hr``, of r rows and n columns, between -sqrt(6 / (r + n))
    and sqrt(6 / (r + n)) (X. Glorot, Y. Bengio, 2010); ``w_hh`` has orthonormal columns, or rows
    where there are less of them, a uniformly distributed choice (A. Saxe et al., 2014); peepholes
    and biases are 0, but 1 for the forget gate (R. Jozefowicz et al., 2015). Gains of layer norm
    are 1, its bias is 0.

    Parameters
    ----------
    rng : Generator
        Source of random numbers.
    input_size, hidden_sizes : int, sequence of int
        I, and H of each layer.
    bias, bidirectional, merge, proj_size, peephole, layer_norm
        What there is, as of ``LSTM``.
    init : {"uniform", "keras"}
        See above.
    forget_bias : float, optional
        Of the forget gate: ``b_ih``, to which ``b_hh`` adds 0.
    dtype : dtype
        Of the arrays; numbers are drawn in float64.

    Returns
    -------
    parameters : dict of str to ndarray
        In the order of ``LSTM.state_dict()``.
    """
    if forget_bias is None and init == "keras":
        forget_bias = 1.0
    parameters: dict[str, Array] = {}
    columns = input_size
    for number, H in enumerate(hidden_sizes):
        R = proj_size or H
        bound = 1 / np.sqrt(H)

        def draw(*shape: int, orthogonal: bool = False, bound: Any = bound) -> Array:
            if init == "uniform":
                return rng.uniform(-bound, bound, shape)
            if len(shape) == 1:
                return np.zeros(shape)
            if not orthogonal:
                bound = np.sqrt(6 / sum(shape))
                return rng.uniform(-bound, bound, shape)
            normal = rng.standard_normal((max(shape), min(shape)))
            q, r = np.linalg.qr(normal)
            q = q * np.sign(np.diag(r))  # without this, q is not uniformly distributed
            return q if shape[0] >= shape[1] else q.T

        for end in [f"l{number}", f"l{number}_reverse"][: 1 + bidirectional]:
            values = {"weight_ih": draw(4 * H, columns)}
            values["weight_hh"] = draw(4 * H, R, orthogonal=True)
            if bias:
                values["bias_ih"], values["bias_hh"] = draw(4 * H), draw(4 * H)
                if forget_bias is not None:
                    values["bias_ih"][H : 2 * H] = forget_bias
                    values["bias_hh"][H : 2 * H] = 0
            if proj_size:
                values["weight_hr"] = draw(R, H)
            if peephole:
                values["weight_ch"] = draw(3 * H)
            if layer_norm == "gates":
                values["weight_ln"] = np.ones(4 * H)
            elif layer_norm:
                values["weight_ln_ih"] = values["weight_ln_hh"] = np.ones(4 * H)
                values["weight_ln_c"] = np.ones(H)
                if bias:
                    values["bias_ln_c"] = np.zeros(H)
            parameters |= {f"{kind}_{end}": value.astype(dtype) for kind, value in values.items()}
        columns = 2 * R if bidirectional and merge == "concat" else R
    return parameters
