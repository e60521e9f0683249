"""What all optimisers have in common: a block's step, its state, weight decay."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from ..engine import Array
from ..engine.runtime.arithmetic import DefaultArithmetic
from ..network import checks
from ..network.block import Block
from ..network.layout import Layout, checked
from ..network.parameters import lock

__all__ = ["NoDecay", "Optimizer", "below_one", "not_negative"]

NoDecay = Literal["vectors"] | Collection[str] | Callable[[str], bool] | None


def not_negative(name: str, value: Any) -> float:
    """Return a finite float of at least 0."""
    found = checks.number(name, value)
    if not 0 <= found < math.inf:
        raise ValueError(f"{name}: expected a finite number of at least 0, got {found}")
    return found


def below_one(name: str, value: Any) -> float:
    """Return a float of at least 0 and below 1."""
    found = checks.number(name, value)
    if not 0 <= found < 1:
        raise ValueError(f"{name}: expected a number of at least 0 and below 1, got {found}")
    return found


class _State(NamedTuple):
    """What an optimiser keeps for a block, once that is known."""

    layout: Layout  # of the block
    kept: Layout  # of all arrays of the optimiser, kind by kind
    flat: Array
    decayed: npt.NDArray[np.intp]  # ranges of elements


class Optimizer(ABC):
    """What all optimisers have in common.

    Its state belongs to the first block that it stepped, and to others with parameters of the same
    names and shapes.

    Attributes
    ----------
    lr : float
        Learning rate; may be set between steps. All other arguments are fixed.
    steps : int
        How many steps were taken.
    """

    lr: float
    weight_decay: float
    _kinds: tuple[str, ...] = ()  # of arrays that are kept, by PyTorch's names

    def __init__(self, lr: float, weight_decay: float, no_decay: NoDecay) -> None:
        self.lr = lr
        self.weight_decay = not_negative("weight_decay", weight_decay)
        if isinstance(no_decay, str):
            checks.one_of("no_decay", no_decay, ("vectors",))
        elif no_decay is not None and not callable(no_decay):
            if not isinstance(no_decay, Collection):
                kind = type(no_decay).__name__
                raise TypeError(f"no_decay: expected 'vectors', names or a function, got {kind}")
            no_decay = tuple(no_decay)
        self._no_decay = no_decay
        self._steps = 0
        self._state: _State | None = None
        self._loaded: dict[str, Array] = {}  # before the block is known

    @property
    def steps(self) -> int:
        """How many steps were taken."""
        return self._steps

    def step(self, block: Block, grads: Mapping[str, npt.ArrayLike]) -> None:
        """Update the parameters of a block in place.

        Calls in other threads use those before it or those after it: see `Block.load_state_dict`.

        Parameters
        ----------
        block : Block
            `LSTM`, or any block of `nn`.
        grads : dict of str to ndarray
            As `backward` returns them. They stay as they are. What is not finite in them comes into
            the parameters.

        Raises
        ------
        TypeError
            If `block` is no block, or `grads` is no mapping or has other values than real
            floating-point numbers.
        ValueError
            If a key of `grads` is missing or unknown, a gradient has another shape, or the state
            belongs to a block with other parameters.
        """
        if not isinstance(block, Block):
            raise TypeError(f"block: expected a block, got {type(block).__name__}")
        parameters = block._parameters
        state = self._state_for(parameters.layout)
        g = parameters.layout.flat(grads)
        self._state, self._loaded = state, {}
        size = state.layout.size
        kept = {kind: state.flat[n * size :][:size] for n, kind in enumerate(self._kinds)}
        with lock(), parameters.update() as p, DefaultArithmetic():
            self._steps += 1
            self._update(p, g, kept, state.decayed)

    @abstractmethod
    def _update(
        self, p: Array, g: Array, kept: dict[str, Array], decayed: npt.NDArray[np.intp]
    ) -> None:
        """Take step number `steps` with flat arrays, in default arithmetic."""

    def _state_for(self, layout: Layout) -> _State:
        """Return the state for a block of this layout, a new one if there is none."""
        if self._state is not None:
            if self._state.layout != layout:
                raise ValueError(
                    "block: the state of this optimizer belongs to a block with other parameters: "
                    f"{_described(self._state.layout)}; this one has {_described(layout)}"
                )
            return self._state
        arrays = {
            f"{kind}.{name}": shape
            for kind in self._kinds
            for name, shape in zip(layout.names, layout.shapes, strict=True)
        }
        kept = Layout(arrays, layout.dtype)
        flat = kept.zeros()
        if self._loaded:
            kept.fill(flat, self._loaded)
        return _State(layout, kept, flat, self._ranges(layout))

    def _undecayed(self, layout: Layout) -> set[str]:
        """Return the names of the parameters that weight decay leaves out."""
        none = self._no_decay
        if none == "vectors":
            shapes = zip(layout.names, layout.shapes, strict=True)
            return {name for name, shape in shapes if len(shape) == 1}
        if callable(none):
            return {name for name in layout.names if none(name)}
        unknown = [name for name in none or () if name not in layout.names]
        if unknown:
            raise ValueError(f"no_decay: the block has no parameters {unknown}")
        return set(none or ())

    def _ranges(self, layout: Layout) -> npt.NDArray[np.intp]:
        """Return start and end of the elements to which weight decay applies, shape (n, 2)."""
        without = self._undecayed(layout)
        ranges: list[list[int]] = []
        for name, start, end in zip(layout.names, layout.offsets, layout.ends, strict=True):
            if name not in without:
                if ranges and ranges[-1][1] == start:
                    ranges[-1][1] = end
                else:
                    ranges.append([start, end])
        return np.array(ranges, np.intp).reshape(-1, 2)

    def state_dict(self) -> dict[str, Array]:
        """Return the state: ``step``, and copies of arrays such as ``exp_avg.weight_hh_l0``.

        `numpy.savez` saves it. It has no arrays before the first step.
        """
        arrays = self._loaded
        if self._state is not None:
            arrays = self._state.kept.views(self._state.flat)
        return {"step": np.array(self._steps), **{k: a.copy() for k, a in arrays.items()}}

    def load_state_dict(self, state_dict: Mapping[str, npt.ArrayLike]) -> None:
        """Set the state; nothing changes if this raises.

        Before the first step, arrays are compared with the parameters of a block when that is
        stepped.

        Raises
        ------
        TypeError
            If `state_dict` is no mapping, or has other values than numbers.
        ValueError
            If a key is missing or unknown, or an array has another shape.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"state_dict: expected a mapping, got {type(state_dict).__name__}")
        if "step" not in state_dict:
            raise ValueError("state_dict: missing keys ['step']")
        step = checks.integer("state_dict['step']", state_dict["step"], 0)
        arrays = {name: state_dict[name] for name in state_dict if name != "step"}
        if unknown := [name for name in arrays if name.partition(".")[0] not in self._kinds]:
            raise ValueError(f"state_dict: unknown keys {unknown}")
        if not arrays and step > 0 and self._kinds:
            raise ValueError(f"state_dict: no arrays {' and '.join(self._kinds)}")
        if self._state is None:
            self._loaded = {
                name: checked(f"state_dict[{name!r}]", value, np.shape(value)).copy()
                for name, value in arrays.items()
            }
        elif arrays:
            self._state.kept.fill(self._state.flat, arrays)
        else:
            self._state.flat[:] = 0
        self._steps = step

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "lr":
            value = not_negative("lr", value)
        elif not name.startswith("_") and hasattr(self, name):
            raise AttributeError(f"{name} is fixed when an optimizer is made")
        object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        words = [f"{k}={v!r}" for k, v in self.__dict__.items() if not k.startswith("_")]
        words += [f"no_decay={self._no_decay!r}"] * (self._no_decay is not None)
        return f"{type(self).__name__}({', '.join(words)})"

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        if callable(self._no_decay) and self._state is not None:  # it may be a lambda
            state["_no_decay"] = tuple(self._undecayed(self._state.layout))
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._state is not None:  # unpickled arrays may lie in a buffer of somebody else's
            flat = self._state.kept.zeros()
            flat[:] = self._state.flat
            self._state = self._state._replace(flat=flat)


def _described(layout: Layout) -> str:
    shapes = zip(layout.names, layout.shapes, strict=True)
    words = [f"{name} {shape}" for name, shape in shapes][:8]
    return f"{', '.join(words)}{', ...' * (len(layout.names) > 8)}; {layout.dtype}"
