"""A fast and exact CPU LSTM for NumPy arrays, forward and backward.

    LSTM                          layers and directions, with PyTorch's names, shapes and gate order
    QuantizedLSTM                 weights of 8 bits or bfloat16, for inference: ``LSTM.quantize``
    Stream                        one time step at a time, from ``LSTM.stream``
    lstm_forward, lstm_backward   one layer and direction, arrays only
    reference                     the same two functions, and networks, in plain NumPy: the
                                  specification
    nn                            blocks around an LSTM, losses; Sequential and Model of blocks
    optim, training               optimisers; batches, and the Trainer of a model
    save, load                    any of them in a file
    from_torch, from_keras, from_onnx, from_tflite, ...    other packages' models, from their files
    to_torch, to_keras, to_onnx   and into them
    set_num_threads, get_num_threads, set_adaptive_threads, show_config

What lives where, and what each may import: only what stands to its right::

    formats/  ->  training/  ->  nn/, optim/  ->  lstm, stream, functional, config  ->  network/
        ->  engine/  ->  the C headers  <-  kernels/

`cli` and ``__main__`` are programs on top; `reference` stands alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .version import __version__ as __version__

if TYPE_CHECKING:
    from . import nn, optim, reference, training
    from .config import show_config
    from .engine.runtime.threads import get_num_threads, set_num_threads
    from .engine.watch import set_adaptive_threads
    from .formats.flax import from_flax
    from .formats.keras import from_keras, to_keras
    from .formats.onnx import from_onnx, to_onnx
    from .formats.openvino import from_openvino
    from .formats.pytorch import from_torch, to_torch
    from .formats.rtneural import from_rtneural
    from .formats.safetensors import from_safetensors
    from .formats.tflite import from_tflite
    from .functional import lstm_backward, lstm_forward
    from .lstm import LSTM
    from .network.block import load, save
    from .quantized import QuantizedLSTM
    from .stream import Stream

# Modules are imported when one of their names is used for the first time.
_FOLDERS = ("nn", "optim", "reference", "training")
_MODULES = {
    "config": ("show_config",),
    "engine.runtime.threads": ("get_num_threads", "set_num_threads"),
    "engine.watch": ("set_adaptive_threads",),
    "formats": (
        *("from_flax", "from_keras", "from_onnx", "from_openvino", "from_rtneural"),
        *("from_safetensors", "from_tflite", "from_torch", "to_keras", "to_onnx", "to_torch"),
    ),
    "functional": ("lstm_backward", "lstm_forward"),
    "lstm": ("LSTM",),
    "network.block": ("load", "save"),
    "quantized": ("QuantizedLSTM",),
    "stream": ("Stream",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "LSTM",
    "QuantizedLSTM",
    "Stream",
    "from_flax",
    "from_keras",
    "from_onnx",
    "from_openvino",
    "from_rtneural",
    "from_safetensors",
    "from_tflite",
    "from_torch",
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
    "to_keras",
    "to_onnx",
    "to_torch",
    "training",
]


def __getattr__(name: str) -> Any:
    if name in _FOLDERS:
        return import_module(f".{name}", __name__)
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "load":  # makes any block or stream, and so has to know them
        for home in (".lstm", ".nn"):
            import_module(home, __name__)
    found = globals()[name] = getattr(import_module(f".{_HOME[name]}", __name__), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
