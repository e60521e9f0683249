"""How long operators of PyTorch take alone and right after calls of LSTMs, and these beside them.

Threads that wait for the next call of one library may keep those of another from the cores.
"""

import statistics
import time
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import lstm_fast

from .progress import progress
from .pytorch_calls import Call, Case, inference

torch = import_module("torch")

BLOCK = 0.1  # seconds of calls before others have their turn
LSTMS = ["accelerated", "PyTorch"]
CASE = Case("inference", 100, 8, 64, 64)


def operators() -> dict[str, Call]:
    """Return calls of operators that use all threads."""
    a, b = torch.randn(2, 1024, 1024)
    numbers, rows = torch.randn(2**20), torch.randn(1024, 1024)
    return {
        "matmul 1024 x 1024": lambda: a @ b,
        "tanh of 2^20": numbers.tanh,
        "softmax 1024 x 1024": lambda: rows.softmax(1),
    }


def measure(threads: Sequence[int], turns: int) -> list[dict[str, Any]]:
    """Print a row of each operator and number of threads, and return the findings."""
    rows: list[dict[str, Any]] = []
    runs = [(n, *operator) for n in threads for operator in operators().items()]
    for n, name, operator in progress(runs, "operators", lambda run: f"{run[0]} threads, {run[1]}"):
        torch.set_num_threads(n)
        lstm_fast.set_num_threads(n)
        found = compare(operator, turns)
        print(line(n, name, found), flush=True)
        rows.append({"threads": n, "operator": name, **CASE._asdict(), **found})
    return rows


def line(threads: int, name: str, found: dict[str, float]) -> str:
    """Return a row of the table: times alone, and multiples of these."""
    alone = found["alone"]
    row = f"{threads} {name:20}{alone * 1e6:10.1f} us"
    for lstm in LSTMS:
        row += f", after {lstm} {found[f'after {lstm}'] / alone:.2f}"
    for lstm in LSTMS:
        alone = found[f"{lstm} alone"]
        row += f"; {lstm} {alone * 1e6:.1f} us, beside {found[f'{lstm} beside'] / alone:.2f}"
    return row


def compare(operator: Call, turns: int) -> dict[str, float]:
    """Return the median seconds of an operator and of LSTMs, alone and one after the other."""
    calls = inference(CASE)
    rounds: dict[tuple[str, ...], list[Call]] = {("alone",): [operator]}
    for lstm in LSTMS:
        rounds[(f"{lstm} alone",)] = [calls[lstm]]
        rounds[f"{lstm} beside", f"after {lstm}"] = [calls[lstm], operator]
    found: dict[str, list[float]] = {name: [] for names in rounds for name in names}
    for _ in range(turns):
        for names, together in rounds.items():
            for call in together:
                call()
            end = time.perf_counter() + BLOCK
            while time.perf_counter() < end:
                for name, call in zip(names, together, strict=True):
                    start = time.perf_counter()
                    call()
                    found[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in found.items()}
