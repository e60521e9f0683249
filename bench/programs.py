"""Seconds of programs of others, with and without `enable()`: ``python -m bench.programs``.

A classifier of skorch's on sequences of different lengths, and sb3-contrib's RecurrentPPO in a
small world, in turns; medians. What is not installed is left out.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

import lstm_fast

torch = import_module("torch")
nn = torch.nn
Module: Any = nn.Module
enabled = import_module("lstm_fast.torch").enabled

Program = Callable[[float], Any]


def skorch(size: float) -> Any:
    """Learn whether the mean of a sequence is positive; return the losses of the epochs."""

    class Classifier(Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(8, 64, batch_first=True)
            self.linear = nn.Linear(64, 2)

        def forward(self, x: Any, lengths: Any) -> Any:
            packed = nn.utils.rnn.pack_padded_sequence(x, lengths, True, False)
            return self.linear(self.lstm(packed)[1][0][-1])

    rng, B, T = np.random.default_rng(0), 32 * max(1, round(16 * size)), 50
    x, lengths = rng.standard_normal((B, T, 8)).astype(np.float32), rng.integers(5, T + 1, B)
    x[np.arange(T) >= lengths[:, None]] = 0
    net = import_module("skorch").NeuralNetClassifier(
        Classifier,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        max_epochs=5,
        batch_size=32,
        verbose=0,
    )
    net.fit({"x": x, "lengths": lengths}, (x.sum((1, 2)) > 0).astype(np.int64))
    return net.history[:, "train_loss"]


def sb3_contrib(size: float) -> Any:
    """Learn to remember a number for some steps; return the rewards of the last episodes."""
    gymnasium = import_module("gymnasium")
    Env: Any = gymnasium.Env

    class Memory(Env):  # type: ignore[misc]
        observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
        action_space = gymnasium.spaces.Discrete(2)

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            super().reset(seed=seed)
            self.t, self.number = 0, int(self.np_random.integers(2))
            return np.array([2 * self.number - 1, 0], np.float32), {}

        def step(self, action: int) -> Any:
            self.t += 1
            reward = float(action == self.number) if self.t == 10 else 0.0
            return np.array([0, self.t / 10], np.float32), reward, self.t == 10, False, {}

    model = import_module("sb3_contrib").RecurrentPPO(
        *("MlpLstmPolicy", Memory()),
        policy_kwargs={"lstm_hidden_size": 64},
        **{"n_steps": 128, "batch_size": 64, "n_epochs": 4, "seed": 0, "device": "cpu"},
    )
    model.learn(128 * max(1, round(8 * size)))
    return [episode["r"] for episode in model.ep_info_buffer]


PROGRAMS: dict[str, Program] = {"skorch": skorch, "sb3_contrib": sb3_contrib}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.programs", description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--size", type=float, default=1.0, help="of the programs")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    print(
        f"PyTorch {torch.__version__}, lstm_fast {lstm_fast.__version__}, {options.threads} threads"
    )
    for name, program in PROGRAMS.items():
        if find_spec(name) is None:
            print(f"{name:12} is not installed")
            continue
        plain, ours = compare(program, options.size, options.turns)
        print(f"{name:12}{plain:8.2f} s, enabled {ours:.2f} s: {plain / ours:.2f}", flush=True)


def compare(program: Program, size: float, turns: int) -> list[float]:
    """Return the median seconds of a program as it is, and enabled, after one of each."""
    ways = [nullcontext, enabled]
    found: list[list[float]] = [[] for _ in ways]
    for turn in range(turns + 1):
        for way, seconds in zip(ways, found, strict=True):
            torch.manual_seed(0)
            start = time.perf_counter()
            with way():
                program(size)
            if turn > 0:
                seconds.append(time.perf_counter() - start)
    return [statistics.median(seconds) for seconds in found]


if __name__ == "__main__":
    main()
