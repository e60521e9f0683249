"""Keras: its files, ``.keras``, ``.h5`` and ``.weights.h5``, read without it; arrays for it.

    reader              `from_keras`, `inspect`: which layers, and the model of them
    files, hdf5         the zip and HDF5, checked before they are read
    config, bare        what the configuration says; files without one
    layers, cells       the blocks of layers; weights of LSTMs, cuDNN's too
    weights             `to_keras`

It may import the files of `formats` and what these may.
"""

from .reader import from_keras, inspect
from .weights import to_keras

__all__ = ["from_keras", "inspect", "to_keras"]
