"""Optimisers in plain NumPy: one step of one array.

``p`` are parameters, ``g`` their gradient, ``t`` the number of the step, from 1. Arrays that an
optimiser keeps begin as zeros. Each function returns the new parameters and what is kept.

D. P. Kingma, J. Ba (2015), "Adam: A Method for Stochastic Optimization", ICLR 2015, algorithm 1.

I. Loshchilov, F. Hutter (2019), "Decoupled Weight Decay Regularization", ICLR 2019, algorithm 2.

I. Sutskever, J. Martens, G. Dahl, G. Hinton (2013), "On the importance of initialization and
momentum in deep learning", ICML 2013 (Nesterov's momentum, here in PyTorch's form).

T. Tieleman, G. Hinton (2012), "Lecture 6.5 - RMSProp", COURSERA (here in PyTorch's form).

R. Pascanu, T. Mikolov, Y. Bengio (2013), "On the difficulty of training recurrent neural
networks", ICML 2013, algorithm 1 (clipping).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["adam", "clip_by_global_norm", "clip_by_value", "rmsprop", "sgd"]

Array = npt.NDArray[np.floating[Any]]


def sgd(
    p: Array,
    g: Array,
    m: Array,
    *,
    lr: float = 1e-3,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
) -> tuple[Array, Array]:
    """Return p, m after a step of stochastic gradient descent."""
    g = g + weight_decay * p
    m = momentum * m + g
    return p - lr * (g + momentum * m if nesterov else m), m


def adam(
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    t: int,
    *,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled: bool = False,
) -> tuple[Array, Array, Array]:
    """Return p, m, v after a step of Adam, or with `decoupled` of AdamW."""
    beta1, beta2 = betas
    if decoupled:
        p = (1 - lr * weight_decay) * p
    else:
        g = g + weight_decay * p
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    mean, mean_square = m / (1 - beta1**t), v / (1 - beta2**t)  # without bias towards 0
    return p - lr * mean / (np.sqrt(mean_square) + eps), m, v


def rmsprop(
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    *,
    lr: float = 1e-2,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
) -> tuple[Array, Array, Array]:
    """Return p, m, v after a step of RMSprop."""
    g = g + weight_decay * p
    v = alpha * v + (1 - alpha) * g**2
    m = momentum * m + g / (np.sqrt(v) + eps)
    return p - lr * m, m, v


def clip_by_global_norm(
    grads: Mapping[str, Array], max_norm: float
) -> tuple[float, dict[str, Array]]:
    """Return the norm of all gradients together, and the gradients scaled to at most `max_norm`."""
    norm = float(np.sqrt(sum(float(np.sum(g.astype(float) ** 2)) for g in grads.values())))
    factor = np.minimum(1.0, max_norm / (norm + 1e-6))
    return norm, {name: (factor * g).astype(g.dtype) for name, g in grads.items()}


def clip_by_value(grads: Mapping[str, Array], limit: float) -> dict[str, Array]:
    """Return the gradients within -limit .. limit."""
    return {name: np.clip(g, -limit, limit) for name, g in grads.items()}
