"""Blocks around an LSTM, losses, and `Sequential` and `Model`, which make a model of blocks.

    rows                    which rows a block computes; blocks that compute each by itself
    linear, embedding       products with weights, through the engine; rows of a table
    pointwise               Activation, Softmax, LayerNorm, Dropout
    over_time               Last, Pool, Flatten
    attention               a query and what it attends to
    losses                  of what a model returns
    model, encoder_decoder  blocks that a class of the user's puts together, or this one
    sequential, streaming   blocks one after the other, also step by step

It imports NumPy, the engine, the network and the layer, and nothing of the package above it.
"""

from .attention import Attention
from .embedding import Embedding
from .encoder_decoder import EncoderDecoder
from .linear import Linear
from .losses import (
    Absolute,
    BinaryCrossEntropy,
    CrossEntropy,
    Huber,
    MeanSquared,
    Quantile,
)
from .model import Model
from .over_time import Flatten, Last, Pool
from .pointwise import Activation, Dropout, LayerNorm, Softmax
from .sequential import Sequential
from .streaming import ModelStream

__all__ = [
    "Absolute",
    "Activation",
    "Attention",
    "BinaryCrossEntropy",
    "CrossEntropy",
    "Dropout",
    "Embedding",
    "EncoderDecoder",
    "Flatten",
    "Huber",
    "Last",
    "LayerNorm",
    "Linear",
    "MeanSquared",
    "Model",
    "ModelStream",
    "Pool",
    "Quantile",
    "Sequential",
    "Softmax",
]
