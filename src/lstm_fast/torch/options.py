"""LSTMs with options that PyTorch's own has not, or with `lengths` and `mask`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from ..engine import Array
from ..engine.packing import Packing
from ..engine.tape import Cache, Noise
from ..lstm import DEFAULTS, SETTINGS
from ..network.arguments import Arguments, BackwardArguments
from ..network.initial import initial_values
from ..network.noise import RATES, NoiseSource, Rates
from ..network.settings import Settings
from .autograd import run
from .calls import tensors_of
from .engine import DTYPES, Engine, steps_of
from .served import obstacle, served_tensors

__all__ = ["OPTIONS", "differing", "first_values", "run_with_options", "settings_of"]


class Padded(NamedTuple):
    """A batch as a user has it: x (T, B, I), (B, T, I) with `batch_first`, or (T, I)."""

    lengths: Any = None
    mask: Any = None


class StillNoise(NoiseSource):
    """What is left of noise in inference, also where gradients are computed."""

    def draw(self, shape: tuple[int, ...], packing: Packing | None) -> list[Noise] | None:
        """Return the mean of what would be drawn."""
        return self.mean

    def draw_masks(self, shape: tuple[int, ...], packing: Packing | None) -> None:
        """Return no masks."""


class OptionsEngine(Engine):
    """An engine of any settings, for `Padded` batches too, whose states have B or not, as x has.

    Where layers have different sizes, states are more than two: h of each layer, then c of each.
    """

    @property
    def draws(self) -> bool:
        """Whether a call draws something, so that it cannot be computed once more."""
        return not (self.network.noise.quiet or isinstance(self.network.noise, StillNoise))

    def infer(
        self, x: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor], steps: Any
    ) -> tuple[Tensor, ...]:
        """Return y, hn, cn."""
        if self.draws:
            return self.train(x, states, weights, steps)[0]
        if not isinstance(steps, Padded):
            return super().infer(x, states, weights, steps)
        cells = self.packed(weights, False)
        given = self._given(x, states, steps)
        self.network.infer(given.arrays, given.ragged, cells)
        y, (hn, cn) = given.results()
        return tensors_of((y, hn, cn))

    def train(
        self, x: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor], steps: Any
    ) -> tuple[tuple[Tensor, ...], Cache]:
        """Return y, hn, cn, and what `differentiate` needs; draw with a seed of PyTorch's."""
        if self.draws:
            self.network.noise.rng = np.random.default_rng(int(torch.randint(2**62, ())))
        if not isinstance(steps, Padded):
            return super().train(x, states, weights, steps)
        cells = self.packed(weights, True)
        given = self._given(x, states, steps)
        cache = self.network.train(
            self, given.arrays, given.T, given.B, given.batched, given.packing, cells=cells
        )
        y, (hn, cn) = given.results()
        return tensors_of((y, hn, cn)), cache

    def differentiate(
        self, cache: Cache, grads: Sequence[Tensor | None], of_input: bool = True
    ) -> tuple[Tensor | None, ...]:
        """Return the gradients of x, of the states and of every weight."""
        if cache._T < 0:  # of a PackedSequence
            return super().differentiate(cache, grads, of_input)
        dy, *states = [None if grad is None else grad.resolve_neg().numpy() for grad in grads]
        given = BackwardArguments(self.settings, dy, self._state(states), cache)
        dx, dh0, dc0, named = self.network.differentiate(cache, *given.arrays)
        dx, (dh0, dc0) = given.results(dx, dh0, dc0)
        return tensors_of((dx, dh0, dc0, *named.values()))

    def _given(self, x: Tensor, states: Sequence[Tensor], steps: Padded) -> Arguments:
        x, *arrays = (tensor.detach().numpy() for tensor in (x, *states))
        state = self._state(arrays) if arrays else None
        return Arguments(self.settings, x, state, steps.lengths, steps.mask, "zero", None)

    def _state(self, arrays: Sequence[Array | None]) -> Any:
        """Return a state as users of `lf.LSTM` have it."""
        half = len(arrays) // 2
        if not self.settings.differ:
            return tuple(arrays)
        return tuple(arrays[:half]), tuple(arrays[half:])


# ---- modules


PYTORCHS = {"num_layers", "bias", "batch_first", "dropout", "bidirectional", "proj_size", "matmul"}
OPTIONS = {name: value for name, value in DEFAULTS.items() if name not in PYTORCHS}
INITIAL = {"init", "forget_bias"}  # of the first parameters only


