"""The engine of LSTMs with options, `lengths` or `mask`; as an operator for compilers, too."""

from __future__ import annotations

import ast
import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..engine import Array
from ..engine.packing import Packing
from ..engine.tape import Cache, Noise
from ..lstm import DEFAULTS, SETTINGS
from ..network.arguments import Arguments, BackwardArguments
from ..network.noise import NoiseSource, Rates
from ..network.settings import Settings
from .calls import tensors_of
from .engine import DTYPES, Engine, kept_engine, steps_of

__all__ = ["COMPUTED", "INITIAL", "Batch", "engine_with", "lstm_with_options"]

INITIAL = {"init", "forget_bias"}  # of the first parameters only
COMPUTED = sorted(SETTINGS - INITIAL - {"dtype"})  # what tells what an LSTM computes


class Batch(NamedTuple):
    """What a call is given besides x, states and weights.

    With `sizes`, those of a `PackedSequence`, x is (N, I). Without, it is as a user has it:
    (T, B, I), (B, T, I) with `batch_first`, or (T, I). A call that draws has a seed.
    """

    sizes: Tensor | None = None
    lengths: Any = None
    mask: Any = None
    seed: Tensor | None = None


class StillNoise(NoiseSource):
    """What is left of noise in inference, also where gradients are computed."""

    def draw(self, shape: tuple[int, ...], packing: Packing | None) -> list[Noise] | None:
        """Return the mean of what would be drawn."""
        return self.mean

    def draw_masks(self, shape: tuple[int, ...], packing: Packing | None) -> None:
        """Return no masks."""


class SeededNoise(NoiseSource):
    """Noise of which each thread has its own generator: a call keeps its seed beside others."""

    def __init__(self, settings: Settings, rates: Rates) -> None:
        self._own = threading.local()
        super().__init__(settings, rates, np.random.default_rng(0))

    @property
    def rng(self) -> np.random.Generator:
        """The generator of this thread."""
        rng: np.random.Generator = self._own.rng
        return rng

    @rng.setter
    def rng(self, rng: np.random.Generator) -> None:
        self._own.rng = rng


class OptionsEngine(Engine):
    """An engine of any settings; its `steps` are a `Batch`, and states have B or not, as x has.

    Where layers have different sizes, states are more than two: h of each layer, then c of each.
    """

    def infer(
        self, x: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor], steps: Batch
    ) -> tuple[Tensor, ...]:
        """Return y, hn, cn."""
        if steps.seed is not None:
            return self.train(x, states, weights, steps, False)[0]
        if steps.sizes is not None:
            return super().infer(x, states, weights, steps_of(steps.sizes))
        cells = self.packed(weights, False)
        given = self._given(x, states, steps)
        self.network.infer(given.arrays, given.ragged, cells)
        y, (hn, cn) = given.results()
        return tensors_of((y, hn, cn))

    def train(
        self,
        x: Tensor,
        states: Sequence[Tensor],
        weights: Sequence[Tensor],
        steps: Batch,
        of_input: bool = True,
    ) -> tuple[tuple[Tensor, ...], Cache]:
        """Return y, hn, cn, and what `differentiate` needs; the same ones for the same seed."""
        if steps.seed is not None:
            self.network.noise.rng = np.random.default_rng(int(steps.seed))
        if steps.sizes is not None:
            return super().train(x, states, weights, steps_of(steps.sizes), of_input)
        cells = self.packed(weights, True, of_input)
        given = self._given(x, states, steps)
        cache = self.network.train(
            self, given.arrays, given.T, given.B, given.batched, given.packing, cells=cells
        )
        y, (hn, cn) = given.results()
        return tensors_of((y, hn, cn)), cache

    def differentiate(
        self, cache: Cache, grads: Sequence[Tensor | None], of_input: bool = True
    ) -> tuple[Tensor | None, ...]:
        """Return the gradients of x (None if it is not wanted), of the states, of every weight."""
        if cache._T < 0:  # of a PackedSequence
            return super().differentiate(cache, grads, of_input)
        dy, *states = [None if grad is None else grad.resolve_neg().numpy() for grad in grads]
        given = BackwardArguments(self.settings, dy, self._state(states), cache)
        dx, dh0, dc0, named = self.network.differentiate(cache, *given.arrays, of_input)
        dx, (dh0, dc0) = given.results(dx, dh0, dc0)
        return tensors_of((dx, dh0, dc0, *named.values()))

    def _given(self, x: Tensor, states: Sequence[Tensor], steps: Batch) -> Arguments:
        x, *arrays = (tensor.detach().numpy() for tensor in (x, *states))
        state = self._state(arrays) if arrays else None
        lengths, mask = (None if a is None else np.asarray(a) for a in (steps.lengths, steps.mask))
        return Arguments(self.settings, x, state, lengths, mask, "zero", None)

    def _state(self, arrays: Sequence[Array | None]) -> Any:
        """Return a state as users of `lf.LSTM` have it."""
        half = len(arrays) // 2
        if not self.settings.differ:
            return tuple(arrays)
        return tuple(arrays[:half]), tuple(arrays[half:])


