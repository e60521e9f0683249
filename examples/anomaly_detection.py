"""When is something wrong with a machine? When it does not do what an LSTM expects of it.

    LSTM_FAST_DATA=folder python examples/anomaly_detection.py

The folder has `nab/data/realKnownCause` and `nab/labels`, from github.com/numenta/NAB. From the
first 15 % (of at most 5,000 steps, as there) of each of seven series a model learns to forecast the
next value, then watches. Errors count that stay on one side, shortly or long: those of a good model
cancel out. Thresholds come from the first part, too. Two figures were chosen by what they find in
these very series: the epochs, of which more find less, and the best of other settings.
"""

import argparse
import json
import os
import sys
import time
from collections import namedtuple
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import numpy as np

from lstm_fast import LSTM, nn, optim, training

UNITS, LENGTH, LR, PAUSE = 32, 96, 3e-3, 100  # alarms within PAUSE of the one before are one
EACH = (6, 12, 24, 48)  # half-lives, in steps
OURS = (LENGTH, EACH, 1e-4, True)  # see `alarms`
OTHERS = [
    *product((48, 96, 192), (EACH, *((one,) for one in EACH)), (1e-3, 1e-4, 1e-5), (False, True))
]
Series = namedtuple("Series", "values x learnt batches windows")


def read(folder: Path) -> list[Series]:
    """Return series: x (N, 3) is the values within 4 of their mean, and the next time of day."""
    labels, series = folder / "nab" / "labels" / "combined_windows.json", []
    if not labels.is_file():
        sys.exit(f"{labels} is missing: --data or LSTM_FAST_DATA names the folder that nab is in")
    for name, windows in json.loads(labels.read_text()).items():
        if name.startswith("realKnownCause"):
            table = np.loadtxt(folder / "nab" / "data" / name, str, delimiter=",", skiprows=1)
            times, values = table[:, 0].astype("M8[s]"), table[:, 1].astype(np.float32)
            learnt = int(0.15 * min(len(values), 5000))
            values = (values - values[:learnt].mean()) / values[:learnt].std()
            day = 2 * np.pi / 86400 * (times + np.median(np.diff(times))).astype(int)
            x = np.stack([values.clip(-4, 4), np.sin(day), np.cos(day)], 1, dtype=np.float32)
            steps = np.searchsorted(times, np.array(windows, "M8[s]"))
            parts = x[: learnt - 1], np.diff(x[:learnt, :1], axis=0)  # the change after each step
            cut = [slice(n, n + LENGTH) for n in range(0, learnt - LENGTH, LENGTH // 4)]
            batches = training.batches(*([part[n] for n in cut] for part in parts), 16, seed=0)
            series.append(Series(values, x, learnt, batches, steps))
    return series


def expect(model: nn.Sequential, one: Series, epochs: int) -> np.ndarray:
    """Train a model, and return the change that it expects after each step, (N,), one by one."""
    trainer = training.Trainer(model, nn.Absolute(), optim.Adam(LR))
    trainer.fit(one.batches, epochs=epochs, progress=False)
    stream = model.stream()
    return np.concatenate([stream.step(x_t)[0] for x_t in one.x[:, None]])


def expect_pytorch(ours: nn.Sequential, one: Series, epochs: int) -> np.ndarray:
    """Do the same in PyTorch, but watch all steps at once."""
    import torch

    model = torch.nn.Module()
    model.lstm, model.head = torch.nn.LSTM(3, UNITS), torch.nn.Linear(UNITS, 1)
    model.load_state_dict({name: torch.tensor(v) for name, v in ours.state_dict().items()})
    optimizer = torch.optim.Adam(model.parameters(), LR, fused=True)
    for epoch in range(epochs):
        for batch in one.batches.epoch(epoch):
            y = model.head(model.lstm(torch.tensor(batch.x))[0])
            optimizer.zero_grad()
            torch.nn.functional.l1_loss(y, torch.tensor(batch.target)).backward()
            optimizer.step()
    with torch.inference_mode():
        return model.head(model.lstm(torch.tensor(one.x))[0])[:, 0].numpy()


def alarms(one: Series, errors: np.ndarray, setting: tuple) -> tuple[np.ndarray, np.ndarray]:
    """Return scores (N,), of which 1 is the threshold, and the steps at which alarms begin.

    Errors are measured by their mean and deviation in the window before, and summed with weights
    that fade. A false alarm is to be as rare as `rare`: above the highest twentieth of the sums in
    the first part, the others are taken to be exponential (A. Siffer and others (2017), "Anomaly
    detection in streams with extreme value theory").
    """
    window, half_lives, rare, both_cancel = setting
    before, alike, N = np.append(0, errors[:-1]), np.ones(window) / window, len(errors)
    mean, square = (np.convolve(past, alike)[:N] for past in (before, before**2))
    z = (errors - mean) / np.sqrt(np.maximum(square - mean**2, errors[: one.learnt].var() / 100))
    score = np.zeros(N)
    for half_life in half_lives:
        fading = 0.5 ** (np.arange(20 * half_life) / half_life)
        sums = abs(np.convolve(z if both_cancel else abs(z), fading)[:N])
        learnt = sums[min(window, one.learnt // 2) : one.learnt]
        high = np.quantile(learnt, 0.95)
        excess = (learnt[learnt > high] - high).mean()
        score = np.maximum(score, sums / (high + excess * np.log(0.05 * len(half_lives) / rare)))
    over = np.flatnonzero(score[one.learnt :] > 1) + one.learnt
    return score, over[np.diff(over, prepend=-PAUSE) >= PAUSE]


def judge(series: list[Series], errors: list[np.ndarray], setting: tuple) -> tuple[float, str]:
    """Return F1, and how it comes about: windows in which an alarm begins, and other alarms."""
    found = false = count = 0
    for one, its in zip(series, errors, strict=True):
        _, steps = alarms(one, its, setting)
        inside = (one.windows[:, :1] <= steps) & (steps <= one.windows[:, 1:])
        found, false = found + inside.any(1).sum(), false + (~inside.any(0)).sum()
        count += len(inside)
    f1, precision = 2 * found / (found + false + count), found / max(1, found + false)
    text = f"F1 {f1:.2f}, precision {precision:.2f}, recall {found / count:.2f}"
    return f1, f"{text}: {found} of {count} windows, {false} false alarms"


def picture(path: str, one: Series, errors: np.ndarray) -> None:
    """Draw a series, forecasts, scores, and alarms; what is wrong is red."""
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        print("No picture: matplotlib is not installed")
        return
    score, steps = alarms(one, errors, OURS)
    figure, axes = plt.subplots(2, 1, figsize=(10, 5), sharex=True, layout="constrained")
    axes[0].plot(np.stack([one.values, one.values - errors], 1), label=["value", "forecast"])
    axes[1].plot(score, label="score; the threshold is 1")
    axes[1].plot(steps, score[steps], "rv", label="alarm")
    for each, window in product(axes, one.windows):
        each.axvspan(*window, color="red", alpha=0.2)
    axes[0].set_xlim(one.windows[0, 0] - 500, len(score))
    figure.legend(loc="outside upper center", ncols=4)
    figure.savefig(path, dpi=120)
    print(f"picture: {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("LSTM_FAST_DATA", "data"))
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--picture", default="anomaly_detection.png")
    options = parser.parse_args()
    series = read(Path(options.data))
    methods = {"rolling z-score": lambda _, one, __: -one.x[:, 0], "persistence": lambda *_: 0}
    methods |= {"LSTM": expect, "LSTM in PyTorch": expect_pytorch}
    if not find_spec("torch"):
        print("PyTorch is not installed, so it is not compared")
        del methods["LSTM in PyTorch"]
    for name, method in methods.items():
        errors, begin = [], time.perf_counter()
        for one in series:
            model = nn.Sequential(lstm=LSTM(3, UNITS, seed=0), head=nn.Linear(UNITS, 1, seed=1))
            expected = one.x[:, 0] + method(model, one, options.epochs)
            errors.append(one.values - np.append(0, expected[:-1]))
        seconds = time.perf_counter() - begin
        best, _ = max(judge(series, errors, it) for it in OTHERS)
        _, text = judge(series, errors, OURS)
        print(f"{name:18}{text}; best of {len(OTHERS)}: F1 {best:.2f}; {seconds:.1f} s", flush=True)
        if name == "LSTM":
            picture(options.picture, series[4], errors[4])


if __name__ == "__main__":
    main()
