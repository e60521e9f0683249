"""The engine inside PyTorch: its LSTMs on the CPU, training included.

    LSTM, LSTMCell              modules as torch.nn's, with the options of `lf.LSTM`
    accelerate                  the LSTMs of a module become these, in place
    enable, disable, enabled    every CPU LSTM of the process, scripted and exported ones too
    refresh                     after weights were written where PyTorch does not see it

Needs PyTorch, which nothing else imports. It imports `lstm`, and what is below that.
"""

from .accelerate import accelerate
from .aten import disable, enable, enabled
from .modules import LSTM, LSTMCell
from .weights import refresh

__all__ = ["LSTM", "LSTMCell", "accelerate", "disable", "enable", "enabled", "refresh"]
