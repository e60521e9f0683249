"""Which words of a German sentence are nouns? A tagger in PyTorch, and one line more.

German writes nouns with a capital letter. The tagger reads sentences in lower case, of different
lengths, and says of every word whether it had one. It is an ordinary PyTorch program; one line more
trains it on the engine of `lstm_fast`.

    LSTM_FAST_DATA=folder python examples/tagger_torch.py [--batches 300]

The folder has `multi30k/train.de.gz` and `val.de.gz`: captions, github.com/multi30k/dataset.
"""

import argparse
import gzip
import os
import sys
import time
from collections import Counter
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

import lstm_fast.torch

Sentence = tuple[torch.Tensor, torch.Tensor]  # words, and whether each is a noun


class Tagger(nn.Module):
    """Words to the log-odds that they are nouns."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, 64)
        self.lstm = nn.LSTM(64, 128, bidirectional=True)
        self.head = nn.Linear(256, 1)

    def forward(self, sentences: list[torch.Tensor]) -> torch.Tensor:
        """Return the log-odds of all words, in the order of a `PackedSequence`."""
        packed = pack_sequence(sentences, enforce_sorted=False)
        y, _ = self.lstm(packed._replace(data=self.embed(packed.data)))
        return self.head(y.data).squeeze(1)


def read(path: Path, known: dict[str, int] | None = None) -> tuple[list[Sentence], dict[str, int]]:
    """Return sentences without their first words, which always begin so, and the words' numbers."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        sentences = [[w for w in line.split()[1:] if w[0].isalpha()] for line in file]
    if known is None:
        often = Counter(word.lower() for words in sentences for word in words)
        seen_again = [word for word, count in often.items() if count > 1]
        known = {word: n for n, word in enumerate(seen_again, 1)}
    return [
        (
            torch.tensor([known.get(word.lower(), 0) for word in words]),
            torch.tensor([float(word[0].isupper()) for word in words]),
        )
        for words in sentences
        if words
    ], known


def targets(sentences: list[Sentence]) -> torch.Tensor:
    """Return the answers in the order of a `PackedSequence`."""
    return pack_sequence([tags for _, tags in sentences], enforce_sorted=False).data


def train(model: nn.Module, sentences: list[Sentence], batches: int) -> float:
    """Train on batches of 32 sentences, and return the seconds that it took."""
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    begin = time.perf_counter()
    for n in range(batches):
        batch = [sentences[(32 * n + k) % len(sentences)] for k in range(32)]
        optimizer.zero_grad()
        odds = model([words for words, _ in batch])
        nn.functional.binary_cross_entropy_with_logits(odds, targets(batch)).backward()
        optimizer.step()
    return time.perf_counter() - begin


@torch.inference_mode()
def accuracy(model: nn.Module, sentences: list[Sentence]) -> float:
    """Return the share of words that are told right."""
    odds = model([words for words, _ in sentences])
    return float(((odds > 0) == (targets(sentences) > 0.5)).float().mean())


def main() -> None:
    """Train twice from the same weights, and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, default=300, help="of 32 sentences (default: 300)")
    batches = parser.parse_args().batches
    folder = Path(os.environ.get("LSTM_FAST_DATA", "")) / "multi30k"
    if not (folder / "train.de.gz").exists():
        sys.exit("set LSTM_FAST_DATA to a folder that has multi30k/train.de.gz and val.de.gz")
    sentences, known = read(folder / "train.de.gz")
    held_out, _ = read(folder / "val.de.gz", known)
    seconds = []
    for name in ("PyTorch", "lstm_fast"):
        torch.manual_seed(0)
        model = Tagger(len(known) + 1)
        if name == "lstm_fast":
            lstm_fast.torch.accelerate(model)
        seconds.append(train(model, sentences, batches))
        right = accuracy(model, held_out)
        print(f"{name:10} {seconds[-1]:6.1f} s   {right:.1%} of held-out words right")
    print(f"{seconds[0] / seconds[1]:.1f} times as fast")


if __name__ == "__main__":
    main()
