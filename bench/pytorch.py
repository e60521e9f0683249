"""Time `nn.LSTM` inside PyTorch, as it is and accelerated: ``python -m bench.pytorch``.

A training step is forward, the sum of the output, backward and a step of a fused Adam. Both modules
have the same weights, in one process, in blocks that take turns; reported are medians and their
ratio. In inference `lf.LSTM` stands beside them, on NumPy arrays.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import lstm_fast

from . import quiet
from .machine import describe, machine_line, usable_cpus
from .problems import GRID
from .progress import progress

torch = import_module("torch")
accelerate = import_module("lstm_fast.torch").accelerate

BLOCK = 0.1  # seconds of calls before the other has its turn
LARGEST = 3e9  # multiply-adds of a problem that is measured unless all are asked for
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


CASES = [
    Case("packed training", 200, 32, 128, 128),
    Case("training", 100, 16, 32, 64, "float64"),
    Case("cell", 1000, 1, 64, 64),
    *(Case("training", *shape) for shape in GRID),
    *(Case("inference", *shape) for shape in GRID),
]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.pytorch", description=__doc__)
    parser.add_argument("--threads", nargs="+", type=int)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--large", action="store_true", help="also shapes of seconds a call")
    parser.add_argument("--output", type=Path, help="a JSON file of the findings")
    options = parser.parse_args(arguments)
    cpus, cpu = usable_cpus(), describe()
    versions = f"PyTorch {torch.__version__}, lstm_fast {lstm_fast.__version__}"
    result: dict[str, Any] = {
        "date": date.today().isoformat(),
        "machine": machine_line(cpu),
        "cpu": cpu,
        "versions": versions,
        "before": quiet.before(cpus),
        "cases": [],
    }
    print(f"{result['machine']}; {cpu['isa']}; {versions}")
    for warning in quiet.warnings({**result, "threads": len(cpus)}):
        print(f"WARNING: {warning}")
    cases = [c for c in CASES if options.large or c.T * c.B * c.H * (c.I + c.H) < LARGEST / 4]
    threads = options.threads or sorted({1, len(cpus)})
    runs = [(n, case) for n in threads for case in cases]
    for n, case in progress(runs, "bench.pytorch", lambda run: f"{run[0]} threads, {run[1]}"):
        torch.set_num_threads(n)
        lstm_fast.set_num_threads(n)
        found = compare(CALLS[case.action](case), options.turns)
        print(line(n, case, found), flush=True)
        result["cases"].append({"threads": n, **case._asdict(), **found})
    for action in CALLS:
        for n in threads:
            of = [c for c in result["cases"] if c["action"] == action and c["threads"] == n]
            ratios = [c["PyTorch"] / c["accelerated"] for c in of if c["dtype"] == "float32"]
            print(
                f"{action}, {n} threads: geometric mean {statistics.geometric_mean(ratios):.2f}, "
                f"least {min(ratios):.2f}"
            )
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(result, indent=1) + "\n")
        print(f"written: {options.output}")


def line(threads: int, case: Case, found: dict[str, float]) -> str:
    """Return a row of the table."""
    ours, numpys = found["accelerated"], found.get("lf.LSTM")
    row = (
        f"{threads} {case!s:44}{found['PyTorch'] * 1e6:10.1f} us{ours * 1e6:10.1f} us"
        f"{found['PyTorch'] / ours:7.2f}"
    )
    if numpys is None:
        return row
    return f"{row}   lf.LSTM {numpys * 1e6:.1f} us: {numpys / ours:.2f}"


def compare(calls: dict[str, Call], turns: int) -> dict[str, float]:
    """Return the median seconds of calls, in turns."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(turns):
        for name, call in calls.items():
            call()
            end = time.perf_counter() + BLOCK
            while True:
                start = time.perf_counter()
                call()
                found[name].append(time.perf_counter() - start)
                if time.perf_counter() > end:
                    break
    return {name: statistics.median(times) for name, times in found.items()}


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

if __name__ == "__main__":
    main()
