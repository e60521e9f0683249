"""Benchmarks of `lstm_fast` beside other LSTMs: ``python -m bench``, ``pytest bench/``."""
