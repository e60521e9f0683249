"""PyTorch: state_dicts and checkpoints, scripted and traced modules; without PyTorch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ...lstm import DEFAULTS, LSTM
from ...network.block import Block
from ...network.checks import boolean
from ...nn import Embedding, LayerNorm, Linear, Model, Sequential
from ..raw import file_bytes
from ..reports import Found, Verify, random_input, refusal, verified
from . import blocks as torch_blocks
from . import names as torch_names
from .archive import tree
from .arrays import is_arrays, read_arrays

__all__ = ["from_torch", "inspect", "run", "to_torch"]

# Arguments that `torch.nn.LSTM` has, too; and those that only make first values, or choose a way.
COMMON = ("num_layers", "bias", "batch_first", "dropout", "bidirectional", "proj_size")
INNER = ("init", "forget_bias", "matmul")


def from_torch(
    source: str | os.PathLike[str] | Mapping[str, Any],
    prefix: str | None = None,
    *,
    batch_first: bool = False,
    dropout: float = 0.0,
    verify: Verify = None,
) -> Block:
    """Return the LSTM that PyTorch has saved, or the model around it.

    Reads ``torch.save(model.state_dict(), path)``, checkpoints that hold such a dict somewhere
    among other things, the parameters of ``torch.jit.save``, and arrays by name of ``np.savez``,
    in a file .npz. PyTorch need not be installed, and
    nothing that the file names is imported or called. ``torch.nn.LSTM`` and ``LSTMCell`` are read,
    with all their options.

    A state_dict does not say what is computed from what. Where it has one LSTM and, around it, at
    most an embedding and a linear layer before, a layer norm before and after, and a linear layer
    after it, and sizes and order of the names leave no doubt, they become a `Sequential`, in which
    nothing else is between them: a program that has an activation there, or takes the last output
    before the linear layer, computes something else, which ``verify=(x, y)`` shows. A vector of
    weights with one of biases is a layer norm with an eps of 1e-5, unless its name says group or
    batch. Anything else is refused, and `prefix` reads the LSTM alone.

    Parameters
    ----------
    source : path-like or mapping
        A file; or a state_dict of tensors or arrays, itself or among other things.
    prefix : str, optional
        Name of the LSTM, or of a module that it is in, as it stands before the names of parameters.
    batch_first, dropout
        As of `LSTM`; the file does not say.
    verify : (x, y) or True, optional
        Compare with an output y of PyTorch for x; or let PyTorch, which has to be installed, run
        the script in the file, or, of a state_dict, the same modules one after the other: that
        shows that weights were read right, not that the program has these modules in this order.

    Returns
    -------
    LSTM or Sequential
        With the names of the file, so that its state_dict loads. Half precision becomes single.

    Raises
    ------
    TypeError
        If `source` is neither a path nor a mapping, but a module, as it may be.
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is another one or damaged, holds a whole pickled module, has no LSTM or several,
        or something around it that cannot be read.
    ImportError
        If PyTorch is needed and not installed.

    Examples
    --------
    >>> weights = LSTM(3, 4, seed=0).state_dict()
    >>> from_torch({f"model.lstm.{name}": value for name, value in weights.items()})
    LSTM(3, 4, dtype=float32)
    """
    batch_first = boolean("batch_first", batch_first)
    given = _tree(source)
    found = torch_names.leaves(source, given)
    if found.whole is not None:
        how = "where its program is, save its state_dict(): torch.save(model.state_dict(), path)"
        raise refusal(source, "file", f"holds a whole module, {found.whole}", how)
    names = torch_names.chosen(source, found, prefix)
    block = torch_blocks.block(
        source, names, ordered=True, batch_first=batch_first, dropout=dropout
    )

    def run_it() -> tuple[Any, Any]:
        arrays = isinstance(source, Mapping) or is_arrays(source)
        script = None if prefix or arrays else _script(source)
        if script is not None:
            return run_script(block, script)
        tensors = _loaded(given if arrays else source)
        return run(block, torch_names.chosen(source, tensors, prefix))

    return verified(block, verify, run_it)


def inspect(path: str | os.PathLike[str] | Mapping[str, Any]) -> list[Found]:
    """Return what is in a file, a row for each module that has parameters.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is another one or damaged.
    """
    return torch_names.found(path, _tree(path))


def to_torch(block: Block) -> dict[str, Any]:
    """Return a state_dict of tensors, which the same module of PyTorch loads.

    Parameters
    ----------
    block : Block
        An LSTM with the options of ``torch.nn.LSTM``, or a model with such.

    Raises
    ------
    ValueError
        If an LSTM has other options, with which PyTorch's would compute something else.
    ImportError
        If PyTorch is not installed.

    Examples
    --------
    >>> module = torch.nn.LSTM(3, 4)  # doctest: +SKIP
    >>> module.load_state_dict(to_torch(LSTM(3, 4)))  # doctest: +SKIP
    """
    for name, one in _parts(block, ""):
        if not isinstance(one, LSTM):
            continue
        where = f"{name}: " if name else ""
        if isinstance(one.hidden_size, tuple):
            raise ValueError(
                f"{where}hidden_size={one.hidden_size}: PyTorch has one for all layers"
            )
        for option, plain in DEFAULTS.items():
            if option not in COMMON + INNER and getattr(one, option) != plain:
                value = getattr(one, option)
                raise ValueError(f"{where}{option}={value!r}: torch.nn.LSTM has no such option")
    torch = _torch()
    return {name: torch.from_numpy(value) for name, value in block.state_dict().items()}


def run(block: Block, names: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return an input and what PyTorch's modules compute of it.

    Parameters
    ----------
    block : Block
        Which modules there are.
    names : dict of str to tensor
        Their parameters, of PyTorch.
    """
    torch = _torch()
    tensors = {module.name: module.tensors for module in torch_names.modules(dict(names))}
    dtype = getattr(torch, np.dtype(block.dtype).name)
    parts = [*_parts(block, "")]
    given = random_input(block, 5, 5)
    y = torch.from_numpy(given)
    for name, one in parts:
        values = tensors[name] if name else next(iter(tensors.values()))
        module = _module(torch, one).to(dtype).eval()
        ends = "" if "weight_hh" not in values else "_l0"
        module.load_state_dict({key + ends: value for key, value in values.items()})
        with torch.no_grad():
            y = module(y)
        y = y[0] if isinstance(one, LSTM) else y
    return given, y.numpy()


