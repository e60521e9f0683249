"""Training: batches in, a trained model and the history of its loss out.

    sources, ragged, series     Batch; batches, windows, truncated

It may import `nn`, `optim` and what is below.
"""

from .ragged import batches
from .series import truncated, windows
from .sources import Batch

__all__ = ["Batch", "batches", "truncated", "windows"]
