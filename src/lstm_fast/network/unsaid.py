"""What arrays do not say of the LSTM that they are of: its options, as one array more.

Names and shapes of parameters tell layers, directions, projection, peepholes and layer norm. Of an
LSTM with other options, or a `QuantizedLSTM` with other `inputs`, a state_dict also has
`lstm_options`, JSON in bytes, so that these arrays are not loaded into one which computes something
else from them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..engine import Array
from . import options

__all__ = ["KEY", "check", "is_key", "said"]

KEY = "lstm_options"
# Options that neither names nor shapes tell, with what they are in a plain LSTM.
PLAIN = {
    "reverse": False,
    "merge": "concat",
    "coupled": False,
    "clip": None,
    "cell_clip": None,
    "activations": options.functions(options.PLAIN),
    "zoneout": None,
    "residual": False,
}


def said(lstm: Any, **more: Any) -> dict[str, Array]:
    """Return the options of an LSTM, and `more`, by their key; nothing where all are plain."""
    values = {name: getattr(lstm, name) for name in PLAIN}
    values["activations"] = options.functions(lstm.activations)
    values["zoneout"] = options.rates("zoneout", lstm.zoneout)
    found = {name: value for name, value in values.items() if value != PLAIN[name]} | more
    if not found:
        return {}
    if "activations" in found:
        names = [*options.FUNCTIONS]
        found["activations"] = [(names[n], *numbers) for n, *numbers in found["activations"]]
    text: Any = np.frombuffer(json.dumps(found).encode(), np.uint8)
    return {KEY: text.copy()}


def is_key(name: Any) -> bool:
    """Return whether this is the key of options, of a block or in a model."""
    return isinstance(name, str) and name.rpartition(".")[2] == KEY


def check(given: Mapping[str, npt.ArrayLike], own: Mapping[str, Array]) -> None:
    """Raise unless a state_dict has the options that a block has.

    Parameters
    ----------
    given, own
        The state_dict; options of the block by their keys.

    Raises
    ------
    ValueError
        If options differ, or are missing.
    """
    for key in [*own, *(name for name in given if is_key(name) and name not in own)]:
        here = _read(key, own[key]) if key in own else {}
        if key not in given:
            raise ValueError(
                f"state_dict: missing keys [{key!r}]: the LSTM has {_written(here)}, and arrays "
                f"do not say whether they are of such a one; if they are, add {key!r} of a "
                "state_dict of this LSTM to them"
            )
        there = _read(key, given[key])
        if here != there:
            raise ValueError(
                f"state_dict[{key!r}]: is of an LSTM with {_written(there)}, and this one has "
                f"{_written(here)}"
            )


def _read(key: str, value: npt.ArrayLike) -> dict[str, Any]:
    try:
        found = json.loads(np.asarray(value, np.uint8).tobytes())
        if isinstance(found, dict):
            return found
    except (ValueError, TypeError, OverflowError, RecursionError):
        pass
    raise ValueError(f"state_dict[{key!r}]: expected options as an LSTM writes them")


def _written(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in options.items()) or "plain options"
