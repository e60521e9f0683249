"""Trained models of other people, in a folder that LSTM_FAST_MODELS names."""

import os
from pathlib import Path

import pytest


def model(name):
    """Return the path of a file, or skip the test where it is missing."""
    path = Path(os.environ.get("LSTM_FAST_MODELS", "../shared/models")) / name
    if not path.exists():
        pytest.skip(f"no {name}: LSTM_FAST_MODELS names the folder that it is in")
    return path
