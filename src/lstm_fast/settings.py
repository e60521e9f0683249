"""The settings of an LSTM: what its constructor takes, checked; and the forms of its arguments."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from . import _checks, _options
from ._checks import Array, Matmul
from ._engine import Noise
from ._options import Activation
from ._packing import Packing
from .initial import initial_values, parameter_shapes
from .parameters import ParameterHolder
from .stack import States, Wiring

__all__ = ["Settings"]

Merge = Literal["concat", "sum", "mul", "ave"]
Init = Literal["uniform", "keras"]
DEFAULTS: dict[str, Any] = {
    "num_layers": 1,
    "bias": True,
    "batch_first": False,
    "dropout": 0.0,
    "bidirectional": False,
    "proj_size": 0,
    "reverse": False,
    "merge": "concat",
    "peephole": False,
    "coupled": False,
    "clip": None,
    "cell_clip": None,
    "activations": _options.PLAIN,
    "layer_norm": False,
    "variational_dropout": 0.0,
    "recurrent_dropout": 0.0,
    "zoneout": None,
    "residual": False,
    "init": "uniform",
    "forget_bias": None,
    "matmul": "auto",
}
RATES = ("dropout", "variational_dropout", "recurrent_dropout")


class Settings(ParameterHolder):
    """Parameters and settings of `LSTM`, which documents the arguments."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int | Sequence[int],
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        reverse: bool = False,
        merge: Merge = "concat",
        peephole: bool = False,
        coupled: bool = False,
        clip: float | None = None,
        cell_clip: float | None = None,
        activations: Sequence[Activation] = _options.PLAIN,
        layer_norm: bool = False,
        variational_dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        zoneout: tuple[float, float] | None = None,
        residual: bool = False,
        init: Init = "uniform",
        forget_bias: float | None = None,
        dtype: npt.DTypeLike = np.float32,
        seed: int | np.random.Generator | None = None,
        matmul: Matmul = "auto",
    ) -> None:
        self.input_size = _checks.integer("input_size", input_size, 1)
        self._sizes = _options.sizes(hidden_size, num_layers)
        self._differ = len(set(self._sizes)) > 1  # then states are one array for each layer
        self.hidden_size: Any = self._sizes if self._differ else self._sizes[0]
        self.num_layers = len(self._sizes)
        self.bias = _checks.boolean("bias", bias)
        self.batch_first = _checks.boolean("batch_first", batch_first)
        self.proj_size = _checks.integer("proj_size", proj_size, 0)
        self.dropout, self.variational_dropout = dropout, variational_dropout
        self.recurrent_dropout, self.zoneout = recurrent_dropout, zoneout
        self.bidirectional = _checks.boolean("bidirectional", bidirectional)
        self.reverse = _checks.boolean("reverse", reverse)
        self.merge = _checks.one_of("merge", merge, _options.MERGES)
        self.peephole = _checks.boolean("peephole", peephole)
        self.layer_norm = _checks.boolean("layer_norm", layer_norm)
        self.residual = _checks.boolean("residual", residual)
        self.init = _checks.one_of("init", init, _options.INITS)
        self.forget_bias = (
            None if forget_bias is None else _options.real("forget_bias", forget_bias)
        )
        options = _options.cell_options(coupled, clip, cell_clip, activations)
        self.coupled = options.coupled
        self.clip = None if clip is None else options.clip
        self.cell_clip = None if cell_clip is None else options.cell_clip
        self.activations = tuple(activations)
        self.dtype = _checks.real_dtype("dtype", dtype)
        self.matmul = matmul
        self._check_combinations()
        self._rng = _checks.generator("seed", seed)
        self._directions = 2 if self.bidirectional else 1
        merges = self.bidirectional and self.merge != "concat"
        self._wiring = Wiring(
            *(self._directions, self.reverse, self.merge, merges, self.residual),
            apart=self._differ or self.residual,
        )
        # Columns of h in each layer, and of y.
        self._h_sizes = tuple(self.proj_size or size for size in self._sizes)
        self._columns = self._h_sizes[-1] * (1 if merges else self._directions)
        self._widest = max(5 * max(self._sizes), 2 * self._columns)
        # Whether states and y have the form of the engine, and whether one call of it computes all:
        # see `stack`.
        self._direct_form = not (self.batch_first or self._differ or merges)
        self._one_stage = (
            not (self.reverse or merges or self._wiring.apart)
            and (self._directions == 1 or self.num_layers == 1)
        )  # fmt: skip
        largest = max(self._sizes)
        _checks.fits("hidden_size", 8 * largest**2, self.dtype)
        _checks.fits("input_size", 4 * largest * self.input_size, self.dtype)
        _checks.fits("num_layers", 8 * largest**2 * self.num_layers, self.dtype)
        shapes = parameter_shapes(
            *(self.input_size, self._sizes, self.proj_size, self._directions, merges),
            *(self.bias, self.peephole, self.layer_norm),
        )
        if self.forget_bias is None and init == "keras" and self.bias:
            forget_bias = 1.0
        values = initial_values(shapes, self.init, forget_bias, self.dtype, self._rng)
        super().__init__(values, options)
        self._note_noise()

    def _check_combinations(self) -> None:
        """Raise where two settings do not go together."""
        if self.proj_size >= min(self._sizes):
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
            if self._differ and not self.proj_size:
                raise ValueError(
                    f"residual and hidden_size={self.hidden_size}: input and output of a layer "
                    f"add, which need one size"
                )
        if self.dropout and self.num_layers == 1:
            warnings.warn(
                f"dropout={self.dropout} acts between layers, and num_layers=1 has none",
                stacklevel=3,
            )

    def __setattr__(self, name: str, value: Any) -> None:
        if name in RATES:
            value = _checks.fraction(name, value)
        elif name == "matmul":
            value = _checks.matmul(value)
        elif name == "zoneout":
            value = _options.rates(name, value)
            if value is not None and self.proj_size:
                raise ValueError(f"zoneout and proj_size: {_options.ZONEOUT_PROJECTED}")
        elif "_parameters" in self.__dict__:
            if name in DEFAULTS or name in ("input_size", "hidden_size", "dtype"):
                raise AttributeError(f"{name} is fixed when an LSTM is made")
            if name in self._parameters:
                raise AttributeError(f"{name} is read-only: use writable() or load_state_dict()")
        object.__setattr__(self, name, value)
        if name in (*RATES, "zoneout", "matmul") and "_parameters" in self.__dict__:
            self._note_noise()

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{name} cannot be deleted")

    def __repr__(self) -> str:
        words = [str(self.input_size), str(self.hidden_size)]
        words += [f"{k}={getattr(self, k)!r}" for k, v in DEFAULTS.items() if getattr(self, k) != v]
        return f"LSTM({', '.join(words)}, dtype={self.dtype})"

    # ---- forms of arguments

    def _time_major(self, name: str, value: Array, columns: int) -> tuple[bool, Array]:
        """Return whether `value` is batched, and it as (T, B, columns)."""
        value = _checks.real(name, value, self.dtype)
        if value.ndim not in (2, 3) or value.shape[-1] != columns:
            axes = "B, T" if self.batch_first else "T, B"
            raise ValueError(
                f"{name}: expected shape ({axes}, {columns}) or (T, {columns}), got {value.shape}"
            )
        if value.ndim == 2:
            return False, value[:, None]
        return True, value.swapaxes(0, 1) if self.batch_first else value

    def _state_shapes(self, B: int) -> tuple[Any, Any]:
        """Return the shapes of h and c: one, or a list with that of each layer."""
        D = self._directions
        if self._differ:
            return [(D, B, n) for n in self._h_sizes], [(D, B, n) for n in self._sizes]
        rows = self.num_layers * D, B
        return (*rows, self._h_sizes[0]), (*rows, self._sizes[0])

    def _state(
        self, name: str, value: Any, names: tuple[str, str], B: int, batched: bool
    ) -> tuple[States | None, States | None]:
        """Return a state or its gradient as the engine's arrays, or None for zeros."""
        if value is None:
            return None, None
        given = _checks.pair(name, value)
        letters = "L D, B, columns" if batched else "L D, columns"
        return tuple(
            None if part is None else self._state_part(part_name, part, shape, batched, letters)
            for part_name, part, shape in zip(names, given, self._state_shapes(B), strict=True)
        )  # type: ignore[return-value]

    def _state_part(self, name: str, part: Any, shape: Any, batched: bool, letters: str) -> States:
        if isinstance(shape, list):
            if not isinstance(part, (tuple, list)):
                raise TypeError(
                    f"{name}: expected one array for each layer, got {type(part).__name__}"
                )
            if len(part) != len(shape):
                raise ValueError(f"{name}: expected {len(shape)} arrays, got {len(part)}")
            letters = letters.removeprefix("L ")
            return [
                np.asarray(self._state_part(f"{name}[{n}]", one, part_shape, batched, letters))
                for n, (one, part_shape) in enumerate(zip(part, shape, strict=True))
            ]
        if batched:
            return _checks.shaped(name, part, self.dtype, shape, letters)
        D, _, columns = shape
        return _checks.shaped(name, part, self.dtype, (D, columns), letters)[:, None]

    # ---- noise

    def _drops_out(self) -> bool:
        """Whether training multiplies inputs of layers by masks."""
        return self.variational_dropout > 0 or (self.dropout > 0 and self.num_layers > 1)

    def _disturbs(self) -> bool:
        """Whether training differs from inference within layers."""
        return self.recurrent_dropout > 0 or self.zoneout is not None

    def _note_noise(self) -> None:
        """Keep what follows from the rates, for short calls."""
        self._quiet = not (self._drops_out() or self._disturbs())
        self._mean_noise = self._zoneout_in_inference()
        self._short = None

    def _for_short_calls(self) -> tuple[Any, ...]:
        """Return what `_direct` takes of this LSTM; nothing where it cannot serve it."""
        short: tuple[Any, ...] = ()
        if self._one_stage and self.matmul != "blas":
            short = self._packed(), self._directions, self._mean_noise, not self.batch_first
        if not self._writers:
            self._short = short
        return short

    def _input_masks(self, shape: tuple[int, ...], packing: Packing | None) -> list[Array | None]:
        """Draw the masks of dropout on the input of every layer; `shape` is that of x."""
        masks: list[Array | None] = []
        columns = self.input_size
        for layer, h_size in enumerate(self._h_sizes):
            mask = None
            if self.dropout and layer > 0:
                mask = self._draw(self.dropout, (*shape[:-1], columns))
            if self.variational_dropout:
                rows = shape[1] if packing is None else len(packing.ragged.lengths)
                same = self._draw(self.variational_dropout, (1, rows, columns))
                if packing is not None:
                    same = packing.over_time(packing.sort(same)[0])
                mask = (
                    np.broadcast_to(same, (*shape[:-1], columns)) if mask is None else mask * same
                )
            masks.append(mask)
            columns = h_size * (1 if self._wiring.merges else self._directions)
        return masks

    def _zoneout_in_inference(self) -> list[Noise] | None:
        """Return the weights of previous values in every cell: the probabilities."""
        if self.zoneout is None:
            return None
        return [
            Noise(None, *(np.full(H, rate, self.dtype) for rate in self.zoneout))
            for H in self._sizes
            for _ in range(self._directions)
        ]

    def _noise(self, shape: tuple[int, ...], packing: Packing | None) -> list[Noise] | None:
        """Draw recurrent dropout and zoneout of every cell; `shape` is that of x."""
        if not self._disturbs():
            return None
        total = int(np.prod(shape[:-1]))
        B = shape[1] if packing is None else len(packing.ragged.lengths)
        found = []
        for H, h_size in zip(self._sizes, self._h_sizes, strict=True):
            for _ in range(self._directions):
                recurrent: Array | None = None
                zones: tuple[Array, ...] = ()
                if self.recurrent_dropout:
                    recurrent = self._draw(self.recurrent_dropout, (1, B, h_size))
                    recurrent = (recurrent if packing is None else packing.sort(recurrent))[0]
                if self.zoneout is not None:
                    zones = tuple(
                        (self._rng.random((total, H), np.float32) < rate).astype(self.dtype)
                        for rate in self.zoneout
                    )
                found.append(Noise(recurrent, *zones))
        return found

    def _draw(self, rate: float, shape: tuple[int, ...]) -> Array:
        """Return per element 0 with probability `rate`, else 1 / (1 - rate)."""
        kept = self._rng.random(shape, np.float32) >= rate
        scale = 1 / (1 - rate) if rate < 1 else 0.0
        mask: Array = np.where(kept, self.dtype.type(scale), self.dtype.type(0))
        return mask
