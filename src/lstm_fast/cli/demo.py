"""The demonstration: ``lstm-fast demo``.

It trains `Forecaster` on monthly airline passengers over several seeds, forecasts the two years
held out, compares the errors with the seasonal-naive forecast's, draws a plot, and times the layer
beside the NumPy reference. Nothing, scaling included, is computed from the months held out; both
forecasts start from the end of 1958.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .forecaster import Forecaster
from .timing import timing_table

__all__ = ["PASSENGERS", "add_arguments", "errors", "run", "seasonal_naive", "split"]

Array = npt.NDArray[np.floating[Any]]

# Monthly totals of international airline passengers, January 1949 to December 1960, in thousands:
# series G of G. E. P. Box, G. M. Jenkins (1970), "Time Series Analysis: Forecasting and Control".
FIRST_YEAR = 1949
PASSENGERS: Array = np.array([
    [112, 118, 132, 129, 121, 135, 148, 148, 136, 119, 104, 118],
    [115, 126, 141, 135, 125, 149, 170, 170, 158, 133, 114, 140],
    [145, 150, 178, 163, 172, 178, 199, 199, 184, 162, 146, 166],
    [171, 180, 193, 181, 183, 218, 230, 242, 209, 191, 172, 194],
    [196, 196, 236, 235, 229, 243, 264, 272, 237, 211, 180, 201],
    [204, 188, 235, 227, 234, 264, 302, 293, 259, 229, 203, 229],
    [242, 233, 267, 269, 270, 315, 364, 347, 312, 274, 237, 278],
    [284, 277, 317, 313, 318, 374, 413, 405, 355, 306, 271, 306],
    [315, 301, 356, 348, 355, 422, 465, 467, 404, 347, 305, 336],
    [340, 318, 362, 348, 363, 435, 491, 505, 404, 359, 310, 337],
    [360, 342, 406, 396, 420, 472, 548, 559, 463, 407, 362, 405],
    [417, 391, 419, 461, 472, 535, 622, 606, 508, 461, 390, 432],
], np.float64).ravel()  # fmt: skip
MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
HELD_OUT = 24


class Errors(NamedTuple):
    """Errors of a forecast: mean absolute, root mean square, mean absolute relative in percent."""

    mae: float
    rmse: float
    mape: float


def errors(forecast: Array, truth: Array) -> Errors:
    """Return the errors of a forecast."""
    difference = np.abs(forecast - truth)
    rmse = np.sqrt(np.mean(difference**2))
    return Errors(float(difference.mean()), float(rmse), float(100 * np.mean(difference / truth)))


def seasonal_naive(history: Array, months: int) -> Array:
    """Return the last year of the history, repeated."""
    return np.resize(history[-12:], months)


def split() -> tuple[Array, Array]:
    """Return the history, 120 months, and the 24 months held out."""
    return PASSENGERS[:-HELD_OUT], PASSENGERS[-HELD_OUT:]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `run`."""
    count = _integer(minimum=1)
    for name, kind, default, text in (
        ("--seed", _integer(minimum=0), 0, "first seed"),
        ("--seeds", count, 5, "how many seeds"),
        ("--epochs", count, 100, "training updates per seed"),
        ("--output", _output, Path("forecast.png"), "file for the plot"),
        ("--threads", count, 1, "threads, for timing"),
    ):
        parser.add_argument(name, type=kind, default=default, help=f"{text} (default {default})")
    parser.add_argument("--no-timing", action="store_true", help="leave the timing out")


def _integer(minimum: int) -> Callable[[str], int]:
    def integer(text: str) -> int:
        if int(text) < minimum:
            raise argparse.ArgumentTypeError(f"must be at least {minimum}, got {text}")
        return int(text)

    return integer


def _output(text: str) -> Path:
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"must be a file in an existing directory, got {text}")
    return path


def run(options: argparse.Namespace) -> None:
    """Train, forecast, report, plot and time."""
    history, truth = split()
    seeds = range(options.seed, options.seed + options.seeds)
    print(
        "Monthly airline passengers, thousands.\n"
        f"Trained on {len(history)} months, January 1949 to December 1958;"
        f" {len(truth)} held out, January 1959 to December 1960.\n"
    )
    start = time.perf_counter()
    forecasts = train(history, len(truth), seeds, options.epochs)
    print(
        f"{len(seeds)} forecasters trained in {time.perf_counter() - start:.1f} s,"
        f" {options.epochs} epochs each.\n"
    )
    naive = seasonal_naive(history, len(truth))
    print(_error_table(forecasts, seeds, naive, truth), end="\n\n")
    print(_forecast_table(forecasts.mean(axis=0), naive, truth), end="\n\n")
    print(_plot(options.output, history, truth, forecasts, naive))
    if not options.no_timing:
        print()
        print(timing_table(options.threads))


