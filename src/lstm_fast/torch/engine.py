"""The engine on tensors: a network whose parameters are PyTorch's, and its calls."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..engine import Array
from ..engine.cell import Cell
from ..engine.memory import empty
from ..engine.packing import Packing
from ..engine.tape import Cache
from ..lstm import DEFAULTS, SETTINGS
from ..network.initial import parameter_shapes
from ..network.network import Network
from ..network.noise import NoiseSource, Rates
from ..network.parameters import lock
from ..network.settings import Settings
from .direct import Weights, array_of

__all__ = ["DTYPES", "Engine", "Form", "Steps", "engine_of", "sizes_fit", "steps_of", "tensors_of"]

DTYPES = {torch.float32: np.dtype(np.float32), torch.float64: np.dtype(np.float64)}
NO_RATES = Rates()
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


class Engine:
    """A network that computes with the weights of some module.

    Tensors are on the CPU and have its dtype; the states are h0 and c0, (L D, B, columns), or none
    for zeros. x is (T, B, I), or (N, I) of a `PackedSequence`, whose `Steps` are given.

    Parameters
    ----------
    settings : Settings
    noise : NoiseSource, optional
    """

    def __init__(self, settings: Settings, noise: NoiseSource | None = None) -> None:
        self.settings, self._type = settings, settings.dtype.num
        self.weights = Weights(parameter_shapes(settings), self._type)
        self.noise = NoiseSource(settings, NO_RATES, UNUSED) if noise is None else noise
        self.network = Network(settings, self.weights, self.noise, "auto")

    @property
    def draws(self) -> bool:
        """Whether a call draws something, so that it cannot be computed once more."""
        return False

    def infer(
        self, x: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor], steps: Any
    ) -> tuple[Tensor, ...]:
        """Return y, hn, cn."""
        held, cells = self._packed(weights, False)
        inputs = [*map(_in_order, (x, *states))]
        packing = None if steps is None else steps.packing
        arrays = self._arrays(inputs, packing)
        self.network.infer(arrays, None if packing is None else packing.ragged, cells)
        del held, inputs  # not before
        return tensors_of(*arrays[3:])

    def train(
        self, x: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor], steps: Any
    ) -> tuple[tuple[Tensor, ...], Cache]:
        """Return y, hn, cn, and what `differentiate` needs."""
        held, cells = self._packed(weights, True)
        inputs = [*map(_in_order, (x, *states))]
        packing = None if steps is None else steps.packing
        arrays = self._arrays(inputs, packing)
        T, B = (-1, -1) if packing is not None else x.shape[:2]  # rows have no T and B to be seen
        cache = self.network.train(self, arrays, T, B, packing=packing, cells=cells)
        del held, inputs  # not before
        return tensors_of(*arrays[3:]), cache

    def _packed(
        self, weights: Sequence[Tensor], training: bool
    ) -> tuple[Sequence[Tensor], list[Cell]]:
        """Return what has to live as long as a call, and the weights packed for it.

        Both at once: another thread may call with other weights, whose first is the same.
        """
        with lock():
            return self.weights.hold(weights, anew=training), self.network.cells(training)

    def differentiate(
        self, cache: Cache, grads: Sequence[Tensor | None], of_input: bool = True
    ) -> tuple[Tensor | None, ...]:
        """Return the gradients of x, the states and every weight from those of the results."""
        inputs = [None if grad is None else _in_order(grad.resolve_neg()) for grad in grads]
        dy, *states = [None if one is None else array_of(one, self._type) for one in inputs]
        dx, dh0, dc0, named = self.network.differentiate(cache, dy, *self._states(states), of_input)
        del inputs  # not before
        found = tensors_of(dh0, dc0, *named.values())
        return torch.from_numpy(dx) if of_input else None, *found

    def _arrays(self, inputs: Sequence[Tensor], packing: Packing | None) -> Any:
        """Return the arrays of a call, the last three new."""
        x, *states = (array_of(one, self._type) for one in inputs)
        settings = self.settings
        B = x.shape[1] if packing is None else len(packing.ragged.lengths)
        new = ((*x.shape[:-1], settings.columns), *settings.state_shapes(B))
        return x, *self._states(states), *(_empty(shape, settings.dtype) for shape in new)

    def _states(self, states: Sequence[Array | None]) -> tuple[Any, Any]:
        """Return h and c as the network takes them: arrays, or lists with those of each layer."""
        if not self.settings.differ:
            return tuple(states) if states else (None, None)  # type: ignore[return-value]
        layers = self.settings.num_layers
        return list(states[:layers]) or None, list(states[layers:]) or None


def _empty(shape: Any, dtype: np.dtype[Any]) -> Any:
    if isinstance(shape, list):
        return [empty(one, dtype) for one in shape]
    return empty(shape, dtype)


def _in_order(tensor: Tensor) -> Tensor:
    return tensor if tensor.is_contiguous() else tensor.contiguous()


def tensors_of(*arrays: Any) -> tuple[Tensor, ...]:
    """Return tensors in the memory of arrays, and of lists of them."""
    found: list[Tensor] = []
    for array in arrays:
        found += (
            map(torch.from_numpy, array)
            if isinstance(array, (list, tuple))
            else [torch.from_numpy(array)]
        )
    return tuple(found)


@lru_cache(maxsize=512)
def _settings_of(form: Form) -> Settings:
    defaults = {name: value for name, value in DEFAULTS.items() if name in SETTINGS}
    return Settings(**{**defaults, **form._asdict(), "dtype": DTYPES[form.dtype]})


# Engines by their form and their first weight, as long as that lives.
_engines: dict[tuple[Form, int], tuple[weakref.ref[Tensor], Engine]] = {}


def engine_of(form: Form, weights: Sequence[Tensor]) -> Engine:
    """Return an engine of this form for these weights: the same one for the same weights."""
    first = weights[0]
    key = form, id(first)
    held, engine = _engines.get(key, (None, None))
    if held is None or engine is None or held() is not first:
        engine = Engine(_settings_of(form))
        _engines[key] = weakref.ref(first, lambda _: _engines.pop(key, None)), engine
    return engine
