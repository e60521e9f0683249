"""``python -m lstm_fast``: the command line, which is installed as ``lstm-fast``."""

from lstm_fast.cli.main import main

if __name__ == "__main__":
    main()