def train(history: Array, months: int, seeds: Sequence[int], epochs: int) -> Array:
    """Return the forecast of one `Forecaster` per seed, shape (seeds, months)."""
    forecasts = []
    with _progress(len(seeds) * epochs) as advance:
        for seed in seeds:
            forecaster = Forecaster(seed, epochs)
            forecaster.fit(history, after_epoch=advance)
            forecasts.append(forecaster.forecast(months))
    return np.array(forecasts)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], object]]:
    """Yield a function to call after each epoch: it moves tqdm's bar, or prints now and then."""
    try:
        tqdm = import_module("tqdm").tqdm
    except ImportError:
        done = 0

        def advance() -> None:
            nonlocal done
            done += 1
            if done * 10 // total > (done - 1) * 10 // total:
                print(f"training: {100 * done // total} %", flush=True)

        yield advance
    else:
        with tqdm(total=total, desc="training", unit="epoch") as bar:
            yield bar.update


def _error_table(forecasts: Array, seeds: Sequence[int], naive: Array, truth: Array) -> str:
    """Return a row of errors for the naive forecast and every seed, then mean and deviation."""
    by_seed = [errors(forecast, truth) for forecast in forecasts]
    of_naive = errors(naive, truth)
    lines = [f"{'error over 24 months':<22}{'MAE':>8}{'RMSE':>8}{'MAPE':>9}{'RMSE / naive':>15}"]

    def add(name: str, e: Errors) -> None:
        ratio = e.rmse / of_naive.rmse
        lines.append(f"{name:<22}{e.mae:8.1f}{e.rmse:8.1f}{e.mape:7.1f} %{ratio:15.2f}")

    add("seasonal naive", of_naive)
    for seed, e in zip(seeds, by_seed, strict=True):
        add(f"LSTM, seed {seed}", e)
    add("LSTM, mean of seeds", Errors(*np.mean(by_seed, axis=0)))
    add("  standard deviation", Errors(*np.std(by_seed, axis=0)))
    return "\n".join(lines)


def _forecast_table(lstm: Array, naive: Array, truth: Array) -> str:
    """Return truth and forecasts by month, the two years side by side."""
    columns = "  truth   LSTM  naive"
    lines = [f"{'':14}{'1959':>21}          {'1960':>21}", f"{'':14}{columns}          {columns}"]
    rows = np.stack((truth, lstm, naive), axis=1)
    for month, first, second in zip(MONTHS, rows[:12], rows[12:], strict=True):
        cells = ["".join(f"{value:7.0f}" for value in row) for row in (first, second)]
        lines.append(f"{month:<14}{cells[0]}          {cells[1]}")
    return "\n".join(lines)


def _plot(path: Path, history: Array, truth: Array, forecasts: Array, naive: Array) -> str:
    """Draw history, truth and forecasts; return what to tell the user."""
    try:
        figure_class = import_module("matplotlib.figure").Figure
    except ImportError:
        return (
            "No plot: matplotlib is not installed. It comes with\n    pip install 'lstm_fast[demo]'"
        )
    years = FIRST_YEAR + np.arange(len(history) + len(truth)) / 12
    future = years[len(history) :]
    figure = figure_class(figsize=(11, 5), dpi=150, layout="constrained")
    figure.suptitle("Monthly airline passengers, thousands: two years forecast from ten")
    whole, zoom = figure.subplots(1, 2)
    for axes in (whole, zoom):
        axes.axvspan(years[len(history) - 1], years[-1] + 1 / 12, color="0.95")
        axes.plot(years, np.concatenate((history, truth)), color="0.2", label="passengers")
        axes.plot(future, naive, color="tab:orange", ls="--", label="seasonal naive")
        axes.plot(
            future, forecasts.mean(axis=0), color="tab:blue", lw=1.2, label="LSTM, mean of seeds"
        )
        low, high = forecasts.min(axis=0), forecasts.max(axis=0)
        axes.fill_between(
            future, low, high, color="tab:blue", alpha=0.4, lw=0, label="LSTM, range of seeds"
        )
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="0.9")
        axes.set_axisbelow(True)
    whole.set(xlim=(FIRST_YEAR, years[-1] + 1 / 12), ylim=(50, None))
    whole.set_xticks(range(FIRST_YEAR, FIRST_YEAR + 13, 2))
    whole.legend(loc="upper left", frameon=False)
    zoom.set(xlim=(years[len(history) - 7], years[-1] + 1 / 12), ylim=(275, None))
    quarters = years[len(history) - 6 :: 3]
    zoom.set_xticks(quarters, [_month_name(year) for year in quarters])
    zoom.text(future[0], 280, "held out", color="0.45")
    figure.savefig(path)
    return f"Plot: {path}"


def _month_name(year: float) -> str:
    """Return the name of the month of a year with its fraction; below January's, the year."""
    month = round(year * 12) % 12
    return f"{MONTHS[month]}\n{round(year)}" if month == 0 else MONTHS[month]
