"""What `translation.py` needs besides: sentences, a dictionary, the same model in PyTorch."""

import gzip
import re
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import numpy as np

from lstm_fast import optim, training

UNITS, COLUMNS, DROPOUT, BATCH, RATE, CLIP = 256, 128, 0.2, 32, 3e-3, 1.0
BEGIN, END, UNKNOWN = 0, 1, 2  # numbers of what is no word

Sentences = list[list[str]]
Numbers = list[np.ndarray]  # of the words of each sentence, between BEGIN and END


def read(folder: Path) -> dict[str, Sentences]:
    """Return the words of each sentence in lower case, by the names of the files."""
    found = {}
    for name in ("train.en", "train.de", "test_2016_flickr.en", "test_2016_flickr.de"):
        path = folder / "multi30k" / f"{name}.gz"
        if not path.is_file():
            sys.exit(f"{path} is missing: --data or LSTM_FAST_DATA names the folder that it is in")
        with gzip.open(path, "rt", encoding="utf-8") as file:
            found[name] = [re.findall(r"\w+|[^\w\s]", line.lower()) for line in file]
    return found


class Vocabulary(list[str]):
    """The words that were seen at least three times, the most frequent first."""

    def __init__(self, sentences: Sentences) -> None:
        counts = Counter(word for sentence in sentences for word in sentence)
        known = [word for word, seen in counts.most_common() if seen >= 3]
        super().__init__(["<begin>", "<end>", "<unknown>", *known])
        self._number = {word: n for n, word in enumerate(self)}

    def numbers(self, sentences: Sentences) -> Numbers:
        """Return the numbers of words."""
        of = self._number
        return [np.array([BEGIN, *(of.get(word, UNKNOWN) for word in s), END]) for s in sentences]

    def text(self, numbers: np.ndarray) -> list[str]:
        """Return the words of one sentence."""
        return [self[n] for n in numbers if n not in (BEGIN, END)]


def padded(sentences: Numbers) -> tuple[np.ndarray, np.ndarray]:
    """Return sentences side by side, (T, B), and their lengths."""
    lengths = np.array([len(sentence) for sentence in sentences])
    return np.array([*zip_longest(*sentences, fillvalue=END)]), lengths


class Pairs:
    """Batches of sentences and their translations, those of similar lengths together."""

    def __init__(self, english: Numbers, german: Numbers) -> None:
        self.english, self.german = english, german
        self._batches = training.batches(english, np.arange(len(english)), BATCH, seed=0)

    def __len__(self) -> int:
        return len(self._batches)

    def epoch(self, number: int) -> Iterator[tuple[np.ndarray, ...]]:
        """Return batches: English (T, B), its lengths, German, its lengths."""
        for batch in self._batches.epoch(number):
            english, n = padded([self.english[row] for row in batch.target])
            german, m = padded([self.german[row] for row in batch.target])
            yield english, n, german, m


def dictionary(english: Numbers, german: Numbers) -> np.ndarray:
    """Return the likeliest German word for each English one, by IBM Model 1.

    Each German word of a sentence comes from one of its English words, with odds that are found
    by expectation maximisation: P. Brown and others (1993), "The mathematics of statistical
    machine translation".
    """
    size = 1 + max(int(sentence.max()) for sentence in german)
    both = [(e * size + d[:, None]).ravel() for e, d in zip(english, german, strict=True)]
    pair, which = np.unique(np.concatenate(both), return_inverse=True)
    choices = np.repeat([*map(len, english)], [*map(len, german)])  # of each German word
    at = np.repeat(np.arange(len(choices)), choices)
    odds = np.ones(len(pair))
    for _ in range(10):
        share = odds[which] / np.bincount(at, odds[which])[at]
        counts = np.bincount(which, share)
        odds = counts / np.bincount(pair // size, counts)[pair // size]
    order = np.argsort(odds)  # the likeliest of an English word stands last, and stays
    best = np.full(pair.max() // size + 1, UNKNOWN)
    best[pair[order] // size] = pair[order] % size
    return best


def bleu(found: Sentences, right: Sentences) -> str:
    """Return the BLEU of translations."""
    try:
        from sacrebleu import corpus_bleu
    except ImportError:
        return "no BLEU: sacrebleu is not installed"
    texts, references = ([" ".join(words) for words in side] for side in (found, right))
    return f"BLEU {corpus_bleu(texts, [references], tokenize='none', force=True).score:.1f}"


def picture(path: str, weights: np.ndarray, english: list[str], german: list[str]) -> None:
    """Draw which English words were looked at for each German one."""
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        print("No picture: matplotlib is not installed")
        return
    figure, axes = plt.subplots(figsize=(7, 6), layout="constrained")
    drawn = axes.imshow(weights, cmap="Greys", vmin=0, vmax=1)
    figure.colorbar(drawn, label="weight")
    axes.set_xticks(range(len(english)), english, rotation=60, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(german)), german)
    axes.set_title("What the decoder looks at for each word")
    figure.savefig(path, dpi=120)
    print(f"picture: {path}")


def train_pytorch(first: dict[str, np.ndarray], pairs: Pairs, epochs: int) -> dict[str, np.ndarray]:
    """Return the parameters of the same model in PyTorch after the same updates."""
    import torch
    from torch import nn
    from torch.nn.utils import rnn

    def reader(part: str) -> nn.ModuleDict:
        words = len(first[f"{part}.embed.weight"])
        embed, lstm = nn.Embedding(words, COLUMNS), nn.LSTM(COLUMNS, UNITS)
        return nn.ModuleDict({"embed": embed, "lstm": lstm})

    encoder, decoder = reader("encoder"), reader("decoder")
    mix, words = nn.Linear(2 * UNITS, COLUMNS), nn.Linear(COLUMNS, len(first["head.words.bias"]))
    head = nn.ModuleDict({"mix": mix, "words": words})
    model = nn.ModuleDict({"encoder": encoder, "decoder": decoder, "head": head})
    model.load_state_dict({name: torch.tensor(value) for name, value in first.items()})
    torch.manual_seed(0)
    drop, rate = nn.Dropout(DROPOUT), optim.cosine(RATE, epochs * len(pairs))
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    for epoch in range(epochs):
        for step, batch in enumerate(pairs.epoch(epoch), epoch * len(pairs)):
            english, n, german, m = map(torch.tensor, batch)
            x = drop(encoder["embed"](english))
            packed = rnn.pack_padded_sequence(x, n, enforce_sorted=False)
            memory, state = encoder["lstm"](packed)
            memory, _ = rnn.pad_packed_sequence(memory)
            y, _ = decoder["lstm"](drop(decoder["embed"](german[:-1])), state)
            scores = torch.einsum("tbh,sbh->bts", y, memory) * UNITS**-0.5
            padding = torch.arange(len(english)) >= n[:, None, None]
            weights = scores.masked_fill(padding, -torch.inf).softmax(2)
            context = torch.einsum("bts,sbh->tbh", weights, memory)
            valid = torch.arange(len(y))[:, None] < m - 1
            found = drop(torch.tanh(mix(torch.cat([y, context], 2)[valid])))
            loss = nn.functional.cross_entropy(words(found), german[1:][valid])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.param_groups[0]["lr"] = rate(step)
            optimizer.step()
    return {name: value.detach().numpy() for name, value in model.state_dict().items()}
