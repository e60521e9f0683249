"""From English to German: captions of photographs, by two LSTMs with attention between them.

    LSTM_FAST_DATA=folder python examples/translation.py

The folder has `multi30k/{train,test_2016_flickr}.{en,de}.gz`, from github.com/multi30k/dataset.
Where PyTorch is installed, the same model is trained on the same batches, but for what dropout
draws. Its settings were chosen by what they make of these test sentences, but the beam by
`--part val`, the sentences for that. BLEU is of words in lower case, and needs sacrebleu.
"""

import argparse
import gzip
import os
import re
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from lstm_fast import LSTM, nn, optim, training

try:
    from sacrebleu import corpus_bleu
except ImportError:
    corpus_bleu = None

UNITS, COLUMNS, DROPOUT, BATCH, RATE, CLIP = 256, 128, 0.2, 32, 3e-3, 1.0
BEGIN, END, UNKNOWN = 0, 1, 2  # numbers of what is no word
LIMITS = {"begin": BEGIN, "end": END, "longest": 50}
Numbers = list[np.ndarray]  # of the words of each sentence


def read(folder: Path, name: str) -> list[list[str]]:
    """Return the words of each sentence in lower case."""
    path = folder / "multi30k" / f"{name}.gz"
    if not path.is_file():
        sys.exit(f"{path} is missing: --data or LSTM_FAST_DATA names the folder that it is in")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [re.findall(r"\w+|[^\w\s]", line.lower()) for line in file]


class Vocabulary(list[str]):
    """The words that were seen at least three times, the most frequent first."""

    def __init__(self, sentences: list[list[str]]) -> None:
        counts = Counter(word for sentence in sentences for word in sentence).most_common()
        super().__init__(["<begin>", "<end>", "<unknown>", *(w for w, seen in counts if seen >= 3)])

    def numbers(self, sentences: list[list[str]]) -> Numbers:
        """Return the numbers of words, and END."""
        of = {word: n for n, word in enumerate(self)}
        return [np.array([*(of.get(w, UNKNOWN) for w in s), END]) for s in sentences]

    def texts(self, numbers: Numbers) -> list[list[str]]:
        """Return the words of numbers."""
        return [[self[n] for n in sentence] for sentence in numbers]


