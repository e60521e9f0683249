"""`show_config`: what this installation and machine use."""

from typing import Any

from .engine.runtime import isa, threads
from .engine.watch import adaptive_threads
from .version import __version__


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
            ``lost_in_fork``: whether this process was forked by a thread whose OpenMP threads could
            not be ended before, and so uses one thread.
        ``threads`` : int
            As `get_num_threads`.
        ``adaptive_threads`` : dict
            ``enabled``, as `set_adaptive_threads` says; ``limit``: how many threads calls use now
            because more came late, or None; ``times``: how often there was a new limit.
    """
    from .engine.runtime import blas  # imports SciPy

    return {
        "version": __version__,
        "isas": isa.isas(),
        "blas": {"interface": "scipy.linalg.cython_blas", "libraries": blas.info()},
        "openmp": threads.openmp(),
        "threads": threads.get_num_threads(),
        "adaptive_threads": adaptive_threads(),
    }
