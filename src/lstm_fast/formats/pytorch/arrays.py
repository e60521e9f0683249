"""Arrays by name in a file of ``np.savez``: a state_dict without PyTorch."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from ...engine import Array
from ...network import storage, unsaid
from ..raw import MARGIN
from ..reports import refusal

__all__ = ["is_arrays", "read_arrays"]

MOST_TIMES = 16  # that arrays may be larger than the file, which may be compressed


def is_arrays(source: Any) -> bool:
    """Return whether a source is the path of such a file, by its extension."""
    return isinstance(source, str | os.PathLike) and Path(source).suffix.lower() == ".npz"


def read_arrays(path: str | os.PathLike[str]) -> dict[str, Array]:
    """Return the arrays of a file by name.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is another one, damaged, or of an LSTM with options that arrays do not tell.
    """
    size = storage.existing(path).stat().st_size
    how = "it is damaged, or no file of np.savez"
    try:
        with zipfile.ZipFile(path) as archive:
            needed = sum(part.file_size for part in archive.infolist())
        if needed > MOST_TIMES * size + MARGIN:
            raise ValueError(f"would be {needed} bytes")
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
    except Exception as error:  # whatever the bytes of a file can lead to
        raise refusal(path, "file", f"is no file of arrays ({error})", how) from None
    if any(map(unsaid.is_key, found)):
        how = "load_state_dict of such a one reads it"
        raise refusal(path, "file", "is a state_dict of an LSTM with options", how)
    return found
