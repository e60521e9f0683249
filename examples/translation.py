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
from collections.abc import Iterator
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
Numbers = list[np.ndarray]  # of the words of each sentence, between BEGIN and END


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
        """Return the numbers of words."""
        of = {word: n for n, word in enumerate(self)}
        return [np.array([BEGIN, *(of.get(w, UNKNOWN) for w in s), END]) for s in sentences]

    def text(self, numbers: np.ndarray) -> str:
        """Return a sentence."""
        return " ".join(self[n] for n in numbers if n not in (BEGIN, END))


def pairs(source: Any, epoch: int) -> Iterator[training.Batch]:
    """Return batches: x is English, and German that is to be continued by the target."""
    for batch in source.epoch(epoch):
        steps = batch.target_lengths - 1
        x, lengths = (batch.x, batch.target[:-1]), (batch.lengths, steps)
        yield training.Batch(x, batch.target[1:], lengths, target_lengths=steps)


class Translator(nn.Model):
    """An encoder of English, a decoder of German, and a head that chooses words."""

    def __init__(self, english: int, german: int) -> None:
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
        super().__init__(encoder=encoder, decoder=decoder, head=head)
        self.attention = nn.Attention(UNITS**-0.5)  # scaled dot products

    def forward(self, x, state=None, *, lengths):
        """Return scores of the German words after each of the right ones."""
        (english, german), (n, m) = x, lengths
        memory, state, of_encoder = self.encoder.forward(english, lengths=n)
        y, _, of_decoder = self.decoder.forward(german, state, lengths=m)
        context, of_attention = self.attention.forward(y, memory, lengths=n)
        found = np.concatenate([y, context], axis=2)
        scores, _, of_head = self.head.forward(found, lengths=m)
        return scores, None, (of_encoder, of_decoder, of_attention, of_head)

    def backward(self, dscores, dstate, cache):
        of_encoder, of_decoder, of_attention, of_head = cache
        dfound, _, head = self.head.backward(dscores, None, of_head)
        dy, dcontext = np.split(dfound, 2, axis=2)
        dquery, dmemory = self.attention.backward(dcontext, of_attention)
        _, dstate, decoder = self.decoder.backward(dy + dquery, None, of_decoder)
        _, _, encoder = self.encoder.backward(dmemory, dstate, of_encoder)
        return None, None, self.gradients(encoder=encoder, decoder=decoder, head=head)

    def translate(self, english: np.ndarray, n: np.ndarray | None, beam: int) -> Numbers:
        """Return the best translations found by keeping so many of each (1: greedy search)."""
        memory, state = self.encoder(english, lengths=n)
        h, c = (np.tile(part, (1, beam, 1)) for part in state["lstm"])
        B = english.shape[1]
        words, b = np.full((1, beam, B), BEGIN), np.arange(B)
        total = np.full((beam, B), -np.inf, np.float32)  # logarithm of the probability
        total[0] = 0  # at first all are the same, and one is enough
        while len(words) <= 50 and not (words[-1] == END).all():
            y, state = self.decoder(words[-1:].reshape(1, -1), {"lstm": (h, c)})
            y = y.reshape(beam, B, UNITS)  # to attention, steps of one sequence
            found = np.concatenate([y, self.attention(y, memory, lengths=n)], axis=2)
            scores = np.log(nn.Softmax()(self.head(found)[0])[0] + 1e-9)
            ended = words[-1] == END
            scores[ended] = -np.inf
            scores[ended, END] = 0  # an end follows, at no cost
            scores += total[..., None]
            length = (words != END).sum(axis=0, dtype=np.float32)
            mean = (scores / length[..., None]).swapaxes(0, 1).reshape(B, -1)
            best = np.argpartition(mean, -beam)[:, -beam:].T  # (beam, B)
            of, word = divmod(best, scores.shape[2])
            total, words = scores[of, b, word], np.concatenate([words[:, of, b], word[None]])
            h, c = (part[:, (of * B + b).ravel()] for part in state["lstm"])
        first = np.argmax(total / (words != END).sum(axis=0), axis=0)
        return [*words[:, first, b].T]


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


def picture(path: str, model: Translator, asked: np.ndarray, found: np.ndarray, asks, says) -> None:
    """Draw which English words were looked at for each German one."""
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        print("No picture: matplotlib is not installed")
        return
    german = found[1 : list(found).index(END) + 1] if END in found else found[1:]
    memory, state = model.encoder(asked[:, None])
    y, _ = model.decoder(found[: len(german), None], state)
    figure, axes = plt.subplots(figsize=(7, 6), layout="constrained")
    drawn = axes.imshow(model.attention.weights(y, memory)[0], cmap="Greys", vmin=0, vmax=1)
    figure.colorbar(drawn, label="weight")
    axes.set_xticks(range(len(asked)), [asks[n] for n in asked], rotation=60, ha="right")
    axes.set_yticks(range(len(german)), [says[n] for n in german])
    axes.set_title("What the decoder looks at for each word")
    figure.savefig(path, dpi=120)
    print(f"picture: {path}")


