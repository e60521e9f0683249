"""What the engine runs on: one door each to the CPU, to OpenMP, to BLAS.

    isa          the instruction set, chosen at import; the table of its kernels
    threads      how many threads a call may use; forks
    gemm, blas   BLAS's matrix multiply, which imports SciPy when first needed
    arithmetic   NumPy in the floating-point environment of the kernels
    kernels      the C headers, as Cython sees them

It imports NumPy, and only `blas` imports SciPy and threadpoolctl.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Array"]

Array = npt.NDArray[np.floating[Any]]
