"""What every block has in common: what it computes, and its parameters."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from copy import deepcopy
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ..engine import Array
from . import storage, unsaid
from .parameters import Parameters, WritableParameters, nothing, without_values

__all__ = ["Block", "built", "described", "load", "save"]

B = TypeVar("B", bound="Block")


KINDS: dict[str, type[Block]] = {}  # of the package, by name: what files may name


class Block(ABC):
    """A part of a model, which computes forward and backward and may have parameters.

    Attributes
    ----------
    stateful : bool
        Whether it has a state, which a call takes and returns. The others take and return None.
    keeps_time : bool
        Whether its output has the time axis of its input.
    batch_first : bool
        Whether B comes before T, where a block sees both.
    dtype : dtype
        Of the parameters, and of what is passed and returned.
    """

    stateful = False
    keeps_time = True
    batch_first: bool
    dtype: np.dtype[Any]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__module__.startswith(f"{__package__.partition('.')[0]}."):
            KINDS[cls.__name__] = cls

    @abstractmethod
    def __call__(
        self, x: Any, state: Any = None, *, lengths: npt.ArrayLike | None = None
    ) -> tuple[Array, Any]:
        """Compute in inference, and return the output and the state after it."""

    @abstractmethod
    def forward(
        self, x: Any, state: Any = None, *, lengths: npt.ArrayLike | None = None
    ) -> tuple[Array, Any, Any]:
        """Compute in training, and return the output, the state, and a cache for `backward`."""

    def _forward(self, x: Any, state: Any, lengths: Any, owned: bool) -> tuple[Array, Any, Any]:
        """Do the same. Nobody writes to x any more if it is `owned`: it may be kept as it is."""
        return self.forward(x, state, lengths=lengths)

    @abstractmethod
    def backward(self, dy: Any, dstate: Any, cache: Any) -> tuple[Any, Any, dict[str, Array]]:
        """Return the gradients of the input, of the state before, and of the parameters."""

    @abstractmethod
    def _options(self) -> dict[str, Any]:
        """Return the arguments of the constructor that make such a block, but no random ones."""

    @abstractmethod
    def _shape_after(self, shape: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the shape of the output, of numbers and letters; see `Sequential`."""

    # ---- parameters

    @property
    @abstractmethod
    def _parameters(self) -> Parameters: ...

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters."""
        return self._parameters.names

    @property
    def _generators(self) -> dict[str, np.random.Generator]:
        """Sources of what `forward` draws, by name."""
        return {}

    def random_state(self) -> dict[str, Any]:
        """Return the states of the generators from which `forward` draws, by name."""
        return {name: rng.bit_generator.state for name, rng in self._generators.items()}

    def set_random_state(self, state: Mapping[str, Any]) -> None:
        """Let `forward` draw again what it drew after `random_state` returned this.

        Raises
        ------
        ValueError
            If it is the state of another block, or of other generators.
        """
        generators = self._generators
        if not isinstance(state, Mapping) or state.keys() != generators.keys():
            raise ValueError(f"state: expected the generators {[*generators]}")
        before = self.random_state()
        try:
            for name, rng in generators.items():
                rng.bit_generator.state = state[name]
        except (ValueError, TypeError, KeyError) as error:
            for name, rng in generators.items():
                rng.bit_generator.state = before[name]
            raise ValueError(f"state: is of another kind of generator ({error})") from error

    def state_dict(self) -> dict[str, Array]:
        """Return copies of all parameters by name.

        An LSTM whose options arrays do not tell (reverse, merge, coupled, clip, cell_clip,
        activations, zoneout, residual), or a QuantizedLSTM with `inputs` that are not bfloat16, has
        ``lstm_options`` besides, for `load_state_dict`.
        """
        return self._parameters.state_dict() | self._said() | self._fixed()

    def load_state_dict(self, state_dict: Mapping[str, npt.ArrayLike]) -> None:
        """Set all parameters; nothing changes if this raises.

        Calls in other threads use the old parameters or the new ones, never some of each. A step of
        a `nn.ModelStream` and a call of a `nn.Model` do so block by block: where that matters, load
        them into a copy.

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
            If a key is missing or unknown, a value has another shape, or the arrays are of an LSTM
            with other options.
        """
        set_fixed = nothing
        if isinstance(state_dict, Mapping):
            own = self._said()
            unsaid.check(state_dict, own)
            state_dict = {name: state_dict[name] for name in state_dict if name not in own}
            set_fixed = self._take_fixed(state_dict)
        self._parameters.load_state_dict(state_dict)
        set_fixed()

    def _load(self, arrays: Mapping[str, Array]) -> None:
        """Set all parameters of a new block from a file, whose description has the options."""
        parameters = {name: value for name, value in arrays.items() if not unsaid.is_key(name)}
        set_fixed = self._take_fixed(parameters)
        self._parameters.fill(parameters)
        set_fixed()

    def _said(self) -> dict[str, Array]:
        """Return the options that parameters do not tell, as arrays by name; see `unsaid`."""
        return {}

    def _count(self) -> int:
        """Return how many numbers its parameters have."""
        return sum(math.prod(shape) for shape in self._parameters.layout.shapes)

    def _fixed(self) -> dict[str, Array]:
        """Return copies of the arrays of its state_dict that nothing trains."""
        return {}

    def _take_fixed(self, arrays: dict[str, Any], prefix: str = "") -> Callable[[], None]:
        """Take them, checked, from arrays whose names begin so, and return what sets them."""
        return nothing

    def writable(self) -> AbstractContextManager[WritableParameters]:
        """Open the parameters for writing: ``with lstm.writable() as p: p["bias_hh_l0"] += 1``.

        The arrays are the parameters themselves. Calls inside the block and after it use the new
        values; those in other threads may see some of what is written. After the block the arrays
        are read-only again. A slice of one that is kept can still be written, and calls go on
        seeing it; but as long as it lives, every call packs the parameters anew. Keep nothing else
        that shares their memory, such as a memoryview or a tensor.
        """
        return self._parameters.writable()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the block to a file, which `lstm_fast.load` makes it from again.

        A safetensors file with all parameters, and in its metadata the arguments that make such a
        block. An old file of this name stays whole until the new one is.

        Raises
        ------
        ImportError
            If the package safetensors is not installed.
        """
        storage.write(path, self.state_dict(), {"block": described(self)})

    def __copy__(self: B) -> B:
        """Return a deep copy: with shared arrays, one would not see writes to the other."""
        return deepcopy(self)


