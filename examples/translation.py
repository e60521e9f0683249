"""From English to German: captions of photographs, by two LSTMs with attention between them.

    LSTM_FAST_DATA=folder python examples/translation.py

The folder has `multi30k/{train,test_2016_flickr}.{en,de}.gz`, from github.com/multi30k/dataset.
`translation_support.py` has a dictionary and, where PyTorch is installed, the same model after the
same updates, but for what dropout draws. BLEU is of words in lower case, and needs sacrebleu.
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np
import translation_support as support
from translation_support import BEGIN, COLUMNS, END, UNITS, Numbers, Pairs, Vocabulary

from lstm_fast import LSTM, nn, optim


class Translator:
    """An encoder of English, a decoder of German, and a head that chooses words."""

    def __init__(self, english: int, german: int) -> None:
        self.encoder, self.decoder = (
            nn.Sequential(
                embed=nn.Embedding(words, COLUMNS, seed=seed),
                drop=nn.Dropout(support.DROPOUT, seed=seed),
                lstm=LSTM(COLUMNS, UNITS, seed=seed),
            )
            for seed, words in enumerate((english, german))
        )
        self.attention = nn.Attention(UNITS**-0.5)  # scaled dot products
        self.head = nn.Sequential(
            mix=nn.Linear(2 * UNITS, COLUMNS, seed=2),
            tanh=nn.Activation("Tanh"),
            drop=nn.Dropout(support.DROPOUT, seed=2),
            words=nn.Linear(COLUMNS, german, seed=3),
        )
        # One block with all parameters, for the optimiser and for files; it is never called.
        self.parts = nn.Sequential(encoder=self.encoder, decoder=self.decoder, head=self.head)

    def gradients(
        self, english: np.ndarray, n: np.ndarray, german: np.ndarray, m: np.ndarray
    ) -> tuple[float, dict[str, np.ndarray]]:
        """Return the loss of a batch, each German word following the right ones, and gradients."""
        memory, state, of_encoder = self.encoder.forward(english, lengths=n)
        y, _, of_decoder = self.decoder.forward(german[:-1], state, lengths=m - 1)
        context, of_attention = self.attention.forward(y, memory, lengths=n)
        found = np.concatenate([y, context], axis=2)
        valid = np.arange(len(y))[:, None] < m - 1  # the others are padding
        scores, _, of_head = self.head.forward(found[valid])
        loss, dscores = nn.CrossEntropy()(scores, german[1:][valid])
        dfound, grads = np.zeros_like(found), {}
        dfound[valid], _, grads["head"] = self.head.backward(dscores, None, of_head)
        dy, dcontext = np.split(dfound, 2, axis=2)
        dquery, dmemory = self.attention.backward(dcontext, of_attention)
        _, dstate, grads["decoder"] = self.decoder.backward(dy + dquery, None, of_decoder)
        _, _, grads["encoder"] = self.encoder.backward(dmemory, dstate, of_encoder)
        return loss, {f"{part}.{name}": g for part in grads for name, g in grads[part].items()}

    def translate(self, sentences: Numbers, beam: int) -> Numbers:
        """Return the best translations found by keeping so many of each (1: greedy search)."""
        english, n = support.padded(sentences)
        memory, state = self.encoder(english, lengths=n)
        h, c = (np.tile(part, (1, beam, 1)) for part in state["lstm"])
        B, b = len(n), np.arange(len(n))
        words = np.full((1, beam, B), BEGIN)
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


def train(model: Translator, pairs: Pairs, epochs: int) -> None:
    """Make an update of each batch, at a rate that falls to 0."""
    optimizer, rate = optim.Adam(), optim.cosine(support.RATE, epochs * len(pairs))
    for epoch in range(epochs):
        losses = []
        for batch in pairs.epoch(epoch):
            loss, grads = model.gradients(*batch)
            optim.clip_by_global_norm(grads, support.CLIP)
            optimizer.lr = rate(optimizer.steps)
            optimizer.step(model.parts, grads)
            losses.append(loss)
        print(f"epoch {epoch + 1}: loss {np.mean(losses):.3f} a word", flush=True)


def main() -> None:
    """Train, translate, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("LSTM_FAST_DATA", "data"))
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--picture", default="translation.png", help="of the attention")
    options = parser.parse_args()
    text = support.read(Path(options.data))
    english, german = Vocabulary(text["train.en"]), Vocabulary(text["train.de"])
    pairs = Pairs(english.numbers(text["train.en"]), german.numbers(text["train.de"]))
    test = english.numbers(text["test_2016_flickr.en"])

    def translated(beam: int) -> Numbers:
        parts = [test[n : n + 100] for n in range(0, len(test), 100)]
        return [found for part in parts for found in model.translate(part, beam)]

    def show(method: str, found: Numbers, took: str = "") -> None:
        bleu = support.bleu([*map(german.text, found)], text["test_2016_flickr.de"])
        print(f"{method:28}{bleu}{took}", flush=True)

    model = Translator(len(english), len(german))
    first, begin = model.parts.state_dict(), time.perf_counter()
    train(model, pairs, options.epochs)
    took = f", {time.perf_counter() - begin:.0f} s"
    dictionary = support.dictionary(pairs.english, pairs.german)
    show("dictionary, word by word", [dictionary[sentence] for sentence in test])
    show("LSTM, greedy search", translated(1))
    found = translated(5)
    show("LSTM, beam search", found, took)
    asked, said = [english[n] for n in test[0]], [*german.text(found[0]), "<end>"]
    print(*asked, "->", *said)
    memory, state = model.encoder(test[0][:, None])
    y, _ = model.decoder(found[0][: len(said), None], state)
    support.picture(options.picture, model.attention.weights(y, memory)[0], asked, said)
    try:
        begin = time.perf_counter()
        theirs = support.train_pytorch(first, pairs, options.epochs)
        took = f", {time.perf_counter() - begin:.0f} s"
    except ImportError:
        print("PyTorch is not installed, so it is not compared")
        return
    model.parts.load_state_dict(theirs)
    show("the same model in PyTorch", translated(5), took)


if __name__ == "__main__":
    main()
