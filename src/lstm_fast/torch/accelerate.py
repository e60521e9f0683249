"""`accelerate`: the LSTMs of a PyTorch module run on the engine."""

from __future__ import annotations

import logging

from torch import nn
from torch.nn.utils import parametrize

from .modules import LSTM, LSTMCell, Twin

__all__ = ["accelerate"]

log = logging.getLogger("lstm_fast")

OURS: dict[type, type] = {nn.LSTM: LSTM, nn.LSTMCell: LSTMCell}
PARAMETRIZED = {nn.LSTM: Twin, nn.LSTMCell: LSTMCell}


def accelerate(module: nn.Module) -> nn.Module:
    """Let every `nn.LSTM` and `nn.LSTMCell` of a module, or it itself, run on the engine.

    They become `lstm_fast.torch.LSTM` and `LSTMCell` in place: the same objects, with the same
    parameters, hooks and names. What was left as it was is told to the logger ``lstm_fast``.

    Parameters
    ----------
    module : torch.nn.Module
        Any; also an `nn.LSTM` itself.

    Returns
    -------
    torch.nn.Module
        The same one.

    Raises
    ------
    TypeError
        If `module` is no module.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module: expected a torch.nn.Module, got {type(module).__name__}")
    for name, part in module.named_modules():
        kind = type(part)
        if kind in OURS:
            object.__setattr__(part, "__class__", OURS[kind])
        elif parametrize.is_parametrized(part) and kind.__bases__[0] in OURS:
            _become_parametrized(part)
        elif isinstance(part, (nn.LSTM, nn.LSTMCell)) and not issubclass(kind, (LSTM, LSTMCell)):
            log.info(
                "accelerate: %s is left as it is: %s.%s may compute something else (see enable)",
                name or "the module",
                kind.__module__,
                kind.__qualname__,
            )
    return module


def _become_parametrized(part: nn.Module) -> None:
    """Put our class below the one that `parametrize` made for this module alone."""
    kind = type(part)
    ours = type(kind.__name__, (PARAMETRIZED[kind.__bases__[0]],), dict(vars(kind)))
    object.__setattr__(part, "__class__", ours)
