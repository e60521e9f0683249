"""``lstm-fast config``: what this installation uses."""

import argparse
from collections.abc import Mapping
from typing import Any

import lstm_fast

__all__ = ["add_commands"]


def add_commands(commands: Any) -> None:
    """Add the command."""
    text = "print what this installation uses: instruction set, BLAS, OpenMP, threads"
    parser = commands.add_parser("config", help=text, description=text.capitalize() + ".")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print it."""
    print("\n".join(_lines(lstm_fast.show_config())))


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