def _tree(source: Any) -> Any:
    if isinstance(source, Mapping):
        return source
    if is_arrays(source):
        return read_arrays(source)
    if not isinstance(source, str | os.PathLike):
        kind = type(source).__name__
        raise TypeError(f"source: expected a path or a mapping, as a state_dict() is, got {kind}")
    return tree(source, file_bytes(source))


def run_script(block: Block, script: Any) -> tuple[Any, Any]:
    """Return an input and what a script gives for it."""
    torch = _torch()
    given = random_input(block, 5, 5)
    with torch.no_grad():
        y = script(torch.from_numpy(given))
    return given, (y[0] if isinstance(y, tuple) else y).numpy()


def _script(path: Any) -> Any:
    """Return the script in a file, or None if it holds something else, or cannot be called."""
    try:
        script = _torch().jit.load(path, map_location="cpu").eval()
    except RuntimeError:
        return None
    return script if hasattr(script, "forward") else None  # a scripted nn.LSTM has two of its own


def _module(torch: Any, block: Block) -> Any:
    if isinstance(block, LSTM):
        options = {name: getattr(block, name) for name in COMMON}
        return torch.nn.LSTM(block.input_size, block.hidden_size, **options)
    if isinstance(block, Embedding):
        return torch.nn.Embedding(block.vocabulary, block.columns)
    if isinstance(block, LayerNorm):
        return torch.nn.LayerNorm(block.columns)
    assert isinstance(block, Linear)
    return torch.nn.Linear(block.input_size, block.output_size, block.bias is not None)


def _parts(block: Block, name: str) -> Iterator[tuple[str, Block]]:
    """Return the blocks of a model that are no models, by their names."""
    if not isinstance(block, Sequential | Model):
        yield name, block
        return
    for key, one in block.blocks.items():
        yield from _parts(one, f"{name}.{key}" if name else key)


def _loaded(source: Any) -> torch_names.Leaves:
    """Return what PyTorch reads from a file."""
    torch = _torch()
    if isinstance(source, Mapping):
        tensors = torch_names.leaves(source, source)
        names = {name: torch.as_tensor(value) for name, value in tensors.names.items()}
        return tensors._replace(names=names)
    from pickle import UnpicklingError

    try:
        found = torch.load(source, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError) as error:
        if "torch.jit.load" not in str(error) and "TorchScript" not in str(error):
            how = "torch.load with weights_only=True cannot read it: give verify=(x, y)"
            raise refusal(source, "verify", type(error).__name__, how) from error
        found = torch.jit.load(source, map_location="cpu").state_dict()
    return torch_names.leaves(source, found)


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        raise ImportError(
            "this needs PyTorch: pip install 'lstm_fast[torch]'; without it, verify=(x, y) "
            "compares with a recorded output"
        ) from None
    return torch
