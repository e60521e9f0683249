"""Speed of variants beside the plain LSTM: ``python -m bench.variants [THREADS]`` prints a table.

All of them in one process, in turns; medians; no peer, since none has most of them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import lstm_fast

SHAPES = [
    (100, 1, 16, 32),
    (100, 1, 64, 64),
    (100, 8, 64, 64),
    (50, 32, 64, 128),
    (50, 16, 512, 512),
]
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "peephole": {"peephole": True},
    "coupled": {"coupled": True},
    "clip": {"clip": 3.0, "cell_clip": 3.0},
    "hard sigmoid": {"activations": ("HardSigmoid", "Tanh", "Tanh")},
    "softplus": {"activations": ("Sigmoid", "Softplus", "Softplus")},
    "layer norm": {"layer_norm": True},
    "zoneout": {"zoneout": (0.1, 0.1)},
    "recurrent dropout": {"recurrent_dropout": 0.2},
}
SECONDS = 0.3  # of the plain LSTM, for each shape
LEAST_TURN = 3e-4  # seconds between two looks at the clock


def inference(lstm: lstm_fast.LSTM, x: Any) -> None:
    lstm(x)


def training(lstm: lstm_fast.LSTM, x: Any) -> None:
    y, _, cache = lstm.forward(x)
    lstm.backward(y, None, cache)


def medians(run: Callable[[lstm_fast.LSTM, Any], None], shape: tuple[int, ...]) -> dict[str, float]:
    """Return seconds a call of each variant."""
    T, B, I, H = shape
    x = np.random.default_rng(0).standard_normal((T, B, I)).astype(np.float32)
    lstms = {name: lstm_fast.LSTM(I, H, seed=0, **options) for name, options in VARIANTS.items()}
    for lstm in lstms.values():
        run(lstm, x)
    start = time.perf_counter()
    run(lstms["plain"], x)
    once = time.perf_counter() - start
    calls = max(1, int(LEAST_TURN / once))
    times: dict[str, list[float]] = {name: [] for name in lstms}
    for _ in range(max(7, int(SECONDS / (once * calls)))):
        for name, lstm in lstms.items():
            start = time.perf_counter()
            for _ in range(calls):
                run(lstm, x)
            times[name].append((time.perf_counter() - start) / calls)
    return {name: float(np.median(found)) for name, found in times.items()}


def main() -> None:
    lstm_fast.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
    others = [name for name in VARIANTS if name != "plain"]
    print(f"| | T, B, I, H | plain, us | {' | '.join(others)} |")
    print("|---|---|--:|" + "--:|" * len(others))
    for action, run in {"inference": inference, "training": training}.items():
        for shape in SHAPES:
            found = medians(run, shape)
            ratios = [f"{found['plain'] / found[name]:.2f}" for name in others]
            sizes = ", ".join(map(str, shape))
            print(f"| {action} | {sizes} | {found['plain'] * 1e6:,.0f} | {' | '.join(ratios)} |")


if __name__ == "__main__":
    main()
