"""The oil temperature of a transformer in the next 24 or 96 hours, from 96 before it.

    LSTM_FAST_DATA=folder python examples/forecasting.py

The folder has `ett/ETTh1.csv`, from github.com/zhouhaoyi/ETDataset: 12 months of 30 days to learn
from, 4 to choose the best epoch by, 4 held out. Each window is taken relative to its last value, in
units of its own standard deviation. Errors are those of the series in units of its deviation over
the first 12 months, as they are usually given.
"""

import argparse
import csv
import os
import sys
import time
from pathlib import Path

import numpy as np

from lstm_fast import LSTM, nn, optim, training

PAST, MONTH = 96, 30 * 24


def read(folder: Path) -> np.ndarray:
    """Return the oil temperature of each hour, standardised."""
    path = folder / "ett" / "ETTh1.csv"
    if not path.is_file():
        sys.exit(f"{path} is missing: --data or LSTM_FAST_DATA names the folder that it is in")
    with path.open() as file:
        series = np.array([row["OT"] for row in csv.DictReader(file)], np.float32)[: 20 * MONTH]
    return (series - series[: 12 * MONTH].mean()) / series[: 12 * MONTH].std()


class Windows:
    """Windows of a part of the series: x (N, 96, 1) and target (N, horizon), in own units."""

    def __init__(self, series: np.ndarray, first: int, end: int, horizon: int) -> None:
        x, target = training.windows(series[max(0, first - PAST) : end], PAST, horizon)
        self.level, self.deviation = x[:, -1:], x.std(axis=1, keepdims=True) + 1e-2
        self.x = (x - self.level) / self.deviation
        self.target = (target - self.level[..., 0]) / self.deviation[..., 0]
        self.values, self.truth = x[..., 0], target

    def forecast(self, model: nn.Sequential, x: np.ndarray) -> np.ndarray:
        """Return what a model makes of the windows, in units of the series."""
        parts = [model(x[n : n + 512].swapaxes(0, 1))[0] for n in range(0, len(x), 512)]
        return np.concatenate(parts) * self.deviation[..., 0] + self.level[..., 0]


def fit(model: nn.Sequential, past: list, horizon_of: list, epochs: int, rate: float) -> float:
    """Train on the first windows, keep the best epoch on the second, return the seconds."""
    source = training.batches(past[0], horizon_of[0], batch_size=64, seed=0)
    validation = training.batches(past[1], horizon_of[1], batch_size=512, shuffle=False)
    schedule = optim.cosine(rate, epochs * len(source))
    trainer = training.Trainer(model, nn.Huber(), optim.Adam(), clip_norm=1.0, schedule=schedule)
    begin = time.perf_counter()
    trainer.fit(source, validation, epochs=epochs, patience=3)
    return time.perf_counter() - begin


def compare(series: np.ndarray, horizon: int, epochs: int) -> tuple[Windows, dict[str, np.ndarray]]:
    """Forecast by every method, and print the errors."""
    months = [(0, 12), (12, 16), (16, 20)]
    parts = [Windows(series, a * MONTH, b * MONTH, horizon) for a, b in months]
    test, aims = parts[2], [part.target for part in parts]
    past = [part.x for part in parts]
    in_one_row = [x.swapaxes(1, 2) for x in past]  # (N, 1, 96): a linear map of the window

    linear = nn.Sequential(map=nn.Linear(PAST, horizon, seed=0), last=nn.Last())
    fit(linear, in_one_row, aims, epochs, 1e-3)
    model = nn.Sequential(
        lstm=LSTM(1, 64, seed=0), last=nn.Last(), head=nn.Linear(64, horizon, seed=1)
    )
    seconds = fit(model, past, aims, epochs, 3e-3)
    day = np.tile(test.values[:, -24:], -(-horizon // 24))[:, :horizon]
    found = {
        "persistence": np.repeat(test.values[:, -1:], horizon, axis=1),
        "the day before": day,
        "linear map of the window": test.forecast(linear, in_one_row[2]),
        "LSTM": test.forecast(model, past[2]),
    }
    print(f"\n{PAST} -> {horizon} hours, {len(test.x)} windows held out      MSE     MAE")
    for name, forecast in found.items():
        error = forecast - test.truth
        took = f"   {seconds:.0f} s" if name == "LSTM" else ""
        print(f"  {name:46}{np.mean(error**2):8.4f}{np.mean(abs(error)):8.4f}{took}")
    squares = {name: np.mean((forecast - test.truth) ** 2) for name, forecast in found.items()}
    best = min(squares, key=squares.__getitem__)
    if best != "LSTM":
        behind = 100 * (squares["LSTM"] / squares[best] - 1)
        print(f"  The LSTM is {behind:.1f} % behind: {best} is what this series needs.")
    return test, found


def picture(path: str, test: Windows, found: dict[str, np.ndarray]) -> None:
    """Draw some windows with their forecasts."""
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        print("No picture: matplotlib is not installed")
        return
    figure, rows = plt.subplots(3, 1, figsize=(8, 7), layout="constrained", sharex=True)
    horizon = test.truth.shape[1]
    hours = np.arange(1, horizon + 1)
    for axes, n in zip(rows, np.linspace(0, len(test.x) - 1, 5, dtype=int)[1:4], strict=True):
        axes.plot(np.arange(1 - PAST, 1), test.values[n], color="gray")
        axes.plot(hours, test.truth[n], color="gray", linestyle=":", label="what came")
        for name in ("linear map of the window", "LSTM"):
            axes.plot(hours, found[name][n], label=name)
        axes.set_ylabel("oil temperature\n(standard deviations)")
    rows[0].legend(loc="upper left")
    rows[-1].set_xlabel("hours from now")
    figure.savefig(path, dpi=120)
    print(f"\npicture: {path}")


def main() -> None:
    """Compare both horizons."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("LSTM_FAST_DATA", "data"))
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--picture", default="forecasting.png")
    options = parser.parse_args()
    series = read(Path(options.data))
    results = [compare(series, horizon, options.epochs) for horizon in (24, 96)]
    picture(options.picture, *results[0])


if __name__ == "__main__":
    main()
