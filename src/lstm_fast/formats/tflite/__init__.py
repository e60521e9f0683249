"""TensorFlow Lite: models read without it.

    reader              `from_tflite`, `inspect`
    flatbuffer, file    the container, and the tables of a model in it, each offset checked
    graph, operators    from operator to operator; the blocks that they are
    lstm                weights of LSTMs, quantised ones too

It may import the files of `formats` and what these may.
"""

from .reader import from_tflite, inspect

__all__ = ["from_tflite", "inspect"]
