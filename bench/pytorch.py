"""Time `nn.LSTM` inside PyTorch, as it is and accelerated: ``python -m bench.pytorch``.

A training step is forward, the sum of the output, backward and a step of a fused Adam. Both modules
have the same weights, in one process, in blocks that take turns; reported are medians and their
ratio. In inference `lf.LSTM` stands beside them, on NumPy arrays. `pytorch_memory` tells the peak
memory of training steps, `pytorch_operators` what PyTorch's operators take beside calls.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import lstm_fast

from . import findings, pytorch_memory, pytorch_operators
from .machine import usable_cpus
from .problems import GRID
from .progress import progress
from .pytorch_calls import CALLS, Call, Case

torch = import_module("torch")

BLOCK = 0.1  # seconds of calls before the other has its turn
LARGEST = 3e9  # multiply-adds of a problem that is measured unless all are asked for
PARTS = ["cases", "memory", "operators"]

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
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--output", type=Path, help="a JSON file of the findings")
    options = parser.parse_args(arguments)
    result = findings.begin()
    threads = options.threads or sorted({1, len(usable_cpus())})
    if "cases" in options.only:
        cases = [c for c in CASES if options.large or c.T * c.B * c.H * (c.I + c.H) < LARGEST / 4]
        result["cases"] = measure(threads, cases, options.turns)
    if "memory" in options.only:
        result["memory"] = pytorch_memory.measure(threads)
    if "operators" in options.only:
        result["operators"] = pytorch_operators.measure(threads, options.turns)
    findings.write(result, options.output)


def measure(threads: Sequence[int], cases: Sequence[Case], turns: int) -> list[dict[str, Any]]:
    """Print a row of each case, and the means of each action; return the findings."""
    rows: list[dict[str, Any]] = []
    runs = [(n, case) for n in threads for case in cases]
    for n, case in progress(runs, "bench.pytorch", lambda run: f"{run[0]} threads, {run[1]}"):
        torch.set_num_threads(n)
        lstm_fast.set_num_threads(n)
        found = compare(CALLS[case.action](case), turns)
        print(line(n, case, found), flush=True)
        rows.append({"threads": n, **case._asdict(), **found})
    for action in CALLS:
        for n in threads:
            of = [row for row in rows if row["action"] == action and row["threads"] == n]
            ratios = [r["PyTorch"] / r["accelerated"] for r in of if r["dtype"] == "float32"]
            print(
                f"{action}, {n} threads: geometric mean {statistics.geometric_mean(ratios):.2f}, "
                f"least {min(ratios):.2f}"
            )
    return rows


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


if __name__ == "__main__":
    main()
