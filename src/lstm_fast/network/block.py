"""What every block has in common: its parameters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from copy import deepcopy
from typing import TypeVar

import numpy.typing as npt

from ..engine import Array
from .parameters import Parameters, WritableParameters

__all__ = ["Block"]

B = TypeVar("B", bound="Block")


class Block(ABC):
    """A block with parameters: reading, loading and writing them."""

    @property
    @abstractmethod
    def _parameters(self) -> Parameters: ...

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters."""
        return self._parameters.names

    def state_dict(self) -> dict[str, Array]:
        """Return copies of all parameters by name."""
        return self._parameters.state_dict()

    def load_state_dict(self, state_dict: Mapping[str, npt.ArrayLike]) -> None:
        """Set all parameters; nothing changes if this raises.

        Calls in other threads use the old parameters or the new ones, never some of each.

        Parameters
        ----------
        state_dict : mapping of str to array_like
            Exactly the keys and shapes of `state_dict`. Floating-point values of another precision
            are cast.

        Raises
        ------
        TypeError
            If `state_dict` is no mapping, or a value does not hold real floating-point numbers.
        ValueError
            If a key is missing or unknown, or a value has another shape.
        """
        self._parameters.load_state_dict(state_dict)

    def writable(self) -> AbstractContextManager[WritableParameters]:
        """Open the parameters for writing: ``with lstm.writable() as p: p["bias_hh_l0"] += 1``.

        The arrays are the parameters themselves. Calls inside the block and after it use the new
        values; those in other threads may see some of what is written. After the block the arrays
        are read-only again. A slice of one that is kept can still be written, and calls go on
        seeing it; but as long as it lives, every call packs the parameters anew. Keep nothing else
        that shares their memory, such as a memoryview or a tensor.
        """
        return self._parameters.writable()

    def __copy__(self: B) -> B:
        """Return a deep copy: with shared arrays, one would not see writes to the other."""
        return deepcopy(self)