def described(block: Block) -> dict[str, Any]:
    """Return what makes a block again, but for its parameters, as JSON has it."""
    kind = type(block).__name__
    if KINDS.get(kind) is not type(block):
        raise TypeError(f"block: {type(block).__name__} is no block of lstm_fast, and has no file")
    options = {name: _json(value) for name, value in block._options().items()}
    return {"kind": kind, "options": options}


def _json(value: Any) -> Any:
    if isinstance(value, np.dtype):
        return value.name
    if isinstance(value, Block):
        return described(value)
    if isinstance(value, Mapping):
        return {name: _json(one) for name, one in value.items()}
    return value


def built(what: Any) -> Block:
    """Return a new block from what `described` returned.

    Raises
    ------
    ValueError
        If no block is described.
    """
    try:
        kind, options = what["kind"], dict(what["options"])
        blocks = {name: built(one) for name, one in options.pop("blocks", {}).items()}
        if kind not in KINDS:
            raise ValueError(f"there is no block {kind!r}")
        return KINDS[kind](**blocks, **{name: _tuples(value) for name, value in options.items()})
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"no block is described: {error}") from error


def save(path: str | os.PathLike[str], block: Block) -> None:
    """Write a block, or a stream of one, to a file: see `LSTM.save`."""
    if not hasattr(block, "save"):
        raise TypeError(f"block: expected a block or a stream, got {type(block).__name__}")
    block.save(path)


def _tuples(value: Any) -> Any:
    """Return lists, which JSON has, as tuples."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def load(path: str | os.PathLike[str]) -> Any:
    """Return what `Block.save` or `Stream.save` wrote to a file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is another file, or of a newer version, or its arrays do not fit what it says.
    ImportError
        If the package safetensors is not installed.
    """
    arrays, what = storage.read(path)
    try:
        for kind, read in READERS.items():
            if kind in what:
                return read(arrays, what)
        with without_values():
            block = built(what.get("block"))
        block._load(arrays)
    except (ValueError, TypeError, OverflowError, MemoryError) as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from error
    return block


# What else files may hold: by a key of the description, what makes it of arrays and description.
READERS: dict[str, Callable[[dict[str, Array], dict[str, Any]], Any]] = {}