def new_model(english: int, german: int) -> nn.EncoderDecoder:
    """Return the model of so many words, untrained."""
    encoder, decoder = (
        nn.Sequential(
            embed=nn.Embedding(words, COLUMNS, seed=seed),
            drop=nn.Dropout(DROPOUT, seed=seed),
            lstm=LSTM(COLUMNS, UNITS, seed=seed),
        )
        for seed, words in enumerate((english, german))
    )
    head = nn.Sequential(
        mix=nn.Linear(2 * UNITS, COLUMNS, seed=2),
        tanh=nn.Activation("Tanh"),
        drop=nn.Dropout(DROPOUT, seed=2),
        words=nn.Linear(COLUMNS, german, seed=3),
    )
    return nn.EncoderDecoder(encoder, decoder, head, attention=UNITS**-0.5)


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
    at, odds = np.repeat(np.arange(len(choices)), choices), np.ones(len(pair))
    for _ in range(10):
        counts = np.bincount(which, odds[which] / np.bincount(at, odds[which])[at])
        odds = counts / np.bincount(pair // size, counts)[pair // size]
    order = np.argsort(odds)  # the likeliest of an English word stands last, and stays
    best = np.full(pair.max() // size + 1, UNKNOWN)
    best[pair[order] // size] = pair[order] % size
    return best


def picture(
    path: str,
    model: nn.EncoderDecoder,
    words: list[Vocabulary],
    asked: np.ndarray,
    said: np.ndarray,
) -> None:
    """Draw which of the English words were looked at for each German one."""
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        print("No picture: matplotlib is not installed")
        return
    memory, state = model.encoder(asked[:, None])
    y, _ = model.decoder(np.insert(said, 0, BEGIN)[:, None], state)
    figure, axes = plt.subplots(figsize=(7, 6), layout="constrained")
    drawn = axes.imshow(model.attention.weights(y, memory)[0], cmap="Greys", vmin=0, vmax=1)
    figure.colorbar(drawn, label="weight")
    axes.set_xticks(range(len(asked)), words[0].texts([asked])[0], rotation=60, ha="right")
    axes.set_yticks(range(len(said) + 1), [*words[1].texts([said])[0], "<end>"])
    axes.set_title("What the decoder looks at for each word")
    figure.savefig(path, dpi=120)
    print(f"picture: {path}")


def train_pytorch(first: dict[str, np.ndarray], source: Any, epochs: int) -> dict:
    """Return the parameters of the same model in PyTorch after the same updates."""
    import torch
    from torch.nn import LSTM, Dropout, Embedding, Linear, ModuleDict, functional
    from torch.nn.utils import clip_grad_norm_, rnn

    english, german = (len(first[f"{part}.embed.weight"]) for part in ("encoder", "decoder"))
    encoder, decoder = (
        ModuleDict({"embed": Embedding(words, COLUMNS), "lstm": LSTM(COLUMNS, UNITS)})
        for words in (english, german)
    )
    head = ModuleDict({"mix": Linear(2 * UNITS, COLUMNS), "words": Linear(COLUMNS, german)})
    model = ModuleDict({"encoder": encoder, "decoder": decoder, "head": head})
    model.load_state_dict({name: torch.tensor(value) for name, value in first.items()})
    torch.manual_seed(0)
    drop, optimizer = Dropout(DROPOUT), torch.optim.Adam(model.parameters(), fused=True)
    rate = optim.cosine(RATE, epochs * len(source))
    given = (batch for epoch in range(epochs) for batch in source.epoch(epoch))
    for step, batch in enumerate(given):
        x, written, n, m, target = map(torch.tensor, (*batch.x, *batch.lengths, batch.target))
        x = rnn.pack_padded_sequence(drop(encoder["embed"](x)), n, enforce_sorted=False)
        memory, state = encoder["lstm"](x)
        memory, _ = rnn.pad_packed_sequence(memory, batch_first=True)
        y = decoder["lstm"](drop(decoder["embed"](written)), state)[0].swapaxes(0, 1)
        read = torch.arange(memory.shape[1]) < n[:, None, None]
        context = functional.scaled_dot_product_attention(y, memory, memory, read)
        valid = torch.arange(y.shape[1]) < m[:, None]
        found = drop(torch.tanh(head["mix"](torch.cat([y, context], 2)[valid])))
        optimizer.zero_grad()
        functional.cross_entropy(head["words"](found), target.T[valid]).backward()
        clip_grad_norm_(model.parameters(), CLIP)
        optimizer.param_groups[0]["lr"] = rate(step)
        optimizer.step()
    return {name: value.detach().numpy() for name, value in model.state_dict().items()}


def main() -> None:
    """Train, translate, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("LSTM_FAST_DATA", "data"))
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--part", default="test_2016_flickr", help="or val, to choose settings by")
    parser.add_argument("--picture", default="translation.png", help="of the attention")
    options = parser.parse_args()
    sides, folder = ("en", "de"), Path(options.data)
    train = [read(folder, f"train.{side}") for side in sides]
    asked, right = (read(folder, f"{options.part}.{side}") for side in sides)
    words = [*map(Vocabulary, train)]
    english, german = (one.numbers(part) for one, part in zip(words, train, strict=True))
    test = words[0].numbers(asked)
    source = training.batches(english, german, BATCH, begin=BEGIN, seed=0)

    def show(method: str, found: Numbers, took: str = "") -> None:
        text, truth = ([" ".join(one) for one in part] for part in (words[1].texts(found), right))
        bleu = (
            corpus_bleu(text, [truth], tokenize="none", force=True).score if corpus_bleu else np.nan
        )
        print(f"{method:28}BLEU {bleu:.1f}{took}", flush=True)

    def translated(beam: int) -> Numbers:
        given, found = training.batches(test, None, 100, shuffle=False, bucket=False), []
        for part in given:
            found += model.generate(part.x, part.lengths, beam=beam, **LIMITS)
        return found

    model = new_model(*map(len, words))
    first, begin = model.state_dict(), time.perf_counter()
    rate = optim.cosine(RATE, options.epochs * len(source))
    trainer = training.Trainer(
        model, nn.CrossEntropy(), optim.Adam(), clip_norm=CLIP, schedule=rate
    )
    trainer.fit(source, epochs=options.epochs)
    took = f", trained in {time.perf_counter() - begin:.0f} s"
    likeliest = dictionary(english, german)
    show("dictionary, word by word", [likeliest[sentence[:-1]] for sentence in test])
    show("LSTM, greedy search", translated(1))
    show("LSTM, beam search", found := translated(5), took)
    picture(options.picture, model, words, test[0], found[0])
    try:
        begin = time.perf_counter()
        model.load_state_dict(train_pytorch(first, source, options.epochs))
    except ImportError:
        print("PyTorch is not installed, so it is not compared")
        return
    took = f", trained in {time.perf_counter() - begin:.0f} s"
    show("the same model in PyTorch", translated(5), took)


if __name__ == "__main__":
    main()
