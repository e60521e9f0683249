"""The least time that an LSTM could take on this machine: peak speed and bandwidth, measured."""

import ctypes
import os
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .problems import Problem

__all__ = ["least_time", "probe"]

FLAGS = ["-O2", "-march=native", "-ffp-contract=fast", "-shared", "-fPIC"]
PEAKS = {
    "float32": "peak_f32",
    "float64": "peak_f64",
    "bfloat16": "peak_bfloat16",
    "int8": "peak_int8",
}


class Kind(NamedTuple):
    """A kind of products: whose peak limits them, and the bytes of a weight."""

    peak: str
    itemsize: int


KINDS = {
    "float32": Kind("float32", 4),
    "float64": Kind("float64", 8),
    "bfloat16": Kind("bfloat16", 2),
    "int8": Kind("int8", 1),
    "widened": Kind("float32", 1),  # weights of 8 bits, multiplied as float32
    "mixed": Kind("bfloat16", 1),  # or as bfloat16, where the CPU has instructions for that
}


def cache_sizes() -> dict[str, int]:
    """Return bytes of the data caches of a core, by level."""
    sizes = {}
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        text = (folder / "size").read_text().strip()
        if (folder / "type").read_text().strip() != "Instruction":
            unit = {"K": 2**10, "M": 2**20}[text[-1]]
            sizes["L" + (folder / "level").read_text().strip()] = int(text[:-1]) * unit
    return sizes


def probe(threads: int) -> dict[str, Any]:
    """Measure with so many threads, together.

    Returns
    -------
    dict
        ``float32``, ``float64``, ``bfloat16``, ``int8``: operations a second of multiply-adds, each
        of which counts as two. ``levels``: for each cache and memory its size in bytes (of one
        core; None: memory) and bytes a second read from it.
    """
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "roofline.so")
        source = Path(__file__).with_suffix(".c")
        subprocess.run([os.environ.get("CC", "cc"), *FLAGS, source, "-o", library], check=True)
        c = ctypes.CDLL(str(library))
    for function in (*PEAKS.values(), "read_bytes"):
        getattr(c, function).restype = ctypes.c_double
    sizes = cache_sizes()
    levels = {}
    with ThreadPoolExecutor(threads) as pool:

        def rate(function: Any, *arguments: Any) -> float:
            """Return the best of several rates of all threads together."""

            def timed(_: int) -> float:
                start = time.perf_counter()
                done: float = function(*arguments)
                return done / (time.perf_counter() - start)

            return max(sum(pool.map(timed, range(threads))) for _ in range(9))

        peaks = {
            name: rate(getattr(c, function), ctypes.c_size_t(4_000_000))
            for name, function in PEAKS.items()
        }
        for level, size in [*sizes.items(), ("memory", 0)]:
            working_set = size // 2 // (threads if level == "L3" else 1) or 256 << 20
            data = np.ones(working_set + 64, np.uint8)
            start = data.ctypes.data + -data.ctypes.data % 64
            rounds = max(1, (64 << 20) // working_set)
            levels[level] = {
                "size": size or None,
                "rate": rate(
                    c.read_bytes,
                    ctypes.c_void_p(start),
                    ctypes.c_size_t(working_set),
                    ctypes.c_size_t(rounds),
                ),
            }
    return {**peaks, "levels": levels}


def least_time(
    problem: Problem,
    limits: dict[str, Any],
    threads: int,
    kinds: tuple[str, str] | None = None,
) -> float | None:
    """Return the least time in seconds, or None for what the model does not cover.

    `kinds` of the products with x and with h are among `KINDS`; without them, the dtype is both.

    Products over all times run at the peak, or read their weights once. The recurrent product
    depends on the step before: in every step it runs at the peak, or each core reads its share of
    the recurrent weights from the smallest memory in which that fits. Training has that step twice
    (h in forward, dh in backward), and the products of dx, dw_ih and dw_hh.
    """
    if problem.layers > 1 or problem.bidirectional or problem.ragged:
        return None
    T, B, I, H = problem[1:5]
    of_x, of_h = (KINDS[kind] for kind in kinds or (problem.dtype, problem.dtype))

    def product(rows: int, columns: int, kind: Kind) -> float:
        size = 4 * H * columns * kind.itemsize
        rate = next(
            level["rate"]
            for level in limits["levels"].values()
            if level["size"] is None or size / threads <= level["size"]
        )
        return float(max(2 * rows * 4 * H * columns / limits[kind.peak], size / rate))

    forward = product(T * B, I, of_x) + T * product(B, H, of_h)
    if problem.action != "training":
        return forward
    backward = T * product(B, H, of_h) + 2 * product(T * B, I, of_x) + product(T * B, H, of_h)
    return forward + backward
