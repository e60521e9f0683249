"""Measure lstm_fast beside every installed peer, and report: ``python -m bench``; see README.md."""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import lstm_fast

from .report import write_report

QUICK = ["--turns", "3", "--most-flop", "3e7"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--only", default="", help="part of a section's name")
    parser.add_argument("--quick", action="store_true", help="small problems, few samples")
    parser.add_argument("--output", type=Path, default=Path("bench/results/latest"))
    options = parser.parse_args()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {
        "date": date.today().isoformat(),
        "machine": machine(),
        "isa": lstm_fast.show_config()["isas"]["active"],
        "import_seconds": import_time(),
        "runs": [child(n, options.only, options.quick) for n in options.threads],
        "memory": {} if options.quick or options.only else memory(),
    }
    path = options.output.with_suffix(".json")
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(write_report(path))


def child(threads: int, only: str, quick: bool) -> dict[str, Any]:
    """Return what `bench.measure` finds, in a process whose environment all packages respect."""
    one = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    variables = {"OMP_NUM_THREADS": str(threads), "XLA_FLAGS": one if threads == 1 else ""}
    cpus = sorted(os.sched_getaffinity(0))[-threads:]
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "result.json")
        command = [sys.executable, "-m", "bench.measure", "--threads", str(threads), "--only", only]
        subprocess.run(
            [*command, "--output", str(output), *(QUICK if quick else [])],
            env=os.environ | variables,
            check=True,
            preexec_fn=lambda: os.sched_setaffinity(0, cpus),
        )
        found: dict[str, Any] = json.loads(output.read_text())
    return found


def machine() -> str:
    """Return the name of the CPU and how many of them this process may use."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((x.split(":")[1].strip() for x in lines if "model name" in x), platform.machine())
    return (
        f"{name}, {len(os.sched_getaffinity(0))} cores, Linux, Python {platform.python_version()}"
    )


def import_time() -> float:
    """Return how much longer Python takes to import lstm_fast than to import NumPy alone."""
    found = []
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": ""}  # as in an installed package
    for _ in range(12):
        times = []
        for package in ("numpy", "lstm_fast"):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", f"import {package}"], env=environment, check=True)
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