def engine_with(
    computed: Sequence[Any],
    rates: Sequence[Any],
    draws: bool,
    dtype: torch.dtype,
    weights: Sequence[Tensor],
) -> OptionsEngine:
    """Return an engine for these weights.

    Parameters
    ----------
    computed : sequence of (str, value)
        The settings: of those in `COMPUTED` that are missing, the default.
    rates : sequence
        The values of `RATES`.
    draws : bool
        Whether it is for calls with a seed.
    dtype : torch.dtype
        Of everything.
    weights : sequence of Tensor
        In the order of the module's.
    """

    def make() -> OptionsEngine:
        settings = settings_with(computed, dtype)
        if draws:
            return OptionsEngine(settings, SeededNoise(settings, Rates(*rates)))
        still = StillNoise(settings, Rates(*rates), np.random.default_rng(0))
        return OptionsEngine(settings, still)

    return kept_engine((repr(computed), draws, dtype), rates, weights, make)


def settings_with(computed: Sequence[Any], dtype: torch.dtype) -> Settings:
    """Return the settings: see `engine_with`."""
    defaults = {name: value for name, value in DEFAULTS.items() if name in SETTINGS}
    return Settings(**{**defaults, **dict(computed)}, dtype=DTYPES[dtype])


# ---- an operator, which `torch.compile` and `torch.export` keep


def lstm_with_options(
    computed: Sequence[Any],
    rates: Sequence[Any],
    x: Tensor,
    batch: Batch,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
) -> list[Tensor]:
    """Run an LSTM in a program that is being compiled: y, then all h, then all c."""
    words = (repr(_constant(values)) for values in (computed, rates))
    sizes, lengths, mask, seed = batch
    given = (None if a is None else torch.as_tensor(a) for a in (lengths, mask))
    return torch.ops.lstm_fast.lstm_with_options(x, sizes, *given, seed, states, weights, *words)


def _constant(value: Any) -> Any:
    """Return the same; Dynamo makes a constant of a number that has been the key of a dict."""
    if isinstance(value, (tuple, list)):
        return tuple([_constant(one) for one in value])
    return next(iter({value: None}))


ARGUMENTS = (
    "Tensor x, Tensor? sizes, Tensor? lengths, Tensor? mask, Tensor? seed, "
    "Tensor[] states, Tensor[] weights, str computed, str rates"
)
NAME = "lstm_fast::lstm_with_options"
torch.library.define(NAME, f"({ARGUMENTS}) -> Tensor[]")
# Without `of_input` the first gradient, that of x, is an empty tensor. Compilers may have kept
# calls that do not say it.
torch.library.define(
    f"{NAME}_backward", f"(Tensor?[] grads, {ARGUMENTS}, bool of_input=True) -> Tensor[]"
)


