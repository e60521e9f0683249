"""Benchmarks of `lstm_fast` beside other LSTMs: ``pytest bench/``; see README.md."""
