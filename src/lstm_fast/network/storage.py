"""Files, written whole or not at all; arrays by name, and what they are, in a safetensors file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..engine import Array

__all__ = ["existing", "read", "write", "write_whole"]

# Of the description in a file. A reader refuses what is newer than itself.
VERSION = 1
KEY = "lstm_fast"


def write(path: str | os.PathLike[str], arrays: Mapping[str, Array], what: dict[str, Any]) -> None:
    """Write arrays by name, and what they are.

    Parameters
    ----------
    path : path-like
        Whose folder exists.
    arrays : dict of str to ndarray
        By the names that they have in the file.
    what : dict
        What they are, as JSON has it.
    """
    from_package = _safetensors()
    about = {KEY: json.dumps({"version": VERSION, **what}), "format": "np"}
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    write_whole(path, from_package.numpy.save(contiguous, about))


def write_whole(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file whole, or leave the old one, whenever the process or the machine stops.

    It is written beside its place, to the disk, and then renamed.
    """
    from tempfile import mkstemp  # which imports much, and few programs write

    target = Path(path)
    try:
        handle, temporary = mkstemp(prefix=f".{target.name}.", dir=target.parent)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"path: there is no folder {target.parent}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, _mode(target))
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise
    folder = os.open(target.parent, os.O_RDONLY)  # the name is in the folder
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return the arrays of a file and what they are.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no safetensors file, has no description, or one of a newer version.
    """
    from_package = _safetensors()
    existing(path)
    try:
        with from_package.safe_open(path, framework="numpy") as file:
            about = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (from_package.SafetensorError, TypeError) as error:  # as for a dtype NumPy has not
        raise ValueError(
            f"{os.fspath(path)}: is no safetensors file ({error}); those of other packages are "
            "read by from_torch, from_keras, from_onnx and so on"
        ) from None
    if KEY not in about:
        raise ValueError(
            f"{os.fspath(path)}: holds arrays, but not which block they are of: make the block, "
            "and load them with load_state_dict(safetensors.numpy.load_file(path))"
        )
    try:
        what = json.loads(about[KEY])
        version = what.pop("version")
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        raise ValueError(f"{os.fspath(path)}: its description cannot be read") from None
    if not isinstance(version, int) or version > VERSION:
        raise ValueError(
            f"{os.fspath(path)}: was written by a newer lstm_fast (format {version}, this one "
            f"reads up to {VERSION}): update the package"
        )
    return arrays, what


def existing(path: str | os.PathLike[str]) -> Path:
    """Return the path of a file; raise FileNotFoundError if there is none."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"path: there is no file {os.fspath(path)}")
    return Path(path)


def _mode(path: Path) -> int:
    """Return the permissions of a file, or of new ones."""
    if path.exists():
        return path.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _safetensors() -> Any:
    try:
        import safetensors
        import safetensors.numpy
    except ImportError:
        raise ImportError(
            "files need the package safetensors: pip install 'lstm_fast[files]'"
        ) from None
    return safetensors
