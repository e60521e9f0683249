"""What `python -m bench` measures: sections of problems, and the arguments of one."""

from typing import NamedTuple

import numpy as np

import lstm_fast
from lstm_fast import reference

from .shapes import SHAPES

__all__ = ["PROBLEMS", "Arguments", "Problem"]


class Problem(NamedTuple):
    """One LSTM and what to do with it."""

    section: str
    T: int  # steps
    B: int  # batch rows
    I: int  # inputs
    H: int  # units
    action: str = "inference"  # or "training": forward and backward; "streaming": one step
    dtype: str = "float32"
    layers: int = 1
    bidirectional: bool = False
    ragged: bool = False  # lengths uniform in 10 .. T

    @property
    def flop(self) -> int:
        """Floating-point operations of the matrix products, of padding too."""
        directions, forward, columns = 1 + self.bidirectional, 0, self.I
        for _ in range(self.layers):
            forward += 2 * self.T * self.B * 4 * self.H * (columns + self.H) * directions
            columns = directions * self.H
        return 3 * forward if self.action == "training" else forward

    def __str__(self) -> str:
        stack = f", {self.layers} layers" * (self.layers > 1)
        stack += ", bidirectional" * self.bidirectional
        return f"{self.T}, {self.B}, {self.I}, {self.H}{stack}"


STEPS = 3  # of streaming are checked, all with the same input
GRID = [shape[1:] for shape in SHAPES]
ODD = [
    *((50, 3, 20, 20), (50, 7, 40, 100), (100, 1, 100, 100), (50, 17, 100, 250)),
    *((100, 1, 250, 250), (30, 7, 250, 250), (10, 3, 400, 1150), (10, 17, 400, 1150)),
]
# (T, B, I, H, layers, bidirectional) of models in use, but for those of more than a second a call:
# DeepBench, RNN-T, Tacotron 2, word and AWD-LSTM language models, CRNN, Silero, guitar amplifiers,
# forecasters.
WORKLOADS = [
    *((25, 1, 512, 512, 1, False), (25, 4, 1024, 1024, 1, False), (150, 1, 256, 256, 1, False)),
    *((1, 1, 320, 320, 2, False), (1, 64, 768, 1024, 2, False), (35, 20, 200, 200, 2, False)),
    *((25, 1, 512, 256, 2, True), (1, 1, 128, 128, 1, False), (1, 1, 1, 16, 1, False)),
    *((1, 1, 1, 40, 1, False), (168, 32, 8, 64, 2, False), (24, 256, 1, 32, 1, False)),
    *((25, 1, 2048, 2048, 1, False), (50, 1, 1536, 1536, 1, False), (617, 1, 240, 1024, 2, False)),
    *((70, 1, 400, 1150, 3, False), (70, 20, 400, 1150, 1, False)),
]
TRAINED = [
    *((25, 32, 512, 512, 1, False), (35, 20, 200, 200, 2, False), (25, 32, 512, 256, 2, True)),
    *((168, 32, 8, 64, 2, False), (24, 256, 1, 32, 1, False)),
]
PROBLEMS = [
    *(Problem("inference", *shape) for shape in GRID),
    *(Problem("training", *shape, "training") for shape in GRID),
    *(Problem("inference in double precision", *s, dtype="float64") for s in GRID),
    *(Problem("training in double precision", *s, "training", "float64") for s in GRID),
    *(Problem("streaming", 1, 1, i, h, "streaming") for i, h in ((16, 32), (64, 64), (128, 128))),
    *(
        Problem("ragged batches", *shape, action, ragged=True)
        for shape in ((200, 32, 256, 256), (100, 16, 128, 128), (100, 8, 64, 64), (50, 32, 64, 128))
        for action in ("inference", "training")
    ),
    *(
        Problem("two layers, bidirectional", 100, B, H, H, action, "float32", 2, True)
        for H in (64, 256)
        for B in (1, 16)
        for action in ("inference", "training")
    ),
    *(Problem("odd sizes", *shape) for shape in ODD),
    *(Problem("models in use", *w[:4], "inference", "float32", w[4], w[5]) for w in WORKLOADS),
    *(Problem("models in use", *w[:4], "training", "float32", w[4], w[5]) for w in TRAINED),
]


class Arguments:
    """Random weights and arguments, and, with `exact`, the results that every contender must have.

    Attributes
    ----------
    state_dict : dict of str to ndarray
        Names and shapes of PyTorch.
    x, h0, c0, dy : ndarray
    lengths : ndarray of int, or None
    expected : list of ndarray of float64
        From `lstm_fast.reference`. Of inference y, hn, cn; of training the gradients of x, h0, c0
        and the parameters; of streaming y, step by step.
    """

    def __init__(self, problem: Problem, seed: int = 0, exact: bool = True) -> None:
        self.problem = p = problem
        rng = np.random.default_rng(seed)
        settings = (p.I, p.H, p.layers, True, False, 0.0, p.bidirectional)
        lstm = lstm_fast.LSTM(*settings, dtype=p.dtype, seed=rng)
        self.state_dict = lstm.state_dict()
        directions = 1 + p.bidirectional
        self.x, self.h0, self.c0, self.dy = (
            rng.standard_normal(shape).astype(p.dtype)
            for shape in (
                (p.T, p.B, p.I),
                *[(p.layers * directions, p.B, p.H)] * 2,
                (p.T, p.B, directions * p.H),
            )
        )
        self.lengths = rng.integers(10, p.T + 1, p.B) if p.ragged else None
        if not exact:
            return
        parameters = {name: value.astype(np.float64) for name, value in self.state_dict.items()}
        x, h0, c0, dy = (v.astype(np.float64) for v in (self.x, self.h0, self.c0, self.dy))
        if p.action == "streaming":
            x = x.repeat(STEPS, axis=0)
        forward, backward = reference.network_forward, reference.network_backward
        y, (hn, cn), cache = forward(x, parameters, h0, c0, lengths=self.lengths)
        if p.action == "training":
            dx, (dh0, dc0), grads = backward(dy, None, None, cache)
            self.expected = [dx, np.stack(dh0), np.stack(dc0), *grads.values()]
        else:
            self.expected = list(y) if p.action == "streaming" else [y, np.stack(hn), np.stack(cn)]
