"""Which video game does a user rate next? An LSTM over those before, of 24 000 items.

    LSTM_FAST_DATA=folder python examples/recommender.py

The folder has `amazon_video_games/interactions.txt`: `Video.txt` of github.com/kang205/SASRec. The
last items are held out, each ranked among 100 others, as there, and among all, where counts win.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array

from lstm_fast import LSTM, nn, optim, training

COLUMNS, UNITS, BATCH, RATE, DECAY, OTHERS = 64, 128, 64, 6e-3, 0.2, 1000
LONGEST, RECENT = 50, 10  # items of a history, for the LSTM and for counts


def read(folder: Path) -> list[np.ndarray]:
    """Return the items of each user with three or more, in the order of time: numbers from 1."""
    path = folder / "amazon_video_games" / "interactions.txt"
    if not path.is_file():
        sys.exit(f"{path} is missing: --data or LSTM_FAST_DATA names the folder that it is in")
    user, item = np.loadtxt(path, int).T
    return [items for items in np.split(item, np.flatnonzero(np.diff(user)) + 1) if len(items) > 2]


class Recommender(nn.Sequential):
    """Histories to vectors; products with those of items are scores, of few items in training."""

    def forward(self, x, state=None, *, lengths=None):
        histories, items = x
        wanted, _, below = super().forward(histories, lengths=lengths)
        product = nn.Linear(COLUMNS, len(items), bias=False)
        product.load_state_dict({"weight": self["embed"].weight[items]})
        scores, _, above = product.forward(wanted, lengths=lengths)
        return scores, None, (items, below, product, above)

    def backward(self, dy, dstate, cache):
        items, below, product, above = cache
        dwanted, _, dvectors = product.backward(dy, None, above)
        _, _, grads = super().backward(dwanted, None, below)
        grads["embed.weight"][items] += dvectors["weight"]  # one table has both vectors
        return None, None, grads

    def scores(self, histories: list[np.ndarray]) -> Iterator[np.ndarray]:
        """Return the scores of all items, after each history."""
        for batch in training.batches(histories, None, 256, shuffle=False, bucket=False):
            wanted, _ = self(batch.x, lengths=batch.lengths)
            yield from nn.Last()(wanted, lengths=batch.lengths)[0] @ self["embed"].weight.T


def among_others(source, V: int, epoch: int) -> Iterator[training.Batch]:
    """Return batches whose targets have to be told from one another and from random items."""
    rng = np.random.default_rng(epoch)
    for batch in source.epoch(epoch):
        items = np.unique(np.concatenate([batch.target.ravel(), rng.integers(1, V, OTHERS)]))
        yield batch._replace(x=(batch.x, items), target=np.searchsorted(items, batch.target))


def train_pytorch(first, source, V: int, epochs: int):
    """Return the parameters of the same model in PyTorch after the same updates."""
    import torch

    embed, lstm = torch.nn.Embedding(V, COLUMNS), torch.nn.LSTM(COLUMNS, UNITS)
    head = torch.nn.Linear(UNITS, COLUMNS)
    model = torch.nn.ModuleDict({"embed": embed, "lstm": lstm, "head": head})
    model.load_state_dict({name: torch.tensor(value) for name, value in first.items()})
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=DECAY, fused=True)
    for batch in (batch for epoch in range(epochs) for batch in among_others(source, V, epoch)):
        histories, items, target = map(torch.tensor, (*batch.x, batch.target))
        scores = head(lstm(embed(histories))[0][histories > 0]) @ embed(items).T  # 0 is padding
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(scores, target[histories > 0]).backward()
        optimizer.step()
    return model.state_dict()


def ranks(scores, users: list[np.ndarray]) -> np.ndarray:
    """Return ranks from 0 of last items: among 100 items new to the user, and all such, (N, 2)."""
    rng, found = np.random.default_rng(0), []
    for user, row in zip(users, scores([u[:-1][-LONGEST:] for u in users]), strict=True):
        above = (np.sign(np.delete(row - row[user[-1]], [0, *user])) + 1) / 2  # of equal ones half
        found.append([rng.choice(above, 100, replace=False).sum(), above.sum()])
    return np.array(found)


def show(found: dict[str, np.ndarray], path: str) -> None:
    """Print hit rates and NDCG at 10, and draw the hit rate at every k."""
    print(f"\n{'':21}among 100 others    among all\n{'':21}HR@10  NDCG@10    HR@10  NDCG@10")
    for name, rank in found.items():
        rate, gain = np.mean(rank < 10, axis=0), np.mean((rank < 10) / np.log2(rank + 2), axis=0)
        print(f"{name:21}{rate[0]:.3f}  {gain[0]:.3f}      {rate[1]:.3f}  {gain[1]:.3f}")
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        print("No picture: matplotlib is not installed")
        return
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for (name, rank), style in zip(found.items(), ["-", "-", "-", ":"], strict=False):
        axes.plot(range(1, 21), [np.mean(rank[:, 0] < k) for k in range(1, 21)], style, label=name)
    axes.set(xlabel="k", ylabel="hit rate at k", title="The item that came, among 100 others")
    axes.legend()
    figure.savefig(path, dpi=120)
    print(f"picture: {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("LSTM_FAST_DATA", "data"))
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--picture", default="recommender.png")
    options = parser.parse_args()
    users = read(options.data)
    past, V = [user[:-2] for user in users], 1 + max(map(max, users))
    items, ends = np.concatenate(past), np.cumsum([0, *map(len, past)])
    known = csr_array((np.ones(len(items), np.float32), items, ends), (len(users), V))
    together, popular = (known.T @ known).tocsr(), np.bincount(items, minlength=V)
    found = {"popularity": ranks(lambda past: [popular] * len(past), users)}
    found["counts of pairs"] = ranks(
        lambda past: (together[p[-RECENT:]].sum(axis=0) + 1e-6 * popular for p in past), users
    )
    past = [items[-LONGEST:] for items in past if len(items) > 1]
    source = training.batches([p[:-1] for p in past], [p[1:] for p in past], BATCH, seed=0)
    embed, head = nn.Embedding(V, COLUMNS, seed=0), nn.Linear(UNITS, COLUMNS, seed=2)
    embed.load_state_dict({"weight": embed.weight / 8})  # so that scores begin small
    model = Recommender(embed=embed, lstm=LSTM(COLUMNS, UNITS, seed=1), head=head)
    first, begin = model.state_dict(), time.perf_counter()
    trainer = training.Trainer(model, nn.CrossEntropy(), optim.AdamW(RATE, weight_decay=DECAY))
    trainer.fit(lambda epoch: among_others(source, V, epoch), epochs=options.epochs)
    print(f"LSTM: {time.perf_counter() - begin:.0f} s")
    found["LSTM"] = ranks(model.scores, users)
    try:
        begin = time.perf_counter()
        model.load_state_dict(train_pytorch(first, source, V, options.epochs))
        print(f"the same in PyTorch: {time.perf_counter() - begin:.0f} s")
        found["the same in PyTorch"] = ranks(model.scores, users)
    except ImportError:
        print("PyTorch is not installed, so it is not compared")
    show(found, options.picture)


if __name__ == "__main__":
    main()
