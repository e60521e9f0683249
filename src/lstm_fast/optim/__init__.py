"""Optimisers, clipping of gradients, schedules of the learning rate, averages of weights.

    optimizer     what all have in common: a block's step, the state, weight decay
    methods       SGD, Adam, AdamW, RMSprop: one pass over the flat parameters of a block
    clipping      gradients, by global norm and by value
    schedules     learning rates as functions of the step
    averaging     averages of the weights of a block

It imports NumPy, `network` and `engine`.
"""

from .averaging import Average
from .clipping import clip_by_global_norm, clip_by_value
from .methods import SGD, Adam, AdamW, RMSprop
from .optimizer import Optimizer
from .schedules import Plateau, Schedule, constant, cosine, one_cycle, plateau, warmup

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Average",
    "Optimizer",
    "Plateau",
    "RMSprop",
    "Schedule",
    "clip_by_global_norm",
    "clip_by_value",
    "constant",
    "cosine",
    "one_cycle",
    "plateau",
    "warmup",
]
