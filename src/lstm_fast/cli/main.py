"""The commands: ``lstm-fast demo`` and ``lstm-fast config``."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import lstm_fast

from . import demo

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; without any, print the help."""
    parser = argparse.ArgumentParser(
        prog="lstm-fast", description="A fast and exact CPU LSTM for NumPy arrays."
    )
    version = f"lstm_fast {lstm_fast.__version__}"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(title="commands", dest="command")
    text = "train a forecaster of sunspots, compare it with simple forecasts, plot, time the layer"
    demo.add_arguments(commands.add_parser("demo", help=text, description=text.capitalize() + "."))
    text = "print what this installation uses: instruction set, BLAS, OpenMP, threads"
    commands.add_parser("config", help=text, description=text.capitalize() + ".")

    options = parser.parse_args(arguments)
    if options.command == "demo":
        demo.run(options)
    elif options.command == "config":
        print("\n".join(_lines(lstm_fast.show_config())))
    else:
        parser.print_help()


def _lines(config: Mapping[str, Any], indent: str = "") -> list[str]:
    """Return a nested mapping as indented lines of text, values aligned."""
    lines = []
    width = max(map(len, config), default=0)
    for name, value in config.items():
        parts = value if isinstance(value, list) and value else [value]
        if isinstance(value, Mapping):
            lines += [f"{indent}{name}", *_lines(value, indent + "    ")]
        elif all(isinstance(part, Mapping) for part in parts):
            for part in parts:
                lines += [f"{indent}{name}", *_lines(part, indent + "    ")]
        else:
            lines.append(f"{indent}{name:<{width}}  {', '.join(map(str, parts))}")
    return lines
