"""Measure lstm_fast beside every installed peer, and report: ``python -m bench``; see README.md."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

from . import quiet
from .machine import describe, machine_line, usable_cpus
from .report import write_report

QUICK = ["--turns", "3", "--most-flop", "3e7"]
THREADS = [1, 2]
WHOLE = Path("bench/results/latest")
PARTIAL = Path("bench/results/partial/latest")  # not under version control


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=THREADS)
    parser.add_argument("--only", default="", help="part of a section's name")
    parser.add_argument("--quick", action="store_true", help="small problems, few samples")
    parser.add_argument("--output", type=Path, help=f"{WHOLE}; of a part of it, {PARTIAL}")
    options = parser.parse_args()
    part = options.quick or options.only or options.threads != THREADS
    output = options.output or (PARTIAL if part else WHOLE)
    output.parent.mkdir(parents=True, exist_ok=True)
    cpu = describe()
    print(f"{machine_line(cpu)}; {cpu['isa']}", flush=True)
    before = quiet.before(usable_cpus())
    warn({"before": before})
    result: dict[str, Any] = {
        "date": date.today().isoformat(),
        "machine": machine_line(cpu),
        "cpu": cpu,
        "isa": cpu["isa"],
        "before": before,
        "import_seconds": import_time(),
        "runs": [
            child(n, options.only, options.quick, f"run {k} of {len(options.threads)}")
            for k, n in enumerate(options.threads, 1)
        ],
        "memory": {} if options.quick or options.only else memory(),
    }
    path = output.with_suffix(".json")
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(write_report(path))
    print(f"written: {path} and, beside it, {path.stem}.md and two plots")


def warn(result: dict[str, Any]) -> None:
    for line in quiet.warnings(result):
        print(f"WARNING: {line}", file=sys.stderr, flush=True)


def child(threads: int, only: str, quick: bool, name: str) -> dict[str, Any]:
    """Return what `bench.measure` finds, in a process whose environment all packages respect.

    Its CPUs are watched meanwhile: see `quiet`.
    """
    one = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    variables = {"OMP_NUM_THREADS": str(threads), "XLA_FLAGS": one if threads == 1 else ""}
    cpus = usable_cpus()[-threads:]

    def pin() -> None:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, cpus)

    first = quiet.read(cpus)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "result.json")
        command = [sys.executable, "-m", "bench.measure", "--threads", str(threads), "--only", only]
        subprocess.run(
            [*command, "--name", name, "--output", str(output), *(QUICK if quick else [])],
            env=os.environ | variables,
            check=True,
            preexec_fn=pin,
        )
        found: dict[str, Any] = json.loads(output.read_text())
    cells = [times for entry in found["entries"] for times in entry["times"].values()]
    found["quiet"] = {**quiet.between(first, quiet.read(cpus)), "spread": quiet.spread(cells)}
    warn({"runs": [found]})
    return found


def import_time() -> float:
    """Return how much longer Python takes to import LSTM than to import NumPy alone."""
    found = []
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": ""}  # as in an installed package
    for _ in range(12):
        times = []
        for code in ("import numpy", "from lstm_fast import LSTM"):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], env=environment, check=True)
            times.append(time.perf_counter() - start)
        found.append(times[1] - times[0])
    return statistics.median(found[1:])  # the first may compile


def memory() -> dict[str, float]:
    """Return the peak memory of a training step at T = 1000, B = 32, H = 256, in bytes."""
    found = {}
    for name in ("lstm_fast", "torch"):
        command = [sys.executable, "-m", "bench.memory", name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            found[name] = float(done.stdout.split()[-1])
    return found


if __name__ == "__main__":
    main()
