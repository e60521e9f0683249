"""Models of other packages, from their files and into them, without these packages.

Each file of this folder is one format, imports its one small library where it needs it, and checks
what it finds before it builds anything. `cells` makes an LSTM of weights in any gate order,
`reports` says what is wrong, compares, and describes. Of PyTorch's files, `torch_zip` and `pickled`
read the tree, `torch_names` finds modules in it, `torch_blocks` makes blocks of these; `raw` has
tensors as bytes. It may import `training` and all below.
"""

from importlib import import_module
from typing import Any

# What users call, and the file that has it.
FUNCTIONS = {
    "from_torch": "pytorch",
    "to_torch": "pytorch",
    "from_safetensors": "safetensors",
    "from_keras": "keras",
    "to_keras": "keras_weights",
    "from_onnx": "onnx",
    "to_onnx": "onnx_export",
    "from_tflite": "tflite",
    "from_openvino": "openvino",
    "from_rtneural": "rtneural",
    "from_flax": "flax",
}

__all__ = [*FUNCTIONS]


def __getattr__(name: str) -> Any:
    if name in FUNCTIONS:
        return getattr(import_module(f".{FUNCTIONS[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
