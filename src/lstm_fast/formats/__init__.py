"""Models of other packages, from their files and into them, without these packages.

    pytorch/, keras/, onnx/, tflite/, openvino/, safetensors, rtneural, flax    one format each
    cells       an LSTM of weights in any order of gates
    signals     where time, batch and columns are in the graphs of tflite and openvino
    graphs      the input of such a graph, and the model that its output is
    raw         tensors as the bytes of a file
    reports     what is refused and why; comparison with recorded numbers; rows of a table
    files       which reader, which writer, by the extension

Each imports its one small library where it needs it, and checks what it finds before it builds
anything. It may import `training` and all below.
"""

from importlib import import_module
from typing import Any

# What users call, and the file that has it.
FUNCTIONS = {
    "from_torch": "pytorch",
    "to_torch": "pytorch",
    "from_safetensors": "safetensors",
    "from_keras": "keras",
    "to_keras": "keras",
    "from_onnx": "onnx",
    "to_onnx": "onnx",
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
