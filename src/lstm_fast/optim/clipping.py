"""Clipping of gradients, in place."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from ..engine import Array
from ..engine.runtime.arithmetic import DefaultArithmetic
from ..engine.update import clip, scale, squared_norm
from ..network import checks
from ..network.layout import Gradients
from .optimizer import not_negative

__all__ = ["clip_by_global_norm", "clip_by_value"]

EPSILON = 1e-6  # PyTorch's


def clip_by_global_norm(grads: Mapping[str, Array], max_norm: float) -> float:
    """Scale gradients in place so that the norm of all of them together is at most `max_norm`.

        g *= min(1, max_norm / (norm + 1e-6))

    as `torch.nn.utils.clip_grad_norm_`: R. Pascanu, T. Mikolov, Y. Bengio (2013), "On the
    difficulty of training recurrent neural networks". The norm is computed in float64.

    Parameters
    ----------
    grads : dict of str to ndarray
        As `backward` returns them.
    max_norm : float
        Infinity only measures.

    Returns
    -------
    float
        The norm before. Where that is NaN, so is every gradient afterwards.

    Raises
    ------
    TypeError
        If `grads` is no mapping, or has other values than writable arrays of float32 or float64.
    ValueError
        If `max_norm` is negative or NaN.
    """
    if max_norm != math.inf:
        max_norm = not_negative("max_norm", max_norm)
    arrays = _arrays(grads)
    with DefaultArithmetic():
        norm = math.sqrt(sum(map(_squared_norm, arrays)))
        if not max_norm >= norm + EPSILON:  # also where the norm is NaN
            factor = max_norm / (norm + EPSILON)
            _change(arrays, lambda a: scale(a, factor))
    return norm


def clip_by_value(grads: Mapping[str, Array], limit: float) -> None:
    """Clip gradients in place to -limit .. limit, as `torch.nn.utils.clip_grad_value_`. NaN stays.

    Parameters
    ----------
    grads : dict of str to ndarray
        As `backward` returns them.
    limit : float
        At least 0.

    Raises
    ------
    TypeError
        If `grads` is no mapping, or has other values than writable arrays of float32 or float64.
    ValueError
        If `limit` is negative or not finite.
    """
    limit = not_negative("limit", limit)
    _change(_arrays(grads), lambda a: clip(a, limit))


def _arrays(grads: Mapping[str, Array]) -> list[Array]:
    """Return the arrays to change: one flat buffer, or each gradient."""
    if isinstance(grads, Gradients) and grads.whole:
        return [grads.flat]
    if not isinstance(grads, Mapping):
        raise TypeError(f"grads: expected a mapping, got {type(grads).__name__}")
    for name, a in grads.items():
        checks.unmasked(f"grads[{name!r}]", a)
        if not isinstance(a, np.ndarray) or a.dtype not in (np.float32, np.float64):
            found = a.dtype if isinstance(a, np.ndarray) else type(a).__name__
            raise TypeError(f"grads[{name!r}]: expected float32 or float64 arrays, got {found}")
        if not a.flags.writeable:
            raise TypeError(f"grads[{name!r}]: expected an array that can be written")
    return [*grads.values()]


def _squared_norm(a: Array) -> float:
    return squared_norm(np.require(a, requirements=["C", "A"]).reshape(-1))


def _change(arrays: list[Array], change: Callable[[Array], None]) -> None:
    """Change arrays in place, whatever their strides."""
    for a in arrays:
        if a.flags.carray:
            change(a.reshape(-1))
        else:
            copied = np.array(a, order="C")
            change(copied.reshape(-1))
            a[...] = copied
