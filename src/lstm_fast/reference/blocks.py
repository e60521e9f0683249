"""Blocks around an LSTM, each forward and backward.

Extents: ``T`` steps, ``B`` batch rows, ``F`` features; ``...`` are any axes, or none. Time comes
first. All arithmetic is done in the dtype of ``x``, or where ``x`` holds integers, of ``weight``;
other arrays of floats must have it. ``dv`` is the gradient of the loss with respect to ``v``.

Every forward returns ``y`` and a cache, which shares no memory with arguments or results. Every
backward takes ``dy`` and the cache, and returns ``dx`` and a dict with the gradients of the
parameters by name. ``dx`` is None for integers. `attention_forward` has two inputs and two outputs.

With ``lengths``, from 0 to T, the first two axes are T and B, and batch row b has lengths[b] steps.
What is beyond them is not read, in ``x`` or ``dy``, and is 0 in ``y`` and ``dx``. Without, all have
T. Wrong dtypes raise `TypeError`, and wrong shapes and values `ValueError`.

References
----------
N. Srivastava et al. (2014), "Dropout: A Simple Way to Prevent Neural Networks from Overfitting",
Journal of Machine Learning Research 15:1929-1958.

J. L. Ba, J. R. Kiros, G. E. Hinton (2016), "Layer Normalization", arXiv:1607.06450.

T. Luong, H. Pham, C. D. Manning (2015), "Effective Approaches to Attention-based Neural Machine
Translation", EMNLP 2015, eq. 7-8 ("dot").
"""

from .over_time import (
    attention_backward,
    attention_forward,
    flatten_backward,
    flatten_forward,
    last_backward,
    last_forward,
    pool_backward,
    pool_forward,
)
from .rows import (
    activation_backward,
    activation_forward,
    dropout_backward,
    dropout_forward,
    embedding_backward,
    embedding_forward,
    layer_norm_backward,
    layer_norm_forward,
    linear_backward,
    linear_forward,
    softmax_backward,
    softmax_forward,
)

__all__ = [
    "activation_backward",
    "activation_forward",
    "attention_backward",
    "attention_forward",
    "dropout_backward",
    "dropout_forward",
    "embedding_backward",
    "embedding_forward",
    "flatten_backward",
    "flatten_forward",
    "last_backward",
    "last_forward",
    "layer_norm_backward",
    "layer_norm_forward",
    "linear_backward",
    "linear_forward",
    "pool_backward",
    "pool_forward",
    "softmax_backward",
    "softmax_forward",
]