def differing(options: dict[str, Any], sizes_differ: bool) -> tuple[str, ...]:
    """Return the names of options by which an LSTM computes something else than PyTorch's own."""
    names = [
        name
        for name, default in OPTIONS.items()
        if name not in INITIAL and options.get(name, default) != default
    ]
    return (*names, "hidden_size") if sizes_differ else tuple(names)


def settings_of(module: nn.Module, dtype: torch.dtype) -> Settings:
    """Return the settings of a `lstm_fast.torch.LSTM`."""
    given = {name: getattr(module, name) for name in SETTINGS if name != "dtype"}
    return Settings(**given, dtype=DTYPES[dtype])


def first_values(settings: Settings) -> dict[str, Tensor]:
    """Return initial parameters as those of `lf.LSTM`, with a seed from PyTorch's generator."""
    values = initial_values(settings, np.random.default_rng(int(torch.randint(2**62, ()))))
    return {name: torch.from_numpy(value) for name, value in values.items()}


# Engines of a module by dtype and whether it trains.
_engines: WeakKeyDictionary[nn.Module, dict[tuple[torch.dtype, bool], OptionsEngine]] = (
    WeakKeyDictionary()
)


def _engine_of(module: nn.Module, dtype: torch.dtype) -> OptionsEngine:
    """Return the engine of a module as it is now, in training or not, with its rates."""
    engines = _engines.setdefault(module, {})
    rates = Rates(*(getattr(module, name) for name in RATES))
    engine = engines.get((dtype, module.training))
    if engine is None:
        settings = settings_of(module, dtype)
        kind = NoiseSource if module.training else StillNoise
        engine = OptionsEngine(settings, kind(settings, rates, np.random.default_rng(0)))
        engines[dtype, module.training] = engine
    for name, rate in rates._asdict().items():
        if getattr(engine.network.noise.rates, name) != rate:
            engine.network.set_rate(name, rate)
    return engine


def _uncompiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Keep Dynamo out of a function and what it calls, without importing it for that."""

    @wraps(function)
    def either(*arguments: Any) -> Any:
        dynamo = sys.modules.get("torch._dynamo")
        if dynamo is None:
            return function(*arguments)
        if not hasattr(function, "disabled"):
            function.disabled = dynamo.disable(function)  # type: ignore[attr-defined]
        return function.disabled(*arguments)  # type: ignore[attr-defined]

    return either


@_uncompiled
def run_with_options(
    module: nn.Module, weights: Sequence[Tensor], input: Any, hx: Any, lengths: Any, mask: Any
) -> Any:
    """Compute what only the engine has: see `LSTM.forward`."""
    packed = isinstance(input, PackedSequence)
    if packed and (lengths is not None or mask is not None):
        raise ValueError("input: a PackedSequence goes with neither lengths nor mask")
    x = input.data if packed else input
    if not isinstance(x, Tensor):
        raise TypeError(f"input: expected a Tensor or PackedSequence, got {type(x).__name__}")
    states = [] if hx is None else [*_flat(hx)]
    _check(x, states, weights)
    engine = _engine_of(module, x.dtype)
    if packed:
        order, back = input.sorted_indices, input.unsorted_indices
        steps = steps_of(input.batch_sizes)
        y, *end = run(engine, None, steps, x, _permuted(states, order), weights)
        y, end = input._replace(data=y), _permuted(end, back)
    else:
        padded = Padded(*(None if a is None else np.asarray(a) for a in (lengths, mask)))
        y, *end = run(engine, None, padded, x, states, weights)
    half = len(end) // 2
    return y, tuple(end) if half == 1 else (tuple(end[:half]), tuple(end[half:]))


def _check(x: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor]) -> None:
    """Raise where the engine does not serve."""
    now = obstacle()
    if now is not None:
        raise RuntimeError(f"lstm_fast: an LSTM with options or lengths does not work in {now}")
    for name, tensors in {"input": [x], "hx": states, "parameters": weights}.items():
        if tensors and not (served_tensors(tensors) and tensors[0].dtype is x.dtype):
            raise TypeError(
                f"{name}: with options or lengths, all has to be float32 or float64 on the CPU, "
                f"got {tensors[0].dtype} on {tensors[0].device} beside an input of {x.dtype}"
            )


def _permuted(states: Sequence[Tensor], order: Tensor | None) -> list[Tensor]:
    return [state if order is None else state.index_select(1, order) for state in states]


def _flat(states: Any) -> Iterator[Tensor]:
    for state in states:
        if isinstance(state, (tuple, list)):
            yield from state
        else:
            yield state
