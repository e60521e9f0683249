"""Time calls beside neighbours that take part of the machine: ``python -m bench.busy``.

Each contender runs on one thread and on all, in blocks that take turns, beside: nothing; a process
that keeps one core busy; one that does so every other millisecond; a NumPy product before each
call, after which OpenBLAS's idle threads spin for some 20 ms. Reported are the mean, the median
and the 95th percentile of a call on all threads, as multiples of the same on one thread beside the
same neighbour (the percentile: of its mean).
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import lstm_fast

from . import quiet
from .contenders import CONTENDERS, THREADS_OF_THE_CALL, Bound
from .machine import describe, machine_line, usable_cpus
from .problems import Arguments, Problem
from .progress import progress

BUSY = "while True: pass"
EVERY_OTHER_MILLISECOND = """
import time
while True:
    end = time.perf_counter() + 1e-3
    while time.perf_counter() < end: pass
    time.sleep(1e-3)
"""
PROGRAMS = {"quiet": "", "busy": BUSY, "half busy": EVERY_OTHER_MILLISECOND, "NumPy @": ""}
SHAPES = (
    *((100, 1, 64, 64), (100, 1, 256, 256), (100, 8, 64, 64), (50, 32, 16, 32), (50, 32, 64, 128)),
    *((128, 32, 64, 256), (25, 64, 512, 512)),
)
BLOCK = 0.3  # seconds of calls before another contender or number of threads has its turn
STARTING = 0.3  # seconds that a neighbour has to begin


class Case(NamedTuple):
    """What is measured beside what."""

    beside: str
    problem: Problem
    contender: str

    def __str__(self) -> str:
        return f"beside {self.beside}: {self.problem.action} {self.problem}, {self.contender}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.busy", description=__doc__)
    parser.add_argument("--beside", nargs="+", choices=PROGRAMS, default=list(PROGRAMS))
    names: dict[str, Any] = {"default": ["lstm_fast"], "choices": THREADS_OF_THE_CALL}
    parser.add_argument("--contenders", nargs="+", **names)
    parser.add_argument("--actions", nargs="+", default=["inference", "training"])
    sizes: dict[str, Any] = {"nargs": 4, "type": int, "metavar": ("T", "B", "I", "H")}
    parser.add_argument("--shape", action="append", **sizes)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--output", type=Path, help="a JSON file of the findings")
    options = parser.parse_args(arguments)
    cpus, cpu = usable_cpus(), describe()
    result: dict[str, Any] = {
        "date": date.today().isoformat(),
        "machine": machine_line(cpu),
        "cpu": cpu,
        "threads": len(cpus),
        "before": quiet.before(cpus),
        "cases": [],
    }
    print(f"{result['machine']}; {cpu['isa']}; {len(cpus)} threads")
    for warning in quiet.warnings(result):
        print(f"WARNING: {warning}")
    cases = [
        Case(beside, Problem("", T, B, I, H, action), name)
        for beside in options.beside
        for action in options.actions
        for T, B, I, H in options.shape or SHAPES
        for name in options.contenders
    ]
    for case in progress(cases, "bench.busy", str):
        found = measure(case, len(cpus), options.turns)
        if found is not None:
            print(line(case, found), flush=True)
            sizes = {key: getattr(case.problem, key) for key in ("action", "T", "B", "I", "H")}
            names = {"beside": case.beside, "contender": case.contender}
            result["cases"].append({**names, **sizes, **found})
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(result, indent=1) + "\n")
        print(f"written: {options.output}")


def measure(case: Case, threads: int, turns: int) -> dict[str, float] | None:
    """Time a case with one thread and with all, in turns.

    Returns
    -------
    dict or None
        ``one``: mean seconds on one thread; ``mean``, ``median``, ``p95``: on all, as multiples.
        None where the contender has no such LSTM.
    """
    arguments, name = Arguments(case.problem, exact=False), case.contender
    calls: dict[int, Bound] = {}
    for n in (1, threads):
        call = CONTENDERS[name](arguments, n)
        if call is None:
            return None
        calls[n] = call
    before = product_of_numpy() if case.beside == "NumPy @" else None
    found: dict[int, list[float]] = {n: [] for n in calls}
    with neighbour(PROGRAMS[case.beside]):
        for _ in range(turns):
            for n, call in calls.items():
                set_threads(name, n)
                found[n] += times(call, before)
    one, many = np.array(found[1]), np.array(found[threads])
    return {
        "one": float(one.mean()),
        "mean": float(many.mean() / one.mean()),
        "median": float(np.median(many) / np.median(one)),
        "p95": float(np.quantile(many, 0.95) / one.mean()),
    }


def line(case: Case, found: dict[str, float]) -> str:
    """Return a row of the table."""
    problem = case.problem
    return (
        f"{case.beside:10}{problem.action:10}{problem!s:20}{case.contender:12}"
        f"{found['one'] * 1e6:9.0f} us  mean {found['mean']:5.2f}  "
        f"median {found['median']:5.2f}  p95 {found['p95']:6.2f}"
    )


def set_threads(name: str, threads: int) -> None:
    """Set the threads of contenders that have one number for all their calls."""
    if name == "lstm_fast":
        lstm_fast.set_num_threads(threads)
    elif name == "torch":
        import_module("torch").set_num_threads(threads)


def product_of_numpy() -> Callable[[], object]:
    """Return a product that NumPy computes on all threads of its BLAS."""
    a = np.ones((512, 512), np.float32)
    return lambda: a @ a


def times(call: Bound, before: Callable[[], object] | None) -> list[float]:
    """Return the time of each call of a block, at least five; `before` each, something untimed."""
    found: list[float] = []
    end = time.perf_counter() + BLOCK
    call()
    while time.perf_counter() < end or len(found) < 5:
        if before is not None:
            before()
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return found


@contextmanager
def neighbour(program: str) -> Iterator[None]:
    """Run a program of Python beside the body; none if it is empty."""
    if not program:
        yield
        return
    with subprocess.Popen([sys.executable, "-c", program]) as process:
        time.sleep(STARTING)
        try:
            yield
        finally:
            process.kill()


if __name__ == "__main__":
    main()
