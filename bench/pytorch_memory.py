"""By how much packed training steps raise the peak memory of a process (Linux).

``python -m bench.pytorch_memory NAME THREADS T B I H`` prints the bytes of one of them: of
"PyTorch", whose LSTM is its own, or "accelerated".
"""

import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from .progress import progress
from .pytorch_calls import Case, packed_training

STEPS = 3
SHAPES = [(200, 32, 128, 128), (100, 16, 64, 256)]
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def measure(threads: Sequence[int]) -> list[dict[str, Any]]:
    """Print a row of each shape and number of threads, and return the findings."""
    rows: list[dict[str, Any]] = []
    if not CLEAR.exists():
        print("memory: only Linux tells the peak")
        return rows
    runs = [(n, Case("packed training", *shape)) for n in threads for shape in SHAPES]
    for n, case in progress(runs, "memory", lambda run: f"{run[0]} threads, {run[1]}"):
        found = {name: raised_in_child(name, n, case) for name in ("PyTorch", "accelerated")}
        theirs, ours = found.values()
        print(
            f"{n} memory of {case!s:44}{theirs / 2**20:8.1f} MiB{ours / 2**20:8.1f} MiB"
            f"{theirs / max(ours, 1):7.2f}",
            flush=True,
        )
        rows.append({"threads": n, **case._asdict(), **found})
    return rows


def raised_in_child(name: str, threads: int, case: Case) -> int:
    """Return the bytes, measured in a new process."""
    arguments = [name, threads, case.T, case.B, case.I, case.H]
    command = [sys.executable, "-W", "ignore", "-m", __name__, *map(str, arguments)]
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def main() -> None:
    name, (threads, T, B, I, H) = sys.argv[1], map(int, sys.argv[2:])
    import_module("torch").set_num_threads(threads)
    case = Case("packed training", T, B, I, H)
    packed_training(case._replace(T=10, B=2))[name]()  # libraries take what they keep
    step = packed_training(case)[name]
    CLEAR.write_text("5")  # the peak is what is resident now
    before = peak()
    for _ in range(STEPS):
        step()
    print(peak() - before)


def peak() -> int:
    """Return the largest number of bytes that were resident."""
    (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
