"""Training: batches in, a trained model and the history of its loss out.

    trainer         Trainer: updates, validation, early stopping
    sources         Batch; ragged, series: batches, windows, truncated
    checkpoints     a run in a file, from which it goes on to the bit
    history         what a run measured; pictures draws it, and what goes on in an LSTM
    processes       one run on several processes, with mpi4py
    interrupts, progress, diagnosis     Ctrl-C; how far it is; where a number went wrong

It may import `nn`, `optim` and what is below; tqdm and matplotlib inside functions only.
"""

from .checkpoints import Checkpoint
from .history import History
from .pictures import gates, gradient_norms, learning_curve
from .ragged import batches
from .series import truncated, windows
from .sources import Batch, Source
from .trainer import Trainer

__all__ = [
    "Batch",
    "Checkpoint",
    "History",
    "Source",
    "Trainer",
    "batches",
    "gates",
    "gradient_norms",
    "learning_curve",
    "truncated",
    "windows",
]
