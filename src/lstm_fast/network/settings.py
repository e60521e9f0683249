"""What an LSTM is made with and cannot change, checked; and what follows from it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from . import checks, options
from .options import Activation, CellOptions, LayerNorm

__all__ = ["Init", "Merge", "Settings"]

Merge = Literal["concat", "sum", "mul", "ave"]
Init = Literal["uniform", "keras"]
StateShape = Any  # of one array for all layers, or a list with those of each


@dataclass(frozen=True)
class Settings:
    """The settings of an LSTM, which documents them; they are checked here.

    Attributes
    ----------
    sizes, h_sizes : tuple of int
        H and the columns of h of each layer.
    differ : bool
        Whether layers have different sizes: states are one array for each then.
    directions : int
    merges : bool
        Whether the outputs of two directions become one of the same size.
    columns : int
        Of y.
    cell : CellOptions
    """

    input_size: int
    hidden_size: Any
    num_layers: int
    bias: bool
    batch_first: bool
    bidirectional: bool
    proj_size: int
    reverse: bool
    merge: Merge
    peephole: bool
    coupled: bool
    clip: float | None
    cell_clip: float | None
    activations: Sequence[Activation]
    layer_norm: LayerNorm
    residual: bool
    init: Init
    forget_bias: float | None
    dtype: Any
    sizes: tuple[int, ...] = field(init=False)
    h_sizes: tuple[int, ...] = field(init=False)
    differ: bool = field(init=False)
    directions: int = field(init=False)
    merges: bool = field(init=False)
    columns: int = field(init=False)
    cell: CellOptions = field(init=False)

    def __post_init__(self) -> None:
        sizes = options.sizes(self.hidden_size, self.num_layers)
        cell = options.cell_options(self.coupled, self.clip, self.cell_clip, self.activations)
        forget_bias = self.forget_bias
        checked: dict[str, Any] = {
            "input_size": checks.integer("input_size", self.input_size, 1),
            "proj_size": checks.integer("proj_size", self.proj_size, 0),
            "num_layers": len(sizes),
            "merge": checks.one_of("merge", self.merge, options.MERGES),
            "init": checks.one_of("init", self.init, options.INITS),
            "forget_bias": None
            if forget_bias is None
            else options.real("forget_bias", forget_bias),
            "clip": None if self.clip is None else cell.clip,
            "cell_clip": None if self.cell_clip is None else cell.cell_clip,
            "activations": tuple(self.activations),
            "layer_norm": options.layer_norm(self.layer_norm),
            "dtype": checks.real_dtype("dtype", self.dtype),
            "sizes": sizes,
            "cell": cell,
        }
        for name in (
            *("bias", "batch_first", "bidirectional", "reverse", "peephole", "coupled"),
            "residual",
        ):
            checked[name] = checks.boolean(name, getattr(self, name))
        self._set(checked)
        self._set({"differ": len(set(sizes)) > 1, "directions": 2 if self.bidirectional else 1})
        self._set({"hidden_size": sizes if self.differ else sizes[0]})
        self._set({"merges": self.bidirectional and self.merge != "concat"})
        self._set({"h_sizes": tuple(self.proj_size or size for size in sizes)})
        self._set({"columns": self.layer_columns(len(sizes) - 1)})
        self._check_combinations()
        largest = max(sizes)
        checks.fits("hidden_size", 8 * largest**2, self.dtype)
        checks.fits("input_size", 4 * largest * self.input_size, self.dtype)

    def _set(self, values: dict[str, Any]) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _check_combinations(self) -> None:
        """Raise where two settings do not go together."""
        if self.proj_size >= min(self.sizes):
            raise ValueError(
                f"proj_size: expected less than hidden_size={self.hidden_size}, "
                f"got {self.proj_size}"
            )
        if self.reverse and self.bidirectional:
            raise ValueError("reverse and bidirectional: the second direction is the reverse one")
        if self.forget_bias is not None and not self.bias:
            raise ValueError("forget_bias and bias=False: there is no bias to set")
        if self.merge != "concat" and not self.bidirectional:
            raise ValueError(f"merge={self.merge!r} needs two directions: bidirectional=True")
        if self.residual:
            if self.num_layers == 1:
                raise ValueError("residual and num_layers=1: it connects layers")
            if self.differ and not self.proj_size:
                raise ValueError(
                    f"residual and hidden_size={self.hidden_size}: input and output of a layer "
                    f"add, which need one size"
                )

    def layer_columns(self, layer: int) -> int:
        """Return the columns of the output of a layer."""
        return self.h_sizes[layer] * (1 if self.merges else self.directions)

    @property
    def widest(self) -> int:
        """The most columns of any array of a call."""
        return max(5 * max(self.sizes), 2 * self.columns, self.input_size)

    @property
    def engine_form(self) -> bool:
        """Whether y and states have the form of the engine."""
        return not (self.batch_first or self.differ or self.merges)

    @property
    def one_call(self) -> bool:
        """Whether, without masks on inputs, one call of the engine computes all layers."""
        between = self.residual or self.differ or self.merges
        return not between and (self.directions == 1 or self.num_layers == 1)

    def state_shapes(self, B: int) -> tuple[StateShape, StateShape]:
        """Return the shapes of h and c: one, or a list with that of each layer."""
        D = self.directions
        if self.differ:
            return [(D, B, n) for n in self.h_sizes], [(D, B, n) for n in self.sizes]
        rows = self.num_layers * D, B
        return (*rows, self.h_sizes[0]), (*rows, self.sizes[0])

    def __setstate__(self, state: dict[str, Any]) -> None:
        # NumPy's own instance of the dtype again, which checks of arrays recognise at once.
        self._set(state | {"dtype": np.dtype(state["dtype"].name)})


def warn_of_dropout(settings: Settings, dropout: float) -> None:
    """Warn of a dropout that does nothing, in the name of the caller's caller."""
    if dropout and settings.num_layers == 1:
        warnings.warn(
            f"dropout={dropout} acts between layers, and num_layers=1 has none", stacklevel=3
        )
