"""Which digit was spoken? From recordings of any length, and after each part of a recording.

    LSTM_FAST_DATA=folder python examples/speech_recognition.py

The folder has `fsdd/recordings`, from github.com/Jakobovski/free-spoken-digit-dataset, of which
those with numbers 0 to 4 are held out, as its authors do. PyTorch's model has packed sequences.
"""

import argparse
import os
import sys
import time
import wave
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from lstm_fast import LSTM, nn, optim, training

RATE, FRAME, HOP, MELS = 8000, 256, 96, 40  # samples a second, of a frame, to the next; bands
UNITS, LR, CLIP = 64, 1e-3, 1.0
Batches = Iterable[training.Batch]


def log_mel(path: Path) -> np.ndarray:
    """Return the logarithms of the power in each mel band over time, (T, 40)."""
    with wave.open(str(path)) as file:
        sound = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 2**15
    frames = np.lib.stride_tricks.sliding_window_view(sound, FRAME)[::HOP]
    power = abs(np.fft.rfft(frames * np.hanning(FRAME))) ** 2
    frequency = np.fft.rfftfreq(FRAME, 1 / RATE)[:, None]
    corners = 700 * np.expm1(np.linspace(0, np.log1p(RATE / 2 / 700), MELS + 2))
    low, middle, high = corners[:-2], corners[1:-1], corners[2:]
    rising, falling = (frequency - low) / (middle - low), (high - frequency) / (high - middle)
    mel = np.maximum(0, np.minimum(rising, falling))  # a triangle over the spectrum for each band
    return np.log(power @ mel + 1e-6).astype(np.float32)


def read(folder: Path) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Return the features of each recording, its digit, and whether it is held out."""
    paths = sorted(folder.glob("fsdd/recordings/*.wav"))
    if not paths:
        sys.exit(f"{folder}/fsdd/recordings is missing: --data or LSTM_FAST_DATA names the folder")
    digits, numbers = np.array([path.stem.split("_")[::2] for path in paths], int).T
    x, held_out = [log_mel(path) for path in paths], numbers < 5
    learnt = np.concatenate([x[n] for n in np.flatnonzero(~held_out)])
    return [(one - learnt.mean(0)) / learnt.std(0) for one in x], digits, held_out


def new_model() -> nn.Sequential:
    """Return the classifier, untrained."""
    lstm = LSTM(MELS, UNITS, num_layers=2, bidirectional=True, seed=0)
    return nn.Sequential(lstm=lstm, last=nn.Last(2), scores=nn.Linear(2 * UNITS, 10, seed=1))


def train(model: nn.Sequential, batches: Batches, epochs: int) -> float:
    """Train a classifier, and return the seconds."""
    trainer = training.Trainer(model, nn.CrossEntropy(), optim.Adam(LR), clip_norm=CLIP)
    return float(trainer.fit(batches, epochs=epochs).seconds.sum())


def percent_right(scores_of: Callable, batches: Batches) -> float:
    """Return the share of right decisions in percent."""
    right = [scores_of(batch).argmax(1) == batch.target for batch in batches]
    return 100 * float(np.concatenate(right).mean())


def train_pytorch(first: dict, learnt: Batches, test: Batches, epochs: int) -> tuple[float, float]:
    """Return the percentage and seconds of the same model in PyTorch after the same updates."""
    import torch

    model = torch.nn.Module()
    model.lstm = torch.nn.LSTM(MELS, UNITS, 2, bidirectional=True)
    model.scores = torch.nn.Linear(2 * UNITS, 10)
    model.load_state_dict({name: torch.tensor(value) for name, value in first.items()})
    optimizer = torch.optim.Adam(model.parameters(), LR, fused=True)

    def scores_of(batch):
        x = torch.tensor(batch.x)
        if batch.lengths is not None:
            x = torch.nn.utils.rnn.pack_padded_sequence(x, batch.lengths, enforce_sorted=False)
        _, (hn, _) = model.lstm(x)
        return model.scores(torch.cat([hn[-2], hn[-1]], 1))

    begin = time.perf_counter()
    for _ in range(epochs):
        for batch in learnt:
            loss = torch.nn.functional.cross_entropy(scores_of(batch), torch.tensor(batch.target))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
    seconds = time.perf_counter() - begin
    with torch.inference_mode():
        return percent_right(lambda batch: scores_of(batch).numpy(), test), seconds


def picture(path: str, model: nn.Sequential, x: np.ndarray) -> None:
    """Draw a recording, and what the model makes of it as more and more of it is heard."""
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        print("No picture: matplotlib is not installed")
        return
    T = len(x)
    scores, _ = model(np.repeat(x[:, None], T, axis=1), lengths=np.arange(1, T + 1))
    probability, _ = nn.Softmax()(scores)  # (T, 10): after 1 step, 2 steps, and so on
    seconds = (np.arange(T) * HOP + FRAME) / RATE  # at the ends of frames
    figure, (above, below) = plt.subplots(2, 1, figsize=(7, 5), sharex=True, layout="constrained")
    above.pcolormesh(seconds, np.arange(MELS), x.T)
    above.set_ylabel("mel band")
    below.plot(seconds, probability, label=range(10))
    below.set(xlabel="seconds heard", ylabel="probability of each digit")
    figure.legend(loc="outside right lower")
    figure.savefig(path, dpi=120)
    print(f"picture: {path}")


def main() -> None:
    """Train, test, compare, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("LSTM_FAST_DATA", "data"))
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--picture", default="speech_recognition.png")
    options = parser.parse_args()
    x, digits, held_out = read(Path(options.data))
    parts = [[part.mean(0) for part in np.array_split(one, 8)] for one in x]
    rows = np.reshape(parts, (len(x), 1, 8 * MELS))  # one step each
    sides = [np.flatnonzero(~held_out), np.flatnonzero(held_out)]
    learnt, test = (training.batches(rows[side], digits[side], seed=0) for side in sides)
    regression = nn.Sequential(last=nn.Last(), scores=nn.Linear(8 * MELS, 10, seed=0))
    train(regression, learnt, 5 * options.epochs)
    baseline = percent_right(lambda batch: regression(batch.x)[0], test)
    learnt, test = (  # recordings of similar lengths in a batch
        training.batches([x[n] for n in side], digits[side], seed=0) for side in sides
    )
    model = new_model()
    first = model.state_dict()
    seconds = train(model, learnt, options.epochs)
    ours = percent_right(lambda batch: model(batch.x, lengths=batch.lengths)[0], test)
    print(f"\n{len(sides[0])} recordings to learn from, {len(sides[1])} held out")
    print(f"logistic regression on means of 8 parts   {baseline:.1f} % right")
    print(f"LSTM in both directions                   {ours:.1f} % right, {seconds:.0f} s")
    try:
        theirs, longer = train_pytorch(first, learnt, test, options.epochs)
        took = f"{longer:.0f} s, {longer / seconds:.2f} of our time"
        print(f"the same model in PyTorch                 {theirs:.1f} % right, {took}")
    except ImportError:
        print("PyTorch is not installed, so it is not compared")
    picture(options.picture, model, x[np.flatnonzero(held_out & (digits == 7))[10]])


if __name__ == "__main__":
    main()
