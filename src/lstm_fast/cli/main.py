"""The commands: ``lstm-fast convert``, ``inspect``, ``verify``, ``config``, ``demo``."""

import argparse
import sys
from collections.abc import Sequence

from ..version import __version__

__all__ = ["main"]

EPILOG = """exit codes: 0, done; 1, verify found a difference; 2, something is wrong with what was
asked or with a file"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; without any, print the help."""
    version = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    version.add_argument("--version", action="version", version=f"lstm_fast {__version__}")
    version.parse_known_args(arguments)  # before the rest is imported, which takes a while

    from . import config, convert, demo

    parser = argparse.ArgumentParser(
        prog="lstm-fast",
        description="A fast and exact CPU LSTM for NumPy arrays.",
        epilog=EPILOG,
        parents=[version],
    )
    commands = parser.add_subparsers(title="commands", dest="command", metavar="command")
    for module in (convert, config, demo):
        module.add_commands(commands)
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return
    try:
        code = options.run(options)
    except (ValueError, TypeError, OSError, ImportError, KeyError) as error:
        if options.command == "demo":  # takes nothing of the user's: it is our fault
            raise
        print(f"lstm-fast {options.command}: {error}", file=sys.stderr)
        code = 2
    if code:
        sys.exit(code)
