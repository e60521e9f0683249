"""Calls of `nn.LSTM` plain and accelerated, with the same weights: what `bench.pytorch` times."""

from collections.abc import Callable
from copy import deepcopy
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

import lstm_fast

torch = import_module("torch")
accelerate = import_module("lstm_fast.torch").accelerate

Call = Callable[[], object]


class Case(NamedTuple):
    """What is timed, of which shape."""

    action: str  # "training", "packed training", "inference", "cell"
    T: int
    B: int
    I: int
    H: int
    dtype: str = "float32"

    def __str__(self) -> str:
        return f"{self.action} ({self.T}, {self.B}, {self.I}, {self.H}) {self.dtype}"


def both(module: Any, bind: Callable[[Any], Call]) -> dict[str, Call]:
    """Return the call of a module as it is, and accelerated."""
    return {"PyTorch": bind(deepcopy(module)), "accelerated": bind(accelerate(module))}


def training(case: Case, packed: bool = False) -> dict[str, Call]:
    """Return training steps."""
    torch.manual_seed(0)
    dtype = getattr(torch, case.dtype)
    x = torch.randn(case.T, case.B, case.I, dtype=dtype)
    if packed:
        lengths = torch.randint(10, case.T + 1, (case.B,))
        pack = torch.nn.utils.rnn.pack_padded_sequence
        x = pack(x, lengths, enforce_sorted=False)

    def bind(module: Any) -> Call:
        optimizer = torch.optim.Adam(module.parameters(), fused=True)

        def step() -> None:
            optimizer.zero_grad()
            y, _ = module(x)
            (y.data if packed else y).sum().backward()
            optimizer.step()

        return step

    return both(torch.nn.LSTM(case.I, case.H, dtype=dtype), bind)


def packed_training(case: Case) -> dict[str, Call]:
    """Return training steps on a ragged batch, with lengths uniform in 10 .. T."""
    return training(case, packed=True)


def inference(case: Case) -> dict[str, Call]:
    """Return calls under `inference_mode`, and those of `lf.LSTM`."""
    x = torch.randn(case.T, case.B, case.I)

    def bind(module: Any) -> Call:
        def call() -> None:
            with torch.inference_mode():
                module(x)

        return call

    calls = both(torch.nn.LSTM(case.I, case.H), bind)
    lstm, array = lstm_fast.LSTM(case.I, case.H, seed=0), np.asarray(x)
    return {**calls, "lf.LSTM": lambda: lstm(array)}


def cell(case: Case) -> dict[str, Call]:
    """Return loops of T steps of a cell, without gradients."""
    x = torch.randn(case.B, case.I)

    def bind(module: Any) -> Call:
        def loop() -> None:
            state = None
            with torch.no_grad():
                for _ in range(case.T):
                    state = module(x, state)

        return loop

    return both(torch.nn.LSTMCell(case.I, case.H), bind)


CALLS: dict[str, Callable[[Case], dict[str, Call]]] = {
    "packed training": packed_training,
    "training": training,
    "inference": inference,
    "cell": cell,
}