@lru_cache(maxsize=512)
def _values(words: str) -> tuple[Any, ...]:
    """Return the values that `repr` has written, of which one may be infinite."""
    values: tuple[Any, ...] = ast.literal_eval(words.replace("inf", "1e999"))
    return values


def _engine_of(
    x: Tensor, seed: Tensor | None, weights: Sequence[Tensor], computed: str, rates: str
) -> OptionsEngine:
    return engine_with(_values(computed), _values(rates), seed is not None, x.dtype, weights)


@torch.library.impl(NAME, "CPU")
def _lstm(x, sizes, lengths, mask, seed, states, weights, *given):  # type: ignore[no-untyped-def]
    engine, batch = _engine_of(x, seed, weights, *given), Batch(sizes, lengths, mask, seed)
    return list(engine.infer(x, states, weights, batch))


@torch.library.impl(f"{NAME}_backward", "CPU")
def _lstm_backward(  # type: ignore[no-untyped-def]
    grads, x, sizes, lengths, mask, seed, states, weights, computed, rates, of_input=True
):
    engine = _engine_of(x, seed, weights, computed, rates)
    _, cache = engine.train(x, states, weights, Batch(sizes, lengths, mask, seed), of_input)
    dx, *more = engine.differentiate(cache, grads, of_input)
    return [x.new_empty(0) if dx is None else dx, *more]


@torch.library.register_fake(NAME)
def _shapes(  # type: ignore[no-untyped-def]
    x, sizes, lengths, mask, seed, states, weights, computed, rates
):
    settings = settings_with(_values(computed), x.dtype)
    single = x.dim() == 2 and sizes is None
    if sizes is None:
        B = 1 if single else x.shape[0 if settings.batch_first else 1]
    else:
        B = states[0].shape[1] if states else torch.library.get_ctx().new_dynamic_size()
    h, c = settings.state_shapes(B)
    shapes = [*h, *c] if settings.differ else [h, c]
    if single:
        shapes = [(jobs, columns) for jobs, _, columns in shapes]
    shapes.insert(0, (*x.shape[:-1], settings.columns))
    return [x.new_empty(shape) for shape in shapes]


@torch.library.register_fake(f"{NAME}_backward")
def _backward_shapes(  # type: ignore[no-untyped-def]
    grads, x, sizes, lengths, mask, seed, states, weights, computed, rates, of_input=True
):
    _, *end = _shapes(x, sizes, lengths, mask, seed, states, weights, computed, rates)
    dx = x.new_empty(x.shape if of_input else 0)
    if of_input and x.dim() == 3 and settings_with(_values(computed), x.dtype).batch_first:
        dx = dx.transpose(0, 1).contiguous().transpose(0, 1)
    return [dx, *end, *(w.new_empty(w.shape) for w in weights)]


def _setup_context(ctx, inputs, output):  # type: ignore[no-untyped-def]
    *tensors, states, weights, computed, rates = inputs
    # In materialised gradients lists are whole: of states of layers that differ.
    ctx.set_materialize_grads(len(output) > 3)
    ctx.save_for_backward(*tensors, *states, *weights)
    ctx.count, ctx.words = len(states), (computed, rates)


def _operator_backward(ctx, grads):  # type: ignore[no-untyped-def]
    (*tensors,) = ctx.saved_tensors[:5]
    rest = ctx.saved_tensors[5:]
    states, weights = rest[: ctx.count], rest[ctx.count :]
    if all(grad is None for grad in grads):
        return (*[None] * 5, [None] * len(states), [None] * len(weights), None, None)
    of_input = ctx.needs_input_grad[0]
    dx, *more = torch.ops.lstm_fast.lstm_with_options_backward(
        list(grads), *tensors, states, weights, *ctx.words, of_input
    )
    split = len(more) - len(weights)
    return (
        dx if of_input else None,
        None,
        None,
        None,
        None,
        more[:split][: ctx.count],
        more[split:],
        None,
        None,
    )


torch.library.register_autograd(NAME, _operator_backward, setup_context=_setup_context)
