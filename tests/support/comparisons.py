"""Other packages to compare with, and what to install for those that are missing."""

from importlib.util import find_spec

import pytest

import lstm_fast
from lstm_fast import reference

# What pip installs, by what is imported; Keras's NumPy back-end imports JAX.
PACKAGES = {
    "torch": "torch>=2.2,<2.14",
    "onnx": "onnx>=1.15",
    "onnxruntime": "onnxruntime>=1.17",
    "onnxscript": "onnxscript>=0.5",
    "keras": "keras>=3",
    "jax": "jax>=0.4.30",
}
MARK = "live comparison with "

every_implementation = pytest.mark.parametrize(
    "implementation", [reference, lstm_fast], ids=lambda module: module.__name__
)


def require(other, *names):
    """Skip the module that calls this on import, as a whole, where a package is missing."""
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        pytest.skip(f"{MARK}{other}: {pip_line(missing)}", allow_module_level=True)


def pip_line(names):
    return "pip install " + " ".join(f"'{PACKAGES[name]}'" for name in names)


def summary(reasons):
    """Return lines on the comparisons that were skipped, of the reasons of all skipped tests."""
    skipped = sorted({reason[reason.index(MARK) :] for reason in reasons if MARK in reason})
    if not skipped:
        return []
    others = [reason.removeprefix(MARK).partition(":")[0] for reason in skipped]
    missing = [name for name, wanted in PACKAGES.items() if any(wanted in r for r in skipped)]
    return [f"Not compared with {', '.join(others)}.", f"To compare: {pip_line(missing)}"]
