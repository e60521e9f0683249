"""LSTMs with options that PyTorch's own has not, or with `lengths` and `mask`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from ..lstm import DEFAULTS, SETTINGS
from ..network.initial import initial_values
from ..network.noise import RATES, Rates
from ..network.settings import Settings
from .autograd import run
from .engine import DTYPES
from .served import obstacle, served_tensors
from .variants import COMPUTED, INITIAL, Batch, engine_with, lstm_with_options

__all__ = ["OPTIONS", "differing", "first_values", "run_with_options", "settings_of"]


PYTORCHS = {"num_layers", "bias", "batch_first", "dropout", "bidirectional", "proj_size", "matmul"}
OPTIONS = {name: value for name, value in DEFAULTS.items() if name not in PYTORCHS}


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
    order, back, sizes = None, None, None
    if packed:
        _, sizes, order, back = input
        states = _permuted(states, order)
    batch = Batch(sizes, lengths, mask)
    y, *end = _run(module, x, batch, states, weights)
    if packed:
        y, end = PackedSequence(y, sizes, order, back), _permuted(end, back)
    half = len(end) // 2
    return y, tuple(end) if half == 1 else (tuple(end[:half]), tuple(end[half:]))


def _run(
    module: nn.Module, x: Tensor, batch: Batch, states: list[Tensor], weights: Sequence[Tensor]
) -> Sequence[Tensor]:
    """Return y, then h and c, with a seed from PyTorch's generator where something is drawn."""
    computed = [(name, getattr(module, name)) for name in COMPUTED]
    rates = Rates(*[getattr(module, name) for name in RATES])
    draws = module.training and rates.draw(module.num_layers)
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack():
        batch = batch._replace(seed=torch.randint(2**62, ()) if draws else None)
        return lstm_with_options(computed, tuple(rates), x, batch, states, weights)
    engine = engine_with(computed, rates, draws, x.dtype, weights)
    lengths, mask = (None if a is None else np.asarray(a).copy() for a in batch[1:3])
    batch = Batch(batch.sizes, lengths, mask, torch.randint(2**62, ()) if draws else None)
    return run(engine, None, batch, x, states, weights)


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
