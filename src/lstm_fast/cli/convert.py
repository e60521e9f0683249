"""``lstm-fast convert``, ``inspect``, ``verify``: models of other packages, in files."""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..formats import files
from ..formats.reports import compared, random_input

__all__ = ["add_commands"]

# Of what is compared, relative to the largest value, or 1.
TOLERANCE = 1e-5
STEPS, ROWS = 20, 3  # of the random input
WIDEST = 60  # of a text in a table

FORMATS = (
    "PyTorch (.pt, .pth, .ckpt, .bin, .npz), safetensors, Keras (.keras, .h5), ONNX, TFLite, "
    "OpenVINO (.xml), RTNeural (.json)"
)


def add_commands(commands: Any) -> None:
    """Add the three commands."""
    text = "read a model of another package, and write it for lstm_fast.load, or as ONNX"
    parser = commands.add_parser(
        "convert",
        help=text,
        description=f"{_sentence(text)} Reads {FORMATS}; needs none of these packages.",
        epilog="example: lstm-fast convert classifier.pt classifier.safetensors --prefix lstm",
    )
    parser.add_argument("input", metavar="IN", help="file; its extension says what it is")
    parser.add_argument("output", metavar="OUT", help=f"file: {', '.join(files.WRITTEN)}")
    _add_choice(parser)
    parser.add_argument(
        "--verify",
        action="store_true",
        default=None,
        help="run the package that IN is of, which has to be installed, and compare",
    )
    parser.set_defaults(run=_convert)

    text = "print a table of the LSTMs in a file, and of what is around them"
    parser = commands.add_parser(
        "inspect", help=text, description=f"{_sentence(text)} Reads {FORMATS}."
    )
    parser.add_argument("file", metavar="FILE")
    parser.set_defaults(run=_inspect)

    text = "compare two models, or a model and recorded results"
    parser = commands.add_parser(
        "verify",
        help=text,
        description=f"{_sentence(text)} Exits with 1 where they differ by more than rounding.",
    )
    parser.add_argument("file", metavar="FILE")
    parser.add_argument(
        "--against",
        metavar="FILE",
        required=True,
        help="another model, which is given the same random input; or .npz with the arrays x and y",
    )
    _add_choice(parser)
    parser.set_defaults(run=_verify)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _add_choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prefix", help="of the names in a PyTorch or safetensors file: one part")
    parser.add_argument("--node", help="of an ONNX file: one LSTM by its name")
    parser.add_argument(
        "--layers",
        type=_layers,
        help="of a Keras file: these layers only, in this order, as a,b or, where the file does "
        'not say how they are set, as JSON: {"a": {"recurrent_activation": "sigmoid"}, "b": {}}',
    )
    parser.add_argument(
        "--batch-first",
        action="store_true",
        default=None,
        help="of a PyTorch or safetensors file: arrays are (B, T, ...)",
    )


def _layers(text: str) -> Any:
    return json.loads(text) if text.startswith("{") else text.split(",")


def _read(path: str, options: argparse.Namespace, **further: Any) -> files.Block:
    return files.read(
        path,
        prefix=options.prefix,
        node=options.node,
        layers=options.layers,
        batch_first=options.batch_first,
        **further,
    )


def _convert(options: argparse.Namespace) -> None:
    block = _read(options.input, options, verify=options.verify)
    files.write(options.output, block)
    print(_table(files.described(block)))
    print(f"\n{options.output} written", file=sys.stderr)


def _inspect(options: argparse.Namespace) -> None:
    print(_table(files.inspect(options.file)))


def _verify(options: argparse.Namespace) -> int:
    block = _read(options.file, options)
    if options.against.lower().endswith(".npz") and (found := _recorded(options.against)):
        x, expected = found
        x = x if x.dtype.kind in "iu" else x.astype(block.dtype)
    else:
        other = files.read(options.against)
        x = random_input(block, STEPS, ROWS)
        order = other.batch_first == block.batch_first
        given = x if order else x.swapaxes(0, 1)
        expected = other(given if x.dtype.kind in "iu" else given.astype(other.dtype))[0]
        if not order and expected.ndim == 3:
            expected = expected.swapaxes(0, 1)
    y = block(x)[0]
    if y.shape != expected.shape:
        print(f"differ: outputs have the shapes {y.shape} and {expected.shape}")
        return 1
    difference, same = compared(y, expected, TOLERANCE)
    print(f"{'same' if same else 'differ'}: the largest difference is {difference:.3g}")
    return 0 if same else 1


def _recorded(path: str) -> tuple[Any, Any] | None:
    """Return x and y of a file of arrays, or None if it holds something else."""
    with np.load(path, allow_pickle=False) as arrays:
        return (arrays["x"], arrays["y"]) if {*arrays.files} == {"x", "y"} else None


def _text(value: str | int) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return value if len(value) <= WIDEST else f"{value[: WIDEST - 3]}..."


def _table(rows: Sequence[files.Found]) -> str:
    """Return rows as text, columns aligned; those that are empty everywhere are left out."""
    cells = [[field.replace("_", " ") for field in files.Found._fields]]
    cells += [[_text(value) for value in row] for row in rows]
    columns = [
        column for column in zip(*cells, strict=True) if any(column[1:]) or column[0] == "name"
    ]
    lines = []
    for line in zip(*columns, strict=True):
        padded = [
            text.rjust(width) if column[0] == "parameters" else text.ljust(width)
            for text, column in zip(line, columns, strict=True)
            for width in [max(map(len, column))]
        ]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)
