"""Lengths of all kinds, and random networks of plain cells."""

import numpy as np

from lstm_fast import LSTM
from support.networks import draw_network

# Lengths of B rows of at most T steps.
LENGTHS = {
    "any": lambda rng, T, B: rng.integers(0, T, B, endpoint=True),
    "positive": lambda rng, T, B: rng.integers(min(T, 1), T, B, endpoint=True),
    "all T": lambda rng, T, B: np.full(B, T),
    "all shorter": lambda rng, T, B: np.full(B, T // 2),
    "all zero": lambda rng, T, B: np.zeros(B, int),
    "zeros in the middle": lambda rng, T, B: np.where((np.arange(B) + 1) % B < 2, T, 0),
    "one row": lambda rng, T, B: np.where(np.arange(B) == B // 2, T, 0),
    "one long row": lambda rng, T, B: np.where(np.arange(B) == B // 2, T, min(T, 1)),
    "rising": lambda rng, T, B: np.sort(rng.integers(0, T, B, endpoint=True)),
    "falling": lambda rng, T, B: np.sort(rng.integers(0, T, B, endpoint=True))[::-1],
}
SIZES = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33]  # I and H
BATCHES = [1, 2, 3, 4, 5, 7, 8, 9, 13, 17]


def draw_ragged(seed, dtype, least=0):
    """Return a random LSTM, lengths, padding, and random arguments as `draw_network` gives.

    T and B are at least `least`; the numbers are the same for every dtype.
    """
    rng = np.random.default_rng(seed)
    T = int(rng.integers(1, 9)) if rng.random() < 0.95 else least
    B = int(rng.choice(BATCHES)) if rng.random() < 0.95 else least
    I, H = (int(n) for n in rng.choice(SIZES, 2))
    settings = {
        "num_layers": int(rng.integers(1, 4)),
        "bias": bool(rng.random() < 0.8),
        "batch_first": bool(rng.random() < 0.4),
        "bidirectional": bool(rng.random() < 0.5),
        "proj_size": int(rng.integers(1, H)) if H > 1 and rng.random() < 0.3 else 0,
    }
    lengths = LENGTHS[str(rng.choice([*LENGTHS]))](rng, T, B)
    padding = str(rng.choice(["zero", "hold"]))
    lstm = LSTM(I, H, **settings, dtype=dtype)
    numbers = LSTM(I, H, **settings, seed=rng)  # exact in float32
    lstm.load_state_dict({k: v.astype(dtype) for k, v in numbers.state_dict().items()})
    return lstm, lengths, padding, [a.astype(dtype) for a in draw_network(rng, numbers, T, B)]


def padding_of(lengths, T):
    """Return which elements (t, b) are after the end of their row."""
    return np.arange(T)[:, None] >= lengths
