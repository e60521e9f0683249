"""Which calls the engine serves; all others stay with PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .autograd import Three, lstm
from .direct import unusual_state
from .engine import DTYPES, Form

__all__ = ["lstm_if_served", "obstacle", "served_tensors"]

PLAIN = (Tensor, torch.nn.Parameter)


def lstm_if_served(
    form: Form,
    x: Tensor,
    sizes: Tensor | None,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    dropout: float,
) -> Three | None:
    """Run a plain LSTM as `lstm` does; None where that is PyTorch's, to compute or to refuse.

    The shape of `x` has as many axes as it should, `sizes` are those of a `PackedSequence`.
    """
    B = x.shape[1] if sizes is None else int(sizes[0])
    if (
        x.shape[-1] != form.input_size
        or x.numel() == 0
        or not (len(states) == 0 or form.fits(states, B))
        or not served_tensors((x, *states, *weights))
        or obstacle() is not None
    ):
        return None
    return lstm(form, x, sizes, states, weights, dropout)


def obstacle() -> str | None:
    """Return what of PyTorch's state keeps the engine from serving, if anything does."""
    return None if torch.compiler.is_compiling() else unusual_state()


def served_tensors(tensors: Sequence[Tensor]) -> bool:
    """Whether the engine takes such tensors: plain ones on the CPU, of one dtype that it has."""
    dtype = tensors[0].dtype
    if dtype not in DTYPES:
        return False
    compiling = torch.compiler.is_compiling()
    for tensor in tensors:
        if not (
            tensor.dtype is dtype
            and tensor.is_cpu
            and tensor.layout is torch.strided
            and (compiling or (type(tensor) in PLAIN and not tensor.is_neg()))
        ):
            return False
    return True