def train_pytorch(first: dict[str, np.ndarray], source: Any, epochs: int) -> dict:
    """Return the parameters of the same model in PyTorch after the same updates."""
    import torch
    from torch import nn
    from torch.nn.utils import rnn

    def reader(words: int) -> nn.ModuleDict:
        embed, lstm = nn.Embedding(words, COLUMNS), nn.LSTM(COLUMNS, UNITS)
        return nn.ModuleDict({"embed": embed, "lstm": lstm})

    encoder, decoder = (reader(len(first[f"{p}.embed.weight"])) for p in ("encoder", "decoder"))
    mix, words = nn.Linear(2 * UNITS, COLUMNS), nn.Linear(COLUMNS, len(first["head.words.bias"]))
    head = nn.ModuleDict({"mix": mix, "words": words})
    model = nn.ModuleDict({"encoder": encoder, "decoder": decoder, "head": head})
    model.load_state_dict({name: torch.tensor(value) for name, value in first.items()})
    torch.manual_seed(0)
    drop, optimizer = nn.Dropout(DROPOUT), torch.optim.Adam(model.parameters(), fused=True)
    rate = optim.cosine(RATE, epochs * len(source))
    given = (batch for epoch in range(epochs) for batch in pairs(source, epoch))
    for step, batch in enumerate(given):
        english, german, n, m, target = map(torch.tensor, (*batch.x, *batch.lengths, batch.target))
        x = rnn.pack_padded_sequence(drop(encoder["embed"](english)), n, enforce_sorted=False)
        memory, state = encoder["lstm"](x)
        memory, _ = rnn.pad_packed_sequence(memory)
        y, _ = decoder["lstm"](drop(decoder["embed"](german)), state)
        scores = torch.einsum("tbh,sbh->bts", y, memory) * UNITS**-0.5
        padding = torch.arange(len(english)) >= n[:, None, None]
        weights = scores.masked_fill(padding, -torch.inf).softmax(2)
        context = torch.einsum("bts,sbh->tbh", weights, memory)
        valid = torch.arange(len(y))[:, None] < m
        found = drop(torch.tanh(mix(torch.cat([y, context], 2)[valid])))
        optimizer.zero_grad()
        nn.functional.cross_entropy(words(found), target[valid]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
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
    text = {
        (part, side): read(Path(options.data), f"{part}.{side}")
        for part in ("train", options.part)
        for side in ("en", "de")
    }
    asks, says = (Vocabulary(text["train", side]) for side in ("en", "de"))
    english, german = asks.numbers(text["train", "en"]), says.numbers(text["train", "de"])
    test, right = asks.numbers(text[options.part, "en"]), text[options.part, "de"]
    source = training.batches(english, german, BATCH, aligned=False, seed=0)

    def show(method: str, found: Numbers, took: str = "") -> None:
        both = [*map(says.text, found)], [[*map(" ".join, right)]]
        bleu = corpus_bleu(*both, tokenize="none", force=True).score if corpus_bleu else np.nan
        print(f"{method:28}BLEU {bleu:.1f}{took}", flush=True)

    def translated(beam: int) -> Numbers:
        parts = training.batches(test, None, 100, shuffle=False, bucket=False)
        return [one for part in parts for one in model.translate(part.x, part.lengths, beam)]

    model = Translator(len(asks), len(says))
    first, begin = model.state_dict(), time.perf_counter()
    rate = optim.cosine(RATE, options.epochs * len(source))
    trainer = training.Trainer(
        model, nn.CrossEntropy(), optim.Adam(), clip_norm=CLIP, schedule=rate
    )
    trainer.fit(lambda epoch: pairs(source, epoch), epochs=options.epochs)
    took = f", {time.perf_counter() - begin:.0f} s"
    likeliest = dictionary(english, german)
    show("dictionary, word by word", [likeliest[sentence] for sentence in test])
    show("LSTM, greedy search", translated(1))
    found = translated(5)
    show("LSTM, beam search", found, took)
    picture(options.picture, model, test[0], found[0], asks, says)
    try:
        begin = time.perf_counter()
        model.load_state_dict(train_pytorch(first, source, options.epochs))
    except ImportError:
        print("PyTorch is not installed, so it is not compared")
        return
    show("the same model in PyTorch", translated(5), f", {time.perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    main()
