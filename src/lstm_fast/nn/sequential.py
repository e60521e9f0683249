"""`Sequential`: blocks one after the other, itself a block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from typing import Any, TypeVar

import numpy.typing as npt

from ..engine import Array
from ..lstm import LSTM
from ..network.block import Block
from ..network.layout import Gradients
from ..network.lower import Inputs, Weights
from ..network.parameters import lock
from ..network.sessions import OnNaN
from .model import Blocks, in_table, named, table
from .rows import Kept, kept_in
from .streaming import ModelStream

__all__ = ["Sequential"]

R = TypeVar("R")


class Sequential(Blocks):
    """Blocks, each of which takes the output of the one before.

    The parameters of all lie in one buffer, under the names of a ``torch.nn.Module`` whose
    attributes are these blocks: its `state_dict` can be loaded as it is.

    Parameters
    ----------
    *blocks, **named : Block
        In this order. Those without a name are called "0", "1" and so on. A block can be part of
        one model only.

    Attributes
    ----------
    blocks : mapping of str to Block

    Raises
    ------
    TypeError
        If something is no block.
    ValueError
        If there is none, if a block is part of another model, or if two have different dtypes or
        another order of T and B.

    Examples
    --------
    >>> model = Sequential(lstm=LSTM(3, 16, seed=0), head=Linear(16, 2, seed=0))
    >>> y, state = model(np.zeros((7, 5, 3), np.float32))
    >>> y.shape, state["lstm"][0].shape
    ((7, 5, 2), (1, 5, 16))
    """

    def __init__(self, /, *blocks: Block, **named: Block) -> None:
        given = {str(n): block for n, block in enumerate(blocks)}
        for name in named:
            if name in given:
                raise ValueError(f"{name!r}: stands twice, once as the number of a block")
        given |= named
        self._join(given)
        self.batch_first = _batch_first(given)
        _check_time(given)
        self.stateful = any(block.stateful for block in given.values())
        self.keeps_time = all(block.keeps_time for block in given.values())

    def __getitem__(self, name: str | int) -> Block:
        """Return a block by its name or number."""
        if isinstance(name, str):
            return self._blocks[name]
        return [*self._blocks.values()][name]

    def __len__(self) -> int:
        return len(self._blocks)

    def __iter__(self) -> Iterator[Block]:
        return iter(self._blocks.values())

    def quantize(self, weights: Weights, inputs: Inputs = "bfloat16") -> Sequential:
        """Return a copy of this model whose LSTMs have weights of lower precision.

        For inference: see `LSTM.quantize`.
        """
        blocks: dict[str, Block] = {}
        for name, block in self._blocks.items():
            with named(name):
                if isinstance(block, (LSTM, Sequential)):
                    blocks[name] = block.quantize(weights, inputs)
                else:
                    blocks[name] = deepcopy(block)
        return Sequential(**blocks)

    # ---- computing

    def __call__(
        self,
        x: Any,
        state: Mapping[str, Any] | None = None,
        *,
        lengths: npt.ArrayLike | None = None,
    ) -> tuple[Array, dict[str, Any]]:
        """Compute in inference.

        Parameters
        ----------
        x : array
            As the first block takes it, (T, B, I) or (T, B) numbers, but not sequences one after
            the other.
        state : dict, optional
            States of blocks by their names, as a call returns them; zeros where absent.
        lengths : array_like of int, shape (B,), optional
            Time steps of each sequence: what comes after is neither read nor computed.

        Returns
        -------
        y : ndarray
        state : dict
            Of the blocks that have one.

        Raises
        ------
        TypeError, ValueError, RuntimeError
            As the blocks, with the name of the block before the message.
        """
        states = self._states("state", state)
        _no_pair(x)
        return self._of_one_version(lambda: self._infer(x, states, lengths))

    def _infer(
        self, x: Any, states: Mapping[str, Any], lengths: Any
    ) -> tuple[Array, dict[str, Any]]:
        after: dict[str, Any] = {}
        for name, block in self._blocks.items():
            with named(name):
                x, one = block(x, states.get(name), lengths=lengths)
            if block.stateful:
                after[name] = one
            lengths = lengths if block.keeps_time else None
        return x, after

    def forward(
        self,
        x: Any,
        state: Mapping[str, Any] | None = None,
        *,
        lengths: npt.ArrayLike | None = None,
    ) -> tuple[Array, dict[str, Any], Kept]:
        """Compute in training: as a call, and return a cache for `backward` besides."""
        return self._forward(x, state, lengths, False)

    def _forward(
        self, x: Any, state: Any, lengths: Any, owned: bool
    ) -> tuple[Array, dict[str, Any], Kept]:
        states = self._states("state", state)
        _no_pair(x)
        return self._of_one_version(lambda: self._train(x, states, lengths, owned))

    def _train(
        self, x: Any, states: Mapping[str, Any], lengths: Any, owned: bool
    ) -> tuple[Array, dict[str, Any], Kept]:
        after: dict[str, Any] = {}
        caches = []
        for name, block in self._blocks.items():
            with named(name):
                before = states.get(name)
                if owned and _takes_owned(type(block)):
                    x, one, cache = block._forward(x, before, lengths, True)
                else:
                    x, one, cache = block.forward(x, before, lengths=lengths)
            owned = True  # what a block returned
            if block.stateful:
                after[name] = one
            caches.append(cache)
            lengths = lengths if block.keeps_time else None
        return x, after, Kept(self, tuple(caches))

    def backward(
        self, dy: Array | None, dstate: Mapping[str, Any] | None, cache: Kept
    ) -> tuple[Array | None, dict[str, Any], Gradients]:
        """Return the gradients of a scalar loss for the input, the states and the parameters.

        Parameters
        ----------
        dy : ndarray, shape of y, or None for zeros
            Gradient of y.
        dstate : dict, optional
            Gradients of the states that forward returned, by name; zeros where absent.
        cache
            From `forward` of this model.

        Returns
        -------
        dx : ndarray, shape of x, or None where x holds numbers
        dstate : dict
            Gradients of the states before.
        grads : dict
            Keys and shapes of `state_dict`. All of them are views of the one array ``grads.flat``.
        """
        caches = kept_in(cache, self)
        dstates = self._states("dstate", dstate)
        before: dict[str, Any] = {}
        grads = Gradients(self._joint.layout)
        for (name, block), one in zip(
            reversed(self._blocks.items()), reversed(caches), strict=True
        ):
            with named(name):
                dy, dbefore, of_block = block.backward(dy, dstates.get(name), one)
            self._put(grads, name, of_block)
            if block.stateful:
                before[name] = dbefore
        return dy, dict(reversed(before.items())), grads

    def _of_one_version(self, compute: Callable[[], R]) -> R:
        """Return what all blocks compute with parameters of one version.

        Where these change meanwhile they compute again, and who would load others waits.
        """
        before = self._joint.version.number
        found = compute()
        if self._joint.version.number == before:
            return found
        with lock():
            return compute()

    def _states(self, argument: str, state: Any) -> Mapping[str, Any]:
        if state is None:
            return {}
        if not isinstance(state, Mapping):
            raise TypeError(
                f"{argument}: expected a dict by the names of blocks, got {type(state).__name__}"
            )
        for name in state:
            if name not in self._blocks or not self._blocks[name].stateful:
                raise ValueError(f"{argument}: {name!r} is no block with a state")
        return state

    def stream(self, batch_size: int = 1, on_nan: OnNaN = "keep") -> ModelStream:
        """Return a `ModelStream`, which runs this model one time step at a time from zero states.

        Raises
        ------
        ValueError
            If a block needs the whole sequence.
        """
        return ModelStream(self, batch_size, on_nan)

    # ---- what it is

    def _shape_after(self, shape: tuple[Any, ...]) -> tuple[Any, ...]:
        for block in self._blocks.values():
            shape = block._shape_after(shape)
        return shape

    def _first_shape(self) -> tuple[Any, ...]:
        """Return the shape of x, of letters and numbers."""
        axes = ("B", "T") if self.batch_first else ("T", "B")
        first = next(iter(self._blocks.values()))
        while isinstance(first, Sequential):
            first = first[0]
        if hasattr(first, "vocabulary"):
            return axes
        return *axes, getattr(first, "input_size", getattr(first, "columns", "I"))

    def __repr__(self) -> str:
        """Return a table: name, block, shape of its output, numbers of parameters."""
        rows, shape = [], self._first_shape()
        for name, block in self._blocks.items():
            shape = block._shape_after(shape)
            rows.append((name, in_table(block), f"({', '.join(map(str, shape))})"))
        return table("Sequential", ("", "block", "output"), rows, self._blocks)


def _takes_owned(kind: type[Block]) -> bool:
    """Whether `_forward` computes what `forward` does, which a subclass may have written anew."""
    defined = next(vars(one) for one in kind.__mro__ if "forward" in vars(one))
    return "_forward" in defined


def _no_pair(x: Any) -> None:
    """Raise for sequences one after the other, whose borders later blocks would not see."""
    if isinstance(x, tuple):
        raise TypeError("x: expected one array; pad sequences, and give their lengths")


def _check_time(blocks: Mapping[str, Block]) -> None:
    """Raise where a block needs a time axis that one before it has taken away."""
    taken = None
    for name, block in blocks.items():
        if taken is not None and (block.stateful or not block.keeps_time):
            raise ValueError(f"{name}: needs time steps, of which {taken} has made one row")
        taken = taken if block.keeps_time else name


def _batch_first(blocks: Mapping[str, Block]) -> bool:
    """Return the order of T and B, which all blocks have that see time."""
    found: dict[str, bool] = {}
    for name, block in blocks.items():
        found[name] = block.batch_first
        first = next(iter(found))
        if found[name] != found[first]:
            raise ValueError(
                f"{name}: has batch_first={found[name]}, and {first} has {found[first]}"
            )
        if not block.keeps_time:
            break
    return next(iter(found.values()))
