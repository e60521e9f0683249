"""The oil temperature of a transformer in the next 24 or 96 hours, from 96 before it.

    LSTM_FAST_DATA=folder python examples/forecasting.py

The folder has `ett/ETTh1.csv`, from github.com/zhouhaoyi/ETDataset: 12 months of 30 days to learn
from, 4 to choose the best epoch by, 4 held out. Each window is taken relative to its last value, in
units of its own standard deviation. Errors are those of the series in units of its deviation over
the first 12 months, as they are usually given. Where PyTorch is installed, the same model makes the
same updates there, up to the epoch that was best here.
"""

import argparse
import csv
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from lstm_fast import LSTM, nn, optim, training

PAST, UNITS, MONTH = 96, 64, 30 * 24


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


def fit(model: nn.Sequential, x: list, target: list, epochs: int, rate: float) -> tuple:
    """Train on the first windows, keep the best epoch on the second."""
    source = training.batches(x[0], target[0], batch_size=64, seed=0)
    validation = training.batches(x[1], target[1], batch_size=512, shuffle=False)
    schedule = optim.cosine(rate, epochs * len(source))
    trainer = training.Trainer(model, nn.Huber(), optim.Adam(), clip_norm=1.0, schedule=schedule)
    return source, schedule, trainer.fit(source, validation, epochs=epochs, patience=3)


def train_pytorch(first: dict, source: Any, schedule: Any, epochs: int) -> tuple[Any, float]:
    """Return the same model in PyTorch after the same updates, and how many a second."""
    import torch

    model = torch.nn.Module()
    model.lstm = torch.nn.LSTM(1, UNITS)
    model.head = torch.nn.Linear(UNITS, len(first["head.bias"]))
    model.load_state_dict({name: torch.tensor(value) for name, value in first.items()})

    def forecast(x: np.ndarray) -> Any:
        return model.head(model.lstm(torch.tensor(x))[0][-1])

    optimizer, step = torch.optim.Adam(model.parameters(), fused=True), 0
    begin = time.perf_counter()
    for epoch in range(epochs):
        for batch in source.epoch(epoch):
            optimizer.param_groups[0]["lr"] = schedule(step)
            loss = torch.nn.functional.huber_loss(forecast(batch.x), torch.tensor(batch.target))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            step += 1
    seconds = time.perf_counter() - begin
    return lambda x: (forecast(x).detach().numpy(), None), step / seconds


def compare(series: np.ndarray, horizon: int, epochs: int) -> tuple[Windows, dict[str, np.ndarray]]:
    """Forecast by every method, and print the errors."""
    parts = [
        Windows(series, first * MONTH, end * MONTH, horizon)
        for first, end in [(0, 12), (12, 16), (16, 20)]
    ]
    test, x, target = parts[2], [part.x for part in parts], [part.target for part in parts]
    in_one_row = [part.swapaxes(1, 2) for part in x]  # (N, 1, 96): a linear map of the window
    linear = nn.Sequential(map=nn.Linear(PAST, horizon, seed=0), last=nn.Last())
    fit(linear, in_one_row, target, epochs, 1e-3)
    model = nn.Sequential(
        lstm=LSTM(1, UNITS, seed=0), last=nn.Last(), head=nn.Linear(UNITS, horizon, seed=1)
    )
    weights = model.state_dict()
    source, schedule, history = fit(model, x, target, epochs, 3e-3)
    found = {
        "persistence": np.repeat(test.values[:, -1:], horizon, axis=1),
        "the day before": np.tile(test.values[:, -24:], -(-horizon // 24))[:, :horizon],
        "linear map of the window": test.forecast(linear, in_one_row[2]),
        "LSTM": test.forecast(model, x[2]),
    }
    speed = {"LSTM": len(source) / np.median(history.seconds)}
    try:
        there, speed["the same LSTM in PyTorch"] = train_pytorch(
            weights, source, schedule, history.best.epoch + 1
        )
        found["the same LSTM in PyTorch"] = test.forecast(there, x[2])
    except ImportError:
        print("PyTorch is not installed, so it is not compared")
    print(f"\n{PAST} -> {horizon} hours, {len(test.x)} windows held out      MSE     MAE")
    squares = {}
    for name, forecast in found.items():
        error = forecast - test.truth
        squares[name] = np.mean(error**2)
        updates = f"   {speed[name]:.0f} updates/s" if name in speed else ""
        print(f"  {name:46}{squares[name]:8.4f}{np.mean(abs(error)):8.4f}{updates}")
    behind = 100 * (squares["LSTM"] / squares["linear map of the window"] - 1)
    if behind > 0:
        print(f"  The LSTM is {behind:.1f} % behind the linear map, which this series needs.")
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
