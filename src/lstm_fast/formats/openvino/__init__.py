"""OpenVINO: models of its IR read without it.

    reader              `from_openvino`, `inspect`
    file                XML and constants, each offset checked
    graph, operators    from operator to operator; the blocks that they are

It may import the files of `formats` and what these may.
"""

from .reader import from_openvino, inspect

__all__ = ["from_openvino", "inspect"]
