"""When weights may have changed since they were packed."""

from torch.optim.optimizer import register_optimizer_step_post_hook

from . import calls

__all__ = ["refresh"]


def refresh() -> None:
    """Let every LSTM read its weights anew.

    Only needed in inference, after weights were written in a way that PyTorch itself does not see:
    by NumPy or DLPack, through ``.data``, or from another process. With gradients enabled weights
    are read at every call, and after a step of an optimiser of `torch.optim` at the next.
    """
    calls.refresh()


# Fused and foreach optimisers do not raise the version of what they write.
register_optimizer_step_post_hook(calls.refresh)
