"""A fast and exact CPU LSTM for NumPy arrays, forward and backward.

    LSTM                          layers and directions, with PyTorch's names, shapes and gate order
    Stream                        one time step at a time, from ``LSTM.stream``
    lstm_forward, lstm_backward   one layer and direction, arrays only
    reference                     the same two functions, and networks, in plain NumPy: the
                                  specification
    nn                            blocks around an LSTM, losses, and Sequential: a model of blocks
    optim, training               optimisers; batches, and the Trainer of a model
    save, load                    any of them in a file
    set_num_threads, get_num_threads, set_adaptive_threads, show_config

What lives where, and what each may import: only what stands to its right::

    training/  ->  nn/, optim/  ->  lstm, stream, functional, config  ->  network/
        ->  engine/  ->  the C headers  <-  kernels/

`cli` and ``__main__`` are programs on top; `reference` stands alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import reference
from .config import show_config
from .engine.runtime.threads import get_num_threads, set_num_threads
from .engine.watch import set_adaptive_threads
from .functional import lstm_backward, lstm_forward
from .lstm import LSTM
from .network.block import save
from .stream import Stream
from .version import __version__ as __version__

if TYPE_CHECKING:
    from . import nn, optim, training
    from .network.block import load

__all__ = [
    "LSTM",
    "Stream",
    "get_num_threads",
    "load",
    "lstm_backward",
    "lstm_forward",
    "nn",
    "optim",
    "reference",
    "save",
    "set_adaptive_threads",
    "set_num_threads",
    "show_config",
    "training",
]


def __getattr__(name: str) -> Any:
    if name in ("nn", "optim", "training"):
        return import_module(f".{name}", __name__)
    if name == "load":  # which makes blocks, and so has to know them
        import_module(".nn", __name__)
        return import_module(".network.block", __name__).load
    if name.startswith(("from_", "to_")):
        return getattr(import_module(".formats", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
