"""Time all problems with one number of threads: the child process of `python -m bench`."""

import argparse
import gc
import json
import os
import time
from importlib import import_module, metadata
from pathlib import Path

import numpy as np

from .contenders import CONTENDERS, Bound, version
from .machine import peaks_line
from .problems import PROBLEMS, Arguments, Problem
from .progress import progress
from .roofline import least_time, probe

TOLERANCE = {"float32": 1e-5, "float64": 1e-11}  # of the largest element

# Seconds: between two contenders, in which threads of the one before stop spinning (OpenBLAS's spin
# for 20 ms, others less), and of a burst of calls, of which one comes before that which is timed.
PAUSE = 0.03
BURST = 0.01
TURNS = 7
LONG = 0.2  # a call that takes longer is timed three times, alone
FAR = 2.0  # and three times what takes longer than this multiple of ours


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.measure", description=__doc__)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--only", default="", help="part of a section's name")
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--most-flop", type=float, default=float("inf"))
    parser.add_argument("--name", default="run", help="what progress is told of")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    problems = [p for p in PROBLEMS if options.only in p.section and p.flop <= options.most_flop]
    limits = probe(options.threads)
    print(peaks_line(limits, options.threads), flush=True)
    entries = []
    name = f"{options.name}, {options.threads} thread" + "s" * (options.threads > 1)
    for problem in progress(problems, name, text, seconds):
        times = measure(problem, options.threads, options.turns)
        least = least_time(problem, limits, options.threads)
        entry = {**problem._asdict(), "flop": problem.flop, "least": least, "times": times}
        if problem.ragged:
            lengths = Arguments(problem, exact=False).lengths
            assert lengths is not None
            entry["valid"] = float(np.mean(lengths)) / problem.T  # share of valid steps
        entries.append(entry)
    result = {
        "threads": options.threads,
        "limits": limits,
        "versions": versions(),
        "entries": entries,
    }
    options.output.write_text(json.dumps(result))


def text(problem: Problem) -> str:
    return f"{problem.section}: {problem.action} {problem}"


def seconds(problem: Problem) -> float:
    """Return about how long a problem takes: pauses and bursts, and calls that are longer."""
    return 2.0 + problem.flop / 1e9


def measure(problem: Problem, threads: int, turns: int) -> dict[str, list[float]]:
    """Return the quartiles of the time of a call, in seconds, by contender.

    Results are compared first. Contenders take turns, so that a slow spell of the machine meets
    all of them alike.
    """
    arguments = Arguments(problem)
    bound: dict[str, Bound] = {}
    for name, contender in CONTENDERS.items():
        try:
            call = contender(arguments, threads)
        except ImportError:
            continue
        if call is not None:
            check(name, arguments, call)
            bound[name] = call
    if problem.ragged:
        padded = Arguments(problem._replace(ragged=False))
        bound["lstm_fast, padded"] = CONTENDERS["lstm_fast"](padded, threads)  # type: ignore[assignment]
    samples: dict[str, list[float]] = {name: [] for name in bound}
    for turn in range(turns):
        ours = np.median(samples["lstm_fast"]) if turn else 0.0
        for name, call in bound.items():
            limit = LONG if name.startswith("lstm_fast") else min(LONG, FAR * ours)
            if turn < 3 or np.median(samples[name]) < limit:
                samples[name].append(sample(call, samples[name]))
    return {name: list(np.quantile(found, (0.5, 0.25, 0.75))) for name, found in samples.items()}


def sample(call: Bound, before: list[float]) -> float:
    """Return the mean time of a call after a pause and a burst of calls."""
    time.sleep(PAUSE)
    calls = max(1, int(BURST / (before[-1] if before else timed(call, 1))))
    if not before or before[-1] < LONG:
        timed(call, calls)
    return timed(call, calls)


def timed(call: Bound, calls: int) -> float:
    """Return the mean time of a call without Python's garbage collector, as timeit does.

    It would look through the objects of all packages that are loaded.
    """
    gc.disable()
    try:
        start = time.perf_counter()
        for _ in range(calls):
            call()
        return (time.perf_counter() - start) / calls
    finally:
        gc.enable()


def check(name: str, arguments: Arguments, call: Bound) -> None:
    """Compare what a contender computes with what is right: by value, whatever axes of one."""
    problem, expected = arguments.problem, arguments.expected
    results = (call() for _ in expected) if problem.action == "streaming" else call()
    for actual, right in zip(results, expected, strict=True):
        array = np.asarray(actual)
        if array.ndim == 4:  # ONNX's y, (T, D, B, H)
            array = array.swapaxes(1, 2)
        error = np.abs(array.reshape(right.shape) - right).max()
        if not error <= TOLERANCE[problem.dtype] * np.abs(right).max():
            raise RuntimeError(f"{name} is wrong by {error:.1e} at {problem}")


def versions() -> dict[str, str]:
    """Return the versions of what is installed, NumPy's included."""
    found = {}
    for name in [*CONTENDERS, "numpy"]:
        try:
            import_module(name)
            found[name] = version(name)
        except (ImportError, metadata.PackageNotFoundError):
            continue
    return found


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
