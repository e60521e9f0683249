"""What does a finger before a camera do? Gestures from 16 frames of video, and after each frame.

    LSTM_FAST_DATA=folder python examples/video_analysis.py

The folder has `hand_gestures/point_history.csv`, from
github.com/Kazuhito00/hand-gesture-recognition-using-mediapipe: positions of a fingertip in 16
successive frames, relative to the first. Rows overlap with those beside them, so whole blocks of
rows are held out. Where PyTorch is installed, the same model learns from the same batches there.
"""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from lstm_fast import LSTM, nn, optim, training

GESTURES = ["still", "clockwise", "counterclockwise", "moving"]
FRAMES, UNITS, BLOCK = 16, 48, 100  # rows of a block; of five, one is held out


def read(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return steps of the fingertip (N, 16, 2), gestures (N,), and which are held out."""
    path = folder / "hand_gestures" / "point_history.csv"
    if not path.is_file():
        sys.exit(f"{path} is missing: --data or LSTM_FAST_DATA names the folder that it is in")
    table = np.loadtxt(path, np.float32, delimiter=",")
    gestures, tracks = table[:, 0].astype(int), table[:, 1:].reshape(-1, FRAMES, 2)
    held_out = np.zeros(len(table), bool)
    for gesture in range(len(GESTURES)):  # blocks of each gesture, as they were recorded
        (rows,) = np.nonzero(gestures == gesture)
        held_out[rows] = np.arange(len(rows)) // BLOCK % 5 == 4
        edges = np.flatnonzero(np.diff(held_out[rows].astype(int)))
        for edge in edges:  # rows that overlap with the other side belong to neither
            gestures[rows[max(0, edge - FRAMES // 2 + 1) : edge + FRAMES // 2 + 1]] = -1
    known = gestures >= 0
    steps = np.diff(tracks, axis=1, prepend=tracks[:, :1])  # from frame to frame
    return steps[known] / steps[known & ~held_out].std(), gestures[known], held_out[known]


def rotated(steps: np.ndarray, copies: int) -> np.ndarray:
    """Return steps turned by random angles, which changes no gesture: (copies * N, 16, 2)."""
    angle = np.random.default_rng(0).uniform(0, 2 * np.pi, (copies, len(steps), 1))
    turn = np.exp(1j * angle) * (steps[..., 0] + 1j * steps[..., 1])
    return np.stack([turn.real, turn.imag], -1).reshape(-1, *steps.shape[1:]).astype(steps.dtype)


def train(model: nn.Sequential, x: np.ndarray, target: np.ndarray, epochs: int) -> tuple:
    """Train a classifier, with a rate that falls to 0; return batches, rates and seconds."""
    source = training.batches(x, target, batch_size=64, seed=0)
    rates = optim.cosine(5e-3, epochs * len(source))
    trainer = training.Trainer(
        model, nn.CrossEntropy(), optim.Adam(), clip_norm=1.0, schedule=rates
    )
    begin = time.perf_counter()
    trainer.fit(source, epochs=epochs)
    return source, rates, time.perf_counter() - begin


def train_pytorch(first: dict, source: Any, rates: Any, epochs: int) -> tuple[Any, float]:
    """Return the same model in PyTorch after as many updates, and seconds."""
    import torch

    model = torch.nn.Module()
    model.lstm, model.scores = torch.nn.LSTM(2, UNITS), torch.nn.Linear(UNITS, len(GESTURES))
    model.load_state_dict({name: torch.tensor(value) for name, value in first.items()})
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    begin = time.perf_counter()
    for epoch in range(epochs):
        for n, batch in enumerate(source.epoch(epoch)):
            optimizer.param_groups[0]["lr"] = rates(epoch * len(source) + n)
            scores = model.scores(model.lstm(torch.tensor(batch.x))[0][-1])
            loss = torch.nn.functional.cross_entropy(scores, torch.tensor(batch.target))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    seconds = time.perf_counter() - begin
    return {name: value.numpy() for name, value in model.state_dict().items()}, seconds


def share_right(scores: np.ndarray, target: np.ndarray) -> float:
    """Return the share of right decisions in percent."""
    return 100 * float(np.mean(scores.argmax(-1) == target))


def picture(path: str, after: list[float], baseline: float) -> None:
    """Draw how decisions become better from frame to frame."""
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        print("No picture: matplotlib is not installed")
        return
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    axes.plot(range(1, FRAMES + 1), after, marker="o", label="LSTM, frame by frame")
    axes.axhline(baseline, color="gray", linestyle="--", label="logistic regression, all 16 frames")
    axes.set(xlabel="frames seen", ylabel="right decisions (%)", title="Gestures held out")
    axes.legend()
    figure.savefig(path, dpi=120)
    print(f"picture: {path}")


def main() -> None:
    """Train, test, run as a stream."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("LSTM_FAST_DATA", "data"))
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--picture", default="video_analysis.png")
    options = parser.parse_args()
    tracks, gestures, held_out = read(Path(options.data))
    x, target = tracks[~held_out], gestures[~held_out]
    test_x, test_target = tracks[held_out], gestures[held_out]

    regression = nn.Sequential(scores=nn.Linear(2 * FRAMES, len(GESTURES), seed=0))
    train(regression, x.reshape(-1, 1, 2 * FRAMES), target[:, None], 4 * options.epochs)
    baseline = share_right(regression(test_x.reshape(-1, 2 * FRAMES))[0], test_target)

    model = nn.Sequential(
        lstm=LSTM(2, UNITS, seed=0),
        last=nn.Last(),
        scores=nn.Linear(UNITS, len(GESTURES), seed=1),
    )
    first = model.state_dict()
    learned = train(model, rotated(x, 4), np.tile(target, 4), options.epochs)
    stream = model.stream(batch_size=len(test_x))  # as if all were before the camera now
    after = [share_right(stream.step(frame), test_target) for frame in test_x.swapaxes(0, 1)]

    counts = " ".join(f"{name} {np.sum(test_target == n)}" for n, name in enumerate(GESTURES))
    print(f"\n{len(x)} tracks to learn from, {len(test_x)} held out: {counts}")
    print(f"logistic regression on the 32 numbers   {baseline:.1f} % right")
    print(f"LSTM                                    {after[-1]:.1f} % right, {learned[2]:.0f} s")
    try:
        weights, seconds = train_pytorch(first, *learned[:2], options.epochs)
        model.load_state_dict(weights)
        there = share_right(model(test_x.swapaxes(0, 1))[0], test_target)
        print(f"the same model in PyTorch               {there:.1f} % right, {seconds:.0f} s")
    except ImportError:
        print("PyTorch is not installed, so it is not compared")
    print("after each frame: " + " ".join(f"{share:.0f}" for share in after))
    picture(options.picture, after, baseline)


if __name__ == "__main__":
    main()
