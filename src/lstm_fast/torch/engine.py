"""The engine on tensors: a network whose parameters are PyTorch's, and its calls."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from ..engine.packing import Packing
from ..lstm import DEFAULTS, SETTINGS
from ..network.initial import parameter_shapes
from ..network.network import Network
from ..network.noise import NoiseSource, Rates
from ..network.settings import Settings
from .calls import Calls, Weights

__all__ = [
    *("DTYPES", "Engine", "Form", "Steps"),
    *("engine_of", "kept_engine", "sizes_fit", "steps_of"),
]

DTYPES = {torch.float32: np.dtype(np.float32), torch.float64: np.dtype(np.float64)}
NO_RATES = Rates()
Made = TypeVar("Made", bound="Engine")
UNUSED = np.random.default_rng(0)  # nothing is drawn where there are no rates


class Form(NamedTuple):
    """What a `torch.nn.LSTM` computes, as far as sizes tell."""

    input_size: int
    hidden_size: int
    num_layers: int
    bias: bool
    bidirectional: bool
    proj_size: int
    dtype: Any  # PyTorch's

    @property
    def directions(self) -> int:
        """Return D."""
        return 2 if self.bidirectional else 1

    @property
    def columns(self) -> int:
        """Return the columns of h."""
        return self.proj_size or self.hidden_size

    @property
    def weights_of_layer(self) -> int:
        """Return how many weights a layer has."""
        return self.directions * (2 + 2 * self.bias + (self.proj_size > 0))

    def fits(self, states: Sequence[Tensor], B: int) -> bool:
        """Whether h and c have the shapes of such a batch."""
        h, c = states
        jobs = self.num_layers * self.directions
        return h.shape == (jobs, B, self.columns) and c.shape == (jobs, B, self.hidden_size)


class Steps(NamedTuple):
    """The steps of a `PackedSequence`, whose layout is the engine's own."""

    sizes: Tensor
    packing: Packing


def sizes_fit(sizes: Any, rows: int) -> bool:
    """Whether these are the `batch_sizes` of so many rows: positive and not increasing."""
    if torch.compiler.is_compiling():
        return True
    if type(sizes) is not Tensor or sizes.dtype is not torch.int64 or sizes.dim() != 1:
        return False
    a = sizes.numpy()
    return len(a) > 0 and bool(a[-1] > 0 and (a[1:] <= a[:-1]).all() and a.sum() == rows)


def steps_of(sizes: Tensor | None) -> Steps | None:
    """Return the steps that `batch_sizes` tell of; None of a batch (T, B, I)."""
    if sizes is None:
        return None
    running = sizes.numpy()
    T, B = len(running), int(running[0])
    lengths = T - np.searchsorted(running[::-1], np.arange(B), side="right")
    return Steps(sizes, Packing(lengths.astype(np.intp), T, False))


class Engine(Calls):
    """A network that computes with the weights of some module.

    Parameters
    ----------
    settings : Settings
    noise : NoiseSource, optional
    """

    def __init__(self, settings: Settings, noise: NoiseSource | None = None) -> None:
        weights = Weights(parameter_shapes(settings), settings.dtype.num)
        if noise is None:
            noise = NoiseSource(settings, NO_RATES, UNUSED)
        super().__init__(settings, weights, Network(settings, weights, noise, "auto"))


@lru_cache(maxsize=512)
def _settings_of(form: Form) -> Settings:
    defaults = {name: value for name, value in DEFAULTS.items() if name in SETTINGS}
    return Settings(**{**defaults, **form._asdict(), "dtype": DTYPES[form.dtype]})


# Engines by what they compute and the address of their first weight, as long as its memory lives;
# with their rates.
_engines: dict[tuple[Any, int], tuple[weakref.ref[Any], Any, Any]] = {}


def kept_engine(
    kind: Hashable, rates: Any, weights: Sequence[Tensor], make: Callable[[], Made]
) -> Made:
    """Return the engine of this kind for these weights, made anew where it has other rates."""
    first = weights[0]
    key = kind, first.data_ptr()
    _, known, engine = _engines.get(key, (None, None, None))
    if engine is None or known != rates:
        engine = make()
        memory = weakref.ref(first.untyped_storage(), lambda _: _engines.pop(key, None))
        _engines[key] = memory, rates, engine
    return cast("Made", engine)


def engine_of(form: Form, weights: Sequence[Tensor]) -> Engine:
    """Return an engine of this form for these weights: the same one for the same weights."""
    return kept_engine(form, None, weights, lambda: Engine(_settings_of(form)))
