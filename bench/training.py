"""Seconds of whole trainings beside PyTorch's: ``python -m bench.training``.

Batches, model, loss, gradient, clipping, and a step of Adam: of a character model, of a classifier
of ragged sequences, of a forecaster; the same updates in both, in turns, medians of an update. Then
a step of Adam alone, beside NumPy's and PyTorch's fused one; and the share of the LSTM.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

import lstm_fast
from lstm_fast import LSTM, nn, optim, training

torch = import_module("torch")
Module: Any = torch.nn.Module
rnn = torch.nn.utils.rnn

V = 65  # characters
ROWS, COLUMNS = 2000, 1000  # of the 2 million parameters of a step alone


class Case(NamedTuple):
    """A training: a new model, its batches, its loss here and in PyTorch."""

    model: nn.Sequential
    source: list[training.Batch]
    loss: Any
    their_loss: Callable[[Any, Any], Any]


def text(B: int, updates: int) -> Case:
    """A character model: H = 256, T = 128, the state carried over."""
    characters = np.random.default_rng(0).integers(0, V, 128 * B * updates + 1)
    model = nn.Sequential(
        embed=nn.Embedding(V, 64, seed=0),
        lstm=LSTM(64, 256, seed=1),
        head=nn.Linear(256, V, seed=2),
    )
    source = [*training.truncated(characters, 128, B).epoch(0)]
    return Case(model, source, nn.CrossEntropy(), cross_entropy)


def speech(updates: int) -> Case:
    """A classifier of ragged sequences of log-mel features: two layers, both directions."""
    rng = np.random.default_rng(0)
    lengths = rng.lognormal(3.6, 0.45, 32 * updates).clip(10, 200).astype(int)
    x = [rng.standard_normal((T, 40)).astype(np.float32) for T in lengths]
    model = nn.Sequential(
        lstm=LSTM(40, 64, 2, bidirectional=True, seed=0),
        last=nn.Last(2),
        head=nn.Linear(128, 10, seed=1),
    )
    batches = training.batches(x, rng.integers(0, 10, len(x)), batch_size=32, seed=0)
    return Case(model, [*batches.epoch(0)], nn.CrossEntropy(), cross_entropy)


def forecaster(updates: int) -> Case:
    """A forecaster of 24 hours from 96, B = 64."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64 * updates, 96, 1)).astype(np.float32)
    target = rng.standard_normal((64 * updates, 24)).astype(np.float32)
    model = nn.Sequential(lstm=LSTM(1, 64, seed=0), last=nn.Last(), head=nn.Linear(64, 24, seed=1))
    batches = training.batches(x, target, batch_size=64, seed=0)
    return Case(model, [*batches.epoch(0)], nn.Huber(), torch.nn.functional.huber_loss)


CASES: dict[str, Callable[[], Case]] = {
    "character model, B = 32": lambda: text(32, 10),
    "character model, B = 1": lambda: text(1, 60),
    "ragged classifier, B = 32": lambda: speech(20),
    "forecaster, B = 64": lambda: forecaster(60),
}


class Twin(Module):  # type: ignore[misc]
    """A model in PyTorch, of the same parameters."""

    def __init__(self, model: nn.Sequential) -> None:
        super().__init__()
        for name, block in model.blocks.items():
            if isinstance(block, nn.Embedding):
                made = torch.nn.Embedding(*block.state_dict()["weight"].shape)
            elif isinstance(block, LSTM):
                made = torch.nn.LSTM(
                    *(block.input_size, block.hidden_size, block.num_layers),
                    bidirectional=block.bidirectional,
                )
            elif isinstance(block, nn.Linear):
                made = torch.nn.Linear(*block.state_dict()["weight"].shape[::-1])
            else:  # Last
                made = None
            setattr(self, name, made)
        self.load_state_dict({k: torch.tensor(v) for k, v in model.state_dict().items()})
        self.last = any(isinstance(block, nn.Last) for block in model.blocks.values())

    def forward(self, x: Any, state: Any, lengths: Any) -> tuple[Any, Any]:
        if hasattr(self, "embed"):
            x = self.embed(x)
        if lengths is not None:
            x = rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
        y, state = self.lstm(x, state)
        if self.last and lengths is not None:
            y = state[0][-2:].swapaxes(0, 1).flatten(1)  # both directions of the last layer
        elif self.last:
            y = y[-1]
        return self.head(y), state


def cross_entropy(y: Any, target: Any) -> Any:
    return torch.nn.functional.cross_entropy(y.flatten(0, -2), target.flatten())


def ours(case: Case) -> Callable[[], Any]:
    """Return a call that makes all updates of a case once."""
    trainer = training.Trainer(case.model, case.loss, optim.Adam(), clip_norm=1.0)
    return lambda: trainer.fit(case.source, progress=False)


