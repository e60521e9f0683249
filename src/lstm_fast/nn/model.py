"""Several blocks as one: `Model`, which a class of the user's puts together, and what all have."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from ..engine import Array
from ..network import storage
from ..network.block import Block, described
from ..network.joint import JointParameters
from ..network.layout import Gradients

__all__ = ["Blocks", "Model", "in_table", "named", "table"]


class Blocks(Block):
    """What blocks have that are made of blocks: names, and one buffer of parameters."""

    def _join(self, blocks: Mapping[str, Block]) -> None:
        """Check blocks, and take them and their parameters."""
        for name, block in blocks.items():
            if not isinstance(block, Block):
                raise TypeError(f"{name}: expected a block, got {type(block).__name__}")
            if not name or "." in name:
                raise ValueError(f"{name!r}: a name of a block is not empty and has no dot")
        if not blocks:
            raise ValueError("blocks: expected at least one")
        self._blocks = dict(blocks)
        self.dtype = _dtype(blocks)
        self.batch_first = next(iter(blocks.values())).batch_first
        self._joint = JointParameters({name: block._parameters for name, block in blocks.items()})

    @property
    def blocks(self) -> Mapping[str, Block]:
        """The blocks by name, in order."""
        return MappingProxyType(self._blocks)

    @property
    def _parameters(self) -> JointParameters:
        return self._joint

    def _said(self) -> dict[str, Array]:
        return {
            f"{name}.{key}": value
            for name, block in self._blocks.items()
            for key, value in block._said().items()
        }

    def _count(self) -> int:
        return sum(block._count() for block in self._blocks.values())

    def _fixed(self) -> dict[str, Array]:
        return {
            f"{name}.{key}": value
            for name, block in self._blocks.items()
            for key, value in block._fixed().items()
        }

    def _take_fixed(self, arrays: dict[str, Any], prefix: str = "") -> Callable[[], None]:
        setters = [
            block._take_fixed(arrays, f"{prefix}{name}.") for name, block in self._blocks.items()
        ]

        def set_all() -> None:
            for setter in setters:
                setter()

        return set_all

    @property
    def _generators(self) -> dict[str, np.random.Generator]:
        return {
            f"{name}.{of}": generator
            for name, block in self._blocks.items()
            for of, generator in block._generators.items()
        }

    def _put(self, grads: Gradients, name: str, of_block: Mapping[str, Array]) -> None:
        """Write the gradients of a block to those of all."""
        for key, value in of_block.items():
            grads[f"{name}.{key}"][...] = value

    def _options(self) -> dict[str, Any]:
        return {"blocks": self._blocks}


class Model(Blocks):
    """Blocks by name, with all that a block has but what it computes: a subclass says that.

    It passes its blocks to this constructor, which makes them attributes, and has `forward` and
    `backward` as all blocks have them; for inference `__call__`, too. `training.Trainer`, the
    optimisers and `save` then take it as they take a `Sequential`. Inside one, ``stateful`` says
    whether it has a state, and ``keeps_time`` whether its output has a time axis.

    Parameters
    ----------
    **blocks : Block
        By name. A block can be part of one model only.

    Attributes
    ----------
    blocks : mapping of str to Block

    Raises
    ------
    TypeError
        If something is no block.
    ValueError
        If there is none, if a block is part of another model, if two have different dtypes, or if
        a name is one that models have already.

    Examples
    --------
    >>> class Residual(Model):
    ...     def forward(self, x, state=None, *, lengths=None):
    ...         y, state, of_lstm = self.lstm.forward(x, state, lengths=lengths)
    ...         return x + y, state, of_lstm
    ...
    ...     def backward(self, dy, dstate, of_lstm):
    ...         dx, dstate, grads = self.lstm.backward(dy, dstate, of_lstm)
    ...         return dx + dy, dstate, self.gradients(lstm=grads)
    >>> model = Residual(lstm=LSTM(4, 4, seed=0))
    """

    def __init__(self, /, **blocks: Block) -> None:
        for name in blocks:
            if hasattr(self, name):
                raise ValueError(f"{name!r}: a model has another attribute of this name")
        self._join(blocks)
        self.__dict__.update(blocks)

    def __call__(
        self, x: Any, state: Any = None, *, lengths: npt.ArrayLike | None = None
    ) -> tuple[Array, Any]:
        """Compute in inference: of a subclass."""
        raise NotImplementedError(f"{type(self).__name__} has no __call__")

    def forward(
        self, x: Any, state: Any = None, *, lengths: npt.ArrayLike | None = None
    ) -> tuple[Array, Any, Any]:
        """Compute in training: of a subclass."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def backward(self, dy: Any, dstate: Any, cache: Any) -> tuple[Any, Any, dict[str, Array]]:
        """Return gradients: of a subclass."""
        raise NotImplementedError(f"{type(self).__name__} has no backward")

    def gradients(self, /, **grads: Mapping[str, Array]) -> Gradients:
        """Return the gradients of the parameters, from those that `backward` of blocks returned.

        Those of blocks that are not named are zeros.

        Returns
        -------
        dict
            Keys and shapes of `state_dict`. All of them are views of the one array ``grads.flat``.

        Raises
        ------
        ValueError
            If there is no block of a name, or no such parameter of it.
        """
        found = Gradients(self._joint.layout)
        for name, of_block in grads.items():
            if name not in self._blocks or of_block.keys() != {*self._blocks[name].parameters}:
                raise ValueError(f"{name}: expected the gradients of one of {[*self._blocks]}")
            self._put(found, name, of_block)
        return found

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the parameters and what the blocks are to a file: see `LSTM.save`.

        The file does not know a subclass: `lstm_fast.load` returns a `Model` of these blocks that
        computes nothing, whose `state_dict` one of the subclass loads.
        """
        blocks = {name: described(block) for name, block in self._blocks.items()}
        what = {"kind": Model.__name__, "options": {"blocks": blocks}}
        storage.write(path, self.state_dict(), {"block": what})

    def _shape_after(self, shape: tuple[Any, ...]) -> tuple[Any, ...]:
        return *shape[:-1], "columns"

    def __repr__(self) -> str:
        """Return a table: name, block, numbers of parameters."""
        rows = [(name, in_table(block)) for name, block in self._blocks.items()]
        return table(type(self).__name__, ("", "block"), rows, self._blocks)


class named:
    """Puts the name of a block before the message of its error."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if type(error) in (TypeError, ValueError, RuntimeError) and error.args:
            error.args = (f"{self._name}: {error.args[0]}", *error.args[1:])


