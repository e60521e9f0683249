"""OpenVINO: models of its IR read without it.

    reader              `from_openvino`, `inspect`
    file                XML and constants, each offset checked
    constants           what is computed from them: weights of 8 bits
    graph, operators    from operator to operator; the blocks that they are
    lstm                LSTMs, cells in loops over time, and their states

It may import the files of `formats` and what these may.
"""

from .reader import from_openvino, inspect

__all__ = ["from_openvino", "inspect"]