def theirs(case: Case) -> Callable[[], Any]:
    """Return one that makes the same updates in PyTorch."""
    model = Twin(case.model)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)

    def run() -> None:
        state: Any = None
        for batch in case.source:
            before = tuple(part.detach() for part in state) if batch.state else None
            lengths = None if batch.lengths is None else torch.from_numpy(batch.lengths)
            y, state = model(torch.from_numpy(batch.x), before, lengths)
            loss = case.their_loss(y, torch.from_numpy(batch.target))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            loss.item()  # a training shows its loss

    return run


def plain_adam(p: Any, g: Any, lr: float = 1e-3) -> Iterator[None]:
    """Make steps of Adam with NumPy, as the formula is written."""
    m, v = np.zeros_like(p), np.zeros_like(p)
    for step in range(1, 10**9):
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        p -= lr * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
        yield


def adam_in_place(p: Any, g: Any, lr: float = 1e-3) -> Iterator[None]:
    """Make steps of Adam with NumPy without new arrays."""
    m, v, a, b = (np.zeros_like(p) for _ in range(4))
    for step in range(1, 10**9):
        m *= 0.9
        m += np.multiply(g, 0.1, out=a)
        v *= 0.999
        np.multiply(g, g, out=a)
        v += np.multiply(a, 0.001, out=a)
        np.sqrt(v, out=b)
        b /= (1 - 0.999**step) ** 0.5
        b += 1e-8
        np.multiply(m, lr / (1 - 0.9**step), out=a)
        p -= np.divide(a, b, out=a)
        yield


def adam_steps(count: int) -> dict[str, Callable[[], Any]]:
    """Return calls that make so many steps of Adam over 2 million parameters."""
    rng = np.random.default_rng(0)
    block = nn.Sequential(linear=nn.Linear(COLUMNS, ROWS, bias=False, seed=0))
    y, _, cache = block.forward(rng.standard_normal((8, COLUMNS)).astype(np.float32))
    grads = block.backward(y, None, cache)[2]
    adam = optim.Adam()
    g = rng.standard_normal((ROWS, COLUMNS)).astype(np.float32)
    plain, in_place = plain_adam(g.copy(), g), adam_in_place(g.copy(), g)
    weight = torch.nn.Parameter(torch.tensor(g))
    weight.grad = torch.tensor(g)
    optimizer = torch.optim.Adam([weight], fused=True)
    steps: dict[str, Callable[[], Any]] = {
        "lstm_fast": lambda: adam.step(block, grads),
        "NumPy": lambda: next(plain),
        "NumPy in place": lambda: next(in_place),
        "PyTorch": optimizer.step,
    }

    def repeated(step: Callable[[], Any]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(count):
                step()

        return run

    return {name: repeated(step) for name, step in steps.items()}


def share_of_lstm() -> float:
    """Return the share of the LSTM in the time of a training of the character model."""
    case = text(32, 10)
    inside = 0.0

    class Timed(LSTM):
        def _forward(self, *arguments: Any) -> Any:
            return timed(super()._forward, *arguments)

        def backward(self, *arguments: Any, **named: Any) -> Any:
            return timed(super().backward, *arguments, **named)

    def timed(method: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        nonlocal inside
        begin = time.perf_counter()
        result = method(*arguments, **named)
        inside += time.perf_counter() - begin
        return result

    model = nn.Sequential(
        embed=nn.Embedding(V, 64, seed=0),
        lstm=Timed(64, 256, seed=1),
        head=nn.Linear(256, V, seed=2),
    )
    run = ours(case._replace(model=model))
    run()
    inside, begin = 0.0, time.perf_counter()
    for _ in range(5):
        run()
    return inside / (time.perf_counter() - begin)


def medians(calls: dict[str, Callable[[], Any]], turns: int, count: int) -> dict[str, float]:
    """Return the median seconds of each call over `count`, in turns, after two of each."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(turns + 2):
        for name, call in calls.items():
            time.sleep(0.02)  # threads of the other go to sleep
            begin = time.perf_counter()
            call()
            if turn > 1:
                found[name].append((time.perf_counter() - begin) / count)
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.training", description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=9)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    lstm_fast.set_num_threads(options.threads)
    print(
        f"PyTorch {torch.__version__}, lstm_fast {lstm_fast.__version__}, "
        f"{options.threads} threads; ms an update"
    )
    for name, make in CASES.items():
        case = make()
        calls = {"lstm_fast": ours(case), "PyTorch": theirs(case)}
        show(name, medians(calls, options.turns, len(case.source)))
    show("Adam, 2 million parameters", medians(adam_steps(10), 2 * options.turns, 10))
    print(f"{'share of the LSTM':28}{100 * share_of_lstm():9.1f} %")


def show(name: str, seconds: dict[str, float]) -> None:
    mine = seconds.pop("lstm_fast")
    others = "".join(
        f"   {other} {value * 1e3:8.3f}, ratio {value / mine:.2f}"
        for other, value in seconds.items()
    )
    print(f"{name:28}{mine * 1e3:9.3f}{others}", flush=True)


if __name__ == "__main__":
    main()
