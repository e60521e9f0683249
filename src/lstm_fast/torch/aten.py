"""PyTorch's operators ``aten::lstm`` and ``aten::lstm_cell`` on the engine, and `enable`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.library import Library

from .autograd import Three, pytorchs_kernel
from .engine import Form, sizes_fit
from .served import lstm_if_served

__all__ = ["disable", "enable", "enabled"]

Pair = tuple[Tensor, Tensor]


def lstm_input(
    x: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    bias: bool,
    layers: int,
    dropout: float,
    training: bool,
    both: bool,
    batch_first: bool,
) -> Three | None:
    """``aten::lstm.input``, or None where PyTorch has to compute it."""
    form = _form(x, weights, bias, layers, both)
    if x.dim() != 3 or form is None or len(states) != 2:
        return None
    x = x.transpose(0, 1) if batch_first else x
    found = lstm_if_served(form, x, None, states, weights, dropout if training else 0.0)
    if found is None or not batch_first:
        return found
    y, hn, cn = found
    return y.transpose(0, 1), hn, cn


def lstm_data(
    x: Tensor,
    sizes: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    bias: bool,
    layers: int,
    dropout: float,
    training: bool,
    both: bool,
) -> Three | None:
    """``aten::lstm.data``, of a `PackedSequence`, or None."""
    form = _form(x, weights, bias, layers, both)
    if x.dim() != 2 or form is None or len(states) != 2 or not sizes_fit(sizes, x.shape[0]):
        return None
    return lstm_if_served(form, x, sizes, states, weights, dropout if training else 0.0)


def lstm_cell(
    x: Tensor,
    states: Sequence[Tensor],
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> Pair | None:
    """``aten::lstm_cell``, or None."""
    weights = [weight for weight in (w_ih, w_hh, b_ih, b_hh) if weight is not None]
    form = _form(x, weights, b_ih is not None, 1, False)
    if x.dim() != 2 or form is None or len(states) != 2:
        return None
    states = [state.unsqueeze(0) for state in states]
    found = lstm_if_served(form, x.unsqueeze(0), None, states, weights, 0.0)
    if found is None:
        return None
    _, hn, cn = found
    return hn.squeeze(0), cn.squeeze(0)


def _form(x: Tensor, weights: Sequence[Tensor], bias: bool, layers: int, both: bool) -> Form | None:
    """Return the form of a network that has so many weights, if there is one."""
    cells = layers * (2 if both else 1)
    each = 2 + 2 * bias
    if len(weights) not in (cells * each, cells * (each + 1)) or weights[1].dim() != 2:
        return None
    proj_size = 0 if len(weights) == cells * each else weights[1].shape[1]
    return Form(x.shape[-1], weights[0].shape[0] // 4, layers, bias, both, proj_size, x.dtype)


# ---- in place of PyTorch's own


SERVED: dict[str, Callable[..., Any]] = {
    "lstm.input": lstm_input,
    "lstm.data": lstm_data,
    "lstm_cell.default": lstm_cell,
}
_library: Library | None = None


def enable() -> None:
    """Let the engine serve every LSTM of the process on the CPU, whoever calls it.

    Modules, functions, and scripted, traced, frozen and exported programs, as far as they call
    PyTorch's operators ``aten::lstm`` and ``aten::lstm_cell``. What the engine does not have stays
    with PyTorch.
    """
    global _library
    if _library is None:
        _library = Library("aten", "IMPL")
        for name, ours in SERVED.items():
            packet, _, overload = name.partition(".")
            implementation = _or_pytorchs(ours, getattr(getattr(torch.ops.aten, packet), overload))
            for key in ("CPU", "AutogradCPU"):
                _library.impl(name.removesuffix(".default"), implementation, key)


def _or_pytorchs(ours: Callable[..., Any], operator: Any) -> Callable[..., Any]:
    def implementation(*arguments: Any) -> Any:
        found = ours(*arguments)
        return pytorchs_kernel(operator, *arguments) if found is None else found

    return implementation


def disable() -> None:
    """Take `enable` back: PyTorch's operators are its own again."""
    global _library
    if _library is not None:
        _library._destroy()
        _library = None


@contextmanager
def enabled() -> Iterator[None]:
    """Return a context in which the engine serves every LSTM, as after `enable`."""
    before = _library is not None
    enable()
    try:
        yield
    finally:
        if not before:
            disable()
