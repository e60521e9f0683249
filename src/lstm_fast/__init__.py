"""A fast and exact CPU LSTM for NumPy arrays, forward and backward.

    LSTM                          layers and directions, with PyTorch's names, shapes and gate order
    Stream                        one time step at a time, from ``LSTM.stream``
    lstm_forward, lstm_backward   one layer and direction, arrays only
    reference                     the same two functions, and networks, in plain NumPy: the
                                  specification
    set_num_threads, get_num_threads, show_config

What imports what::

    layers, streaming, functional  ->  _forward, _backward  ->  _engine  ->  _dispatch  ->  C
    kernels; _threads (OpenMP, forks) and _blas (SciPy, on demand) serve the engine; reference
    stands alone.
"""

from . import reference
from ._threads import get_num_threads, set_num_threads
from .config import show_config
from .functional import lstm_backward, lstm_forward
from .layers import LSTM
from .streaming import Stream
from .version import __version__

__all__ = [
    "LSTM",
    "Stream",
    "__version__",
    "get_num_threads",
    "lstm_backward",
    "lstm_forward",
    "reference",
    "set_num_threads",
    "show_config",
]