def in_table(block: Block) -> str:
    """Return a block as a line of a table has it."""
    return type(block).__name__ if isinstance(block, Blocks) else repr(block)


def table(
    title: str,
    head: tuple[str, ...],
    rows: Sequence[tuple[str, ...]],
    blocks: Mapping[str, Block],
) -> str:
    """Return a table of blocks, with their numbers of parameters."""
    counts = [block._count() for block in blocks.values()]
    lines = [
        (*head, "parameters"),
        *((*row, f"{count:,}") for row, count in zip(rows, counts, strict=True)),
        ("",) * len(head) + (f"{sum(counts):,}",),
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    found = [title]
    for *words, count in lines:
        padded = [f"{word:{width}}" for word, width in zip(words, widths, strict=False)]
        found.append("  " + "  ".join([*padded, f"{count:>{widths[-1]}}"]).rstrip())
    return "\n".join(found)


def _dtype(blocks: Mapping[str, Block]) -> np.dtype[Any]:
    """Return the dtype that all blocks have."""
    found = {name: np.dtype(block.dtype) for name, block in blocks.items()}
    first = next(iter(found))
    for name, dtype in found.items():
        if dtype != found[first]:
            raise ValueError(f"{name}: has dtype {dtype}, and {first} has {found[first]}")
    return found[first]
