"""Why LSTMs exist: what is left of a gradient after many steps, and whether a model remembers.

    python examples/copy_task.py [--delay 20]

The copy task: four symbols are shown, then nothing for a while, then a mark, after which the model
has to give the four symbols back (Hochreiter and Schmidhuber, Long short-term memory, 1997). A cell
keeps the share f(t) of its state at each step, so what is left after a delay is about
sigmoid(forget bias)^delay: half of it is forgotten at each step with a bias of 0. In a plain
recurrence the gradient passes a matrix and a tanh at each step, and vanishes as well.
"""

import argparse

import numpy as np

from lstm_fast import LSTM, nn, optim, training

SYMBOLS, LENGTH, UNITS, BATCH = 8, 4, 64, 64
NOTHING, MARK, NOT_ASKED = SYMBOLS, SYMBOLS + 1, -100


def task(delay: int, count: int, seed: int) -> training.Batch:
    """Return one-hot symbols (T, B, 10), and what the model has to say after the mark (T, B)."""
    symbols = np.random.default_rng(seed).integers(0, SYMBOLS, (LENGTH, count))
    shown = np.full((2 * LENGTH + delay, count), NOTHING)
    target = np.full_like(shown, NOT_ASKED)
    shown[:LENGTH], shown[-LENGTH - 1], target[-LENGTH:] = symbols, MARK, symbols
    return training.Batch(np.eye(SYMBOLS + 2, dtype=np.float32)[shown], target)


def main() -> None:
    """Draw the gradients of untrained LSTMs, then train them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--delay", type=int, default=20)
    parser.add_argument("--updates", type=int, default=2000)
    parser.add_argument("--picture", default="copy_task.png")
    options = parser.parse_args()
    test = task(options.delay, 1000, seed=0)
    lstms = {
        f"LSTM, forget bias {bias}": LSTM(SYMBOLS + 2, UNITS, forget_bias=bias, seed=0)
        for bias in (0.0, 1.0, 3.0)
    }
    try:
        training.gradient_norms(lstms, test.x, options.picture)
        print(f"picture: {options.picture}")
    except ImportError as error:
        print(f"No picture: {error}")

    print(f"\nSymbols right after {options.delay} steps (by chance: {100 / SYMBOLS:.1f} %)")
    for name, lstm in lstms.items():
        model = nn.Sequential(lstm=lstm, head=nn.Linear(UNITS, SYMBOLS, seed=1))
        loss = nn.CrossEntropy(ignore_index=NOT_ASKED)
        trainer = training.Trainer(model, loss, optim.Adam(5e-3), clip_norm=1.0)
        trainer.fit([task(options.delay, BATCH, seed) for seed in range(1, options.updates + 1)])
        right = (model(test.x)[0].argmax(-1) == test.target)[-LENGTH:]
        print(f"{name:24} {100 * right.mean():5.1f} %")


if __name__ == "__main__":
    main()
