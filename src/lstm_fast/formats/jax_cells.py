"""The cells of Flax, Haiku and Equinox, run by these packages on the arrays of a tree.

To verify what was read: the frameworks' own arithmetic, with the layers and directions as read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..engine import Array

__all__ = ["run"]

Step = Callable[[Array, Array, Array], tuple[Any, Any]]  # of x, h and c: h and c


def run(
    layers: Sequence[Sequence[tuple[str, Mapping[str, Any]]]], sizes: Sequence[int], x: Array
) -> Array:
    """Return what the cells give for x.

    Parameters
    ----------
    layers : sequence of sequences of (kind, arrays by name)
        Each layer with its directions, and kinds as in `from_flax`.
    sizes : sequence of int
        The hidden size of each layer.
    x : ndarray, shape (T, B, I)
        Of float32 or float64, in which all is computed.

    Raises
    ------
    ImportError
        If a package is not installed.
    """
    steps = {"flax": _flax, "haiku": _haiku, "equinox": _equinox}
    y = x
    try:
        with _numbers_of(x.dtype):
            for layer, H in zip(layers, sizes, strict=True):
                outputs = []
                for backward, (kind, arrays) in enumerate(layer):
                    step = steps[kind](arrays, y.shape[2], H)
                    outputs.append(_unrolled(step, y[::-1] if backward else y, H, bool(backward)))
                y = np.concatenate(outputs, axis=2)
    except ImportError as error:
        raise ImportError(
            f"verify=True runs the package that the cells are of ({error}): pip install flax, "
            "dm-haiku or equinox; or give (x, y)"
        ) from None
    return y


def _numbers_of(dtype: Any) -> Any:
    """Let JAX compute in float64, if that is the dtype: without this it makes it float32."""
    import jax

    if not hasattr(jax, "enable_x64"):
        from jax.experimental import enable_x64

        return enable_x64(np.dtype(dtype) == np.float64)
    return jax.enable_x64(np.dtype(dtype) == np.float64)


def _unrolled(step: Step, x: Array, H: int, backward: bool) -> Array:
    h = c = np.zeros((x.shape[1], H), x.dtype)
    outputs = []
    for x_t in x:
        h, c = step(x_t, h, c)
        outputs.append(np.asarray(h))
    return np.stack(outputs[::-1] if backward else outputs)


def _flax(arrays: Mapping[str, Any], I: int, H: int) -> Step:
    from flax import linen, nnx

    if "dense_i" in arrays:
        made = nnx.OptimizedLSTMCell(I, H, rngs=nnx.Rngs(0))
        for name, dense in arrays.items():
            for leaf, value in dense.items():
                setattr(getattr(made, name), leaf, nnx.Param(value))

    def step(x: Array, h: Array, c: Array) -> tuple[Any, Any]:
        if "dense_i" in arrays:
            (c, h), _ = made((c, h), x)
        else:
            (c, h), _ = linen.LSTMCell(H).apply({"params": arrays}, (c, h), x)
        return h, c

    return step


def _haiku(arrays: Mapping[str, Any], I: int, H: int) -> Step:
    import haiku

    def one(x: Array, h: Array, c: Array) -> Any:
        return haiku.LSTM(H)(x, haiku.LSTMState(h, c))[1]

    network = haiku.without_apply_rng(haiku.transform(one))
    parameters = {"lstm/linear": {"b": np.zeros(4 * H, arrays["w"].dtype), **arrays}}

    def step(x: Array, h: Array, c: Array) -> tuple[Any, Any]:
        after = network.apply(parameters, x, h, c)
        return after.hidden, after.cell

    return step


def _equinox(arrays: Mapping[str, Any], I: int, H: int) -> Step:
    import equinox
    import jax

    there = {name: value for name, value in arrays.items() if value is not None}
    cell = equinox.nn.LSTMCell(I, H, use_bias="bias" in there, key=jax.random.key(0))
    cell = equinox.tree_at(
        lambda made: [getattr(made, name) for name in there], cell, [*there.values()]
    )
    rows: Step = jax.vmap(lambda x, h, c: cell(x, (h, c)))
    return rows
