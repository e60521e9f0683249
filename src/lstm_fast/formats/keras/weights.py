"""Arrays of a block as Keras's layers take them."""

from __future__ import annotations

import numpy as np

from ... import nn
from ...engine import Array
from ...lstm import LSTM
from ...network.block import Block
from ..reports import refusal

__all__ = ["to_keras"]

# Options of an LSTM that a Keras layer has not, and what they are without effect.
UNKNOWN = {
    "proj_size": 0,
    "peephole": False,
    "coupled": False,
    "clip": None,
    "cell_clip": None,
    "layer_norm": False,
    "residual": False,
    "zoneout": None,
}


def to_keras(block: Block) -> list[Array]:
    """Return the parameters as ``set_weights`` of a Keras model with the same layers takes them.

    One LSTM layer of Keras has one layer of an `LSTM`, in a Bidirectional if there are two
    directions: kernel, recurrent kernel, and, as Keras has one bias, the sum of both. Blocks
    without parameters give nothing. Activations, `reverse` and `merge` are arguments of Keras's
    layers and are for the caller to set.

    Parameters
    ----------
    block : LSTM, Sequential, Linear, Embedding, LayerNorm, or a block without parameters
        What to write.

    Returns
    -------
    list of ndarray
        In the order of ``get_weights``.

    Raises
    ------
    ValueError
        If no layer of Keras is like this.

    Examples
    --------
    >>> from lstm_fast import LSTM
    >>> [array.shape for array in to_keras(LSTM(3, 5, seed=0))]
    [(3, 20), (5, 20), (20,)]
    """
    if isinstance(block, nn.Sequential):
        return [array for part in block for array in to_keras(part)]
    if isinstance(block, LSTM):
        return _of_lstm(block)
    values = block.state_dict()
    if isinstance(block, nn.Linear):
        values["weight"] = np.ascontiguousarray(values["weight"].T)
    elif values and not isinstance(block, nn.Embedding | nn.LayerNorm):
        raise refusal(block, "block", "has no layer in Keras", "write the others by themselves")
    return [*values.values()]


def _of_lstm(block: LSTM) -> list[Array]:
    for option, plain in UNKNOWN.items():
        value = getattr(block, option)
        if value != plain:
            raise refusal(block, option, f"is {value}", "Keras's LSTM does not have it")
    values, found = block.state_dict(), []
    for layer in range(block.num_layers):
        for direction in ("", "_reverse") if block.bidirectional else ("",):
            end = f"_l{layer}{direction}"
            for kind in ("weight_ih", "weight_hh"):
                found.append(np.ascontiguousarray(values[kind + end].T))
            if block.bias:
                found.append(values["bias_ih" + end] + values["bias_hh" + end])
    return found
