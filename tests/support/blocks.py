"""Blocks around an LSTM: random arguments, and results of the reference by name."""

from typing import Any, NamedTuple

import numpy as np

from lstm_fast.reference import blocks
from support.comparing import in_dtype

# Forward and backward in the reference, by the name of a block's class.
TWINS = {
    "Linear": (blocks.linear_forward, blocks.linear_backward),
    "Embedding": (blocks.embedding_forward, blocks.embedding_backward),
    "Dropout": (blocks.dropout_forward, blocks.dropout_backward),
    "LayerNorm": (blocks.layer_norm_forward, blocks.layer_norm_backward),
    "Activation": (blocks.activation_forward, blocks.activation_backward),
    "Softmax": (blocks.softmax_forward, blocks.softmax_backward),
    "Last": (blocks.last_forward, blocks.last_backward),
    "Pool": (blocks.pool_forward, blocks.pool_backward),
    "Flatten": (blocks.flatten_forward, blocks.flatten_backward),
    "Attention": (blocks.attention_forward, blocks.attention_backward),
}


class Drawn(NamedTuple):
    """A block, and what to call it with."""

    block: str  # the name of its class
    settings: dict[str, Any]  # of its constructor
    inputs: tuple[np.ndarray, ...]  # x, (T, B, F) or (T, B); or query and memory
    parameters: dict[str, np.ndarray]  # of its state_dict
    options: dict[str, Any]  # what its twin takes besides
    dy: Any = None  # or of both results, (dcontext, dweights)


def draw_linear(rng, T, B, F, *, bias=True):
    O = F + 1
    parameters = {"weight": rng.standard_normal((O, F)) / np.sqrt(F), "bias": normal(rng, O)}
    if not bias:
        del parameters["bias"]
    settings = {"input_size": F, "output_size": O, "bias": bias}
    return Drawn("Linear", settings, (normal(rng, T, B, F),), parameters, {})


def draw_embedding(rng, T, B, F, *, padding_index=None):
    V = 5  # so that numbers occur more than once
    settings = {"vocabulary": V, "columns": F, "padding_index": padding_index}
    x, parameters = rng.integers(0, V, (T, B)), {"weight": normal(rng, V, F)}
    return Drawn("Embedding", settings, (x,), parameters, {"padding_index": padding_index})


def draw_dropout(rng, T, B, F):
    mask = rng.integers(0, 2, (T, B, F)) / 0.5
    return Drawn("Dropout", {"rate": 0.5}, (normal(rng, T, B, F),), {}, {"mask": mask})


def draw_layer_norm(rng, T, B, F, *, bias=True, eps=1e-5):
    parameters = {"weight": 1 + normal(rng, F) / 2, "bias": normal(rng, F)}
    if not bias:
        del parameters["bias"]
    settings = {"columns": F, "bias": bias, "eps": eps}
    return Drawn("LayerNorm", settings, (1 + normal(rng, T, B, F),), parameters, {"eps": eps})


def draw_activation(rng, T, B, F, *, function):
    settings = {"function": function}
    return Drawn("Activation", settings, (normal(rng, T, B, F),), {}, settings)


def draw_softmax(rng, T, B, F):
    return Drawn("Softmax", {}, (normal(rng, T, B, F),), {}, {})


def draw_last(rng, T, B, F, **settings):
    return Drawn("Last", settings, (normal(rng, T, B, F),), {}, settings)


def draw_pool(rng, T, B, F, *, kind):
    return Drawn("Pool", {"kind": kind}, (normal(rng, T, B, F),), {}, {"kind": kind})


def draw_flatten(rng, T, B, F):
    return Drawn("Flatten", {}, (normal(rng, T, B, F),), {}, {})


def draw_attention(rng, T, B, F, **settings):
    inputs = normal(rng, T + 1, B, F), normal(rng, T, B, F)  # lengths are those of the memory
    return Drawn("Attention", settings, inputs, {}, settings)


# Constants with which random inputs fall on both sides of each kink.
ACTIVATIONS = [
    *("Sigmoid", "Tanh", "Relu", "Softsign", "Softplus", "HardSigmoid", "LeakyRelu"),
    *(("HardSigmoid", 0.3, 0.6), ("Elu", 0.7), ("ThresholdedRelu", -0.4)),
    *(("ScaledTanh", 1.3, 0.7), ("Affine", 0.6, 0.3)),
]
# By name: what draws a block, given a generator, T, B and an even F, and its settings.
BLOCKS = {
    "Linear": (draw_linear, {}),
    "Linear without bias": (draw_linear, {"bias": False}),
    "Embedding": (draw_embedding, {}),
    "Embedding with padding": (draw_embedding, {"padding_index": 2}),
    "Dropout": (draw_dropout, {}),
    "LayerNorm": (draw_layer_norm, {}),
    "LayerNorm without bias": (draw_layer_norm, {"bias": False, "eps": 0.1}),
    "Softmax": (draw_softmax, {}),
    "Last": (draw_last, {}),
    "Last, reverse": (draw_last, {"reverse": True}),
    "Last of two directions": (draw_last, {"directions": 2}),
    "Pool, mean": (draw_pool, {"kind": "mean"}),
    "Pool, max": (draw_pool, {"kind": "max"}),
    "Flatten": (draw_flatten, {}),
    "Attention": (draw_attention, {}),
    "Attention, scaled": (draw_attention, {"scale": 0.3}),
} | {f"Activation {f}": (draw_activation, {"function": f}) for f in ACTIVATIONS}


def draw_block(name, rng, T, B, F, dtype=np.float64):
    """Return one of `BLOCKS` with random arguments and gradients of its results.

    The numbers are the same for every dtype.
    """
    draw, settings = BLOCKS[name]
    drawn = draw(rng, T, B, F, **settings)
    y, _ = forward_block(drawn)
    dy = tuple(normal(rng, *a.shape) for a in y) if is_pair(drawn) else normal(rng, *y.shape)
    exact_in_float32 = in_dtype(drawn._replace(dy=dy)._asdict(), np.float32)
    return Drawn(**in_dtype(exact_in_float32, dtype))


def normal(rng, *shape):
    return rng.standard_normal(shape)


def forward_block(drawn, lengths=None):
    """Return y and the cache."""
    arguments = drawn.parameters | drawn.options
    return TWINS[drawn.block][0](*drawn.inputs, **arguments, lengths=lengths)


def run_block(drawn, lengths=None):
    """Return results and gradients by name."""
    y, cache = forward_block(drawn, lengths)
    return results_of(drawn, y) | backward_block(drawn, cache)


def results_of(drawn, y):
    """Return y by name."""
    return dict(zip(("context", "weights"), y, strict=True)) if is_pair(drawn) else {"y": y}


def backward_block(drawn, cache):
    """Return the gradients by name: none of integers."""
    dx, grads = TWINS[drawn.block][1](drawn.dy, cache)
    found = {f"d{name}": grads[name] for name in grads}
    if is_pair(drawn):
        return found | {"dquery": dx[0], "dmemory": dx[1]}
    return found if dx is None else found | {"dx": dx}


def is_pair(drawn):
    """Whether a block has two inputs and two results."""
    return drawn.block == "Attention"
