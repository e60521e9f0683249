"""ONNX: models read, and written for ONNX Runtime.

    reader              `from_onnx`, `inspect`: which LSTMs, and the model around them
    graph, folding      tensors and attributes; operators on constants
    values, shapes      what is known of a value; sizes of its axes
    walk, scope, layout         from an operator to the next; values by name; where the axes are
    states, lengths     which parts of inputs are initial states; what is computed of lengths
    lstm, blocks        the blocks that operators are
    export, writing     `to_onnx`; its operators
    verify              by ONNX Runtime

It may import the files of `formats` and what these may.
"""

from .export import to_onnx
from .reader import from_onnx, inspect

__all__ = ["from_onnx", "inspect", "to_onnx"]
