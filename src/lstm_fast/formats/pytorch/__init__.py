"""PyTorch: state_dicts, checkpoints and scripts, read without it; state_dicts for it.

    reader              `from_torch`, `to_torch`, `inspect`
    arrays              files of np.savez
    archive, pickled    the file; a pickle as data, of which nothing is imported or called
    names, blocks       from names of tensors to modules; the blocks that these are

It may import the files of `formats` and what these may.
"""

from .reader import from_torch, inspect, to_torch

__all__ = ["from_torch", "inspect", "to_torch"]
