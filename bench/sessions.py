"""Many sessions of one `Stream`: ``python -m bench.sessions [THREADS]`` prints a table.

Of 10,000 sessions, n that are drawn at random advance at each tick: together, by ``step(x, rows)``,
or one after the other, by as many such steps of one row or of streams of their own. Both are
checked to give the same bits. All of it in one process, in turns; medians, and the least times in
brackets. With one thread it is the time of the CPU, which neighbours disturb less. A second table
has one number of rows in every precision.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import lstm_fast

SESSIONS, I, H = 10_000, 64, 256
ROWS = (1, 10, 30, 100, 300, 1000, 3000, 10_000)
MOST_ALONE = 1000  # rows that are also run one by one
ROWS_OF_PRECISIONS = 300
PRECISIONS: dict[str, dict[str, Any]] = {
    "float32": {},
    "bfloat16": {"weights": "bfloat16"},
    "int8": {"weights": "int8"},
    "int8 with x too": {"weights": "int8", "inputs": "int8"},
}
Model = lstm_fast.LSTM | lstm_fast.QuantizedLSTM
LEAST_TURNS, MOST_TURNS, SECONDS = 5, 50, 4.0  # for each number of rows


def alone(streams: list[lstm_fast.Stream[Any]], inputs: list[Any]) -> list[Any]:
    """Step a stream for each session."""
    return [stream.step(x_t) for stream, x_t in zip(streams, inputs, strict=True)]


def row_by_row(stream: lstm_fast.Stream[Any], rows: list[int], inputs: list[Any]) -> list[Any]:
    """Step the rows of one stream, one after the other."""
    return [stream.step(x_t, rows=row) for row, x_t in zip(rows, inputs, strict=True)]


def check(lstm: Model, rng: np.random.Generator) -> None:
    """Raise unless all ways give the same bits."""
    rows = rng.permutation(SESSIONS)[:50]
    x = rng.standard_normal((2, 50, I), np.float32)
    together, one_by_one = lstm.stream(SESSIONS), lstm.stream(SESSIONS)
    streams = [lstm.stream() for _ in rows]
    for x_t in x:
        inputs = list(x_t[:, None])
        y = together.step(x_t, rows=rows)
        for other in (alone(streams, inputs), row_by_row(one_by_one, rows.tolist(), inputs)):
            if not np.array_equal(np.concatenate(other), y):
                raise AssertionError("the ways to step rows differ")


def times(
    lstm: Model, n: int, rng: np.random.Generator, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Return the seconds that a tick of n rows took each way."""
    stream, x = lstm.stream(SESSIONS), rng.standard_normal((n, I), np.float32)
    inputs = [x[k : k + 1].copy() for k in range(n)]
    streams = [lstm.stream() for _ in range(n)] if n <= MOST_ALONE else []
    found: dict[str, list[float]] = {}
    start = time.perf_counter()
    for turn in range(MOST_TURNS):
        if turn >= LEAST_TURNS and time.perf_counter() - start > SECONDS:
            break
        rows = rng.permutation(SESSIONS)[:n]
        ways: dict[str, Callable[[], Any]] = {"rows": partial(stream.step, x, rows=rows)}
        if streams:
            ways["row by row"] = partial(row_by_row, stream, rows.tolist(), inputs)
            ways["alone"] = partial(alone, streams, inputs)
        for name, run in ways.items():
            began = clock()
            run()
            found.setdefault(name, []).append(clock() - began)
    return found


def cells(found: dict[str, list[float]], n: int) -> str:
    """Return the times of a tick of n rows as cells of a table."""
    median = {name: float(np.median(one)) for name, one in found.items()}
    least = {name: min(one) for name, one in found.items()}
    tick = [f"{one['rows'] * 1e6:,.0f}" for one in (median, least)]
    each = [f"{one['rows'] * 1e6 / n:,.1f}" for one in (median, least)]
    columns = [f"{tick[0]} ({tick[1]})", f"{each[0]} ({each[1]})"]
    for name in ("row by row", "alone"):
        ratios = [f"{one[name] / one['rows']:.1f}" for one in (median, least) if name in one]
        columns.append(f"{ratios[0]} ({ratios[1]})" if ratios else "")
    return " | ".join(columns)


def main() -> None:
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    lstm_fast.set_num_threads(threads)
    clock = time.thread_time if threads == 1 else time.perf_counter
    rng = np.random.default_rng(0)
    lstm = lstm_fast.LSTM(I, H, seed=0)
    models = {name: lstm.quantize(**how) if how else lstm for name, how in PRECISIONS.items()}
    for model in models.values():
        check(model, rng)
    columns = "us | us a row | row by row | streams of their own |"
    print(f"{SESSIONS} sessions, I = {I}, H = {H}\n")
    print(f"| rows | {columns}\n|--:|--:|--:|--:|--:|")
    for n in ROWS:
        print(f"| {n:,} | {cells(times(lstm, n, rng, clock), n)} |")
    print(f"\n| {ROWS_OF_PRECISIONS} rows | {columns}\n|---|--:|--:|--:|--:|")
    for name, model in models.items():
        found = times(model, ROWS_OF_PRECISIONS, rng, clock)
        print(f"| {name} | {cells(found, ROWS_OF_PRECISIONS)} |")


if __name__ == "__main__":
    main()
