"""A model of Shakespeare's characters: bits a character on plays it has not seen, and a sample.

    LSTM_FAST_DATA=folder python examples/language_model.py [--epochs 4]

The folder has `tinyshakespeare/input.txt`, from github.com/karpathy/char-rnn. The last tenth is
held out. The state is carried over from piece to piece. Where PyTorch is installed, the same model
makes the same updates there.
"""

import argparse
import os
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

from lstm_fast import LSTM, nn, optim, training

UNITS, STEPS, BATCH, RATE, CLIP = 256, 128, 32, 3e-3, 1.0


def read(folder: Path) -> tuple[np.ndarray, str]:
    """Return the text as numbers, and the character of each number."""
    path = folder / "tinyshakespeare" / "input.txt"
    if not path.is_file():
        sys.exit(f"{path} is missing: --data or LSTM_FAST_DATA names the folder that it is in")
    text = path.read_text()
    characters = "".join(sorted(set(text)))
    return np.array([characters.index(one) for one in text]), characters


def new_model(V: int) -> nn.Sequential:
    """Return the model of V characters, untrained."""
    return nn.Sequential(
        embed=nn.Embedding(V, 64, seed=0),
        lstm=LSTM(64, UNITS, seed=1),
        head=nn.Linear(UNITS, V, seed=2),
    )


def frequencies(train: np.ndarray, test: np.ndarray, before: int) -> float:
    """Return bits a character of counts after `before` characters, smoothed: a simple baseline."""

    def windows(numbers: np.ndarray, length: int) -> list[tuple]:
        return [*map(tuple, np.lib.stride_tricks.sliding_window_view(numbers, length + 1).tolist())]

    V = int(train.max()) + 1
    bits = np.full(len(test) - before, 1 / V)
    for length in range(before + 1):  # mix in longer contexts, as far as they were seen
        whole, context = Counter(windows(train, length)), Counter()
        for key, count in whole.items():
            context[key[:-1]] += count
        for n, key in enumerate(windows(test[before - length :], length)):
            bits[n] = (whole[key] + 4 * bits[n]) / (context[key[:-1]] + 4)
    return float(-np.log2(bits).mean())


def sample(model: nn.Sequential, characters: str, count: int) -> str:
    """Return text that the model makes up, after a line break."""
    rng, stream, found = np.random.default_rng(0), model.stream(), "\n"
    for _ in range(count):
        logits = stream.step([characters.index(found[-1])])[0].astype(float) / 0.8
        odds = np.exp(logits - logits.max())
        found += characters[rng.choice(len(odds), p=odds / odds.sum())]
    return found


def train_pytorch(
    first: dict[str, np.ndarray],
    V: int,
    pieces: training.Source,
    held_out: training.Source,
    epochs: int,
) -> tuple[float, float]:
    """Return bits a character and seconds of the same model in PyTorch after the same updates."""
    import torch

    model = torch.nn.Module()
    model.embed, model.lstm = torch.nn.Embedding(V, 64), torch.nn.LSTM(64, UNITS)
    model.head = torch.nn.Linear(UNITS, V)
    model.load_state_dict({name: torch.tensor(value) for name, value in first.items()})
    optimizer = torch.optim.Adam(model.parameters(), RATE, fused=True)

    def loss_of(batch, state):
        y, state = model.lstm(model.embed(torch.tensor(batch.x)), state if batch.state else None)
        loss = torch.nn.functional.cross_entropy(
            model.head(y).flatten(0, 1), torch.tensor(batch.target).flatten()
        )
        return loss, tuple(part.detach() for part in state)

    begin, state = time.perf_counter(), None
    for epoch in range(epochs):
        for batch in pieces.epoch(epoch):
            loss, state = loss_of(batch, state)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
    seconds, total, count = time.perf_counter() - begin, 0.0, 0
    with torch.inference_mode():
        for batch in held_out.epoch(0):
            loss, state = loss_of(batch, state)
            total, count = total + float(loss) * batch.x.size, count + batch.x.size
    return total / count / np.log(2), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("LSTM_FAST_DATA", "data"))
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--picture", default="language_model.png", help="of the learning curve")
    options = parser.parse_args()
    text, characters = read(Path(options.data))
    V, split = len(characters), len(text) * 9 // 10
    pieces = training.truncated(text[:split], STEPS, BATCH)
    held_out = training.truncated(text[split:], STEPS, BATCH)
    model = new_model(V)
    first = model.state_dict()
    trainer = training.Trainer(model, nn.CrossEntropy(), optim.Adam(RATE), clip_norm=CLIP)
    begin = time.perf_counter()
    history = trainer.fit(pieces, epochs=options.epochs)
    seconds = time.perf_counter() - begin
    bits = trainer.evaluate(held_out) / np.log(2)
    print(sample(model, characters, 400))
    counts = frequencies(text[:split], text[split:], 4)
    print(f"\ncounts after 4 characters   {counts:.3f} bits a character")
    print(f"lstm_fast                   {bits:.3f} bits a character, {seconds:.0f} s")
    try:
        theirs, seconds = train_pytorch(first, V, pieces, held_out, options.epochs)
        print(f"the same model in PyTorch   {theirs:.3f} bits a character, {seconds:.0f} s")
    except ImportError:
        print("PyTorch is not installed, so it is not compared")
    history.plot(options.picture)
    print(f"learning curve: {options.picture}")


if __name__ == "__main__":
    main()
