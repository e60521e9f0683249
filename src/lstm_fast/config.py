"""`show_config`: what this installation and machine use."""

from typing import Any

from . import _dispatch, _threads
from .version import __version__

__all__ = ["show_config"]


def show_config() -> dict[str, Any]:
    """Return what this installation is and what it uses here.

    Returns
    -------
    dict
        ``version`` : str
        ``isas`` : dict
            ``built``, ``detected`` (both best first), ``active``, the ``reason`` for it, and the
            CPU features that each ``needs``. The environment variable ``LSTM_FAST_ISA`` forces one
            at import.
        ``blas`` : dict
            ``interface``, and the ``libraries`` of this process as `threadpoolctl` reports them.
        ``openmp`` : dict
            ``version`` (the date of the specification; None: built without threads), and
            ``lost_in_fork``: whether this process was forked from one that had used threads.
        ``threads`` : int
            As `get_num_threads`.
    """
    from . import _blas

    return {
        "version": __version__,
        "isas": _dispatch.isas(),
        "blas": {"interface": "scipy.linalg.cython_blas", "libraries": _blas.info()},
        "openmp": _threads.openmp(),
        "threads": _threads.get_num_threads(),
    }
