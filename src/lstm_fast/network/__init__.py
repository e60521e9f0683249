"""Layers and directions of an LSTM, between what users call and the engine.

    settings, options        what an LSTM is made with, checked; options of its cells
    parameters, block        arrays by name, with a version; any block that has such
    layout                   where they are in one flat buffer; gradients alike
    initial, cells           those of an LSTM: first values; packed for the engine, as they are now
    arguments, results       from users' arrays to the engine's, and back; checks
    wiring, network          what one call of the engine computes, and what is between
    sessions, stream_files   states of the rows of a stream; a stream in a file
    noise, checkpoint        dropout and zoneout of a call; forward keeps little for backward

It imports NumPy and the engine, and nothing of the package above it.
"""
